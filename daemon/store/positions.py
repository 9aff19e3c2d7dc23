"""Where records stand in the chain, and what administrators did: short looks at the journal.

Rule: only reads; a page at a time.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from daemon.store.checkpoints import Checkpoint


class Link(NamedTuple):
    """One record in the chain."""

    seq: int
    event: str
    at_us: int
    previous: bytes
    hash: bytes


class AdminRow(NamedTuple):
    """One `admin` record."""

    seq: int
    at_us: int
    detail: str


def links_of(conn: sqlite3.Connection, opened_seq: int, genesis: bytes) -> list[Link]:
    """The record `opened_seq` and, where it opens an exchange that has ended, its closing one."""
    rows = conn.execute(
        "SELECT j.seq, j.event, j.at_us, p.hash, j.hash FROM journal j LEFT JOIN journal p ON p.seq = j.seq - 1"
        " WHERE j.seq = ? OR (j.event = 'closed' AND j.opened_seq = ?) ORDER BY j.seq",
        (opened_seq, opened_seq),
    )
    return [Link(seq, event, at_us, previous or genesis, own) for seq, event, at_us, previous, own in rows]


def seal_from(conn: sqlite3.Connection, seq: int) -> Checkpoint | None:
    """The first checkpoint at or behind `seq`."""
    row = conn.execute(
        "SELECT seq, hash, at_us, kid, signature FROM checkpoints WHERE seq >= ? ORDER BY seq LIMIT 1", (seq,)
    ).fetchone()
    return None if row is None else Checkpoint(*row)


def signature_before(conn: sqlite3.Connection, seq: int) -> bytes:
    """The signature of the last checkpoint before `seq`; empty before the first."""
    row = conn.execute("SELECT signature FROM checkpoints WHERE seq < ? ORDER BY seq DESC LIMIT 1", (seq,)).fetchone()
    return b"" if row is None else bytes(row[0])


def admin_page(conn: sqlite3.Connection, before: int | None, limit: int) -> list[AdminRow]:
    """At most `limit` records of administrators before the record `before`, newest first."""
    rows = conn.execute(
        "SELECT seq, at_us, detail FROM journal WHERE event = 'admin' AND seq < ? ORDER BY seq DESC LIMIT ?",
        (2**62 if before is None else before, limit),
    )
    return [AdminRow(*row) for row in rows]
