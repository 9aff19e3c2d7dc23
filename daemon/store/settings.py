"""Small facts that outlive a restart, by name: what was chosen at the first start, what was seeded once."""

from __future__ import annotations

import sqlite3


def get_setting(conn: sqlite3.Connection, name: str) -> str | None:
    """The value of that name; None where nothing was set."""
    row = conn.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_setting(conn: sqlite3.Connection, name: str, value: str) -> None:
    """Set or replace a value."""
    conn.execute(
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def clear_setting(conn: sqlite3.Connection, name: str) -> None:
    """Forget a value."""
    conn.execute("DELETE FROM settings WHERE name = ?", (name,))
