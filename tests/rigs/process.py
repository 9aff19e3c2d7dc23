"""The daemon as a process of its own, so that it can be killed: `python -m daemon` over a data folder.

Its log is read as JSON lines; `url` is known once it says that it listens.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class DaemonProcess:
    """A running `gatelodged`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.url = ""
        self._listening = asyncio.Event()
        self._reading = asyncio.create_task(self._read_log())

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": line.decode(errors="replace").rstrip()}
            self.log.append(entry)
            if entry.get("url") and not self.url:
                self.url = entry["url"]
                self._listening.set()
        self._listening.set()

    async def listening(self) -> DaemonProcess:
        """Wait until it listens; AssertionError with its words if it ended instead."""
        await asyncio.wait_for(self._listening.wait(), 30)
        assert self.url, f"the daemon did not start: {self.log}"
        return self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def said(self, words: str) -> list[dict[str, Any]]:
        """The lines of its log that hold `words`."""
        return [entry for entry in self.log if words in str(entry.get("message"))]

    async def kill(self) -> None:
        """kill -9."""
        await self.stop(signal.SIGKILL)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 40)
        await self._reading
        return code


@asynccontextmanager
async def daemon_process(
    data: Path, *arguments: str, before: str = ":", program: str = "daemon", **environment: str
) -> AsyncIterator[DaemonProcess]:
    """Start a daemon on a free port; it is killed at the end if it still runs. `before`: what a shell does first;
    `program`: the module that becomes the daemon."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'{before}; exec "$@"', "sh"),
        *(sys.executable, "-m", program, "--data", str(data), "--port", "0", "--no-builtin-model", *arguments),
        cwd=ROOT,
        env=os.environ
        | {"GATELODGE_STORAGE__MIN_FREE": "0", "GATELODGE_STORAGE__BALLAST": "0", "GATELODGE_LOG__FORMAT": "json"}
        | environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    daemon = DaemonProcess(process)
    try:
        yield daemon
    finally:
        await daemon.kill()
