"""The sealed secrets of upstreams, by their names. Nothing here can open them. Inside a job of `Database`."""

from __future__ import annotations

import sqlite3


def load(conn: sqlite3.Connection) -> dict[str, bytes]:
    """All of them."""
    return dict(conn.execute("SELECT name, sealed FROM provider_keys").fetchall())


def put(conn: sqlite3.Connection, name: str, sealed: bytes, now_us: int) -> None:
    """Keep one, in the place of the one before."""
    conn.execute(
        "INSERT INTO provider_keys (name, sealed, set_us) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, set_us = excluded.set_us",
        (name, sealed, now_us),
    )


def remove(conn: sqlite3.Connection, name: str) -> None:
    """Forget one."""
    conn.execute("DELETE FROM provider_keys WHERE name = ?", (name,))
