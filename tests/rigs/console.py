"""The console in a test: the program itself under a pilot, against a whole daemon in the same loop; or on a real pty.

    async with open_seat(tmp_path) as seat:                      # a daemon, a scripted upstream, the console at 80x24
        upstream.next(stall_after(2, gate)); …                   # seat.office.gate, seat.upstream
        await seat.sees("ana@example.org")                       # until the frame holds these words
        await seat.press("c", "y")
        assert "cancelled" in seat.frame()

`frame()` is the screen as plain text, as a person would copy it. `Terminal` runs any program in tmux.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from textual.pilot import Pilot

from console.launch import prepare_environment

prepare_environment()

from console.app import Lodge  # noqa: E402 - after the environment that Textual reads
from tests.rigs.office import Office, open_office  # noqa: E402
from tests.rigs.scripted_upstream import ScriptedUpstream  # noqa: E402
from tests.rigs.until import until  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent


def frame_of(app: Lodge) -> str:
    """The screen in sight as plain text, a line each, without blanks at line ends."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    assert len(lines) <= height and width
    return "\n".join(strip.text.rstrip() for strip in lines)


@dataclass
class Seat:
    """A console before a daemon."""

    office: Office
    app: Lodge
    pilot: Pilot[None]

    @property
    def upstream(self) -> ScriptedUpstream:
        """The scripted upstream behind the daemon."""
        return self.office.gate.upstream

    def frame(self) -> str:
        """The screen as plain text."""
        return frame_of(self.app)

    def line(self, words: str) -> str:
        """The first line of the frame that holds these words."""
        found = [line for line in self.frame().split("\n") if words in line]
        assert found, f"{words!r} is not on the screen:\n{self.frame()}"
        return found[0]

    async def sees(self, *words: str, timeout: float = 15.0) -> str:
        """Wait until the frame holds all of these words; the frame."""
        try:
            await until(lambda: all(word in self.frame() for word in words), timeout=timeout)
        except AssertionError:
            raise AssertionError(f"{words!r} did not come:\n{self.frame()}") from None
        return self.frame()

    async def loses(self, words: str, timeout: float = 15.0) -> str:
        """Wait until the frame no longer holds these words; the frame."""
        try:
            await until(lambda: words not in self.frame(), timeout=timeout)
        except AssertionError:
            raise AssertionError(f"{words!r} stayed:\n{self.frame()}") from None
        return self.frame()

    async def press(self, *keys: str) -> None:
        """Press keys, each when the one before was dealt with."""
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Press the keys of a text."""
        names = {" ": "space", ":": "colon", "/": "slash", "@": "at", ".": "full_stop", "-": "minus", "_": "underscore"}
        await self.pilot.press(*(names.get(character, character) for character in text))


@asynccontextmanager
async def console_at(
    socket: Path, *, size: tuple[int, int] = (80, 24), **given: Any
) -> AsyncIterator[tuple[Lodge, Pilot[None]]]:
    """The console on this socket, whether or not a daemon listens there."""
    app = Lodge(socket, **given)
    async with app.run_test(size=size, notifications=True) as pilot:
        yield app, pilot


@asynccontextmanager
async def open_seat(
    tmp_path: Path, *, size: tuple[int, int] = (80, 24), clock: Callable[[], float] | None = None, **flags: Any
) -> AsyncIterator[Seat]:
    """A daemon over a scripted upstream and a console that is connected; `flags` as for `gatehouse`."""
    given = {} if clock is None else {"now": clock}
    async with open_office(tmp_path, **flags) as office:
        async with console_at(office.socket, size=size, **given) as (app, pilot):
            await until(lambda: app.link.is_live, what="the console is connected")
            app.main.tick()
            await pilot.pause()
            yield Seat(office, app, pilot)


class Terminal:
    """A program in a tmux of its own: a real pty of any size and TERM. Skipped by the caller where there is no tmux.

    with Terminal(["gatelodge", "--socket", path], folder, size=(80, 24)) as terminal: await terminal.sees("LIVE")
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        size: tuple[int, int] = (80, 24),
        term: str = "xterm-256color",
        environment: dict[str, str] | None = None,
    ) -> None:
        self._socket = str(folder / "tmux")
        self._command = command
        self._size = size
        self._environment = {"TERM": term, "PYTHONPATH": str(ROOT)} | (environment or {})

    def tmux(self, *arguments: str) -> str:
        """Ask this tmux."""
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments], capture_output=True, text=True, timeout=20
        )
        if done.returncode:
            raise RuntimeError(f"tmux {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def __enter__(self) -> Terminal:
        words = ["env", *(f"{name}={value}" for name, value in self._environment.items()), *self._command]
        width, height = self._size
        # The shell behind stays: what the program leaves on the terminal can be looked at.
        shell = f"{shlex.join(words)}; echo left with $?; exec sleep 1000"
        self.tmux("-u", "new-session", "-d", "-x", str(width), "-y", str(height), shell)
        self.tmux("set", "-g", "escape-time", "0")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, timeout=20)

    def frame(self, *, colours: bool = False) -> str:
        """What stands on the terminal now."""
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def press(self, *keys: str) -> None:
        """Keys by tmux's names (`Enter`, `Escape`, `c`)."""
        self.tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Another size of the window."""
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    @property
    def pid(self) -> int:
        """The process of the shell in the pane."""
        return int(self.tmux("display-message", "-p", "#{pane_pid}"))

    async def sees(self, *words: str, timeout: float = 30.0) -> str:
        """Wait until the terminal shows all of these words; what it shows."""

        async def there() -> bool:
            frame = await asyncio.to_thread(self.frame)
            return all(word in frame for word in words)

        try:
            await until(there, timeout=timeout)
        except AssertionError:
            raise AssertionError(f"{words!r} did not come:\n{self.frame()}") from None
        return self.frame()


def gatelodge(socket: Path, *options: str) -> list[str]:
    """The command line of the console on this socket, run from this checkout."""
    import sys

    return [sys.executable, "-m", "console", "--socket", str(socket), *options]


def has_tmux() -> bool:
    """Whether there is a tmux to run in."""
    return any(os.access(Path(folder) / "tmux", os.X_OK) for folder in os.environ.get("PATH", "").split(os.pathsep))
