"""Signed checkpoints of the journal, and what of it lies behind the last one."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from daemon.store.journal import AUDIT_RETAIN, USERS_DELETE, head


class Checkpoint(NamedTuple):
    """The chain's hash at `seq`, signed together with the signature of the checkpoint before."""

    seq: int
    hash: bytes
    at_us: int
    kid: str
    signature: bytes


class Unsealed(NamedTuple):
    """What no checkpoint covers yet."""

    records: int
    oldest_clock: int  # gateway clock of the first of them; 0 where there are none
    has_deletion: bool  # a user's deletion or a retention is among them: verify wants it sealed


def last_checkpoint(conn: sqlite3.Connection) -> Checkpoint | None:
    """The latest checkpoint."""
    row = conn.execute("SELECT seq, hash, at_us, kid, signature FROM checkpoints ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else Checkpoint(*row)


def add_checkpoint(conn: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    """Store a checkpoint."""
    conn.execute("INSERT INTO checkpoints (seq, hash, at_us, kid, signature) VALUES (?, ?, ?, ?, ?)", checkpoint)


def unsealed(conn: sqlite3.Connection) -> Unsealed:
    """What stands behind the last checkpoint."""
    before = last_checkpoint(conn)
    sealed = before.seq if before is not None else 0
    first = conn.execute("SELECT clock_us FROM journal WHERE seq > ? ORDER BY seq LIMIT 1", (sealed,)).fetchone()
    if first is None:
        return Unsealed(0, 0, False)
    deletion = conn.execute(
        "SELECT 1 FROM journal WHERE seq > ? AND event = 'admin' AND (detail LIKE ? OR detail LIKE ?) LIMIT 1",
        (sealed, f'%"verb":"{USERS_DELETE}"%', f'%"verb":"{AUDIT_RETAIN}"%'),
    ).fetchone()
    return Unsealed(head(conn).seq - sealed, first[0], deletion is not None)
