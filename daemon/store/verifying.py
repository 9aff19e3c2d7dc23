"""Reading the whole journal, its parts and checkpoints in order, page by page, for `audit verify`.

Rule: rows come as they lie in the file, with whatever type and value; judging them is `daemon/audit/verify.py`'s work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from daemon.audit.chain import COLUMNS
from daemon.store.bodies import IDS_PER_QUERY, in_groups
from daemon.store.journal import AUDIT_RETAIN, USERS_DELETE

_RECORD = ", ".join(f'"{name}"' for name in (*COLUMNS, "hash"))


class Part(NamedTuple):
    """A row of `parts`, as it lies there."""

    id: Any
    user_id: Any
    lookup: Any
    salt: Any
    commitment: Any
    size: Any
    compressed: Any
    checksum: Any
    data: Any


def records_after(conn: sqlite3.Connection, seq: int, through: int, limit: int) -> list[tuple[Any, ...]]:
    """At most `limit` records from behind `seq` on, through `through`, with their hashes."""
    return conn.execute(
        f"SELECT {_RECORD} FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (seq, through, limit)
    ).fetchall()


def commitments_of(conn: sqlite3.Connection, ids: Sequence[int]) -> dict[int, tuple[Any, Any]]:
    """Of each part that is there: whose it is, and its commitment."""
    found = {}
    for some in in_groups(ids, IDS_PER_QUERY):
        marks = ", ".join("?" * len(some))
        for id_, user_id, bound in conn.execute(
            f"SELECT id, user_id, commitment FROM parts WHERE id IN ({marks})", some
        ):
            found[id_] = (user_id, bound)
    return found


def parts_after(conn: sqlite3.Connection, id_: int, limit: int) -> list[Part]:
    """At most `limit` parts from behind `id_` on."""
    rows = conn.execute(
        "SELECT id, user_id, lookup, salt, commitment, size, compressed, checksum, data FROM parts"
        " WHERE id > ? ORDER BY id LIMIT ?",
        (id_, limit),
    )
    return [Part(*row) for row in rows]


def last_part(conn: sqlite3.Connection) -> int:
    """The highest id of a part."""
    return int(conn.execute("SELECT COALESCE(MAX(id), 0) FROM parts").fetchone()[0])


def all_checkpoints(conn: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Every checkpoint (seq, hash, at_us, kid, signature) in order."""
    return conn.execute("SELECT seq, hash, at_us, kid, signature FROM checkpoints ORDER BY seq").fetchall()


def body_keys(conn: sqlite3.Connection) -> dict[int, Any]:
    """The key of every user who has one."""
    return dict(conn.execute("SELECT id, body_key FROM users WHERE body_key IS NOT NULL").fetchall())


def erased_since(conn: sqlite3.Connection, seq: int) -> bool:
    """Whether a record behind `seq` tells of bodies that were erased."""
    row = conn.execute(
        "SELECT 1 FROM journal WHERE event = 'admin' AND seq > ? AND (detail LIKE ? OR detail LIKE ?) LIMIT 1",
        (seq, f'%"verb":"{USERS_DELETE}"%', f'%"verb":"{AUDIT_RETAIN}"%'),
    ).fetchone()
    return row is not None


def unfinished_seqs(conn: sqlite3.Connection) -> set[int]:
    """The opening records of everything that is running."""
    return {seq for (seq,) in conn.execute("SELECT opened_seq FROM unfinished")}
