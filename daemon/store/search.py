"""Looking exchanges up in the journal: newest first for people, oldest first for an export.

Rule: every query walks one index in the order of its answer and stops when it has enough; which index is decided here,
by what is asked, not left to a planner without statistics. Rows come without bodies (`daemon/store/bodies.py`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a row stands in the order of search and export."""

    received_us: int
    seq: int


@dataclass(frozen=True)
class Criteria:
    """What is wanted: every field that is not None must hold."""

    user_id: int | None = None
    key_id: str | None = None
    models: tuple[str, ...] = ()  # any of them
    state: str | None = None  # an end state, or "open"
    route: str | None = None
    upstream: str | None = None
    address: str | None = None
    client_label: str | None = None
    request_id: str | None = None
    since_us: int | None = None  # inclusive
    until_us: int | None = None  # exclusive


@dataclass(frozen=True)
class Found:
    """One exchange, open or closed, or one record of refusals (`request_id` is None)."""

    seq: int
    request_id: str | None
    received_us: int
    user_id: int | None
    user: str | None
    key_id: str | None
    client_label: str | None
    address: str | None
    user_agent: str | None
    route: str | None
    model_asked: str | None
    model: str | None
    upstream: str | None
    stream: int | None
    admitted_us: int | None
    request: bytes | None  # manifest
    detail: str | None
    state: str | None  # None: still open
    error: str | None
    tokens_in: int | None
    tokens_out: int | None
    bytes_out: int | None
    seated_us: int | None
    first_byte_us: int | None
    ended_us: int | None
    answer: bytes | None  # manifest
    end_detail: str | None = None  # of the closing record

    @property
    def place(self) -> Place:
        return Place(self.received_us, self.seq)


_COLUMNS = (
    'o.seq, o.request_id, o.received_us, o.user_id, o."user", o.key_id, o.client_label, o.address, o.user_agent,'
    " o.route, o.model_asked, COALESCE(c.model, o.model), COALESCE(c.upstream, o.upstream), o.stream, o.admitted_us,"
    " o.body, o.detail,"
    " COALESCE(c.state, o.state), c.error, c.tokens_in, c.tokens_out, c.bytes_out, c.seated_us, c.first_byte_us,"
    " c.ended_us, c.body, c.detail"
)
_CLOSED = "LEFT JOIN journal c ON c.event = 'closed' AND c.opened_seq = o.seq"
_LISTED = "o.event IN ('opened', 'refused')"  # word for word what the partial indexes say
# A plus takes a term away from the planner: it must not leave the index that gives the order.
_PLAIN = {
    "user_id": "+o.user_id",
    "key_id": "+o.key_id",
    "route": "+o.route",
    "upstream": "+o.upstream",
    "address": "+o.address",
    "client_label": "+o.client_label",
}


@dataclass
class _Query:
    """A query being put together."""

    source: str
    driver: str  # the alias whose index gives the order
    terms: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def where(self, term: str, *values: Any) -> None:
        self.terms.append(term)
        self.values += values


def newest(conn: sqlite3.Connection, wanted: Criteria, limit: int, before: Place | None = None) -> list[Found]:
    """At most `limit` exchanges and refusals, newest first; those that come after `before` in that order."""
    found: list[list[Found]] = []
    for model in wanted.models or (None,):
        query = _start(wanted, model)
        if before is not None:
            query.where(f"({query.driver}.received_us, {_seq_in(query)}) < (?, ?)", *before)
        found.append(_run(conn, query, limit, "DESC"))
    # Each model walks its own index: together they are merged, the newest win.
    return list(islice(sorted(chain(*found), key=lambda row: row.place, reverse=True), limit))


def oldest(
    conn: sqlite3.Connection, wanted: Criteria, limit: int, *, through_seq: int, after: Place | None = None
) -> list[Found]:
    """At most `limit` exchanges of the first `through_seq` records, oldest first, without refusals: since records only
    ever come behind, pages of one `through_seq` are one snapshot, however long they take."""
    query = _in_order(wanted, through_seq)
    if after is not None:
        query.where("(o.received_us, o.seq) > (?, ?)", *after)
    return _run(conn, query, limit, "ASC")


def how_many(conn: sqlite3.Connection, wanted: Criteria, *, through_seq: int) -> int:
    """How many exchanges `oldest` has to give."""
    query = _in_order(wanted, through_seq)
    sql = f"SELECT COUNT(*) {query.source} WHERE {' AND '.join(query.terms)}"
    return int(conn.execute(sql, query.values).fetchone()[0])


def by_seq(conn: sqlite3.Connection, seq: int) -> Found | None:
    """The exchange whose opening, or closing, record is `seq`."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM journal s JOIN journal o ON o.seq = COALESCE(s.opened_seq, s.seq) {_CLOSED}"
        f" WHERE s.seq = ? AND {_LISTED}",
        (seq,),
    ).fetchone()
    return None if row is None else Found(*row)


def by_request(conn: sqlite3.Connection, request_id: str) -> Found | None:
    """The exchange of that request id."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM journal o {_CLOSED} WHERE o.event = 'opened' AND o.request_id = ?", (request_id,)
    ).fetchone()
    return None if row is None else Found(*row)


def place_of(conn: sqlite3.Connection, seq: int) -> Place | None:
    """Where the exchange or refusal with that sequence number stands."""
    row = conn.execute(f"SELECT o.received_us, o.seq FROM journal o WHERE o.seq = ? AND {_LISTED}", (seq,)).fetchone()
    return None if row is None else Place(*row)


def user_named(conn: sqlite3.Connection, email: str) -> int | None:
    """The number of the user of that address (a deleted one is `deleted-ID`)."""
    row = conn.execute("SELECT id FROM users WHERE email = ?", (email,)).fetchone()
    return None if row is None else int(row[0])


def owner_of(conn: sqlite3.Connection, key_id: str) -> int | None:
    """The number of the user whose key this is."""
    row = conn.execute("SELECT user_id FROM keys WHERE id = ?", (key_id,)).fetchone()
    return None if row is None else int(row[0])


def _in_order(wanted: Criteria, through_seq: int) -> _Query:
    """Exchanges of the first `through_seq` records, for the order in which they were received."""
    query = _Query(f"FROM journal o {_CLOSED} AND c.seq <= {int(through_seq)}", "o")
    query.where(f"{_LISTED} AND o.event = 'opened' AND +o.seq <= ?", through_seq)
    if wanted.user_id is not None:
        query.where("o.user_id = ?", wanted.user_id)
    if wanted.models:
        query.where(f"+o.model IN ({', '.join('?' * len(wanted.models))})", *wanted.models)
    if wanted.state is not None:
        query.where("COALESCE(c.state, 'open') = ?", wanted.state)
    if wanted.request_id is not None:
        query.where("+o.request_id = ?", wanted.request_id)
    for name, term in _PLAIN.items():
        if name != "user_id" and (value := getattr(wanted, name)) is not None:
            query.where(f"{term} = ?", value)
    if wanted.since_us is not None:
        query.where("o.received_us >= ?", wanted.since_us)
    if wanted.until_us is not None:
        query.where("o.received_us < ?", wanted.until_us)
    return query


def _start(wanted: Criteria, model: str | None) -> _Query:
    """Choose the index to walk, and add every term of `wanted`."""
    by_name = {name: value for name in _PLAIN if (value := getattr(wanted, name)) is not None}
    rare_state = wanted.state not in (None, "ok", "open")
    if wanted.request_id is not None:
        query = _Query(f"FROM journal o {_CLOSED}", "o")
        query.where("o.event = 'opened' AND o.request_id = ?", wanted.request_id)
        if wanted.state is not None:
            query.where("COALESCE(c.state, 'open') = ?", wanted.state)
    elif wanted.state == "open":
        query = _Query(f"FROM unfinished u JOIN journal o ON o.seq = u.opened_seq {_CLOSED}", "o")
    elif rare_state or (wanted.state == "ok" and wanted.user_id is None and model is None):
        # Nearly everything is ok; any other end is rare, and its index is the shorter way.
        query = _Query(f"FROM journal s JOIN journal o ON o.seq = COALESCE(s.opened_seq, s.seq) {_CLOSED}", "s")
        query.where("s.state = ?", wanted.state)
    else:
        query = _Query(f"FROM journal o {_CLOSED}", "o")
        if wanted.user_id is not None:
            query.where("o.user_id = ?", by_name.pop("user_id"))
        elif model is not None:
            query.where("o.model = ?", model)
            model = None
        if wanted.state == "ok":
            query.where("c.state = 'ok'")
    query.where(_LISTED)
    if model is not None:
        query.where("+o.model = ?", model)
    for name, value in by_name.items():
        query.where(f"{_PLAIN[name]} = ?", value)
    if wanted.since_us is not None:
        query.where(f"{query.driver}.received_us >= ?", wanted.since_us)
    if wanted.until_us is not None:
        query.where(f"{query.driver}.received_us < ?", wanted.until_us)
    return query


def _seq_in(query: _Query) -> str:
    return "COALESCE(s.opened_seq, s.seq)" if query.driver == "s" else "o.seq"


def _run(conn: sqlite3.Connection, query: _Query, limit: int, direction: str) -> list[Found]:
    order = f"{query.driver}.received_us {direction}, {_seq_in(query)} {direction}"
    sql = f"SELECT {_COLUMNS} {query.source} WHERE {' AND '.join(query.terms)} ORDER BY {order} LIMIT ?"
    return [Found(*row) for row in conn.execute(sql, (*query.values, limit))]
