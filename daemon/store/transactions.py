"""What runs in the writer's thread: many jobs, one transaction, a savepoint each where one of them might fail alone.

Rule: an error of one job undoes that job; an error of the file or the machine is the whole transaction's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from daemon.clock import Clock, SystemClock
from daemon.store.moments import keep_moment
from daemon.store.writer import remembered

Job = Callable[[sqlite3.Connection], Any]
Outcome = tuple[Any, Exception | None]

BUSY_PATIENCE = 5.0  # seconds for a lock that only a foreign program can hold

# Errors of the file or the machine, not of one job: the whole transaction is lost with them, and SQLite has usually
# rolled it back by itself (https://www.sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction").
_COMMON_CAUSES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
# After a failed fsync the kernel may have dropped the pages and forgotten the error: a later success proves nothing
# (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). Only a restart re-reads the truth.
LOST_PAGES = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


def commit(jobs: list[Job], clock: Clock, conn: sqlite3.Connection, *, repeatable: bool = False) -> list[Outcome]:
    """All jobs in one transaction; of each its result or its own error. sqlite3.Error: nothing of any is stored.

    `repeatable`: each job may be run again after it was undone, so that savepoints are only made where one fails.
    """
    try:
        _begin(conn)
        outcomes = _without_savepoints(conn, jobs) if repeatable else None
        if outcomes is None:
            outcomes = [_in_savepoint(conn, job) for job in jobs]
        if isinstance(clock, SystemClock):
            keep_moment(conn, clock.moment())
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return outcomes


def _begin(conn: sqlite3.Connection) -> None:
    conn.execute("BEGIN IMMEDIATE")
    if (memory := remembered(conn)) is not None:
        memory.forget()


def _without_savepoints(conn: sqlite3.Connection, jobs: list[Job]) -> list[Outcome] | None:
    """The outcomes where every job succeeds (measured: a savepoint costs 7 us a job); else None, and nothing done."""
    try:
        return [(job(conn), None) for job in jobs]
    except Exception as error:
        if _is_common_cause(error):
            raise
        conn.execute("ROLLBACK")
        _begin(conn)
        return None


def _in_savepoint(conn: sqlite3.Connection, job: Job) -> Outcome:
    conn.execute("SAVEPOINT job")
    try:
        result = job(conn)
    except Exception as error:
        if _is_common_cause(error):
            raise
        conn.execute("ROLLBACK TO job")
        conn.execute("RELEASE job")
        if (memory := remembered(conn)) is not None:
            memory.forget()
        return None, error
    conn.execute("RELEASE job")
    return result, None


def _is_common_cause(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _COMMON_CAUSES


def empty_log(conn: sqlite3.Connection) -> bool:
    """Move the write-ahead log into the database and cut it to nothing; False where a reader still looks at it."""
    conn.execute("PRAGMA busy_timeout = 0")  # everybody's writes would wait with it
    try:
        (busy, _, _) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        conn.execute(f"PRAGMA busy_timeout = {int(BUSY_PATIENCE * 1000)}")
    return not busy
