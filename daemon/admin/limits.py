"""Verbs about limits. A change acts on the next request after its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.protocol import LIMIT_FIELDS, LimitRow, LimitsSet, LimitsShow, LimitTarget
from daemon.access.actor import Actor
from daemon.admin.rows import limit_row

if TYPE_CHECKING:
    from daemon.house import House


async def shown(house: House, _: Actor, request: LimitsShow) -> list[LimitRow]:
    """The limits of one target, or of all that have any."""
    return [limit_row(each) for each in house.limits.show(request.target)]


async def set_values(house: House, actor: Actor, request: LimitsSet) -> LimitRow:
    """Set what is named; the rest stays as it is."""
    values = {
        name: None if value == "unlimited" else value
        for name in LIMIT_FIELDS
        if (value := getattr(request.values, name)) is not None
    }
    return limit_row(await house.limits.set(actor, request.target, values))


async def clear(house: House, actor: Actor, request: LimitTarget) -> LimitRow:
    """Nothing of the target's own any more."""
    return limit_row(await house.limits.clear(actor, request.target))
