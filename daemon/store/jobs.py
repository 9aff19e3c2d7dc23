"""The daemon's jobs, as they outlive it. What moves many times a second (progress) is not stored."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple, get_args

from common.protocol import JobKind, JobState

KEPT = 200  # jobs that have ended

_ENDED = "('done', 'failed', 'cancelled')"


class StoredJob(NamedTuple):
    """A job. `path` is where its file lies or is to lie; `id` 0 before it is stored."""

    id: int
    kind: JobKind
    state: JobState
    actor: str
    target: str
    format: str | None
    path: str | None
    size: int | None
    sha256: bytes | None
    records: int | None
    result: str
    error: str | None
    created_us: int
    started_us: int | None
    ended_us: int | None


_COLUMNS = ", ".join(StoredJob._fields)
assert get_args(JobKind)  # the CHECKs of the table say the same words


def add_job(conn: sqlite3.Connection, job: StoredJob) -> int:
    """Store a new job; its number. The oldest of those that ended make room."""
    marks = ", ".join("?" * (len(StoredJob._fields) - 1))
    cursor = conn.execute(f"INSERT INTO jobs ({_COLUMNS.removeprefix('id, ')}) VALUES ({marks})", job[1:])
    conn.execute(
        f"DELETE FROM jobs WHERE state IN {_ENDED} AND id NOT IN"
        f" (SELECT id FROM jobs WHERE state IN {_ENDED} ORDER BY id DESC LIMIT ?)",
        (KEPT,),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def save_job(conn: sqlite3.Connection, job: StoredJob) -> None:
    """Store what became of a job."""
    conn.execute(
        "UPDATE jobs SET state = ?, path = ?, size = ?, sha256 = ?, records = ?, result = ?, error = ?,"
        " started_us = ?, ended_us = ? WHERE id = ?",
        (
            job.state, job.path, job.size, job.sha256, job.records, job.result, job.error,
            job.started_us, job.ended_us, job.id,
        ),
    )  # fmt: skip


def all_jobs(conn: sqlite3.Connection) -> list[StoredJob]:
    """Every job that is remembered, oldest first."""
    return [StoredJob(*row) for row in conn.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY id")]
