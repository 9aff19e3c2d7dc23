"""One job of the daemon: what is stored of it, and how far it is."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from common.errors import GatewayError
from common.protocol import JobRow
from common.times import iso, iso_or_none
from daemon.access.actor import Actor
from daemon.jobs.lines import Progress, Unit
from daemon.store.jobs import StoredJob, save_job

NO_RATE_BEFORE = 0.5  # seconds of a step


class JobFailed(GatewayError):
    """A job cannot come to its end; the message goes into its row."""

    code = "job_failed"


class Job:
    """A job that this daemon remembers. `work` is None of one that an earlier daemon had."""

    def __init__(self, stored: StoredJob, actor: Actor, work: Callable[[Job], Awaitable[None]] | None = None) -> None:
        self.stored = stored
        self.actor = actor
        self.work = work
        self.changed: Callable[[], None] = lambda: None
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        self.finishing = False  # what it did is being registered: too late to cancel
        self.step = ""
        self.done = 0
        self.total: int | None = None
        self.unit: Unit = "records" if stored.kind == "verify" else "exchanges"
        self._began = 0.0

    @property
    def id(self) -> int:
        return self.stored.id

    @property
    def is_over(self) -> bool:
        return self.stored.state not in ("queued", "running")

    def note(self, progress: Progress) -> None:
        """What the child told."""
        self.advance(progress.step, progress.done, progress.total, progress.unit)

    def advance(self, step: str, done: int, total: int | None, unit: Unit) -> None:
        """How far it is now."""
        if step != self.step:
            self._began = time.monotonic()
        self.step, self.done, self.total, self.unit = step, done, total, unit
        self.changed()

    def place(self, path: Path) -> None:
        """Where the file is to lie; stored before it is begun, so that a crash leaves nothing that nobody knows of."""
        self.stored = self.stored._replace(path=str(path))

    def save(self, conn: sqlite3.Connection) -> None:
        """Store what became of it."""
        save_job(conn, self.stored)

    def row(self) -> JobRow:
        """As the admin socket shows it."""
        stored = self.stored
        seconds = time.monotonic() - self._began
        is_running = stored.state == "running"
        rate = self.done / seconds if is_running and self.done and seconds > NO_RATE_BEFORE else None
        return JobRow(
            id=stored.id,
            kind=stored.kind,
            state=stored.state,
            actor=stored.actor,
            target=stored.target,
            format="csv" if stored.format == "csv" else "jsonl" if stored.format == "jsonl" else None,
            step=self.step if is_running else "",
            done=self.done,
            total=self.total,
            unit=self.unit,
            rate=rate,
            eta_seconds=max(0, self.total - self.done) / rate if rate and self.total is not None else None,
            path=stored.path if stored.sha256 is not None else None,
            bytes=stored.size,
            sha256=None if stored.sha256 is None else stored.sha256.hex(),
            records=stored.records,
            result=stored.result,
            error=stored.error,
            created=iso(stored.created_us),
            started=iso_or_none(stored.started_us),
            ended=iso_or_none(stored.ended_us),
        )
