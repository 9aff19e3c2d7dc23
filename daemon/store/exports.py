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
    format: str | None = None  # None: of a release that did not note it
    filter: str | None = None  # JSON of what else narrows it; such an export covers nobody


_COLUMNS = ", ".join(Export._fields)


def add_export(conn: sqlite3.Connection, export: Export) -> None:
    """Store one."""
    conn.execute(f"INSERT INTO exports ({_COLUMNS}) VALUES ({', '.join('?' * len(Export._fields))})", export)


def export_of_everybody(conn: sqlite3.Connection, before_us: int) -> Export | None:
    """The verified export that covers most of all that was received before then, whoever's; None where there is none.

    Only JSONL counts: CSV has no thinking and no tool calls.
    """
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM exports WHERE user_id IS NULL AND since_us IS NULL AND filter IS NULL"
        " AND format = 'jsonl' AND (until_us IS NULL OR until_us >= ?) ORDER BY through_seq DESC LIMIT 1",
        (before_us,),
    ).fetchone()
    return None if row is None else Export(*row)


def is_registered(conn: sqlite3.Connection, where_to: str) -> bool:
    """Whether the file there is a verified export."""
    return conn.execute("SELECT 1 FROM exports WHERE where_to = ? LIMIT 1", (where_to,)).fetchone() is not None
