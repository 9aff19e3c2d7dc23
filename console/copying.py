"""Copying over SSH: inside tmux through tmux, which knows the way to the outer terminal; otherwise with OSC 52.

Rule: nobody can know whether a terminal obeyed OSC 52; what is said says only what was done, and wherever something can
be copied it can be saved to a file, too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.app import App

PATIENCE = 3.0  # seconds for tmux


async def copy(app: App[Any], text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Copy `text`; how it was done, in a sentence."""
    if environment.get("TMUX") and await _through_tmux(text):
        return "copied through tmux"
    app.copy_to_clipboard(text)
    return "sent to the terminal's clipboard (OSC 52); if it takes none, save it"


async def _through_tmux(text: str) -> bool:
    """Whether tmux took it: into its buffer, and with -w on to the clipboard of the terminal it runs in."""
    try:
        process = await asyncio.create_subprocess_exec(
            "tmux",
            "load-buffer",
            "-w",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(PATIENCE):
            await process.communicate(text.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
    return process.returncode == 0
