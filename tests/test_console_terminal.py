"""The console on a real terminal (tmux): it starts, is resized, loses the daemon, and gives the terminal back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from console import launch
from tests.rigs.console import ROOT, Terminal, gatelodge, has_tmux
from tests.rigs.office import open_office
from tests.rigs.until import until

pytestmark = pytest.mark.skipif(not has_tmux(), reason="needs tmux")


def console_process(terminal: Terminal) -> int:
    """The console's process: the child of the shell in the pane."""
    children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split()
    return int(children[0])


async def test_it_starts_follows_the_size_and_quits(tmp_path: Path) -> None:
    """80x24, too small, back, wide; `q` leaves nothing of it on the terminal."""
    async with open_office(tmp_path) as office:
        exported = {"COLUMNS": "80", "LINES": "24"}  # as some shells do; the terminal knows better
        with Terminal(gatelodge(office.socket), tmp_path, environment=exported) as terminal:
            frame = await terminal.sees("● LIVE", "Nothing runs", "q Quit")
            assert "[1 Live]" in frame
            terminal.resize(50, 10)
            await terminal.sees("Too small.", "terminal is 50x10")
            terminal.resize(150, 50)
            await terminal.sees("● LIVE", "tokens/s")
            terminal.press("?")
            await terminal.sees("Esc Back")
            terminal.press("Escape", "2")  # at once, as from afar
            await terminal.sees("[2 Users]")
            terminal.press("q")
            await terminal.sees("left with 0")


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("\x1b2", ["escape", "2"]),
        ("\x1b/", ["escape", "slash"]),
        ("\x1bj", ["escape", "j"]),
        ("\x1bG", ["escape", "G"]),
        ("\x1b\x1b2", ["escape", "escape", "2"]),
        ("\x1b[A2", ["up", "2"]),
        ("\x1bOP", ["f1"]),
        ("\x1bb", ["ctrl+left"]),
        ("\x1b\x7f", ["ctrl+w"]),
    ],
)
def test_an_esc_and_the_key_behind_it_are_two_keys(sent: str, keys: list[str]) -> None:
    """However they arrive; what terminals send for other keys stays one key."""
    from textual import events

    from console.keyboard import Keyboard, behind_an_esc

    pressed: list[str] = []
    for event in Keyboard().feed(sent):
        assert isinstance(event, events.Key)
        behind = behind_an_esc(event)
        pressed += [event.key] if behind is None else ["escape", behind.key]
    assert pressed == keys


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_gives_the_terminal_back(tmp_path: Path, number: signal.Signals) -> None:
    """The shell's screen is there again, its modes are as before, and the exit code names the signal."""
    async with open_office(tmp_path) as office:
        with Terminal(gatelodge(office.socket), tmp_path) as terminal:
            await terminal.sees("● LIVE")
            os.kill(console_process(terminal), number)
            frame = await terminal.sees(f"left with {128 + number}")
            assert "LIVE" not in frame
            assert (
                terminal.tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}") == "0 0 1\n"
            )


async def test_a_connection_that_drops_ends_it(tmp_path: Path) -> None:
    """The terminal is gone altogether, as when SSH breaks off: no console stays behind and spins."""
    async with open_office(tmp_path) as office:
        with Terminal(gatelodge(office.socket), tmp_path) as terminal:
            await terminal.sees("● LIVE")
            process = Path(f"/proc/{console_process(terminal)}")
            terminal.tmux("kill-server")
            await until(lambda: not process.exists(), timeout=20)


@pytest.mark.parametrize(
    ("term", "environment"), [("screen", {}), ("linux", {}), ("xterm-256color", {"NO_COLOR": "1"})], ids=str
)
async def test_every_terminal_shows_the_same_words(tmp_path: Path, term: str, environment: dict[str, str]) -> None:
    """State is a word wherever colours are few, or none: under NO_COLOR not one is sent."""
    async with open_office(tmp_path) as office:
        with Terminal(gatelodge(office.socket), tmp_path, term=term, environment=environment) as terminal:
            await terminal.sees("● LIVE", "Nothing runs", "? Help")
            if environment:
                # 30-37, 38, 39 … as parameters of SGR are colours; bold, dim and reverse are not.
                sent = terminal.frame(colours=True).split("\x1b[")[1:]
                codes = {code for piece in sent for code in piece.split("m")[0].split(";")}
                assert not {code for code in codes if (code.isdigit() and 30 <= int(code) <= 38) or code in ("48",)}


async def test_without_the_mouse_the_terminal_keeps_it(tmp_path: Path) -> None:
    """--no-mouse: text can be marked as in any other program."""
    async with open_office(tmp_path) as office:
        with Terminal(gatelodge(office.socket, "--no-mouse", "--slow"), tmp_path) as terminal:
            await terminal.sees("● LIVE", "1 Hz")
            assert terminal.tmux("display-message", "-p", "#{mouse_any_flag}") == "0\n"


def test_a_failure_leaves_a_private_file_without_local_variables() -> None:
    """What happened can be reported; whose prompt was in a variable cannot be read from it."""
    try:
        prompt = "a secret prompt"
        raise RuntimeError("it broke")
    except RuntimeError as error:
        sentence = launch.keep_traceback(error)
        assert prompt not in sentence
    file = Path(next(word for word in sentence.split() if word.endswith(".txt")))
    try:
        assert file.stat().st_mode & 0o777 == 0o600
        text = file.read_text()
        assert "it broke" in text
        assert "test_a_failure_leaves_a_private_file" in text
    finally:
        file.unlink()


async def test_a_bug_gives_the_terminal_back_and_names_the_file(tmp_path: Path) -> None:
    """One line on the shell's screen instead of a page of somebody's data."""
    script = tmp_path / "broken.py"
    script.write_text(
        "from console import launch\nlaunch.prepare_environment()\n"
        "import console.screens.live as live\n"
        "def broken(self):\n    prompt = 'somebodys prompt'\n    raise RuntimeError('a bug')\n"
        "live.LivePage.rows = broken\n"
        "from console.__main__ import main\nmain()\n"
    )
    async with open_office(tmp_path) as office:
        command = [sys.executable, str(script), "--socket", str(office.socket)]
        with Terminal(command, tmp_path, environment={"TMPDIR": str(tmp_path)}) as terminal:
            frame = await terminal.sees("left with 1")
            assert "the console failed (RuntimeError)" in frame.replace("\n", "")
            assert "somebodys" not in frame
            (file,) = tmp_path.glob("gatelodge-console-*.txt")
            assert "somebodys" not in file.read_text().replace("prompt = 'somebodys prompt'", "")
            assert "a bug" in file.read_text()


def test_no_subcommand_imports_textual() -> None:
    """A command starts quickly; only the console pays for the console."""
    code = "import sys, console.__main__; sys.exit('textual' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


async def test_copying_goes_through_tmux(tmp_path: Path) -> None:
    """Inside tmux its buffer has it, however the outer terminal is set up."""
    from console import copying

    with Terminal(["sleep", "100"], tmp_path) as terminal:
        environment = {"TMUX": f"{tmp_path / 'tmux'},1,0"}
        os.environ["TMUX"] = environment["TMUX"]
        try:
            said = await copying.copy(None, "glk-secret", environment)  # type: ignore[arg-type]
        finally:
            del os.environ["TMUX"]
        assert "tmux" in said
        assert await asyncio.to_thread(terminal.tmux, "show-buffer") == "glk-secret"
