"""The verb about usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.protocol import Usage, UsageRequest
from daemon.access.actor import Actor
from daemon.usage import usage

if TYPE_CHECKING:
    from daemon.house import House


async def used(house: House, _: Actor, request: UsageRequest) -> Usage:
    """Who used what, and when."""
    return await usage(house.database, request, now_us=house.clock.wall())
