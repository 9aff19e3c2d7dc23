"""The frame around every screen: the head, the pending badge, the digits; the daemon may go and come back meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from textual.geometry import Region
from textual.pilot import Pilot

from common import paths
from common.protocol import STATUS, Failure, Nothing, UserAdded
from console.app import Lodge
from console.channel import Channel
from console.client import Unreachable, watch
from console.screens import TABS
from console.screens.page import AWAY, CHANGED_MEANWHILE
from tests.rigs.console import console_at, frame_of
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.showcase import ago, furnish, registrations, showcase
from tests.rigs.until import until

DETAILS = {  # what one reads over a page: the page, the keys that lead to it from there, and words of it
    "exchange": ("live", ("enter",), "PROMPT"),
    "audited": ("audit", ("enter",), "PROMPT [user]"),
    "administrators": ("audit", ("L",), "What administrators did"),
    "key": ("keys", ("enter",), "good for"),
    "limits": ("limits", ("enter",), "limits of "),
    "help": ("live", ("question_mark",), "Everywhere"),
    "help of a detail": ("live", ("enter", "question_mark"), "Here"),
}


async def sees(app: Lodge, *words: str) -> str:
    """Wait until all of these words are on the screen; the frame."""
    try:
        await until(lambda: all(word in frame_of(app) for word in words), timeout=15)
    except AssertionError:
        raise AssertionError(f"{words!r} did not come:\n{frame_of(app)}") from None
    return frame_of(app)


async def test_whatever_one_reads_has_the_head_and_the_digits_lead_on(tmp_path: Path) -> None:
    """LIVE, the counters and who waits to be let in stand over every detail; a digit goes to that page from there."""
    async with showcase(tmp_path, size=(80, 24)) as (app, pilot, daemon):
        waiting = 2
        for name, (page, keys, words) in DETAILS.items():
            await app.go_to(page)
            await until(lambda: app.main.tick() or app.main.page.chosen, timeout=15, what=page)  # type: ignore[union-attr]
            await pilot.press(*keys)
            frame = await sees(app, words, "● LIVE", "run 7/12", f"2 Users({waiting})", "Esc Back", ": Command")
            assert len(app.screen_stack) == 1 + len(keys), name
            assert frame.split("\n")[2].rstrip().endswith("8 Jobs"), name
            waiting += 1
            daemon.put("registration", f"NEW{waiting}", registrations()[0])
            daemon.send()
            await sees(app, f"2 Users({waiting})", words)
            tab = TABS[7] if page != "jobs" else TABS[6]
            await pilot.press(tab.digit)
            await sees(app, f"[{tab.digit} {tab.title}]")
            assert len(app.screen_stack) == 1, name
            assert not [worker for worker in app.workers if worker.group == "action"], f"{name}: who waited goes on"


@asynccontextmanager
async def at_a_daemon(folder: Path) -> AsyncIterator[tuple[Lodge, Pilot[None], ScriptedDaemon]]:
    """The console before a busy daemon that a test stops and starts again."""
    daemon = ScriptedDaemon(folder / "s")
    furnish(daemon)
    await daemon.__aenter__()
    async with console_at(daemon.path) as (app, pilot):
        await until(lambda: app.link.is_live)
        try:
            yield app, pilot, daemon
        finally:
            await daemon.__aexit__(None, None, None)


async def starts_again(app: Lodge, daemon: ScriptedDaemon) -> None:
    """The daemon is back, and the console has seen it."""
    await daemon.__aenter__()
    await until(lambda: app.link.retry_now() or app.link.is_live, timeout=15)


async def typed(pilot: Pilot[None], text: str) -> None:
    """The keys of a text."""
    names = {"@": "at", ".": "full_stop"}
    await pilot.press(*(names.get(character, character) for character in text))


async def test_a_form_outlives_the_daemon_and_is_sent_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STALE at once, in head and box, with age and retry; what was typed stays; nothing is sent meanwhile."""
    async with at_a_daemon(tmp_path) as (app, pilot, daemon):

        def breaks(_: object) -> None:
            raise ConnectionResetError

        daemon.answers["users/add"] = breaks
        await app.go_to("users")
        await sees(app, "sofia")
        await pilot.press("c")
        await sees(app, "Create a user", "● LIVE")
        await typed(pilot, "li@example.org")
        drawn: list[Region] = []
        refresh = app.screen.refresh
        watched = lambda *regions, **how: (drawn.extend(regions), refresh(*regions, **how))  # noqa: E731
        monkeypatch.setattr(app.screen, "refresh", watched)
        await until(lambda: drawn, what="the clock behind the box goes on")
        assert {region.height for region in drawn} == {1}, "it costs a line, not the screen"
        await daemon.__aexit__(None, None, None)
        frame = await sees(app, "○ STALE", "nothing is sent until LIVE", "li@example.org")
        assert "trying again" in frame
        await pilot.press("enter")
        await sees(app, "Not sent: the daemon is away (STALE", "li@example.org")
        assert "users/add" not in daemon.counted()
        await starts_again(app, daemon)
        frame = await sees(app, "● LIVE", "LIVE again", "li@example.org")
        assert "STALE" not in frame and "Not sent" not in frame
        assert frame.startswith("gatelodge ● LIVE") and frame.split("\n")[2].startswith(" 1 Live"), (
            "the head in its place"
        )
        await pilot.press("enter")
        await sees(app, "Perhaps done", "look before you repeat it", "li@example.org")
        daemon.answers["users/add"] = UserAdded(7, "li@example.org", "user", False, "once-only-7", None)
        await pilot.press("enter")
        await sees(app, "once-only-7", "Esc close, for good")
        assert daemon.counted()["users/add"] == 2
        await daemon.__aexit__(None, None, None)
        frame = await sees(app, "○ STALE", "once-only-7", "Esc close, for good")
        await pilot.press("escape")


async def test_why_the_daemon_is_away_is_said_whole_and_no_longer_when_it_is_back(tmp_path: Path) -> None:
    """Cause, age and retry at 80 columns; that nothing is changed meanwhile goes by itself; `r` tries at once."""
    async with at_a_daemon(tmp_path) as (app, pilot, daemon):
        await app.go_to("users")
        await sees(app, "sofia")
        await daemon.__aexit__(None, None, None)
        (tmp_path / "s").unlink(missing_ok=True)
        frame = await sees(app, "STALE", "trying again", "(r: now)", "or name its socket: --socket PATH")
        assert "…" not in "".join(line for line in frame.split("\n")[-6:-2]), frame
        assert "sofia" in frame and "8 Jobs" in frame
        await pilot.press("d")
        await sees(app, AWAY)
        app.say(f"{'one-two-three ' * 9}end.")
        frame = await sees(app, "end.")
        assert frame.count("one-two-three") == 9 and "? Help" in frame, "whole, in two lines"
        await pilot.press("d")
        await starts_again(app, daemon)
        frame = await sees(app, "● LIVE", "sofia", "sort USER")
        assert AWAY not in frame and "STALE" not in frame
        assert not daemon.changes_asked()
        daemon.answers["users/approve"] = Failure("the user was changed in the meantime; look again", CHANGED_MEANWHILE)
        await pilot.press("a", "y")
        frame = await sees(app, "changed since you looked")
        assert frame.count("changed") == 1
        assert "the user changed since you looked, nothing was done; look at it again" in frame


async def test_a_daemon_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue of connections makes a Unix socket wait: the event loop, which also draws, does not."""
    monkeypatch.setattr("console.client.PATIENCE", 0.5)
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as hung, ExitStack() as waiting:
        hung.bind(str(path))
        hung.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                waiting.enter_context(paths.connect(path, timeout=0))
        asked = asyncio.create_task(Channel(path).ask(STATUS, Nothing()))
        watched = asyncio.create_task(anext(watch(path)))
        longest, turn = 0.0, time.monotonic()
        while not (asked.done() and watched.done()):
            await asyncio.sleep(0.01)
            longest, turn = max(longest, time.monotonic() - turn), time.monotonic()
        assert longest < 0.25, "it still draws"
        for task in (asked, watched):
            with pytest.raises(Unreachable, match="did not answer in time"):
                task.result()


async def test_no_tab_and_no_figure_is_lost_where_it_is_narrow(tmp_path: Path) -> None:
    """At 60 columns the titles get shorter, the rest stands closer; a click goes where the tab is drawn."""
    async with showcase(tmp_path, size=(60, 15)) as (app, pilot, daemon):
        daemon.totals.oldest_queued = ago(7523)
        daemon.send()
        await until(lambda: app.main.tick() or "429 3/m  err 0.4%" in frame_of(app), timeout=15)
        for tab in TABS:
            who, totals, tabs = frame_of(app).split("\n")[:3]
            assert "● LIVE" in who and who.endswith("14:02:31Z")
            assert "run 7/12" in totals and "queue 3" in totals
            assert all(f"{each.digit} " in tabs for each in TABS) and "(2)" in tabs and "8 Jobs" in tabs, tabs
            await pilot.click(offset=(tabs.index(f"{tab.digit} ") + 1, 2))
            await until(lambda name=tab.name: app.main.head.active == name)  # type: ignore[misc]
            await pilot.pause()


async def test_an_exchange_that_one_reads_is_followed_again(tmp_path: Path) -> None:
    """Since when it is not followed stands over it, whole at 80 columns; then it goes on, or its record is offered."""
    async with at_a_daemon(tmp_path) as (app, pilot, daemon):
        await sees(app, ">run")
        await pilot.press("enter")
        await sees(app, "PROMPT", "● LIVE")
        await daemon.__aexit__(None, None, None)
        frame = await sees(app, "NOT FOLLOWED for", "goes on when the daemon is LIVE again", "○ STALE", "trying again")
        assert "ANSWER" in frame
        await pilot.press("c")
        await sees(app, AWAY)
        await starts_again(app, daemon)
        await until(lambda: "NOT FOLLOWED" not in frame_of(app) or app.screen.tick(), timeout=15)  # type: ignore[attr-defined]
        assert AWAY not in frame_of(app) and daemon.counted()["live/follow"] > 1
        await daemon.__aexit__(None, None, None)
        daemon.answers["live/follow"] = Failure("there is no running request like this", "not_found")
        await sees(app, "NOT FOLLOWED")
        await starts_again(app, daemon)
        await sees(app, "NO LONGER RUNS", "Enter Its record")
