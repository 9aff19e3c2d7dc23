"""The limits table: what each target says, field by field; NULL is unlimited, an absent row is nothing said."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping


def all_limits(conn: sqlite3.Connection) -> list[tuple[str, str, int | None]]:
    """Everything that is said: (target, field, value)."""
    return conn.execute("SELECT target, field, value FROM limits ORDER BY target, field").fetchall()


def limits_of(conn: sqlite3.Connection, target: str) -> dict[str, int | None]:
    """What one target says: field -> value."""
    return dict(conn.execute("SELECT field, value FROM limits WHERE target = ? ORDER BY field", (target,)).fetchall())


def put_limits(conn: sqlite3.Connection, target: str, values: Mapping[str, int | None]) -> None:
    """`target` says `values`; what it says of other fields stays."""
    conn.executemany(
        "INSERT INTO limits (target, field, value) VALUES (?, ?, ?)"
        " ON CONFLICT (target, field) DO UPDATE SET value = excluded.value",
        [(target, field, value) for field, value in values.items()],
    )


def delete_limits(conn: sqlite3.Connection, target: str) -> None:
    """`target` says nothing any more."""
    conn.execute("DELETE FROM limits WHERE target = ?", (target,))
