"""Verbs about what happens now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import NotFound
from common.protocol import Cancelled, CancelRequest, LiveRow, Nothing
from daemon.access.actor import Actor
from daemon.admin.rows import live_row

if TYPE_CHECKING:
    from daemon.house import House


async def listed(house: House, _: Actor, __: Nothing) -> list[LiveRow]:
    """The exchanges that run or wait."""
    rows = (live_row(exchange) for exchange in house.gate.live())
    return [row for row in rows if row is not None]


async def cancel(house: House, actor: Actor, request: CancelRequest) -> Cancelled:
    """End one of them. Recorded before it is done: an end without its record would be worse than the reverse."""
    exchange = house.gate.find(request.request_id)
    if exchange is None:
        raise NotFound(f"no request {request.request_id} runs or waits; `gatelodge live` shows those that do")
    detail = {"user": exchange.user, "model": exchange.model, "state": exchange.phase}
    await house.journal.admin(actor, "cancel", f"request:{request.request_id}", detail)
    return Cancelled(request_id=request.request_id, cancelled=house.gate.cancel(request.request_id))
