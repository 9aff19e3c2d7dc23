"""A program on a pty of its own: every byte that it sends to its terminal, and what it costs.

async with PtyProgram(gatelodge(socket), size=(80, 24)) as program:
    await program.shows(b"LIVE")
    program.press("2"); await program.settles()
    sent = program.take()                                   # what came since the last time
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

from tests.rigs.console import ROOT
from tests.rigs.until import until


class PtyProgram:
    """Runs from the checkout; killed at the end. Reads on the running event loop."""

    def __init__(
        self, command: Sequence[str], *, size: tuple[int, int] = (80, 24), environment: dict[str, str] | None = None
    ) -> None:
        self.size = size
        self.sent = bytearray()  # everything since `take`
        self.count = 0  # bytes in all
        self.reads = 0
        self._command = command
        self._environment = {"TERM": "xterm-256color", "COLORTERM": "", "TMUX": ""} | (environment or {})
        self._last = 0.0
        self.started = 0.0  # monotonic

    async def __aenter__(self) -> PtyProgram:
        self._terminal, inner = pty.openpty()
        width, height = self.size
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.started = self._last = time.monotonic()
        self.process = subprocess.Popen(
            self._command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=ROOT,
            env=os.environ | self._environment,
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self._terminal, False)
        asyncio.get_running_loop().add_reader(self._terminal, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)

    def _read(self) -> None:
        try:
            piece = os.read(self._terminal, 1 << 20)
        except OSError:  # nobody has it open any more
            asyncio.get_running_loop().remove_reader(self._terminal)
            return
        self.sent += piece
        self.count += len(piece)
        self.reads += 1
        self._last = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def press(self, keys: str) -> None:
        """Send keys as a terminal does."""
        os.write(self._terminal, keys.encode())

    def take(self) -> bytes:
        """What it sent since the last time."""
        sent, self.sent = bytes(self.sent), bytearray()
        return sent

    async def shows(self, words: bytes, *, timeout: float = 30.0) -> None:
        """Wait until these bytes came, since `take`."""
        await until(lambda: words in self.sent or not self.is_running, timeout=timeout, what=f"{words!r} is sent")
        assert words in self.sent, bytes(self.sent[-2000:]).decode("utf-8", "replace")

    async def settles(self, quiet: float = 0.04) -> None:
        """Wait until nothing came for a moment: a frame is out. The tests that use it would only see less without."""
        reads = self.reads
        give_up = time.monotonic() + 0.5
        # Silence is no event that one could wait for.
        while time.monotonic() < give_up and (self.reads == reads or time.monotonic() - self._last < quiet):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
