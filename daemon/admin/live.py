"""Verbs about what happens now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import Conflict, NotFound
from common.protocol import Cancelled, CancelRequest, EndedRow, LiveRow, Nothing
from daemon.access.actor import Actor
from daemon.admin.rows import live_row, look_at_pace
from daemon.exchange import Exchange

if TYPE_CHECKING:
    from daemon.house import House

SHORTEST_PREFIX = 8  # characters of a request id that may stand for the whole of it


async def listed(house: House, _: Actor, __: Nothing) -> list[LiveRow]:
    """The exchanges that run or wait."""
    look_at_pace(house)
    return [live_row(house, exchange) for exchange in house.gate.live() if exchange.phase != "ended"]


async def ended(house: House, _: Actor, __: Nothing) -> list[EndedRow]:
    """What ended or was refused a moment ago, the latest first."""
    return sorted((row for _, row in house.recent.rows()), key=lambda row: row.ended, reverse=True)


async def cancel(house: House, actor: Actor, request: CancelRequest) -> Cancelled:
    """End one of them. Recorded before it is done: an end without its record would be worse than the reverse."""
    exchange = named(house, request.request_id)
    detail = {"user": exchange.user, "model": exchange.model, "state": exchange.phase}
    await house.journal.admin(actor, "cancel", f"request:{exchange.request_id}", detail)
    return Cancelled(request_id=exchange.request_id, cancelled=house.gate.cancel(exchange.request_id))


def named(house: House, name: str) -> Exchange:
    """The live exchange of that id, or whose id alone begins so: a narrow terminal shows the beginning."""
    exchange = house.gate.find(name)
    if exchange is not None:
        return exchange
    found = [each for each in house.gate.live() if len(name) >= SHORTEST_PREFIX and each.request_id.startswith(name)]
    if len(found) > 1:
        raise Conflict(f"{len(found)} requests begin with {name}; name more of the id", code="ambiguous_id")
    if not found:
        raise NotFound(f"no request {name} runs or waits; `gatelodge live` shows those that do")
    return found[0]
