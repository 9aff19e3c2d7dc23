"""Who used what: sums over the journal, from hours added up before and from records directly for the rest.

Rules: an exchange counts where it was received, with what it cost in the end. The sums are exact, whatever has been
added up: records behind `usage_through` and hours of which only a part is asked for are read themselves, and refusals
of the running minute where they are set down. Adding up takes so many records at a time: the sums are made by a reader,
the writer only adds them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, NamedTuple

from daemon.exchange import EndState
from daemon.store.journal import head

HOUR = 3_600_000_000  # microseconds

_CUT = (EndState.CANCELLED_BY_ADMIN, EndState.USER_DISABLED, EndState.CREDENTIAL_REVOKED, EndState.BUDGET_SPENT)
_NAMES = ("requests", "tokens_in", "tokens_out", "gpu_us", "ok", "errors", "departures", "cut", "refusals")


class Sums(NamedTuple):
    """What was used, in the order of the columns."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    gpu_us: int = 0
    ok: int = 0
    errors: int = 0
    departures: int = 0
    cut: int = 0
    refusals: int = 0


class Added(NamedTuple):
    """The sums of the records up to `through`, to be put behind those up to `after`."""

    after: int
    through: int
    rows: list[tuple[int | str, ...]]


@dataclass(frozen=True)
class Span:
    """What is asked for: received from `since_us` until before `until_us`; of one user, if one is named.

    `hours`: from whole hours as far as they go; otherwise from the records alone, in points of `width_us`.
    """

    since_us: int
    until_us: int
    user: str | None
    width_us: int
    hours: bool


def _words(*states: EndState) -> str:
    return ", ".join(f"'{state.value}'" for state in states)


# `e` is the record that counts, `o` the exchange's opening (of refusals the record itself).
def _sums(opened: str, closed: str, refused: str) -> str:
    return (
        f"SUM({opened}),"
        f" SUM(CASE WHEN {closed} THEN COALESCE(e.tokens_in, 0) ELSE 0 END),"
        f" SUM(CASE WHEN {closed} THEN COALESCE(e.tokens_out, 0) ELSE 0 END),"
        f" SUM(CASE WHEN {closed} AND e.seated_us IS NOT NULL AND e.ended_us IS NOT NULL"
        " THEN MAX(0, e.ended_us - e.seated_us) ELSE 0 END),"
        f" SUM(CASE WHEN {closed} AND e.state = 'ok' THEN 1 ELSE 0 END),"
        f" SUM(CASE WHEN {closed} AND e.state NOT IN ('ok', 'client_left', 'refused', {_words(*_CUT)})"
        " THEN 1 ELSE 0 END),"
        f" SUM(CASE WHEN {closed} AND e.state = 'client_left' THEN 1 ELSE 0 END),"
        f" SUM(CASE WHEN {closed} AND e.state IN ({_words(*_CUT)}) THEN 1 ELSE 0 END),"
        f" SUM(CASE WHEN {refused} THEN COALESCE(json_extract(o.detail, '$.count'), 1)"
        f" WHEN {closed} AND e.state = 'refused' THEN 1 ELSE 0 END)"
    )


_WHO = "COALESCE(o.\"user\", ''), COALESCE(o.model, ''), COALESCE(o.key_id, ''), COALESCE(o.client_label, '')"
# Record by record: each event adds its own part.
_OF_RECORDS = (
    _sums("e.event = 'opened'", "e.event = 'closed'", "e.event = 'refused'")
    + " FROM journal e JOIN journal o ON o.seq = COALESCE(e.opened_seq, e.seq)"
    + " WHERE e.seq > ? AND e.seq <= ? AND e.event <> 'admin'"
)
# Exchange by exchange: with its end, where it has one.
_OF_EXCHANGES = (
    _sums("o.event = 'opened'", "e.event = 'closed'", "o.event = 'refused'")
    + " FROM journal o LEFT JOIN journal e ON e.event = 'closed' AND e.opened_seq = o.seq"
    + " WHERE o.event IN ('opened', 'refused') AND o.received_us >= ? AND o.received_us < ?"
)


def through(conn: sqlite3.Connection) -> int:
    """The record up to which the hours are added up."""
    return int(conn.execute("SELECT seq FROM usage_through WHERE id = 1").fetchone()[0])


def behind(conn: sqlite3.Connection) -> int:
    """How many records are not added up."""
    return head(conn).seq - through(conn)


def add_up(conn: sqlite3.Connection, most: int) -> Added:
    """The sums of at most `most` records that are not added up yet. Only reads."""
    after = through(conn)
    last = min(head(conn).seq, after + most)
    rows = conn.execute(
        f"SELECT o.received_us / {HOUR}, {_WHO}, {_OF_RECORDS} GROUP BY 1, 2, 3, 4, 5", (after, last)
    ).fetchall()
    return Added(after, last, rows)


def put(conn: sqlite3.Connection, added: Added) -> bool:
    """Add them to the hours; False where something else was added meanwhile, and nothing was done."""
    if through(conn) != added.after:
        return False
    columns = ", ".join(_NAMES)
    sums = ", ".join(f"{name} = {name} + excluded.{name}" for name in _NAMES)
    conn.executemany(
        f'INSERT INTO usage_hours (hour, "user", model, key_id, client_label, {columns})'
        f' VALUES ({", ".join("?" * 14)}) ON CONFLICT (hour, "user", model, key_id, client_label) DO UPDATE SET {sums}',
        added.rows,
    )
    conn.execute("UPDATE usage_through SET seq = ? WHERE id = 1", (added.through,))
    return True


def by_name(conn: sqlite3.Connection, span: Span, column: str) -> list[tuple[str, Sums]]:
    """The sums of each value of `column`: user, model, key_id or client_label."""
    if column not in {"user", "model", "key_id", "client_label"}:
        raise ValueError(column)
    return [(str(name), Sums(*sums)) for name, *sums in _grouped(conn, span, f'"{column}"')]


def by_time(conn: sqlite3.Connection, span: Span) -> dict[int, Sums]:
    """The sums of each stretch of `width_us`, by its beginning; those in which nothing was received are left out."""
    return {int(start): Sums(*sums) for start, *sums in _grouped(conn, span, f"at_us / {span.width_us}")}


def _grouped(conn: sqlite3.Connection, span: Span, group: str) -> list[tuple[Any, ...]]:
    parts, values = _parts(conn, span)
    totals = ", ".join(f"SUM({name})" for name in _NAMES)
    only = ""
    if span.user is not None:
        only, values = 'WHERE "user" = ?', [*values, span.user]
    factor = f"* {span.width_us}" if group.startswith("at_us") else ""
    return conn.execute(
        f"SELECT {group} {factor}, {totals} FROM ({' UNION ALL '.join(parts)}) {only} GROUP BY {group}", values
    ).fetchall()


def _parts(conn: sqlite3.Connection, span: Span) -> tuple[list[str], list[int | str]]:
    """Queries whose rows together are every exchange of the span, once: (at_us, who, sums)."""
    columns = ", ".join(_NAMES)
    width = min(span.width_us, HOUR)
    at = f"o.received_us / {width} * {width}"
    exchanges = f"SELECT {at}, {_WHO}, {_OF_EXCHANGES} GROUP BY 1, 2, 3, 4, 5"
    # The names of a compound's columns are those of its first part.
    nothing = ", ".join(f"0 AS {name}" for name in _NAMES[:-1])
    running = (
        f'SELECT at_us / {width} * {width} AS at_us, "user", model, key_id, client_label, {nothing},'
        " number AS refusals FROM refusing WHERE at_us >= ? AND at_us < ?"
    )
    from_hour, to_hour = -(-span.since_us // HOUR), span.until_us // HOUR
    if not span.hours or from_hour >= to_hour:
        return [running, f"SELECT * FROM ({exchanges})"], [span.since_us, span.until_us] * 2
    parts = [
        running,
        f'SELECT hour * {HOUR}, "user", model, key_id, client_label, {columns} FROM usage_hours'
        " WHERE hour >= ? AND hour < ?",
        f"SELECT o.received_us / {HOUR} * {HOUR}, {_WHO}, {_OF_RECORDS}"
        " AND o.received_us >= ? AND o.received_us < ? GROUP BY 1, 2, 3, 4, 5",
    ]
    last = head(conn).seq
    values: list[int | str] = [
        span.since_us,
        span.until_us,
        from_hour,
        to_hour,
        through(conn),
        last,
        from_hour * HOUR,
        to_hour * HOUR,
    ]
    for since, until in ((span.since_us, from_hour * HOUR), (to_hour * HOUR, span.until_us)):
        if since < until:
            parts.append(f"SELECT * FROM ({exchanges})")
            values += [since, until]
    return parts, values
