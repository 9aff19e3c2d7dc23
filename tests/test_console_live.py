"""The Live page under a pilot, against a real daemon: see, open, filter, pause, cancel, lose it and be back."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common import protocol
from common.protocol import CancelRequest
from console.screens.exchange import ExchangeScreen
from console.screens.table_page import TablePage
from tests.rigs.console import Seat, console_at, frame_of, open_seat
from tests.rigs.office import open_office
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after


@asynccontextmanager
async def busy(tmp_path: Path, requests: int = 3, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Seat]:
    """A console that sees `requests` requests: two that run and stand still, the others in the line."""
    async with open_seat(tmp_path, size=size) as seat:
        gate = asyncio.Event()
        seat.upstream.default = stall_after(2, gate)
        clients = []
        for number in range(requests):
            clients.append(asyncio.create_task(seat.office.gate.chat(stream=True)))
            await until(lambda wanted=number + 1: len(seat.app.link.mirror.rows["live"]) == wanted)
        await seat.sees(f"{requests} of {requests}")
        yield seat
        gate.set()
        await asyncio.gather(*clients)


async def test_first_it_says_that_nothing_runs(tmp_path: Path) -> None:
    """With a user there, an empty list is a quiet gate and not a first start."""
    async with open_seat(tmp_path) as seat:
        frame = await seat.sees("● LIVE", "Nothing runs and nothing waits.", "[1 Live]", "0 of 0", "upstreams 1/1")
        assert all(len(line) <= 80 for line in frame.split("\n"))
        assert frame.rstrip().endswith("? Help  q Quit")


async def test_what_runs_and_what_waits_is_seen(tmp_path: Path) -> None:
    """State as a word, tokens, place in the line; running ones stand above the queue, which keeps its order."""
    async with busy(tmp_path, 4) as seat:
        frame = await seat.sees("q#1", "q#2", "run 2/2", "queue 2")
        rows = [line for line in frame.split("\n") if "smollm2" in line]
        assert [row.split()[0].lstrip(">") for row in rows] == ["run", "run", "q#1", "q#2"]
        assert "ana@exam" in rows[0]
        assert "127.0.0.1" in rows[0]


async def test_cancel_asks_names_its_target_and_ends_that_one(tmp_path: Path) -> None:
    """`c` and anything but `y` does nothing; `c` `y` frees the upstream, and the client is told."""
    async with busy(tmp_path) as seat:
        target = seat.app.main.page.table.cursor_id  # type: ignore[union-attr]
        await seat.press("c")
        await seat.sees(f"Cancel req {target[:8]} of ana@example.org", "[N] no")
        await seat.press("enter")
        await seat.loses("Cancel req")
        assert not any(record["verb"] == "cancel" for record in seat.office.recorded())
        await seat.press("c", "y")
        await seat.sees("is cancelled", "cancelled ")
        await until(lambda: not any(row for row in seat.app.link.mirror.rows["live"] if row == target))
        record = await seat.office.gate.audit(target)
        assert record.state == "cancelled_by_admin"


async def test_the_question_is_about_the_row_of_the_key_press(tmp_path: Path) -> None:
    """Between `c` and `y` the row ended and others took its place: none of them is cancelled."""
    async with busy(tmp_path) as seat:
        target = seat.app.main.page.table.cursor_id  # type: ignore[union-attr]
        await seat.press("c")
        await seat.sees("Cancel req")
        await seat.office.ask(protocol.CANCEL, CancelRequest(target))
        await until(lambda: target not in seat.app.link.mirror.rows["live"])
        await seat.press("y")
        await seat.loses("Cancel req")
        frame = await seat.sees("had just ended")
        assert "is cancelled" not in frame and "had just ended" in frame and "gatelodge live" not in frame
        assert len(seat.app.link.mirror.rows["live"]) == 2


async def test_the_cursor_stays_on_its_request(tmp_path: Path) -> None:
    """Whatever order is chosen, and when another row goes."""
    async with busy(tmp_path, 4) as seat:
        await seat.press("j", "j")
        table = seat.app.main.page.table  # type: ignore[union-attr]
        target, first = table.cursor_id, table.ids[0]
        await seat.press("s", "s", "S")
        assert table.cursor_id == target
        await seat.office.ask(protocol.CANCEL, CancelRequest(first))
        await until(lambda: first not in seat.app.link.mirror.rows["live"])
        await seat.sees("cancelled")
        assert table.cursor_id == target
        assert [line for line in seat.frame().split("\n") if line.startswith(">")]


async def test_no_key_is_taken_for_a_row_that_has_just_slid_under_the_cursor(tmp_path: Path) -> None:
    """Neither what changes nor what only shows or leads on: what is opened is on record as seen."""
    keys = {"live": "c enter u a", "users": "d enter", "keys": "R enter u l"}
    keys |= {"limits": "e enter", "models": "D enter a"}
    async with busy(tmp_path, 1, size=(100, 30)) as seat:
        for name, pressed in keys.items():
            page = await seat.app.go_to(name)
            assert isinstance(page, TablePage)
            await until(lambda page=page: page.chosen is not None)
            if name == "models":  # the upstream stands first
                await seat.sees("smollm2")
                await seat.press("j")
            page._slid = seat.app.monotonic() + 3600
            for key in pressed.split():
                seat.app.say("")
                await seat.press(key)
                await seat.sees("the row under the cursor has just gone")
                assert seat.app.main.page is page and len(seat.app.screen_stack) == 1
                assert not seat.app.prompt.is_asking
        page._slid = 0.0
        await seat.press("enter")
        await seat.sees("Esc Back")
        assert "live show" not in {record["verb"] for record in seat.office.recorded()}


async def test_a_filter_narrows_and_says_so_when_nothing_is_left(tmp_path: Path) -> None:
    """While one types; Esc in the line takes it back, Esc on the page drops it."""
    async with busy(tmp_path) as seat:
        await seat.press("slash")
        await seat.type("q#")
        await seat.sees("1 of 3", "filter 'q#'")
        await seat.type("zz")
        await seat.sees("None of 3 requests matches 'q#zz'.")
        await seat.press("enter")
        await seat.sees("? Help", "filter 'q#zz'")
        await seat.press("escape")
        await seat.sees("3 of 3")


async def test_pause_holds_what_is_shown(tmp_path: Path) -> None:
    """Rows stand still while one reads; the head goes on."""
    async with busy(tmp_path) as seat:
        await seat.press("p")
        await seat.sees("PAUSED")
        ids = list(seat.app.link.mirror.rows["live"])
        await seat.office.ask(protocol.CANCEL, CancelRequest(ids[0]))
        await seat.sees("queue 0")
        assert "q#1" in seat.frame()
        await seat.press("p")
        await seat.loses("q#1")


async def test_an_exchange_is_read_as_it_streams(tmp_path: Path) -> None:
    """What was asked and answered first, the request below; then what comes. That it was looked at is in the audit.
    What has ended is not offered to be cancelled, but its record is; Esc goes back."""
    async with open_seat(tmp_path, limits__requests_per_hour=100) as seat:
        gate = asyncio.Event()
        seat.upstream.default = stall_after(2, gate)
        client = asyncio.create_task(seat.office.gate.chat(stream=True))
        await seat.sees("1 of 1")
        await seat.press("enter")
        frame = await seat.sees("PROMPT", "Why?", "ANSWER", "w0 w1", "limit ", "timings", "c Cancel")
        lines = frame.split("\n")
        assert lines[3].startswith("req ") and "ana@example.org · smollm2:135m on up" in lines[4]
        assert [lines[5], lines[6]] == [" PROMPT", " Why?"]
        assert "first byte +" in seat.line("timings")
        gate.set()
        await client
        frame = await seat.sees("ENDED ok", "Enter Its record")
        assert "Cancel" not in frame
        await seat.press("c")
        assert not seat.app.prompt.is_asking
        assert any(record["verb"].startswith("live/") or "live" in record["verb"] for record in seat.office.recorded())
        await seat.press("enter")
        await seat.sees("log ", "RECORD", "Why?")
        await seat.press("escape")
        await seat.sees("[1 Live]")
        late = ExchangeScreen(next(iter(seat.app.link.mirror.rows["ended"])))  # as by an Enter that came too late
        seat.app.push_screen(late)
        await seat.sees("log ", "RECORD", "Why?", "Esc Back")
        await seat.press("escape")
        await seat.sees("[1 Live]")


async def test_the_daemon_is_lost_and_comes_back(tmp_path: Path) -> None:
    """Rows stay and are called stale, changes are blocked; when it is back, filter and page are as they were."""
    async with open_office(tmp_path) as office:
        socket = office.socket
        async with console_at(socket) as (app, pilot):
            await until(lambda: app.link.is_live)
            seat = Seat(office, app, pilot)
            gate = asyncio.Event()
            office.gate.upstream.default = stall_after(1, gate)
            client = asyncio.create_task(office.gate.chat(stream=True))
            await seat.sees("1 of 1")
            await seat.press("slash")
            await seat.type("ana")
            await seat.press("enter")
            await seat.sees("filter 'ana'")
            server = office.gate.house.hub
            server.close("the daemon is stopping")
            await seat.sees("STALE", "trying again", "ana@exam")
            await seat.press("c", "y")
            await seat.sees("nothing is changed while the daemon is away")
            server._closed = ""  # it takes watchers again, as a daemon that was started anew does
            await seat.press("r")
            await seat.sees("● LIVE", "filter 'ana'", "1 of 1")
            gate.set()
            await client


def denied(*_: object, **__: object) -> None:
    """As a socket that this account may not open."""
    raise PermissionError(errno.EACCES, "Permission denied")


async def test_never_connected_it_says_why_and_counts_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page and no figure is shown, but what to do; and it connects by itself when the daemon starts."""
    socket = tmp_path / "data" / "gatelodge.sock"
    tmp_path.chmod(0o750)
    monkeypatch.setattr("common.paths.connect", denied)
    async with console_at(socket) as (app, pilot):
        await until(lambda: "NO ACCESS" in frame_of(app))
        await until(lambda: all(words in frame_of(app) for words in ("may not use", "for the group", "usermod -aG")))
        assert "run 0/0" not in frame_of(app) and "q Quit" in frame_of(app)
        monkeypatch.undo()
        app.link.retry_now()
        await until(lambda: "NO DAEMON" in frame_of(app))
        await until(lambda: "no socket at" in frame_of(app) and "rying again in" in frame_of(app))
        async with open_office(tmp_path) as office:
            seat = Seat(office, app, pilot)
            await seat.press("r")
            await seat.sees("● LIVE", "Nothing runs")


async def test_another_release_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting would not help; which program to use does."""
    monkeypatch.setattr("console.client.PROTOCOL_VERSION", 99)
    async with open_office(tmp_path) as office, console_at(office.socket) as (app, _):
        await until(lambda: "different releases" in frame_of(app))
        assert "version 99" in frame_of(app)


@pytest.mark.parametrize("size", [(59, 24), (80, 14), (20, 5)])
def test_too_small_a_terminal_is_told(tmp_path: Path, size: tuple[int, int]) -> None:
    """In words, and nothing else is drawn."""

    async def look() -> None:
        async with open_seat(tmp_path, size=size) as seat:
            await seat.sees("Too small.")
            assert "LIVE" not in seat.frame()

    asyncio.run(look())


async def test_wide_terminals_show_details_tall_ones_plots(tmp_path: Path) -> None:
    """From 140 columns and from 45 lines; not below."""
    async with busy(tmp_path, 1, size=(140, 45)) as seat:
        frame = await seat.sees("DETAILS", "tokens/s", "first byte")
        assert all(len(line) <= 140 for line in frame.split("\n"))
        await seat.office.ask(protocol.CANCEL, CancelRequest(next(iter(seat.app.link.mirror.rows["live"]))))
        await seat.sees(" because ", "cancelled by an administrator")
        assert seat.line("(cancelled_by_admin)").endswith("cancelled (cancelled_by_admin)")
    async with busy(tmp_path / "small", 1, size=(139, 44)) as seat:
        assert "DETAILS" not in seat.frame()
        assert "highest" not in seat.frame()


async def test_the_mouse_moves_sorts_and_opens(tmp_path: Path) -> None:
    """A click takes the cursor to a row, on a title orders by it; twice opens; the wheel moves."""
    async with busy(tmp_path, 4) as seat:
        table = seat.app.main.page.table  # type: ignore[union-attr]
        await seat.pilot.click(table, offset=(5, 3))
        await until(lambda: table.cursor_id == table.ids[2])
        await seat.pilot.click(table, offset=(seat.line("USER").index("USER") + 1, 0))
        await seat.sees("sort USER▲")
        await seat.pilot.click(table, offset=(5, 1), times=2)
        await seat.sees("PROMPT", "Esc Back")
        await seat.press("escape")
        await seat.sees("[1 Live]")


async def test_what_is_stale_does_not_grow_older(tmp_path: Path) -> None:
    """Elapsed times stand where they were when the daemon was last heard: nobody knows more."""
    async with busy(tmp_path, 1) as seat:
        link = seat.app.link
        seat.office.gate.house.hub.close("gone")
        await seat.sees("STALE")
        heard = link.heard_at
        link.heard_at = heard - 3600  # an hour without a word
        seat.app.main.tick()
        assert "1h00m" in seat.line("STALE")
        assert " 59m" not in seat.line("smollm2")
        assert "1h" not in seat.line("smollm2")


async def test_nobody_looks_it_draws_once_a_second(tmp_path: Path) -> None:
    """A terminal that lost the focus costs a quarter; with the focus it is quick again."""
    async with open_seat(tmp_path) as seat:
        seat.app.looked_at(False)
        await seat.sees("1 Hz")
        seat.app.looked_at(True)
        await seat.sees("4 Hz")
        await seat.press("2")  # where nothing moves by itself, no pace is told
        await seat.sees("[2 Users]", "1 of 1")
        assert " Hz" not in seat.frame()


async def test_help_tells_the_keys_in_force(tmp_path: Path) -> None:
    """Those of the page too; from the bindings, so that it cannot be out of date."""
    async with open_seat(tmp_path, size=(80, 50)) as seat:
        await seat.press("question_mark")
        frame = await seat.sees("Live", "Cancel", "Details", "Everywhere", "Command", "Quit")
        assert "Esc" in frame
        await seat.press("escape")
        await seat.sees("[1 Live]")


async def test_a_command_is_typed_completed_and_run(tmp_path: Path) -> None:
    """The words of the command line, with Tab; its answer in a box; what destroys is asked about first."""
    async with open_seat(tmp_path) as seat:
        await seat.press("colon")
        await seat.type("users lis")
        await seat.press("tab")
        await until(lambda: seat.app.prompt.entry.value == "users list ")
        await seat.press("enter")
        await seat.sees("EMAIL", "ana@example.org", ": users list", timeout=20)
        await seat.press("escape")
        await seat.press("colon")
        await seat.type("users d")
        await seat.press("tab")
        await seat.sees("delete", "disable")
        await seat.press("tab", "tab")
        await until(lambda: seat.app.prompt.entry.value == "users disable")
        await seat.press("escape")
        await seat.press("colon")
        await seat.type("nonsense")
        await seat.press("enter")
        await seat.sees("there is no command 'nonsense'")


async def test_a_secret_that_a_command_tells_is_shown_in_the_box_for_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be copied, or saved for oneself alone; with Esc it is gone, and stands on no page of text."""
    monkeypatch.chdir(tmp_path)
    async with open_seat(tmp_path) as seat:

        async def run(command: str) -> None:
            await seat.press("colon")
            await until(lambda: seat.app.prompt.entry.has_focus)
            seat.app.prompt.entry.value = command
            await seat.press("enter")

        await run("keys issue ana@example.org --label ci")
        await seat.sees("The key ", "Shown this once", "c copy", "s save to a file", "close, for good", timeout=20)
        await seat.press("s")
        await seat.sees("saved to")
        file = next(tmp_path.glob("gatelodge-key-*.txt"))
        secret = file.read_text().strip()
        assert secret in seat.frame() and file.stat().st_mode & 0o777 == 0o600
        await seat.press("escape")
        await seat.sees("is issued")
        assert secret not in seat.frame() and len(seat.app.screen_stack) == 1
        await run("users add li@example.org")
        await seat.sees("One-time password of li@example.org", "close, for good", timeout=20)
        await seat.press("escape")
        await seat.sees("li@example.org is created")
        await run("users reset-password li@example.org")
        await seat.sees("[y] yes")
        await seat.press("y")
        await seat.sees("One-time password of li@example.org", "close, for good", timeout=20)
        await seat.press("escape")
        await run("users add")
        await seat.sees("Missing argument", timeout=20)


async def test_foreign_words_are_only_words(tmp_path: Path) -> None:
    """Markup, actions and escapes in a client's label neither crash, act nor reach the terminal."""
    async with open_seat(tmp_path, size=(160, 30)) as seat:
        gate = asyncio.Event()
        seat.upstream.default = stall_after(1, gate)
        headers = {"User-Agent": "[/] [@click=app.quit]x[/]", "X-Gatelodge-Client": "[/red]\u202eevil"}
        _, key = await seat.office.gate.member("ana2@example.org", label="[@click=app.quit]x[/]")
        client = asyncio.create_task(
            seat.office.gate.post(
                "/api/chat",
                {"model": "smollm2:135m", "messages": [{"role": "user", "content": "[/] \x1b[2J\u202e模型"}]},
                key=key,
                headers={"User-Agent": headers["User-Agent"]},
            )
        )
        await seat.sees("[@click=app.quit]")
        await seat.press("enter")
        await seat.sees("[/] \\x1b[2J\\u202e模型")
        gate.set()
        await client
        await seat.press("escape")
        assert seat.app.is_running
