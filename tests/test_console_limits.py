"""The Limits page under a pilot, against a real daemon: see what is used, try, change, clear; conflict, lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from common import protocol
from common.protocol import LimitsSet, LimitsShow, LimitTarget, LimitValues
from console.columns import text_of
from console.screens import limits
from tests.rigs.console import Seat, open_seat
from tests.rigs.gatehouse import ADMIN
from tests.rigs.until import until

ANA = "user:ana@example.org"


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else changed is seen at the next look: here soon."""
    monkeypatch.setattr(limits, "EVERY", 0.1)


@asynccontextmanager
async def limits_page(tmp_path: Path, *, size: tuple[int, int] = (100, 30), **flags: Any) -> AsyncIterator[Seat]:
    """A console on its Limits page; ana has made four requests."""
    async with open_seat(tmp_path, size=size, **({"limits__requests_per_minute": 8} | flags)) as seat:
        for _ in range(4):
            assert (await seat.office.gate.chat()).status_code == 200
        await seat.press("7")
        await seat.sees("[7 Limits]", "default")
        yield seat


async def choose(seat: Seat, target: str) -> None:
    """Put the cursor on a target."""
    await until(lambda: target in seat.app.main.page.table.ids)  # type: ignore[union-attr]
    assert seat.app.main.page.table.select(target)  # type: ignore[union-attr]
    await seat.pilot.pause()


def chosen(seat: Seat) -> str | None:
    """The target under the cursor."""
    return seat.app.main.page.table.cursor_id  # type: ignore[union-attr,no-any-return]


def fill(seat: Seat, **texts: str) -> None:
    """Put texts into the fields of the form in sight."""
    for name, text in texts.items():
        seat.app.screen.query_one(f"#field-{name}", Input).value = text


async def own(seat: Seat, target: str) -> LimitValues:
    """What the target says, by the daemon."""
    row = (await seat.office.ask(protocol.LIMITS_SHOW, LimitsShow(target)))[0]
    return LimitValues(**{name: getattr(row, name) for name in protocol.LIMIT_FIELDS})


async def test_what_is_used_is_a_bar_with_numbers(tmp_path: Path) -> None:
    """The default first, then the fullest; a user under the default has a line while something is used."""
    async with limits_page(tmp_path) as seat:
        frame = await seat.sees("███···  50%", "4/8 req/min", "8/min", "every user", ANA)
        page = seat.app.main.page
        assert isinstance(page, limits.LimitsPage)
        long = limits.LimitLine("user:" + "long.name." * 6 + "@example.org", {}, {}, ())
        texts = ["".join(map(text_of, line)) for line in (*page._details(page._lines["default"]), *page._details(long))]
        assert "each user's, unless they have their own" in texts
        assert all(len(text) <= limits.WIDTH for text in texts if ":" in text or "own" in text)
        assert long.target in "".join(texts)
        lines = frame.split("\n")
        assert "default" in lines[4] and "every user" in lines[4]
        for _ in range(4):
            await seat.office.gate.chat()
        await seat.sees("██████ full", "8/8 req/min")
        assert (await seat.office.gate.chat()).status_code == 429
        await choose(seat, ANA)
        await seat.press("enter")
        await seat.sees("requests/minute", "8/8  frees in", "unlimited", "(default)")


async def test_a_limit_is_tried_then_applied_to_the_next_request(tmp_path: Path) -> None:
    """Old -> new while typing, who would have been refused, `y`; the next request meets it."""
    async with limits_page(tmp_path) as seat:
        await choose(seat, ANA)
        await seat.press("e")
        await seat.sees(f"Limits of {ANA}", "default: 8", "default: unlimited")
        fill(seat, requests_per_minute="1.5")
        await seat.sees("a number, 50k, 2m, unlimited")
        await seat.press("enter")
        await seat.sees("Enter try them")
        fill(seat, requests_per_minute="3", tokens_per_day="50k")
        await seat.sees("8 (default) → 3", "unlimited (default) → 50k")
        await seat.press("enter")
        # The box has grown by the users' lines a frame after its words stand there.
        tried = "Last 24 h: 1 of 4 requests refused (as it is: 0), of these users:"
        await seat.sees(tried, "  ana@example.org ", timeout=20)
        assert "1 of 4" in seat.line("  ana@example.org ")
        assert await own(seat, ANA) == LimitValues()
        await seat.press("e")
        await seat.sees("8 (default) → 3")
        await seat.press("enter")
        await seat.sees("Change the limits")
        await seat.press("y")
        await seat.sees("are changed: the next request is under them", "██████ full", "3/min · 50k tok/day")
        assert await own(seat, ANA) == LimitValues(requests_per_minute=3, tokens_per_day=50_000)
        assert (await seat.office.gate.chat()).status_code == 429


async def test_no_is_the_default_and_changes_nothing(tmp_path: Path) -> None:
    """Enter in the box is No; a form without a change does nothing."""
    async with limits_page(tmp_path) as seat:
        await choose(seat, "default")
        await seat.press("e")
        await seat.sees("Limits of default", "as it is")
        await seat.press("enter")
        await seat.sees("nothing is changed")
        await seat.press("e")
        await seat.sees("Limits of default")
        fill(seat, concurrency="2")
        await seat.press("enter")
        await seat.sees("at once           unlimited → 2", "never refuses: further requests wait")
        await seat.press("enter")
        await seat.loses("Change the limits")
        assert (await own(seat, "default")).concurrency == "unlimited"


async def test_a_change_of_somebody_else_is_told_and_what_was_typed_is_kept(tmp_path: Path) -> None:
    """The values that were seen are sent; after a second look it is up to the administrator."""
    async with limits_page(tmp_path) as seat:
        await choose(seat, ANA)
        await seat.press("e")
        await seat.sees(f"Limits of {ANA}")
        fill(seat, requests_per_minute="5")
        theirs = LimitValues(requests_per_minute=99, tokens_per_day=700)
        await seat.office.ask(protocol.LIMITS_SET, LimitsSet(ANA, theirs))
        await seat.press("enter")
        await seat.sees("[y] apply")
        await seat.press("y")
        await seat.sees("The limits changed since you looked, nothing was done", "99 → 5", "700")
        assert await own(seat, ANA) == theirs
        await seat.press("enter")
        await seat.sees("99 → 5", "[y] apply")
        await seat.press("y")
        await seat.sees("are changed")
        assert await own(seat, ANA) == LimitValues(requests_per_minute=5, tokens_per_day=700)


async def test_the_daemon_goes_while_limits_are_tried(tmp_path: Path) -> None:
    """The box stays, and says so; when the daemon is back it can be applied."""
    async with limits_page(tmp_path) as seat:
        hub = seat.office.gate.house.hub
        await choose(seat, ANA)
        await seat.press("e")
        await seat.sees(f"Limits of {ANA}")
        fill(seat, requests_per_minute="5")
        await seat.press("enter")
        await seat.sees("[y] apply")
        hub.close("the daemon is stopping")
        await until(lambda: not seat.app.link.is_live)
        await seat.press("y")
        await seat.sees("Not sent: the daemon is away (STALE", "[y] apply")
        hub._closed = ""
        seat.app.link.retry_now()
        await seat.sees("LIVE again")
        await seat.press("y")
        await seat.sees("are changed")
        assert (await own(seat, ANA)).requests_per_minute == 5


async def test_clearing_returns_to_the_default(tmp_path: Path) -> None:
    """In a box that says which go and what holds then; the default itself returns to the configuration."""
    async with limits_page(tmp_path) as seat:
        await seat.office.ask(protocol.LIMITS_SET, LimitsSet(ANA, LimitValues(requests_per_minute=99)))
        await seat.sees("99/min · else default")
        await choose(seat, ANA)
        await seat.press("x")
        await seat.sees(f"Clear the limits of {ANA}?", "the default holds for this user:", "99 → 8 (default)")
        await seat.press("n")
        await seat.loses("Its own limits go")
        await seat.press("x", "y")
        await seat.sees("are cleared")
        await seat.loses("99/min")
        assert await own(seat, ANA) == LimitValues()
        assert chosen(seat) == ANA
        nobody = "user:zoe@example.org"  # who uses nothing: the row stays where the cursor is
        await seat.office.gate.house.directory.add_user(ADMIN, "zoe@example.org")
        await seat.office.ask(protocol.LIMITS_SET, LimitsSet(nobody, LimitValues(concurrency=1)))
        await choose(seat, nobody)
        await seat.press("x", "y")
        await seat.sees(f"the limits of {nobody} are cleared")
        await seat.loses("1 at once")
        assert chosen(seat) == nobody
        await seat.office.ask(protocol.LIMITS_SET, LimitsSet("default", LimitValues(requests_per_minute=3)))
        await seat.sees("3/min")
        await choose(seat, "default")
        await seat.press("x")
        await seat.sees("requests/minute   3 → 8 (configuration)", "at once           unlimited, as it is now")
        await seat.press("n")
        await choose(seat, ANA)
        await seat.press("x")
        await seat.sees("has no limits of its own")


async def test_any_target_can_be_limited(tmp_path: Path) -> None:
    """A model, an address, a key; what is no target is told while one types, what is unknown by the daemon."""
    async with limits_page(tmp_path) as seat:
        await seat.press("n")
        await seat.sees("Limit whom?", "user: key: model: address:")
        fill(seat, target="address:10.0.0.1/8")
        await seat.sees("the network is 10.0.0.0/8")
        fill(seat, target="user:bob@example.org")
        await seat.press("enter")
        await seat.sees("Not done: there is no user bob@example.org")
        fill(seat, target="model:smollm2:135m")
        await seat.press("enter")
        await seat.sees("Limits of model:smollm2:135m")
        assert chosen(seat) == "model:smollm2:135m"
        fill(seat, requests_per_hour="100")
        await seat.press("enter")
        await seat.sees("requests/hour     unlimited → 100", "0 of 4 requests refused", timeout=20)
        await seat.press("y")
        await seat.sees("100/h", "shared")
        key = f"key:{seat.office.gate.key.split('_')[1]}"
        await seat.office.ask(protocol.LIMITS_SET, LimitsSet(key, LimitValues(concurrency=1)))
        await seat.sees(key[:14], "1 at once")
        await seat.office.ask(protocol.LIMITS_CLEAR, LimitTarget(key))
        await seat.loses("1 at once")


async def test_from_a_user_to_their_limits(tmp_path: Path) -> None:
    """`l` puts the cursor on the user, who needs no limits of their own for that; `u` goes back."""
    async with open_seat(tmp_path) as seat:
        await seat.press("2")
        await seat.sees("ana@example.org")
        await seat.press("l")
        await seat.sees("[7 Limits]", ">······   0%", ANA)
        await seat.press("u")
        await seat.sees("[2 Users]", "filter 'ana@example.org'")


async def test_nobody_looks_nobody_asks(tmp_path: Path) -> None:
    """The daemon is asked while the page is in sight, and not below a box or behind another page."""
    async with limits_page(tmp_path) as seat:
        asked: list[str] = []
        ask = seat.app.channel.ask

        async def counted(verb: Any, request: Any) -> Any:
            asked.append(verb.name)
            return await ask(verb, request)

        seat.app.channel.ask = counted  # type: ignore[method-assign]
        page: Any = seat.app.main.page
        page._again.set()
        await until(lambda: "limits/use" in asked)
        await seat.press("1")
        asked.clear()
        page._again.set()
        await asyncio.sleep(0.1)  # that something does not happen takes its time
        assert not asked


async def test_a_target_with_characters_that_nobody_sees_is_still_itself(tmp_path: Path) -> None:
    """It is shown with its escapes and edited as what it is."""
    odd = "model:m\ufe0f[/][@click=app.quit]x"
    async with limits_page(tmp_path) as seat:
        await seat.office.ask(protocol.LIMITS_SET, LimitsSet(odd, LimitValues(requests_per_hour=9)))
        await seat.sees("model:m\\ufe0f[/][@click=", "9/h")
        await choose(seat, odd)
        await seat.press("enter")
        await seat.sees("model:m\\ufe0f[/][@click=app.quit]x", "one window shared")
        await seat.press("escape", "x")
        await seat.sees("Clear the limits of model:m\\ufe0f[/]")
        await seat.press("y")
        await seat.sees("are cleared")
        await seat.loses("9/h")
        assert await own(seat, odd) == LimitValues()
