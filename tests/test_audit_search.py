"""`audit search` and `audit show`: what is asked for is found, in order, page by page, by an index if there is one."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest, NotFound
from common.protocol import AuditFilter, AuditRow, AuditSearch
from common.times import SECOND, iso
from daemon.access.actor import DAEMON
from daemon.audit import search as audit_search
from daemon.audit.rows import DAMAGED
from daemon.exchange import EndState
from daemon.store.journal import append_user_deletion
from daemon.store.search import Criteria, newest, oldest
from tests.rigs.journals import BEN, Desk, desk_in
from tests.rigs.traffic import HOUR, MovedClock

ROOT = Path(__file__).parents[1]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path, clock=MovedClock()) as opened:
        yield opened


async def search(desk: Desk, *, limit: int = 50, before: int | None = None, **fields: str) -> list[AuditRow]:
    question = AuditSearch(filter=AuditFilter(**fields), limit=limit, before=before)
    async with aclosing(audit_search.search(desk.database, question, now_us=desk.clock.wall())) as rows:
        return [row async for row in rows]


async def ids(desk: Desk, **fields: Any) -> list[int]:
    return [row.log_id for row in await search(desk, **fields)]


def later(desk: Desk, microseconds: int = SECOND) -> None:
    assert isinstance(desk.clock, MovedClock)
    desk.clock.advance(microseconds)


async def fill(desk: Desk) -> dict[str, int]:
    """One exchange of each kind; by name, their log ids in order of time."""
    named: dict[str, int] = {}

    async def note(name: str, state: EndState | None, **fields: Any) -> None:
        later(desk)
        exchange = desk.exchange(f"The {name} question.", **fields)
        await desk.journal.opened(exchange)
        if state is not None:
            await desk.end(exchange, state, "An answer." if state is EndState.OK else None, error="why not")
        named[name] = exchange.seq

    await note("first", EndState.OK)
    await note("ben", EndState.OK, user_id=2, user=BEN, key_id="k2")
    await note("tiny", EndState.OK, model="tiny:1b", model_asked="tiny:1b")
    await note("failed", EndState.UPSTREAM_ERROR, route="/api/generate", document={"prompt": "The failed question."})
    await note("left", EndState.CLIENT_LEFT, user_id=2, user=BEN, address="198.51.100.9", upstream="other")
    await note("running", None, client_label="n8n")
    later(desk)
    desk.journal.refused(
        reason="requests_per_minute",
        user_id=1,
        user="ana@example.org",
        key_id="k1",
        address="192.0.2.7",
        model="tiny:1b",
    )
    await desk.journal.close()
    ((named["refused"],),) = await desk.rows("SELECT seq FROM journal WHERE event = 'refused'")
    return named


async def test_every_filter_finds_what_it_says(desk: Desk) -> None:
    """Each field, and several together; newest first; refusals and what is running among them."""
    n = await fill(desk)
    everything = list(reversed(n.values()))
    since = (await search(desk, request_id=(await search(desk))[3].request_id))[0]
    for fields, expected in [
        ({}, everything),
        ({"user": "ana@example.org"}, [n["refused"], n["running"], n["failed"], n["tiny"], n["first"]]),
        ({"user": " BEN@Example.org "}, [n["left"], n["ben"]]),
        ({"key": "k2"}, [n["ben"]]),
        ({"key": "glk_k2"}, [n["ben"]]),
        ({"model": "tiny:1b"}, [n["refused"], n["tiny"]]),
        ({"model": "llama3.2"}, [n["running"], n["left"], n["failed"], n["ben"], n["first"]]),
        ({"state": "ok"}, [n["tiny"], n["ben"], n["first"]]),
        ({"state": "ok", "user": BEN}, [n["ben"]]),
        ({"state": "ok", "model": "tiny:1b"}, [n["tiny"]]),
        ({"state": "ok", "model": "tiny:1b", "user": BEN}, []),
        ({"state": "upstream_error"}, [n["failed"]]),
        ({"state": "client_left", "user": BEN}, [n["left"]]),
        ({"state": "client_left", "model": "tiny:1b"}, []),
        ({"state": "refused"}, [n["refused"]]),
        ({"state": "refused", "user": BEN}, []),
        ({"state": "open"}, [n["running"]]),
        ({"state": "open", "user": BEN}, []),
        ({"state": "shutdown"}, []),
        ({"route": "/api/generate"}, [n["failed"]]),
        ({"upstream": "other"}, [n["left"]]),
        ({"address": "198.51.100.9"}, [n["left"]]),
        ({"client_label": "n8n"}, [n["running"]]),
        ({"request_id": since.request_id}, [since.log_id]),
        ({"request_id": since.request_id, "state": "open"}, []),
        ({"request_id": "nobody"}, []),
        ({"since": since.received}, everything[:4]),
        ({"until": since.received}, everything[4:]),
        ({"since": since.received, "until": since.received}, []),
        ({"since": since.received, "state": "ok"}, []),
        ({"text": "BEN QUESTION"}, [n["ben"]]),
        ({"text": "an answer", "user": "ana@example.org"}, [n["tiny"], n["first"]]),
        ({"text": "nobody said this"}, []),
    ]:
        assert await ids(desk, **fields) == expected, fields  # type: ignore[arg-type]


async def test_a_row_tells_the_exchange(desk: Desk) -> None:
    """Names, times, counts, the beginning of the prompt; of refusals, why and how often."""
    await fill(desk)
    refused, running, left, *_ = await search(desk)
    assert (refused.state, refused.error, refused.request_id, refused.user) == (
        "refused", "requests_per_minute, once", "", "ana@example.org",
    )  # fmt: skip
    assert (running.state, running.ended, running.prompt) == (None, None, "The running question.")
    assert (left.state, left.error, left.upstream) == ("client_left", "why not", "other")
    assert left.timestamp == left.received and left.ended is not None
    (first,) = await search(desk, text="first")
    assert (first.tokens_in, first.tokens_out, first.key, first.client_label) == (11, 7, "k1", "notebook")


@pytest.mark.parametrize("fields", [{}, {"user": "ana@example.org"}, {"model": "m"}, {"state": "ok"}, {"text": "q"}])
async def test_pages_follow_each_other_without_gap_or_repetition(desk: Desk, fields: dict[str, str]) -> None:
    """--before goes on where the last page ended, also among exchanges of one microsecond."""
    for n in range(23):
        await desk.converse(f"q {n}", model="m" if n % 2 else "m:latest")
        if n % 5 == 0:
            later(desk)
    seen: list[int] = []
    while page := await ids(desk, limit=4, before=seen[-1] if seen else None, **fields):
        seen += page
    assert seen == sorted(seen, reverse=True) and len(seen) == 23


async def test_a_wall_clock_set_back_hides_nothing(desk: Desk) -> None:
    """Order and span go by the time received, whatever the sequence."""
    await desk.converse("Tomorrow.")
    later(desk, -24 * HOUR)
    await desk.converse("Today.")
    assert await ids(desk) == [1, 3]
    assert await ids(desk, since=iso(desk.clock.wall()), until=iso(desk.clock.wall() + HOUR)) == [3]


async def test_text_looks_at_the_last_day_unless_told(desk: Desk) -> None:
    """The default span of a scan; `since:` widens it; other searches have none."""
    await desk.converse("An old secret.")
    later(desk, 25 * HOUR)
    await desk.converse("A new secret.")
    assert await ids(desk, text="secret") == [3]
    assert await ids(desk, text="secret", since=iso(0)) == [3, 1]
    assert await ids(desk) == [3, 1]


async def test_a_search_that_makes_no_sense_says_why(desk: Desk) -> None:
    """A sentence each, before anything is read; nobody is told "nothing found" for a misspelt state."""
    await desk.converse("Hello.")
    for fields, error, words in [
        ({"state": "fine"}, BadRequest, "there is no state 'fine'.*client_left"),
        ({"user": "nobody@example.org"}, NotFound, "no user nobody@example.org"),
        ({"since": "yesterday"}, BadRequest, "since: 'yesterday' is not a moment"),
        ({"text": "x", "until": "9999999-01-01"}, BadRequest, "until"),
        ({"limit": 0}, BadRequest, "limit"),
        ({"limit": 1_001}, BadRequest, "limit"),
        ({"before": 99}, NotFound, "no exchange 99"),
        ({"text": "x", "before": 99}, NotFound, "no exchange 99"),
    ]:
        with pytest.raises(error, match=words):
            await search(desk, **fields)  # type: ignore[arg-type]


async def test_leaving_a_scan_ends_its_process(desk: Desk) -> None:
    """Left on the first hit: the child, which still has much to say, is gone and not waiting for a reader."""
    before = _children()
    for n in range(20):
        await desk.converse(f"needle {n}", error="x" * 2_000, client_label="y" * 60_000)
    rows = audit_search.search(desk.database, AuditSearch(filter=AuditFilter(text="needle")), now_us=desk.clock.wall())
    first = await anext(rows)
    assert first.prompt == "needle 19"
    assert _children() - before
    await asyncio.wait_for(rows.aclose(), 5)
    assert not _children() - before


async def test_a_scan_whose_daemon_died_ends(desk: Desk) -> None:
    """A scan that finds nothing writes nothing, so no broken pipe would tell it: it looks whose child it is."""
    await desk.converse("hay")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon.audit.reader", "search", stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    question = {
        "database": str(desk.path),
        "parent": os.getpid() + 1,  # who started it, and is not its parent any more
        "question": {"filter": {"text": "needle"}},
        "now_us": desk.clock.wall(),
    }
    found, said = await child.communicate(json.dumps(question).encode())
    assert (found, said.decode().strip(), child.returncode) == (b"", "the daemon ended", 1)


def _children() -> set[str]:
    listing = Path("/proc/self/task").glob("*/children")
    return {pid for file in listing for pid in file.read_text().split()}


async def test_show_gives_the_whole_exchange(desk: Desk) -> None:
    """By request id or log id (of either record): prompt, answer, every message, thinking and tool calls included."""
    exchange = await desk.converse("Why?", "Because.", "Really?", answer="Really.")
    for name in (exchange.request_id, "1", "2"):
        shown = await audit_search.show(desk.database, name)
        assert (shown.prompt, shown.response, shown.state, shown.erased) == ("Really?", "Really.", "ok", False)
        assert shown.messages == exchange.document
        assert shown.answer == {"role": "assistant", "content": "Really."}
        assert (shown.log_id, shown.request_id, shown.model_asked) == (1, exchange.request_id, "llama3.2")
    for nobody in ("3", "nothing", "-1", "9" * 30, "²"):
        with pytest.raises(NotFound):
            await audit_search.show(desk.database, nobody)


async def test_a_running_exchange_and_one_without_answer_are_shown(desk: Desk) -> None:
    """No answer is empty, not erased."""
    exchange = desk.exchange("Hello?")
    await desk.journal.opened(exchange)
    shown = await audit_search.show(desk.database, exchange.request_id)
    assert (shown.state, shown.response, shown.answer, shown.erased) == (None, "", None, False)
    await desk.end(exchange, EndState.UPSTREAM_ERROR, error="gone")
    shown = await audit_search.show(desk.database, exchange.request_id)
    assert (shown.state, shown.error, shown.response, shown.erased) == ("upstream_error", "gone", "", False)


async def test_what_was_erased_and_what_is_damaged_is_said_to_be(desk: Desk) -> None:
    """A deleted user's exchange keeps its skeleton; a damaged body is named in its place and stops nothing else."""
    ana = await desk.converse("Of Ana.")
    ben = await desk.converse("Of Ben, somewhat longer.", user_id=2, user=BEN)

    def delete(conn: sqlite3.Connection) -> None:
        append_user_deletion(conn, actor=DAEMON, user_id=1, target="x", detail={}, at_us=1, clock_us=1)
        conn.execute("UPDATE parts SET data = x'7b7b' WHERE user_id = 2")

    await desk.database.write(delete)
    erased = await audit_search.show(desk.database, ana.request_id)
    assert (erased.erased, erased.prompt, erased.response, erased.messages) == (True, "", "", None)
    assert (erased.user, erased.model, erased.tokens_out) == ("ana@example.org", "llama3.2:latest", 7)
    damaged = await audit_search.show(desk.database, ben.request_id)
    assert (damaged.prompt, damaged.response, damaged.erased) == (DAMAGED, DAMAGED, False)
    assert [(row.prompt, row.erased) for row in await search(desk)] == [(DAMAGED, False), ("", True)]
    assert await ids(desk, text="damaged in the store", since=iso(0)) == [ben.seq]
    # The size fits, the text is garbage: still no crash.
    await desk.database.write(
        lambda conn: conn.execute("UPDATE parts SET size = 2, compressed = 0 WHERE user_id = 2").fetchone()
    )
    assert (await audit_search.show(desk.database, ben.request_id)).prompt == DAMAGED
    assert [row.prompt for row in await search(desk)] == [DAMAGED, ""]


async def test_a_list_shows_the_beginning_of_a_prompt(desk: Desk) -> None:
    """Two hundred characters, of the last user message, without reading the conversation before it."""
    texts = list(itertools.chain(*((f"q{n}", f"a{n}") for n in range(30)), ["x" * 500]))
    await desk.converse(*texts)
    (row,) = await search(desk)
    assert row.prompt == "x" * 200


PLANS: list[tuple[Criteria, str]] = [
    (Criteria(), "journal_received"),
    (Criteria(user_id=1), "journal_user"),
    (Criteria(user_id=1, since_us=5, key_id="k"), "journal_user"),
    (Criteria(user_id=1, state="ok"), "journal_user"),
    (Criteria(models=("m",)), "journal_model"),
    (Criteria(models=("m",), state="ok", since_us=5), "journal_model"),
    (Criteria(state="ok"), "journal_state"),
    (Criteria(state="crashed", user_id=1), "journal_state"),
    (Criteria(state="refused", since_us=3, until_us=9), "journal_state"),
    (Criteria(address="a", route="r", upstream="u", client_label="c"), "journal_received"),
]


@pytest.mark.parametrize(("wanted", "index"), PLANS)
async def test_each_search_walks_one_index_in_the_order_of_its_answer(desk: Desk, wanted: Criteria, index: str) -> None:
    """No sorting of millions: the page costs what it shows (performance.md, the audit's figures)."""

    def plan(conn: sqlite3.Connection) -> list[str]:
        queries: list[str] = []
        conn.set_trace_callback(queries.append)
        place = audit_search.Place(5, 3)
        newest(conn, wanted, 50, place)
        if wanted.state is None and not wanted.models:
            oldest(conn, wanted, 50, through_seq=9, after=place)
        conn.set_trace_callback(None)
        return [row[3] for query in queries for row in conn.execute(f"EXPLAIN QUERY PLAN {query}")]

    steps = await desk.database.read(plan)
    walks = [step for step in steps if index in step and step.startswith("SEARCH")]
    assert walks and all("received_us" in step for step in walks), steps
    assert not [step for step in steps if step.startswith("SCAN")], steps
    # Where the index has the closing record's order, only exchanges of one microsecond are put in order.
    allowed = {"USE TEMP B-TREE FOR RIGHT PART OF ORDER BY", "USE TEMP B-TREE FOR LAST TERM OF ORDER BY"}
    sorting = {step for step in steps if "TEMP B-TREE" in step}
    assert sorting <= (allowed if index == "journal_state" else set()), steps


async def test_searches_go_on_while_the_journal_is_written(desk: Desk) -> None:
    """A reader sees whole exchanges or none, and holds nobody up."""

    async def write() -> None:
        for n in range(40):
            await desk.converse(f"q {n}")

    async def look() -> None:
        for _ in range(40):
            rows = await search(desk, state="ok")
            assert all(row.prompt.startswith("q ") for row in rows)

    await asyncio.gather(write(), look(), look())
