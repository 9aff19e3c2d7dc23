"""Failed logins by scope (`daemon/access/throttle.py`), so that a restart forgives nothing."""

from __future__ import annotations

import sqlite3

Row = tuple[str, int, int, int]  # scope, failures, last_clock, blocked_until_clock


def load(conn: sqlite3.Connection, since_clock: int) -> list[Row]:
    """The rows whose last failure is not older than `since_clock` (gateway microseconds)."""
    return conn.execute(
        "SELECT scope, failures, last_clock, blocked_until_clock FROM throttle WHERE last_clock >= ?", (since_clock,)
    ).fetchall()


def put(conn: sqlite3.Connection, rows: list[Row]) -> None:
    """Write rows as they are now."""
    conn.executemany(
        "INSERT INTO throttle (scope, failures, last_clock, blocked_until_clock) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (scope) DO UPDATE SET failures = excluded.failures, last_clock = excluded.last_clock,"
        " blocked_until_clock = excluded.blocked_until_clock",
        rows,
    )


def drop(conn: sqlite3.Connection, scope: str) -> None:
    """Forget one scope."""
    conn.execute("DELETE FROM throttle WHERE scope = ?", (scope,))


def forget_old(conn: sqlite3.Connection, before_clock: int) -> None:
    """Forget what failed last before `before_clock`."""
    conn.execute("DELETE FROM throttle WHERE last_clock < ?", (before_clock,))
