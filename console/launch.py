"""What `gatelodge` without a command does: looks at the terminal, sets up colours, runs the console, tidies up.

Rule: Textual is imported here and nowhere on a subcommand's way, and only after the environment says what it must. The
terminal is given back as it was, whatever ends the program.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType

DUMB = "this terminal (TERM={term}) cannot show the console; every one of its actions is a command: gatelodge --help"
NO_TERMINAL = "the console needs a terminal; every one of its actions is a command: gatelodge --help"


def why_not() -> str:
    """Why there can be no console here; empty where there can."""
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        return DUMB.format(term=term or "unset")
    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stderr__ and sys.__stderr__.isatty()):
        return NO_TERMINAL
    return ""


def prepare_environment() -> None:
    """What Textual reads when it is imported. The ANSI theme: sixteen colours, the terminal's own, few bytes."""
    os.environ["TEXTUAL_THEME"] = "ansi-dark"
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)  # where a shell exports them, they would hide every change of the terminal's size


def run(socket: Path, *, mouse: bool, slow: bool) -> int:
    """Show the console until it is quit; the exit code."""
    prepare_environment()
    gc.disable()  # nothing of what is imported is garbage: the collector would only look at it, again and again
    from console.app import Lodge

    _outlive_the_terminal()
    _tell_esc_from_alt()
    gc.freeze()
    gc.enable()
    app = Lodge(socket, slow=slow)

    def leave(number: int, _: FrameType | None) -> None:
        # From the loop: the driver gives the terminal back on its usual way out.
        loop = app._loop
        if loop is not None:
            loop.call_soon_threadsafe(lambda: app.exit(return_code=128 + number))

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    app.run(mouse=mouse)
    return app.return_code or 0


def _outlive_the_terminal() -> None:
    """Textual's writer dies with the terminal (SSH broke off), and its bounded queue then blocks whoever writes, for
    good: even the way out. Ours reads on and throws away, until it is told to stop."""
    from textual.drivers import linux_driver
    from textual.drivers._writer_thread import WriterThread

    class Writer(WriterThread):
        def run(self) -> None:
            try:
                super().run()
            except OSError:
                while self._queue.get() is not None:
                    pass

    linux_driver.WriterThread = Writer  # type: ignore[attr-defined]


def _tell_esc_from_alt() -> None:
    """Esc and a key that come as one are two keys: see `keyboard.py`."""
    from textual.drivers import linux_driver

    from console.keyboard import Keyboard

    linux_driver.XTermParser = Keyboard  # type: ignore[attr-defined]


def keep_traceback(error: BaseException | None) -> str:
    """Write where `error` came from to a 0600 file, without local variables; the sentence that names it."""
    if error is None:
        return "the console failed"
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix=f"gatelodge-console-{int(time.time())}-", suffix=".txt")  # 0600
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return f"the console failed: {type(error).__name__}"
    return f"the console failed ({type(error).__name__}); where: {name} (please report it)"
