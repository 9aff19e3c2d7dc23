"""The Models page under a pilot, against a real daemon: health, drain, probe, seats, pull, delete, who may."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from common.protocol import PullProgress
from console.pulls import Pull
from console.screens.models import ModelsPage
from tests.rigs.console import Seat, frame_of, open_seat
from tests.rigs.scripted_upstream import Behaviour, Turn
from tests.rigs.showcase import showcase
from tests.rigs.until import until


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick of a fortieth of a second: what is tested is what comes, not how often it is drawn."""
    monkeypatch.setattr("console.screens.framed.TICK", 0.025)


@asynccontextmanager
async def models_page(tmp_path: Path, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Seat]:
    """A console on its Models page."""
    async with open_seat(tmp_path, size=size) as seat:
        await seat.press("4")
        await seat.sees("[4 Models]", "smollm2:135m", "qwen3:4b")
        yield seat


def slow_pull(gate: asyncio.Event, *, end: str = "success") -> Behaviour:
    """Half of a gigabyte, then nothing until the gate; then the end, or an error."""

    async def behave(turn: Turn) -> None:
        await turn.head(200, {"Content-Type": "application/x-ndjson"})
        for step in (
            {"status": "pulling manifest"},
            {"status": "pulling \u001b[2J[/]", "digest": "sha256:a", "total": 10**9, "completed": 5 * 10**8},
        ):
            await turn.send(json.dumps(step).encode() + b"\n")
        await gate.wait()
        last = {"status": end} if end == "success" else {"error": end}
        turn.upstream.add_model("new:1b")
        await turn.send(json.dumps(last).encode() + b"\n")
        await turn.finish()

    return behave


async def begin_pull(seat: Seat, name: str = "new:1b") -> None:
    """`f`, the name, Enter."""
    await seat.press("f")
    await seat.sees("Pull a model")
    seat.app.screen.query_one("#field-model", Input).value = name
    await seat.press("enter")


async def test_upstreams_and_their_models_are_told(tmp_path: Path) -> None:
    """Health and seats first, models below; what is loaded says so; everything fits."""
    async with models_page(tmp_path) as seat:
        frame = await seat.sees("0/2", "ollama", "default")
        lines = frame.split("\n")
        (upstream,) = [line for line in lines if "ollama" in line]
        assert upstream.split()[:2] == [">ok", "0/2"]
        assert all(len(line) <= 80 for line in lines)
        assert "idle" in seat.line("qwen3:4b")


async def test_an_upstream_that_is_down_is_marked_on_its_tab(tmp_path: Path) -> None:
    """From every page; here with what it said."""
    async with models_page(tmp_path, size=(160, 50)) as seat:
        await seat.upstream.stop()
        await seat.press("r")
        await seat.sees("[4 Models!]", "down", "upstreams 0/1 !")
        assert ">down" in seat.line("cannot be reached: connection refused")
        await seat.press("1")
        await seat.sees(" 4 Models!")


async def test_drain_asks_and_undrain_takes_it_back(tmp_path: Path) -> None:
    """The footer offers what makes sense; the daemon keeps it."""
    async with models_page(tmp_path) as seat:
        await seat.press("g", "d")
        await seat.sees("Drain up? It takes nothing new; 0 run on, 0 wait")
        await seat.press("y")
        await seat.sees("up is drained", "drained  ", "u Undrain")
        assert seat.office.gate.house.registry.upstream("up").seats.draining
        await seat.press("u")
        await seat.sees("up takes requests", "d Drain")
        assert not seat.office.gate.house.registry.upstream("up").seats.draining


async def test_probing_offers_the_seats_that_it_found(tmp_path: Path) -> None:
    """y/N before it costs anything, y/N before anything is changed."""
    async with models_page(tmp_path) as seat:
        seat.upstream.seats = asyncio.Semaphore(1)
        await seat.press("g", "P")
        await seat.sees("Probe up?")
        await seat.press("y")
        await seat.sees("up runs", timeout=20)
        await seat.sees("up runs 1 at once, it has 2 seats. Set 1?")
        await seat.press("y")
        await seat.sees("up has 1 seats", "0/1")
        assert any(record["verb"] == "upstreams probe" for record in seat.office.recorded())
        await seat.press("S")
        await seat.sees("Seats of up")
        seat.app.screen.query_one("#field-seats", Input).value = "0"
        await seat.press("enter")
        await seat.sees("1 to 4096")
        seat.app.screen.query_one("#field-seats", Input).value = "7"
        await seat.press("enter")
        await seat.sees("up has 7 seats", "0/7")


async def test_a_pull_goes_on_behind_other_pages_and_quitting_asks(tmp_path: Path) -> None:
    """A percentage while it runs; afterwards the model is there."""
    async with models_page(tmp_path) as seat:
        gate = asyncio.Event()
        seat.upstream.next(slow_pull(gate), route="/api/pull")
        await begin_pull(seat)
        await seat.sees("pull 50%", "new:1b", "pull of new:1b █████▌·····  50%: quitting ends it")
        assert "\x1b" not in seat.frame()
        await seat.press("1")
        await seat.sees("[1 Live]")
        await seat.press("q")
        await seat.sees("Quit? That ends the pull of new:1b.")
        await seat.press("n")
        gate.set()
        await seat.sees("new:1b is pulled")
        await seat.press("4")
        await seat.sees(">", "new:1b", "4 of 4")
        assert "pull 50%" not in seat.frame()
        table = seat.app.main.page.table  # type: ignore[union-attr]
        await until(lambda: table.cursor_id == "m:up:new:1b", what="what was pulled is under the cursor")
        assert not seat.app.unfinished


async def test_a_pull_that_fails_says_why_and_one_that_is_stopped_ends_upstream(tmp_path: Path) -> None:
    """The reason stays in the list until it is taken out; stopping closes the upstream's connection."""
    async with models_page(tmp_path) as seat:
        gate = asyncio.Event()
        gate.set()
        seat.upstream.next(slow_pull(gate, end="no space left"), route="/api/pull")
        await begin_pull(seat)
        await seat.sees("new:1b was not pulled", "failed")
        page = seat.app.main.page
        assert isinstance(page, ModelsPage)
        page.table.select("p:up:new:1b")
        await seat.press("c")
        await seat.loses("failed ")
        gate = asyncio.Event()
        seat.upstream.next(slow_pull(gate), route="/api/pull")
        await begin_pull(seat)
        await seat.sees("pull 50%")
        await seat.sees("c Stop the pull")
        await seat.press("c")
        await seat.sees("Stop the pull of new:1b?")
        await seat.press("y")
        await seat.loses("pull 50%")
        await asyncio.wait_for(seat.upstream.seen("/api/pull")[-1].client_left.wait(), 5)


async def test_deleting_a_model_wants_its_name(tmp_path: Path) -> None:
    """And it is the one of the key press; with a daemon that is lost meanwhile nothing is done."""
    async with models_page(tmp_path) as seat:
        page = seat.app.main.page
        assert isinstance(page, ModelsPage)
        page.table.select("m:up:qwen3:4b")
        await seat.press("D")
        await seat.sees("Delete the model qwen3:4b?", "Type qwen3:4b")
        await seat.type("qwen3:4b")
        seat.app.link._lose("gone for a test")
        await seat.press("enter")
        await seat.sees("LIVE again")  # nothing was sent meanwhile
        assert "qwen3:4b" in seat.upstream.models
        await seat.press("enter")
        await seat.sees("qwen3:4b is deleted from up")
        await until(lambda: "m:up:qwen3:4b" not in page.models)
        assert "qwen3:4b" not in seat.upstream.models


async def test_show_and_who_may(tmp_path: Path) -> None:
    """What the upstream knows of it; people by login and keys whose patterns let it in, on wide terminals beside it."""
    async with models_page(tmp_path, size=(160, 50)) as seat:
        page = seat.app.main.page
        assert isinstance(page, ModelsPage)
        page.table.select("m:up:qwen3:4b")
        await seat.sees("WHO MAY (1)", "ana@example.org")
        await seat.office.gate.member("ben@example.org", label="narrow", models=("qwen*",))
        await seat.sees("WHO MAY (2)", "narrow")
        await seat.press("enter")
        await seat.sees("qwen3:4b on up", "details.")
        await seat.press("escape", "a")
        await seat.sees("Who may use qwen3:4b", "ben@example.org", "pattern qwen*", "every model is allowed")
        assert "for others issue a new one (3, i)" in " ".join(seat.frame().split())
        await seat.press("escape")
        page.table.select("m:up:smollm2:135m")
        await seat.press("a")
        frame = await seat.sees("Who may use smollm2:135m", "ana@example.org")
        assert "ben@example.org" not in frame


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_the_details_of_an_upstream(tmp_path: Path, size: tuple[int, int]) -> None:
    """Enter on narrow terminals, beside the table on wide ones."""
    async with models_page(tmp_path, size=size) as seat:
        await seat.press("g")
        if size[0] < 140:
            await seat.press("enter")
        await seat.sees("address", "latency", "never probed (P)")


async def test_what_an_upstream_cannot_do_is_not_offered(tmp_path: Path) -> None:
    """Only an Ollama that answers takes a pull or a delete; the keys say why nothing happens elsewhere."""
    async with showcase(tmp_path, size=(160, 50)) as (app, pilot, _):
        await app.go_to("models")
        await until(lambda: "qwen3:4b" in frame_of(app))
        page = app.main.page
        assert isinstance(page, ModelsPage)
        for line, pulls, words in (
            ("u:gpu1", True, ""),
            ("m:gpu1:qwen3:4b", True, ""),  # and beside it who may use it
            ("u:gpu2", False, "fixed: it is no Ollama"),
            ("m:gpu2:qwen2.5-coder:32b", False, "fixed: it is no Ollama"),
            ("u:attic", False, "attic is down"),
        ):
            page.table.select(line)
            await pilot.pause()
            app.main.tick()
            await pilot.pause()
            if line == "m:gpu1:qwen3:4b":
                await until(lambda: re.search("joe@example.org +login, editor", frame_of(app)))
            assert ("f Pull" in frame_of(app)) == pulls, line
            assert ("D Delete" in frame_of(app)) == (pulls and line.startswith("m:")), line
            if not pulls:
                await pilot.press("f")
                await until(lambda words=words: words in frame_of(app))  # type: ignore[misc]


def test_a_pull_adds_up_its_layers() -> None:
    """Rate and time left over the last seconds; a layer is counted once however often it is told."""
    pull = Pull("m", None)
    assert (pull.state, pull.part) == ("pull", None)
    pull.take(PullProgress("manifest"), 0.0)
    for moment in range(5):
        pull.take(PullProgress("layer", "a", 1000, 100 * moment), float(moment))
    assert pull.state == "pull 40%"
    assert pull.rate == 100
    assert pull.words() == "6s left, 100B/s"
    pull.take(PullProgress("layer", "b", 1000, 0), 5.0)
    assert (pull.done, pull.total, pull.state) == (400, 2000, "pull 20%")
    pull.take(PullProgress("verifying"), 6.0)
    pull.problem = "disk full"
    assert (pull.state, pull.words()) == ("failed", "disk full")
