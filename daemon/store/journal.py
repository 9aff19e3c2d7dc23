"""The journal's table: append-only, chained. Everything that is written to it goes through `append`.

Rule: a record, and the change that it tells of, are one transaction. No UPDATE and no DELETE of a record exists here.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import msgspec

from daemon.access.actor import Actor
from daemon.audit.chain import COLUMNS, GENESIS, Record, record_hash
from daemon.store.bodies import erase_parts
from daemon.store.writer import remembered

_INSERT = (
    "INSERT INTO journal ("
    + ", ".join(f'"{name}"' for name in (*COLUMNS, "hash"))
    + ") VALUES ("
    + ", ".join("?" * (len(COLUMNS) + 1))
    + ")"
)
_json = msgspec.json.Encoder().encode

USERS_DELETE = "users delete"  # the two verbs whose records let bodies of the past be missing:
AUDIT_RETAIN = "audit retain"  # a user's, and those of a time that a verified export holds


class Head(NamedTuple):
    """The last record: 0 and the genesis hash before the first."""

    seq: int
    hash: bytes


class Unfinished(NamedTuple):
    """An exchange that is opened and not closed."""

    request_id: str
    seq: int
    user_id: int
    route: str
    stream: bool
    received_us: int
    admitted_us: int | None
    seated_us: int | None  # as far as was set down
    first_byte_us: int | None


def head(conn: sqlite3.Connection) -> Head:
    """The end of the chain."""
    row = conn.execute("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(0, GENESIS) if row is None else Head(*row)


def append(conn: sqlite3.Connection, record: Record) -> int:
    """Chain `record` to the last one; its sequence number."""
    memory = remembered(conn)
    last_seq, last_hash = (memory and memory.last_record) or head(conn)
    record.seq = last_seq + 1
    hash_ = record_hash(last_hash, record)
    conn.execute(_INSERT, (*msgspec.structs.astuple(record), hash_))
    if memory is not None:
        memory.last_record = (record.seq, hash_)
    return record.seq


def append_admin(
    conn: sqlite3.Connection,
    *,
    actor: Actor,
    verb: str,
    target: str,
    detail: dict[str, Any],
    at_us: int,
    clock_us: int,
    user_id: int | None = None,
) -> int:
    """Record a change by an administrator (or a look at a body), in the transaction that makes it.

    `detail`: what there is to say, such as old and new values; no secret. `user_id`: whom it concerns, if one.
    """
    who = {"uid": actor.uid, "name": actor.name, "via": actor.via}
    told = _json({"actor": who, "verb": verb, "target": target, **detail}).decode()
    return append(
        conn, Record(event="admin", at_us=at_us, clock_us=clock_us, user_id=user_id, received_us=at_us, detail=told)
    )


def append_user_deletion(
    conn: sqlite3.Connection,
    *,
    actor: Actor,
    user_id: int,
    target: str,
    detail: dict[str, Any],
    at_us: int,
    clock_us: int,
) -> int:
    """Erase every body of a user, destroy the key that would find them, and record it: `audit verify` takes the missing
    bodies for deleted only because of this record. Returns how many parts were erased."""
    erased = erase_parts(conn, user_id)
    append_admin(
        conn,
        actor=actor,
        verb=USERS_DELETE,
        target=target,
        detail={**detail, "erased_parts": erased},
        at_us=at_us,
        clock_us=clock_us,
        user_id=user_id,
    )
    return erased


# --- exchanges ---


def open_exchange(conn: sqlite3.Connection, record: Record) -> int:
    """Append an `opened` record; the exchange is unfinished from now on."""
    assert record.request_id is not None
    seq = append(conn, record)
    conn.execute("INSERT INTO unfinished (request_id, opened_seq) VALUES (?, ?)", (record.request_id, seq))
    return seq


def close_exchange(conn: sqlite3.Connection, record: Record) -> int:
    """Append a `closed` record: the exchange is finished, and its partial answer goes. The caller knows it is open."""
    seq = append(conn, record)
    conn.execute("DELETE FROM unfinished WHERE request_id = ?", (record.request_id,))
    return seq


def unfinished_seq(conn: sqlite3.Connection, request_id: str) -> int | None:
    """The sequence of the opening record of an exchange that is not closed; None where there is none."""
    row = conn.execute("SELECT opened_seq FROM unfinished WHERE request_id = ?", (request_id,)).fetchone()
    return None if row is None else int(row[0])


def unfinished(conn: sqlite3.Connection, limit: int) -> list[Unfinished]:
    """Exchanges that are opened and not closed, oldest first."""
    rows = conn.execute(
        "SELECT u.request_id, j.seq, j.user_id, j.route, j.stream, j.received_us, j.admitted_us,"
        " u.seated_us, u.first_byte_us"
        " FROM unfinished u JOIN journal j ON j.seq = u.opened_seq ORDER BY u.opened_seq LIMIT ?",
        (limit,),
    )
    return [
        Unfinished(request_id, seq, user_id, route, bool(stream), *times)
        for request_id, seq, user_id, route, stream, *times in rows
    ]


def last_end_of(conn: sqlite3.Connection, user_id: int) -> int:
    """The sequence of the user's last `closed` record; 0 where there is none."""
    row = conn.execute(
        "SELECT seq FROM journal WHERE event = 'closed' AND user_id = ? ORDER BY seq DESC LIMIT 1", (user_id,)
    ).fetchone()
    return 0 if row is None else int(row[0])
