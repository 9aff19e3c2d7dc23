"""Work that is carried to its end even if whoever asked for it leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger("gatelodge.access")
T = TypeVar("T")


class Unfinished:
    """What has begun and must end: a write that is done must also be known in memory. The owner awaits `wait()`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Unfinished {len(self._tasks)}>"

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which goes on if this await is cancelled."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    async def wait(self) -> None:
        """Until all of it has ended."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Its caller may have left and never look at the outcome.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("refused or failed: %s", error)
