"""Exports that lie safely on a disk: each was read back there and found to be what was sent."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple


class Export(NamedTuple):
    """One verified export: whose exchanges, of which span, of the first how many records, and where it lies."""

    id: str
    user_id: int | None  # None: everybody's
    since_us: int | None
    until_us: int | None
    through_seq: int
    sha256: bytes
    size: int
    at_us: int
    where_to: str


def add_export(conn: sqlite3.Connection, export: Export) -> None:
    """Store one."""
    conn.execute(
        "INSERT INTO exports (id, user_id, since_us, until_us, through_seq, sha256, size, at_us, where_to)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        export,
    )
