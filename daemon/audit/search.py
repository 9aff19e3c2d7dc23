"""`audit search` and `audit show`: exchanges found and shown, as the admin socket's rows.

Rule: what walks an index is answered in process within milliseconds; what must look at every row that the other
filters leave (`text:`, `client:` …) is the work of a child process, whose finds come one by one and who dies with its
asker. Nothing here makes text safe for a screen: the console does, where it decodes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import msgspec

from common.errors import BadRequest, NotFound
from common.protocol import AuditExchange, AuditFilter, AuditRow, AuditSearch
from common.times import SECOND, from_iso
from daemon.audit.child import read_lines
from daemon.audit.rows import exchange_of, row_of, texts_of
from daemon.exchange import EndState
from daemon.store.database import Database
from daemon.store.search import Criteria, Place, by_request, by_seq, newest, owner_of, place_of, user_named

MOST = 1_000  # rows an answer may have
TEXT_SINCE = 24 * 3600 * SECOND  # how far back `text:` looks where `since:` is not given
PAGE = 200
STATES = frozenset({*(state.value for state in EndState), "open"})
_SCANNED = ("text", "route", "upstream", "address", "client_label")


async def search(database: Database, question: AuditSearch, *, now_us: int) -> AsyncGenerator[AuditRow, None]:
    """What `question` asks for, newest first. BadRequest or NotFound, before the first row, where it makes no sense."""
    if not 1 <= question.limit <= MOST:
        raise BadRequest(f"limit must be between 1 and {MOST}")
    if not any(getattr(question.filter, name) for name in _SCANNED):
        for row in await database.read(partial(_page_of_rows, question, now_us)):
            yield row
        return
    await database.read(partial(_resolved, question, now_us))  # a wrong question fails here, in words
    arguments = {"database": str(database.path), "question": question, "now_us": now_us}
    async with aclosing(read_lines("search", arguments)) as lines:
        async for line in lines:
            yield msgspec.json.decode(line, type=AuditRow)


async def show(database: Database, id_: str) -> AuditExchange:
    """One exchange, whole, by request id or log id, or by log id the refusals of a minute. NotFound."""

    def job(conn: sqlite3.Connection) -> AuditExchange:
        found = by_seq(conn, int(id_)) if id_.isascii() and id_.isdigit() and len(id_) < 19 else by_request(conn, id_)
        if found is None:
            raise NotFound(f"the audit has no exchange {id_}")
        return exchange_of(conn, found, so_far=True)

    return await database.read(job)


def scan(
    conn: sqlite3.Connection, question: AuditSearch, now_us: int, *, each_page: Callable[[], None] = lambda: None
) -> Iterator[AuditRow]:
    """The child's half: walk what the indexed filters leave, page by page, and give what the others match.

    `each_page` is called now and then and may raise to stop.
    """
    wanted, before = _resolved(question, now_us, conn)
    text = (question.filter.text or "").casefold()
    left = question.limit
    while page := newest(conn, wanted, PAGE, before):
        each_page()
        for found in page:
            if not text or any(text in each.casefold() for each in texts_of(conn, found)):
                yield row_of(conn, found)
                left -= 1
                if not left:
                    return
        before = page[-1].place


def _page_of_rows(question: AuditSearch, now_us: int, conn: sqlite3.Connection) -> list[AuditRow]:
    wanted, before = _resolved(question, now_us, conn)
    return [row_of(conn, found) for found in newest(conn, wanted, question.limit, before)]


def _resolved(question: AuditSearch, now_us: int, conn: sqlite3.Connection) -> tuple[Criteria, Place | None]:
    """The criteria with names made numbers, and where to go on."""
    wanted = wanted_by(question.filter, now_us, conn)
    if question.before is None:
        return wanted, None
    before = place_of(conn, question.before)
    if before is None:
        raise NotFound(f"the audit has no exchange {question.before} to go on from")
    return wanted, before


def wanted_by(wanted: AuditFilter, now_us: int, conn: sqlite3.Connection) -> Criteria:
    """As `criteria_of`; text is looked for in the last 24 hours where nothing else is said."""
    criteria = criteria_of(conn, wanted)
    if wanted.text and criteria.since_us is None:
        criteria = replace(criteria, since_us=now_us - TEXT_SINCE)
    return criteria


def criteria_of(conn: sqlite3.Connection, wanted: AuditFilter) -> Criteria:
    """What the store is to look for. BadRequest for a state that does not exist, NotFound for a user or key."""
    if wanted.state is not None and wanted.state not in STATES:
        raise BadRequest(f"there is no state {wanted.state!r}; there are {', '.join(sorted(STATES))}")
    user_id = None
    if wanted.user is not None:
        user_id = user_named(conn, wanted.user.strip().casefold())
        if user_id is None:
            raise NotFound(f"there is no user {wanted.user}; a deleted one is called deleted-NUMBER")
    if wanted.key is not None and user_id is None:
        # A key is one user's, and users have an index.
        user_id = owner_of(conn, wanted.key.removeprefix("glk_"))
    return Criteria(
        user_id=user_id,
        key_id=wanted.key and wanted.key.removeprefix("glk_"),
        models=_models(wanted.model),
        state=wanted.state,
        route=wanted.route,
        upstream=wanted.upstream,
        address=wanted.address,
        client_label=wanted.client_label,
        request_id=wanted.request_id,
        since_us=_moment("since", wanted.since),
        until_us=_moment("until", wanted.until),
    )


def _models(name: str | None) -> tuple[str, ...]:
    """An untagged name means its `latest`, too."""
    if name is None:
        return ()
    return (name,) if ":" in name else (name, f"{name}:latest")


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return from_iso(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: {text!r} is not a moment such as 2026-01-31T09:00:00Z") from error
