"""Whether a request would be served now: what /ready tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


class Readiness:
    """Whether a request would be served now. The answer is kept for five seconds, whoever asks."""

    KEPT = 5.0

    def __init__(self, checks: dict[str, Callable[[], Awaitable[str]]]) -> None:
        """`checks`: name -> coroutine that says in words what is missing, or the empty text."""
        self._checks = checks
        self._asking: asyncio.Task[tuple[int, dict[str, Any]]] | None = None
        self._at = 0.0

    async def look(self) -> tuple[int, dict[str, Any]]:
        """(status, body): 200 and `ready`, or 503 and what is missing."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now - self._at >= self.KEPT):
            self._at = now
            self._asking = asyncio.ensure_future(self._ask())
        # Shielded: a crowd waits for one look, and the first of them to leave must not spoil it for the others.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> tuple[int, dict[str, Any]]:
        found = {name: await check() for name, check in self._checks.items()}
        ready = not any(found.values())
        checks = {name: words or "ok" for name, words in found.items()}
        return (200 if ready else 503), {"status": "ready" if ready else "not ready", "checks": checks}
