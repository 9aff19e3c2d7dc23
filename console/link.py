"""The console's tie to the daemon: keeps the mirror up while there is one, and knows what is wrong while there is none.

Rule: this reader only mutates the mirror and its own fields; who draws looks at them when it is time to. What was seen
last stays in the mirror while the daemon is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.protocol import Goodbye, Hello, Message
from console.client import Refused, Unreachable, pauses, watch
from console.mirror import Gap, Mirror

LinkState = Literal["connecting", "live", "lost", "never"]


@dataclass
class Link:
    """`state`: `never` was there a daemon, or it is `lost`; then `cause` says why and `retry_at` when we try again.

    Times are of `clock`, monotonic seconds. `version` counts what changed in mirror or state, so that a screen can
    tell at a glance whether there is anything to draw.
    """

    path: Path
    clock: Callable[[], float] = time.monotonic
    waits: Callable[[], Iterator[float]] = pauses

    def __post_init__(self) -> None:
        self.mirror = Mirror()
        self.state: LinkState = "connecting"
        self.cause = ""
        self.mismatch = False  # daemon and console are of different releases: waiting will not help
        self.denied = False  # this account may not use the socket
        self.heard_at = 0.0
        self.retry_at = 0.0
        self.daemon_version = ""
        self.started = 0  # when the daemon was, Unix microseconds; 0: not known yet
        self.version = 0
        self.connections = 0  # how often the daemon was there, or there again
        self._hurry = asyncio.Event()

    @property
    def is_live(self) -> bool:
        """Whether what the mirror shows is so now, and changes may be asked for."""
        return self.state == "live"

    def retry_now(self) -> None:
        """Do not wait any longer for the next attempt."""
        self._hurry.set()

    def stale_for(self) -> float:
        """Seconds since the daemon was last heard."""
        return max(0.0, self.clock() - self.heard_at)

    def next_try(self) -> str:
        """When the daemon is tried again, in words."""
        seconds = self.retry_at - self.clock()
        return f"trying again in {seconds:.0f} s" if seconds >= 0.5 else "trying again now"

    async def run(self) -> None:
        """Watch, and watch again, until cancelled."""
        waits = self.waits()
        while True:
            try:
                async with aclosing(watch(self.path)) as messages:
                    async for message in messages:
                        self._take(message)
                        if not isinstance(message, Hello | Goodbye):
                            waits = self.waits()
            except Gap:
                continue  # a new connection brings a new snapshot
            except Unreachable as error:
                self._lose(str(error), denied=isinstance(error.__cause__, PermissionError))
            except Refused as error:
                self._lose(str(error), mismatch=error.code == "version_mismatch")
            await self._wait(next(waits))

    def _take(self, message: Message) -> None:
        self.version += 1
        self.heard_at = self.clock()
        if isinstance(message, Goodbye):
            self._lose(f"the daemon closed the connection: {message.reason}")
            return
        if isinstance(message, Hello):
            self.daemon_version = message.version
            if message.boot_id != self.mirror.boot_id:
                self.started = 0
        self.mirror.apply(message)
        if not isinstance(message, Hello):  # the snapshot that follows makes it whole
            self.connections += not self.is_live
            self.state, self.cause, self.mismatch = "live", "", False

    def _lose(self, cause: str, *, mismatch: bool = False, denied: bool = False) -> None:
        self.version += 1
        self.state = "lost" if self.mirror.boot_id else "never"
        self.cause, self.mismatch, self.denied = cause or self.cause, mismatch, denied

    async def _wait(self, seconds: float) -> None:
        self.retry_at = self.clock() + seconds
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass
