"""The line behind `:`: every command of `gatelodge`, with the same words, completed the same way, shown in a box.

A command runs as a process of its own, as in a shell: it can neither hold up nor break the screen, and says exactly
what it says there. Rule: what destroys is asked about here, as the process has nobody to ask; then it gets `--yes`. A
secret that it tells is shown in the box for secrets, as a form's is.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import ShellComplete

from console.palette import BAD
from console.screens import TABS
from console.screens.secret_boxes import show_told, telling, told_in
from console.tables import WIDTH

if TYPE_CHECKING:
    from console.app import Lodge

LONGEST_OUTPUT = 1024 * 1024  # bytes of what a command printed that are shown
PATIENCE = 120.0  # seconds


class CommandLine:
    """Completes and runs what is typed behind `:`."""

    def __init__(self, lodge: Lodge) -> None:
        self._lodge = lodge

    async def complete(self, line: str) -> list[str]:
        """The lines that `line` may become with its last word whole. The daemon is asked for names."""
        return await asyncio.to_thread(completions, line, str(self._lodge.link.path))

    async def run(self, line: str) -> None:
        """Do what was typed, and show what it said."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            self._lodge.say(f"not understood: {error}", "bad")
            return
        if words in (["q"], ["quit"]):
            await self._lodge.action_quit()
            return
        if len(words) == 1 and any(tab.name == words[0] for tab in TABS):
            await self._lodge.go_to(words[0])
            return
        command = find_command(words)
        if command is None:
            self._lodge.say(f"there is no command {words[0]!r}; Tab shows them all", "bad")
            return
        if _asks(command) and not {"--yes", "-y"} & set(words):
            if not await self._lodge.ask_yes(f"Really: {shlex.join(words)}?"):
                return
            words.append("--yes")
        kind = telling(words)
        code, printed = await self._output([*words, *(["--json"] if kind and "--json" not in words else [])])
        if code == 0 and kind is not None and (told := told_in(printed, kind)) is not None:
            self._lodge.say(await show_told(self._lodge, told), "good")
            return
        text = printed.decode("utf-8", "replace").rstrip("\n")
        if "\n" not in text and len(text) < 200:
            self._lodge.say(text or "done", "good" if code == 0 else "bad")
        else:
            title = f": {shlex.join(words)}" + ("" if code == 0 else f"  (failed, {code})")
            await self._lodge.show_text(title, [text if code == 0 else (text, BAD)])

    async def _output(self, words: list[str]) -> tuple[int, bytes]:
        size = self._lodge.size
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing of the folder one happens to be in
            "-m",
            "console",
            "--socket",
            str(self._lodge.link.path),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {WIDTH: str(size.width - 2), "NO_COLOR": "1"},
        )
        assert process.stdout is not None
        printed = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while len(printed) < LONGEST_OUTPUT and (piece := await process.stdout.read(65536)):
                    printed += piece
        except TimeoutError:
            printed += b"\n(it took too long and was ended)"
        if process.returncode is None:
            try:
                async with asyncio.timeout(1.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
        return await process.wait(), printed


def completions(line: str, socket: str) -> list[str]:
    """As `CommandLine.complete`; blocks while the daemon is asked."""
    from console.__main__ import cli

    before, _, last = line.rpartition(" ")
    try:
        arguments = shlex.split(before)
    except ValueError:
        return []
    completer = ShellComplete(cli, {"obj": None}, "gatelodge", "_GATELODGE_COMPLETE")
    asked = ["--socket", socket, *arguments]
    # Where no value is known, the options are what can come next.
    found = completer.get_completions(asked, last) or ([] if last else completer.get_completions(asked, "--"))
    words = {item.value for item in found if item.type == "plain"}
    if any(item.type in ("file", "dir") for item in found):
        words |= _files(last)
    if not arguments:
        words |= {tab.name for tab in TABS if tab.name.startswith(last)}
    return [f"{before} {word}" if before else word for word in sorted(words)]


def _files(beginning: str) -> set[str]:
    """The names in the folder that `beginning` leads to; those that need no quotation marks."""
    folder, _, _ = beginning.rpartition("/")
    place = Path(f"{folder}/" if "/" in beginning else ".")
    try:
        names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in place.iterdir()]
    except OSError:
        return set()
    paths = {f"{folder}/{name}" if "/" in beginning else name for name in names}
    return {path for path in paths if path.startswith(beginning) and shlex.quote(path) == path}


def find_command(words: list[str]) -> click.Command | None:
    """The command that `words` begin with; None where there is none."""
    from console.__main__ import cli

    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.commands.get(word)
        if found is None:
            return None if command is cli else command
        command = found
    return command if command is not cli else None


def _asks(command: click.Command) -> bool:
    return any(parameter.name == "yes" for parameter in command.params)
