"""The journal's recent past, page by page, as the limits need it: who was admitted when, and what it cost.

Rule: only reads. A page is one short read: a busy day is not held in memory at once, nor a snapshot open for long.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

# An opening record carries the moment of its admission and is written seconds later at most, so that opening records
# may stand behind later ones by no more than this on the gateway's clock. (Closing records may: a failing disk.)
OUT_OF_ORDER = 60_000_000

_COLUMNS = (
    'o.seq, o.clock_us, o.user_id, o."user", o.key_id, o.model, o.address,'
    " COALESCE(c.tokens_in, 0) + COALESCE(c.tokens_out, 0), c.clock_us,"
    # Whether a crashed one was sent upstream nobody knows any more: it keeps its place.
    " c.seq IS NULL OR c.state = 'crashed' OR c.sent_upstream = 1"
    " FROM journal o LEFT JOIN journal c ON c.event = 'closed' AND c.opened_seq = o.seq"
)


class PastAdmission(NamedTuple):
    """One exchange of the past, on the gateway's clock."""

    seq: int
    admitted_clock: int
    user_id: int
    user: str  # e-mail address
    key_id: str | None
    model: str
    address: str
    tokens: int
    settled_clock: int | None  # None: it has no end yet
    kept: int  # 0: it gave its place back, as nothing was sent upstream


class Attempt(NamedTuple):
    """An admission with its moment on both clocks."""

    seq: int
    admitted_clock: int
    user_id: int
    user: str
    key_id: str | None
    model: str
    address: str
    tokens: int
    settled_clock: int | None
    kept: int
    admitted_us: int


class RefusedAttempts(NamedTuple):
    """Requests of one caller that were refused for one reason within a minute, from `at_us` (wall clock)."""

    at_us: int
    seq: int
    user_id: int | None
    user: str
    key_id: str | None
    model: str
    address: str
    reason: str
    times: int


def first_since(conn: sqlite3.Connection, since_clock: int) -> int:
    """The sequence number before which nothing was admitted or settled later than `since_clock` (gateway's clock)."""
    low, high = 1, conn.execute("SELECT COALESCE(MAX(seq), 0) FROM journal").fetchone()[0] + 1
    while low < high:
        middle = (low + high) // 2
        row = conn.execute(
            "SELECT clock_us FROM journal WHERE seq >= ? AND event = 'opened' ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row[0] > since_clock - OUT_OF_ORDER:
            high = middle
        else:
            low = middle + 1
    return low


def admissions_from(conn: sqlite3.Connection, seq: int, limit: int) -> list[PastAdmission]:
    """At most `limit` exchanges whose opening record is `seq` or later, in that order."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} WHERE o.event = 'opened' AND o.seq >= ? ORDER BY o.seq LIMIT ?", (seq, limit)
    )
    return [PastAdmission(*row) for row in rows]


def attempts_from(conn: sqlite3.Connection, seq: int, limit: int) -> list[Attempt]:
    """As `admissions_from`, with the wall clock."""
    columns = _COLUMNS.replace(" FROM", ", COALESCE(o.admitted_us, o.at_us) FROM", 1)
    rows = conn.execute(
        f"SELECT {columns} WHERE o.event = 'opened' AND o.seq >= ? ORDER BY o.seq LIMIT ?", (seq, limit)
    )
    return [Attempt(*row) for row in rows]


def refused_from(conn: sqlite3.Connection, place: tuple[int, int], until_us: int, limit: int) -> list[RefusedAttempts]:
    """At most `limit` records of refusals from `place` (received_us, seq) on, before `until_us`, in that order."""
    rows = conn.execute(
        "SELECT received_us, seq, user_id, COALESCE(\"user\", ''), key_id, COALESCE(model, ''),"
        " COALESCE(address, ''), json_extract(detail, '$.reason'), json_extract(detail, '$.count') FROM journal"
        # An exchange that could not be recorded is `refused`, too; its place in the index is a closing record's.
        " WHERE state = 'refused' AND (received_us, seq) >= (?, ?) AND received_us < ? AND event = 'refused'"
        " ORDER BY received_us, seq LIMIT ?",
        (*place, until_us, limit),
    )
    return [RefusedAttempts(*row) for row in rows]


def admissions_settled_from(conn: sqlite3.Connection, seq: int) -> list[PastAdmission]:
    """Exchanges that were opened before record `seq` and ended with it or later: few, as exchanges are not long."""
    # The plus keeps SQLite from looking for `opened_seq < ?` in an index, which would find the whole past.
    ended = conn.execute(
        "SELECT opened_seq FROM journal WHERE event = 'closed' AND seq >= ? AND +opened_seq < ?", (seq, seq)
    ).fetchall()
    return [PastAdmission(*conn.execute(f"SELECT {_COLUMNS} WHERE o.seq = ?", opened).fetchone()) for opened in ended]
