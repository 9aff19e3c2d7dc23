"""Verbs about limits. A change acts on the next request after its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from common.errors import BadRequest
from common.protocol import (
    LIMIT_FIELDS,
    LimitRow,
    LimitsSet,
    LimitsShow,
    LimitsTried,
    LimitsTry,
    LimitsUse,
    LimitTarget,
    LimitUse,
    LimitValues,
)
from common.times import SECOND, from_iso
from daemon.access.actor import Actor
from daemon.admin.rows import fullest_first, limit_row, limit_use
from daemon.audit.child import spawn_reader
from daemon.traffic.rules import check_values
from daemon.traffic.trial import Question

if TYPE_CHECKING:
    from daemon.house import House

TRIED = 24 * 3600 * SECOND  # how far back recorded traffic is tried where nothing else is said
LONGEST_TRIED = 90 * 24 * 3600 * SECOND


async def shown(house: House, _: Actor, request: LimitsShow) -> list[LimitRow]:
    """The limits of one target, or of all that have any."""
    return [limit_row(house, each) for each in house.limits.show(request.target)]


async def used(house: House, _: Actor, request: LimitsUse) -> list[LimitUse]:
    """How much of which limit is used, the fullest first."""
    target = None if request.target is None else house.limits.show(request.target)[0].target
    uses = fullest_first(house.admission.in_use(target))
    return [limit_use(house, use) for use in uses[: max(1, request.most)]]


async def tried(house: House, _: Actor, request: LimitsTry) -> LimitsTried:
    """What recorded traffic would have met; in a process of its own, which ends where its asker leaves."""
    values = check_values(_said(request.values))
    target = house.limits.show(request.target)[0].target
    now_us = house.clock.wall()
    since_us = now_us - TRIED if request.since is None else _moment(request.since)
    if not now_us - LONGEST_TRIED <= since_us < now_us:
        raise BadRequest("since must be a moment within the last 90 days")
    question = Question(target, values, since_us, now_us, house.clock.now())
    arguments = {"database": str(house.database.path), "question": question}
    async with spawn_reader("try", arguments) as output:
        report = await output.read()
    return msgspec.json.decode(report, type=LimitsTried)


def _moment(text: str) -> int:
    try:
        return from_iso(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"since: {text!r} is not a moment such as 2026-01-31T09:00:00Z") from error


async def set_values(house: House, actor: Actor, request: LimitsSet) -> LimitRow:
    """Set what is named; the rest stays as it is."""
    seen = None if request.seen is None else _said(request.seen)
    return limit_row(house, await house.limits.set(actor, request.target, _said(request.values), seen=seen))


async def clear(house: House, actor: Actor, request: LimitTarget) -> LimitRow:
    """Nothing of the target's own any more."""
    seen = None if request.seen is None else _said(request.seen)
    return limit_row(house, await house.limits.clear(actor, request.target, seen=seen))


def _said(values: LimitValues) -> dict[str, int | None]:
    """The limits that are named; None is unlimited."""
    return {
        name: None if value == "unlimited" else value
        for name in LIMIT_FIELDS
        if (value := getattr(values, name)) is not None
    }
