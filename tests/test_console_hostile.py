"""Nothing that comes from outside drives the terminal or breaks a screen (T1, T2).

Every string of the corpus stands in every field of every kind of row and of every answer, as the daemon would send it;
every page, box and text that shows any of it is opened. Two layers are looked at apart: what is cleaned where it is
decoded leaves the output guard nothing to do, and the guard alone keeps the terminal safe.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.binding import Binding

from common import protocol
from common.protocol import ModelsList
from console.moments import age, time_left
from console.screens import TABS, Tab, table_page
from tests.rigs.console import console_at, frame_of, gatelodge
from tests.rigs.gatehouse import MODEL
from tests.rigs.hostile import LONG_LINE, corpus, fill, sharpest, strange, watched_guard
from tests.rigs.office import open_office
from tests.rigs.pty_program import PtyProgram
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.until import until

ROWS = 50  # fit into a frame of 60 lines
EVERYTHING_AT_ONCE = "\x1b[31m\x1b]52;c;ZXZpbA==\x07[/][@click=app.quit]\u202e\x00\x9b2J\n\t宽👩‍👩‍👧 "
OPENED = ("live", "users", "audit", "models")
NAMES = [tab.name for tab in TABS]
# Cleaning is switched off in the whole program, but for the guard, which has its own by then.
UNCLEAN = (
    "import sys, console.guard, common.untrusted as u\n"
    "u.clean = u.clean_block = u.clean_json = lambda text: text\n"
    "sys.argv = ['gatelodge', *sys.argv[1:]]\n"
    "from console.__main__ import main\nmain()\n"
)


def batches(strings: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as a frame has rows."""
    for start in range(0, len(strings), ROWS):
        yield strings[start : start + ROWS]


@pytest.fixture
def slipped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the guard had to take out: nothing may reach it. Rows come and go here faster than anybody looks, so keys
    count at once: else what they open would not be opened."""
    monkeypatch.setattr(table_page, "SLID", 0.0)
    return watched_guard(monkeypatch)


async def show_all(tmp_path: Path, strings: Sequence[str], slipped: list[str]) -> None:
    """Every page with each of these in every column: 400 columns have room for all of them, and for the details."""
    async with ScriptedDaemon(tmp_path / "socket") as daemon:
        async with console_at(daemon.path, size=(400, 60)) as (app, pilot):
            await until(lambda: app.link.is_live)
            for batch in batches(strings):
                fill(daemon, batch)
                daemon.send()
                await until(lambda: app.link.mirror.seq == daemon.seq, timeout=30)
                for tab in TABS:
                    page = await app.go_to(tab.name)
                    await pilot.pause()
                    app.main.tick()
                    frame = frame_of(app)
                    assert f"[{tab.digit} {tab.title}" in frame
                    assert page is app.main.page
                    assert not slipped, f"{tab.name}: {slipped[:3]}"
            assert daemon.changes_asked() == []


async def test_every_field_of_every_page_is_clean_before_it_is_drawn(tmp_path: Path, slipped: list[str]) -> None:
    """What steers is shown as an escape, in every column; a megabyte in each field costs no more than a short word."""
    await show_all(tmp_path, [*sharpest()[: 2 * ROWS - 1], LONG_LINE], slipped)


@pytest.mark.long
async def test_all_of_the_corpus_in_every_field_of_every_page(tmp_path: Path, slipped: list[str]) -> None:
    """The whole list of naughty strings."""
    await show_all(tmp_path, corpus(), slipped)


def page_keys(tab: Tab) -> list[str]:
    """The keys that do something on this page alone."""
    bindings = (each for each in type(tab.make()).BINDINGS if isinstance(each, Binding))
    return [key for binding in bindings for key in binding.key.split(",") if key != "escape"]


async def press_all(tmp_path: Path, tab: Tab, strings: Sequence[str], slipped: list[str]) -> None:
    """Each key of a page on a row of each string: what opens is drawn, and left again without a Yes."""
    async with ScriptedDaemon(tmp_path / "socket") as daemon:
        fill(daemon, ["harmless"])
        async with console_at(daemon.path, size=(120, 60)) as (app, pilot):
            await until(lambda: app.link.is_live)
            for text in strings:
                fill(daemon, [text])
                daemon.send()
                await until(lambda: app.link.mirror.seq == daemon.seq, timeout=30)
                for key in page_keys(tab):
                    await app.go_to(tab.name)
                    app.main.tick()
                    await pilot.press(key)
                    await pilot.pause(0.02)  # what was asked for has come
                    if app.screen is not app.main and hasattr(app.screen, "tick"):
                        app.screen.tick()
                    frame_of(app)
                    assert not slipped, f"{tab.name}, {key}: {slipped[:3]}"
                    for _ in range(3):
                        if len(app.screen_stack) > 1 or app.prompt.is_asking:
                            await pilot.press("escape")
                    assert app.is_running, f"{tab.name}, {key}, {text!r}"
                    assert len(app.screen_stack) == 1, f"{tab.name}, {key} stays open"
                assert len(app.screen_stack) == 1 and not app.prompt.is_asking
            assert daemon.changes_asked() == []


@pytest.mark.parametrize("name", NAMES)
async def test_every_box_and_text_of_a_page_is_clean_and_does_nothing(
    tmp_path: Path, slipped: list[str], name: str
) -> None:
    """Details, questions, forms: the row's words stand in them, are shown, and neither act nor break anything."""
    tab = next(tab for tab in TABS if tab.name == name)
    await press_all(tmp_path, tab, [EVERYTHING_AT_ONCE], slipped)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
async def test_every_box_and_text_of_a_page_with_all_that_is_sharp(
    tmp_path: Path, slipped: list[str], name: str
) -> None:
    """As above, with every fourth of the sharpest, and a megabyte."""
    tab = next(tab for tab in TABS if tab.name == name)
    await press_all(tmp_path, tab, [LONG_LINE, *sharpest()[::4]], slipped)


@asynccontextmanager
async def on_a_terminal(
    tmp_path: Path, command: list[str] | None = None
) -> AsyncIterator[tuple[ScriptedDaemon, PtyProgram]]:
    """The program itself on a pty, past its start: what it sends from here on are frames."""
    async with ScriptedDaemon(tmp_path / "socket") as daemon:
        fill(daemon, ["harmless"])
        async with PtyProgram(command or gatelodge(daemon.path), size=(300, 60)) as program:
            await program.shows("● LIVE".encode())
            await program.shows(b"harmless")
            await program.settles()
            program.take()
            yield daemon, program


async def open_row(program: PtyProgram) -> None:
    """Enter, once it counts: no key is for a row that has only just come."""
    for _ in range(10):
        program.press("\r")
        await program.settles()
        if b"Back" in program.sent:  # among the keys of what was opened
            return
    raise AssertionError("Enter opened nothing")


async def walk(daemon: ScriptedDaemon, program: PtyProgram, strings: Sequence[str], *, opens: bool) -> int:
    """Every page, and of the first frame what Enter opens; how many bytes were looked at."""
    looked_at = 0
    width, height = program.size
    for number, batch in enumerate(batches(strings)):
        fill(daemon, batch)
        daemon.send()
        for tab in TABS:
            program.press(tab.digit)
            await program.shows(f"[{tab.digit} {tab.title}".encode())
            await program.settles()
            if opens and number == 0 and tab.name in OPENED:
                await open_row(program)
                program.press("\x1b")
                await program.settles(0.15)  # a key too soon after it would be one with Alt
            sent = program.take()
            looked_at += len(sent)
            assert program.is_running
            assert strange(sent, width, height) == [], tab.name
    assert daemon.changes_asked() == []
    return looked_at


async def test_the_terminal_is_sent_nothing_but_the_consoles_own_sequences(tmp_path: Path) -> None:
    """On a real pty, byte by byte: no sequence, no control, no bidirectional mark that came from outside."""
    async with on_a_terminal(tmp_path) as (daemon, program):
        assert await walk(daemon, program, sharpest()[:ROWS], opens=True) > 50_000
        program.press("q")
        await until(lambda: not program.is_running, timeout=20)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_terminal_is_sent_nothing_else_with_all_of_the_corpus(tmp_path: Path) -> None:
    """The whole list of naughty strings, and a megabyte in each field."""
    async with on_a_terminal(tmp_path) as (daemon, program):
        assert await walk(daemon, program, [*corpus(), LONG_LINE], opens=True) > 500_000


async def test_the_guard_alone_keeps_the_terminal_safe(tmp_path: Path) -> None:
    """Were something not cleaned where it is decoded, it would still not reach the terminal."""
    command = [sys.executable, "-c", UNCLEAN, "--socket", str(tmp_path / "socket")]
    async with on_a_terminal(tmp_path, command) as (daemon, program):
        assert await walk(daemon, program, sharpest()[: ROWS // 2], opens=False) > 30_000


async def test_what_is_said_in_a_toast_is_no_markup(tmp_path: Path) -> None:
    """Nobody here uses Textual's toasts; whoever does one day need not think of it."""
    async with console_at(tmp_path / "nobody", size=(80, 24)) as (app, pilot):
        app.notify("[/] of [@click=app.quit]ana")
        await pilot.pause()
        assert "[/] of [@click=app.quit]ana" in frame_of(app).replace("\n", "")


async def test_an_upstreams_moment_is_a_moment_or_none(tmp_path: Path) -> None:
    """Moments of the protocol are ISO 8601 in UTC, whatever an upstream calls one; the console reads others as `?`."""
    async with open_office(tmp_path) as office:
        for name, told in (("qwen3:4b", "\x1b[31m[/]"), (MODEL, "2026-01-31T02:00:00.123456789-07:00")):
            office.gate.upstream.models[name]["modified_at"] = told
        await office.gate.house.registry.refresh()
        rows = {row.name: row.modified for row in await office.ask(protocol.MODELS_LIST, ModelsList())}
        assert rows == {"qwen3:4b": None, MODEL: "2026-01-31T09:00:00.123456Z"}
    assert (age("[/]", 0.0), time_left("[/]", 0.0)) == ("?", "?")


def test_a_sequence_from_outside_would_be_seen() -> None:
    """What the tests above look with: each of these is strange, and the console's own are not."""
    assert strange(b"\x1b[3;4H\x1b[0;1;36mok\x1b[0m \xe2\x97\x8f", 80, 24) == []
    for evil in (
        "\x1b[2J",
        "\x1b[77;77H",
        "\x1b[38;5;199m",
        "\x1b]0;t\x07",
        "\x9b2J",
        "\u202e",
        "\x07",
        "a\nb",
    ):
        assert strange(evil.encode(), 80, 24), repr(evil)
