"""The Audit page under a pilot, against a real daemon: search, page, scan, read, chain, export."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from common.protocol import AuditRow
from console.columns import text_of
from console.found import Found
from console.moments import clock
from console.screens.audit import AuditPage
from console.screens.audit_rows import COLUMNS, detail_lines
from console.screens.audited import AuditedScreen
from daemon.exchange import EndState
from tests.rigs.console import Seat, open_seat
from tests.rigs.journals import exchange_of, finish, streamed
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import saying

NASTY = "[/] [@click=app.quit]x[/] \x1b[2J\x1b]0;pwned\x07 \u202e"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick of a fortieth of a second: what is tested is what comes, not how often it is drawn."""
    monkeypatch.setattr("console.screens.framed.TICK", 0.025)


@asynccontextmanager
async def audit_page(tmp_path: Path, *, size: tuple[int, int] = (80, 24), records: int = 0) -> AsyncIterator[Seat]:
    """A console on its Audit page, after so many exchanges."""
    async with open_seat(tmp_path, size=size) as seat:
        await recorded(seat, records)
        await seat.press("6")
        await seat.sees("[6 Audit]")
        yield seat


async def recorded(seat: Seat, count: int, *, first: int = 0, text: str = "question") -> None:
    """So many exchanges of ana in the journal, as if they had come through the gate."""
    house, user = seat.office.gate.house, seat.office.gate.user

    async def one(number: int) -> None:
        exchange = exchange_of(f"{text} {number}", user_id=user.id, user=user.email, upstream="up")
        await house.journal.opened(exchange)
        finish(exchange, EndState.OK, house.clock)
        await house.journal.closed(exchange, streamed("because"))

    await asyncio.gather(*(one(first + number) for number in range(count)))


def page_of(seat: Seat) -> AuditPage:
    page = seat.app.main.page
    assert isinstance(page, AuditPage)
    return page


async def search(seat: Seat, words: str) -> None:
    """Type a search line and Enter."""
    await seat.press("slash")
    await until(lambda: seat.app.main.prompt.is_asking)
    seat.app.main.prompt.entry.value = words
    await seat.press("enter")


async def test_first_it_says_that_nothing_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what an empty search means; only until something is, whether one looks on or comes back."""
    monkeypatch.setattr("console.screens.audit.APART", 0.05)
    async with audit_page(tmp_path) as seat:
        frame = await seat.sees("Nothing was recorded yet.", "0 found", "everything, newest first")
        assert all(len(line) <= 80 for line in frame.split("\n"))
        assert re.search(r"as of \d\d:\d\d:\d\dZ", frame)
        assert clock(0.5) == "00:00:00Z"
        await seat.office.gate.chat()
        await seat.sees("1 found", "Why?")
        await search(seat, "state:client_left")
        await seat.sees("Nothing found.", "0 found")
        page = page_of(seat)
        await seat.press("1")
        page._searched_at = 1.0
        monkeypatch.setattr("console.screens.audit.APART", 1e9)
        await seat.press("6")
        await until(lambda: page._searched_at > 1.0)


async def test_a_search_is_checked_while_one_types_and_done_by_the_daemon(tmp_path: Path) -> None:
    """What is wrong stands above the line; Tab knows the words; a refusal is told; Esc drops the search."""
    async with audit_page(tmp_path, records=3) as seat:
        await seat.sees("3 found", "question 2")
        await seat.press("slash")
        await seat.sees("user: model: key: state:")
        await seat.type("usr:x")
        await seat.sees("nothing to filter by")
        seat.app.main.prompt.entry.value = "user:a"
        seat.app.main.prompt.entry.cursor_position = 6
        await seat.press("tab")
        await seat.sees("user:ana@example.org")
        await seat.type(" sttate:x")  # what Tab offered was for another line
        await seat.sees("'sttate' is nothing to filter by")
        await seat.press("escape")
        await search(seat, "state:client_left")
        await seat.sees("Nothing found.", "0 found", "state:client_left")
        await search(seat, "user:nobody@example.org")
        await seat.sees("Not searched: there is no user nobody@example.org")
        await seat.press("escape")
        await seat.sees("3 found", "everything")


async def test_it_pages_without_a_pause_and_keeps_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next page comes before the cursor does; on the way back the same rows are there; new ones move nothing."""
    async with audit_page(tmp_path) as seat:
        await recorded(seat, 210)
        page = page_of(seat)
        monkeypatch.setattr("console.screens.audit.Found", lambda: Found(page=20, kept=7))
        await seat.press("r")
        await seat.sees("question 209")
        for _ in range(13):
            await seat.press("pagedown")
            await until(lambda: page._found.missing(page.table.visible_ids) is None)
        await until(lambda: len(page._found) == 210 and page._found.complete)
        await seat.sees("210 found")
        assert len(page._found._pages) == 7
        cursor = page.table.cursor_id
        await recorded(seat, 2, first=500)
        page.tick()
        assert page.table.cursor_id == cursor
        await seat.press("1", "6")
        await seat.sees("210 found · 2 newer: r", "r Refresh", "question 0")
        assert page.table.cursor_id == cursor
        await seat.press("g")
        await seat.sees("question 209")
        words = [line.partition("question ")[2].split()[0] for line in seat.frame().split("\n") if "question" in line]
        assert words == sorted(words, key=int, reverse=True)
        await seat.press("r")
        frame = await seat.sees("question 501")
        assert "newer" not in frame
        await until(lambda: page._fetching is None)
        table, found = page.table, page._found
        page._problem = "for a test"  # nothing is fetched
        table.go(len(found) - 1)
        await seat.press("end")
        place = found.ids.index(table.cursor_id)
        page._problem = ""
        await until(lambda: found.ids.index(table.cursor_id) > place)  # it goes on when there is more


async def test_a_text_scan_shows_first_hits_at_once_and_esc_stops_it(tmp_path: Path) -> None:
    """The daemon's scan is a child process; with a hit on the screen it is still going on, and ends with Esc."""
    async with audit_page(tmp_path) as seat:
        page = page_of(seat)
        gate = asyncio.Event()
        channel = seat.app.channel
        items = channel.items

        async def slowly(verb, question):  # type: ignore[no-untyped-def]
            async for row in items(verb, question):
                yield row
                await gate.wait()

        await recorded(seat, 3, text="needle")
        await recorded(seat, 3, first=10, text="hay")
        channel.items = slowly  # type: ignore[method-assign]
        await search(seat, "text:needle")
        await seat.sees("needle", "1+ found", "scanning", "Esc stops", timeout=10)
        await seat.press("escape")
        await seat.sees("scan stopped", "text:needle")
        assert len(page._found) == 1
        channel.items = items  # type: ignore[method-assign]
        await seat.press("r")
        frame = await seat.sees("3 found", timeout=10)
        assert "hay" not in frame


async def test_an_exchange_is_read_as_text_and_as_json_with_its_place_in_the_chain(tmp_path: Path) -> None:
    """Hostile words included; that it was read is recorded before it is shown."""
    async with audit_page(tmp_path, size=(100, 40)) as seat:
        seat.upstream.next(saying("It", " scatters.", NASTY))
        await seat.office.gate.chat(messages=[{"role": "user", "content": f"Why? {NASTY}"}])
        await seat.press("r")
        await seat.sees("Why?")
        await seat.press("enter")
        frame = await seat.sees("PROMPT [user]", "ANSWER", "It scatters.", "chain     record", "holds:", "received")
        assert "\\x1b[2J" in frame
        assert "\x1b" not in frame
        assert "[/] [@click=app.quit]x[/]" in frame
        record = seat.office.recorded()[-1]
        assert record["verb"] == "audit show"
        await seat.press("v")
        await seat.sees('"request_id": "', '"messages": {')
        await seat.press("v")
        await seat.sees("PROMPT [user]")
        page = seat.app.screen
        assert isinstance(page, AuditedScreen) and page.exchange is not None
        page._room = 4  # what is saved is whole, however little of it is in sight
        for view, ending in (("", "txt"), ("v", "json")):
            if view:
                await seat.press(view)
            await seat.press("w")
            await until(lambda: seat.app.prompt.is_asking)
            assert seat.app.prompt.entry.value == f"exchange-{page.exchange.log_id}.{ending}"
            seat.app.prompt.entry.value = str(tmp_path / f"one.{ending}")
            await seat.press("enter")
            await seat.sees("saved to", f"one.{ending}")
            assert (tmp_path / f"one.{ending}").stat().st_mode & 0o777 == 0o600
        assert NASTY in json.loads((tmp_path / "one.json").read_text())["response"]
        text = (tmp_path / "one.txt").read_text()
        assert "PROMPT [user]\nWhy? [/]" in text and "It scatters." in text and "RECORD" in text and "\x1b" not in text
        await seat.press("escape")
        await seat.sees("[6 Audit]", "1 found")


async def test_what_is_filtered_is_exported_and_the_chain_verified_from_here(tmp_path: Path) -> None:
    """The form has the search in it; both are jobs of the daemon."""
    async with audit_page(tmp_path, records=2) as seat:
        words = "user:ana@example.org state:ok since:2001-01-31 until:2100-01-31"
        await search(seat, words)
        await seat.sees("2 found")
        await seat.press("e")
        await seat.sees("Export exchanges", f"What:   {words}")
        entry = seat.app.screen.query_one("#field-search", Input)
        entry.value = "usr:ana@example.org"
        await seat.sees("'usr' is nothing to filter by")
        entry.value = "user:ana@example.org state:ok"
        await seat.press("enter")
        await seat.sees("job 1 exports user:ana@example.org state:ok")
        await seat.press("V", "y")
        await seat.sees("job 2 verifies the journal")
        jobs = seat.app.link.mirror.rows["job"]
        await until(lambda: len(jobs) == 2 and all(row["state"] == "done" for row in jobs.values()), timeout=20)
        assert jobs["1"]["records"] == 2


async def test_a_daemon_lost_between_two_pages_is_asked_again_when_it_is_back(tmp_path: Path) -> None:
    """What was found stays, with the cursor on it; the rest comes later."""
    async with audit_page(tmp_path, records=30) as seat:
        await seat.sees("30 found")
        await seat.press("j", "j")
        page = page_of(seat)
        cursor = page.table.cursor_id
        page._found.complete = False
        seat.app.channel.path = tmp_path / "nowhere"
        seat.app.link._lose("gone for a test")
        page.tick()
        await until(lambda: page._lost)
        await seat.sees("STALE", "question 29")
        assert page.table.cursor_id == cursor
        page.apply_filter("state:ok")
        await seat.sees("nothing can be searched while the daemon is away", "question 29")
        await seat.press("1", "6")
        await seat.sees("question 29")
        seat.app.channel.path = seat.office.socket
        seat.app.link.state = "live"
        await until(lambda: page._found.complete)
        assert len(page._found) == 30
        assert page.table.cursor_id == cursor


async def test_from_live_to_its_record(tmp_path: Path) -> None:
    """Enter on what has just ended reads its record, and what was searched for stays; `a` searches for it."""
    async with audit_page(tmp_path) as seat:
        await search(seat, "state:left")
        await seat.sees("Nothing found.")
        await seat.press("1")
        await seat.office.gate.chat()
        await seat.sees("1 of 1", ">ok ")
        await seat.press("enter")
        await seat.sees("ANSWER", "Why?", "log ")
        assert seat.office.recorded()[-1]["verb"] == "audit show"
        await seat.press("escape", "6")
        await seat.sees("[6 Audit]", "state:left", "Nothing found.")
        await seat.press("1")
        await seat.sees(">ok ")
        await seat.press("a")
        await seat.sees("[6 Audit]", "1 found", "request:", "Why?")


async def test_what_administrators_did_can_be_read(tmp_path: Path) -> None:
    """Newest first, the daemon's own words."""
    async with audit_page(tmp_path) as seat:
        await seat.press("L")
        await seat.sees("What administrators did", "keys issue", "That is all.")
        await seat.press("escape")
        await seat.sees("[6 Audit]")


def test_a_prompt_that_was_erased_is_said_to_be() -> None:
    """In the list and in the pane beside it: a blank would read as an empty prompt."""
    row = dict.fromkeys(AuditRow.__struct_fields__, "") | {"tokens_in": 1, "tokens_out": 1, "ended": None}
    cell = next(column for column in COLUMNS if column.title == "PROMPT").cell
    for erased, said in ((True, "(erased)"), (False, "")):
        row["erased"] = erased
        assert text_of(cell(row)) == said
        pane = ["".join(map(text_of, line)) for line in detail_lines(row)]
        assert ("PROMPT (erased)" in pane) is erased


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 100])
def test_found_rows_that_were_let_go_can_be_asked_for_again(count: int) -> None:
    """The order stays; a page that comes back changed shows only what was there."""
    found = Found(page=20, kept=2)
    for number in range(count):
        found.add({"log_id": 1000 - number, "n": number})
    assert [row_id.partition("/")[2] for row_id in found.ids] == [str(1000 - number) for number in range(count)]
    assert len(found._pages) <= 2
    if count == 100:
        assert found.missing(found.ids[:3]) == 0
        assert found.before(0) is None
        assert found.before(1) == 981
        found.put(0, [{"log_id": 5000, "n": -1}, *({"log_id": 1000 - n, "n": n} for n in range(19))])
        assert found.missing(found.ids[:20]) is None
        assert found.get(found.ids[0]) == {"log_id": 1000, "n": 0}
        assert found.get(found.ids[19]) is None
