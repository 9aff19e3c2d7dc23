"""Verbs about limits. A change acts on the next request after its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.protocol import (
    LIMIT_FIELDS,
    LimitRow,
    LimitsSet,
    LimitsShow,
    LimitsUse,
    LimitTarget,
    LimitUse,
    LimitValues,
)
from daemon.access.actor import Actor
from daemon.admin.rows import fullest_first, limit_row, limit_use

if TYPE_CHECKING:
    from daemon.house import House


async def shown(house: House, _: Actor, request: LimitsShow) -> list[LimitRow]:
    """The limits of one target, or of all that have any."""
    return [limit_row(house, each) for each in house.limits.show(request.target)]


async def used(house: House, _: Actor, request: LimitsUse) -> list[LimitUse]:
    """How much of which limit is used, the fullest first."""
    target = None if request.target is None else house.limits.show(request.target)[0].target
    uses = fullest_first(house.admission.in_use(target))
    return [limit_use(house, use) for use in uses[: max(1, request.most)]]


async def set_values(house: House, actor: Actor, request: LimitsSet) -> LimitRow:
    """Set what is named; the rest stays as it is."""
    seen = None if request.seen is None else _said(request.seen)
    return limit_row(house, await house.limits.set(actor, request.target, _said(request.values), seen=seen))


async def clear(house: House, actor: Actor, request: LimitTarget) -> LimitRow:
    """Nothing of the target's own any more."""
    return limit_row(house, await house.limits.clear(actor, request.target))


def _said(values: LimitValues) -> dict[str, int | None]:
    """The limits that are named; None is unlimited."""
    return {
        name: None if value == "unlimited" else value
        for name in LIMIT_FIELDS
        if (value := getattr(values, name)) is not None
    }
