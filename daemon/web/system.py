"""Routes about the gateway itself: alive, ready, measured."""

from __future__ import annotations

from typing import Literal

import msgspec

from common.errors import Forbidden
from daemon.web.base import Handler
from daemon.web.described import Text, described


class Alive(msgspec.Struct):
    """It lives."""

    status: Literal["ok"] = "ok"


class Readied(msgspec.Struct):
    """Whether a request would be served now; each check is "ok", or says in words what is missing."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]


class Health(Handler):
    """GET /health: the process runs and answers, while it stops, too. Asks nobody else."""

    public = True
    while_stopping = True

    @described("Whether the process lives", answers=Alive)
    async def get(self) -> None:
        self.answer(200, Alive())

    async def head(self) -> None:
        await self.get()


class Ready(Handler):
    """GET /ready: whether a request would be served now; what is not ready is named. Cached for five seconds."""

    public = True

    @described("Whether a request would be served now", answers=Readied, more=(503,))
    async def get(self) -> None:
        status, content = await self.house.readiness.look()
        self.answer(status, content)

    async def head(self) -> None:
        await self.get()


class MetricsPage(Handler):
    """GET /metrics: Prometheus' text format, for a key that was issued for this and is good for nothing else."""

    @described("Metrics for Prometheus", answers=Text(), errors=(403,), credential="metrics")
    async def get(self) -> None:
        caller = self.house.access.identify(self.request.headers, address=self.client_address, purpose="metrics")
        if caller.key is None or caller.key.purpose != "metrics":
            raise Forbidden("metrics need a key issued with: gatelodge keys issue EMAIL --metrics")
        content_type, page = self.house.metrics.render(self.house.gate.live(), self.house.registry.upstreams)
        self.set_header("Content-Type", content_type)
        self.finish(page)
