"""Routes about the gateway itself: alive, ready, measured; and one's own place in the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from common.errors import Forbidden
from daemon.web.base import Handler


class Health(Handler):
    """GET /health: the process runs and answers. Asks nobody else."""

    public = True

    async def get(self) -> None:
        self.answer(200, {"status": "ok"})

    async def head(self) -> None:
        await self.get()


class Ready(Handler):
    """GET /ready: whether a request would be served now; what is not ready is named. Cached for five seconds."""

    public = True

    async def get(self) -> None:
        status, content = await self.house.readiness.look()
        self.answer(status, content)

    async def head(self) -> None:
        await self.get()


class MetricsPage(Handler):
    """GET /metrics: Prometheus' text format, for a key that was issued for this and is good for nothing else."""

    async def get(self) -> None:
        caller = self.house.access.identify(self.request.headers, address=self.client_address, purpose="metrics")
        if caller.key is None or caller.key.purpose != "metrics":
            raise Forbidden("metrics need a key issued with: gatelodge keys issue EMAIL --metrics")
        content_type, page = self.house.metrics.render(self.house)
        self.set_header("Content-Type", content_type)
        self.finish(page)


class OwnQueue(Handler):
    """GET /v1/queue: the caller's own exchanges, with their place in line."""

    async def get(self) -> None:
        caller = self.caller()
        rows = [
            {
                "request_id": exchange.request_id,
                "model": exchange.model,
                "state": exchange.phase,
                "position": exchange.position(),
                "estimated_wait_seconds": exchange.estimated_wait(),
            }
            for exchange in self.house.gate.live()
            if exchange.user_id == caller.user.id
        ]
        self.answer(200, rows)


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
