"""Routes about the gateway itself: alive, ready, measured; and one's own place in the queue."""

from __future__ import annotations

from common.errors import Forbidden
from daemon.web.base import Handler


class Health(Handler):
    """GET /health: the process runs and answers, while it stops, too. Asks nobody else."""

    public = True
    while_stopping = True

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
        content_type, page = self.house.metrics.render(self.house.gate.live(), self.house.registry.upstreams)
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
