"""The verb about usage."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from common.errors import Unavailable
from common.protocol import Usage, UsageRequest
from daemon.access.actor import Actor
from daemon.usage import usage

if TYPE_CHECKING:
    from daemon.house import House

PATIENCE = 1.0  # seconds; a store that hangs is read as it is


async def used(house: House, _: Actor, request: UsageRequest) -> Usage:
    """Who used what, and when; refusals up to now, where the store takes them in time."""
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await house.journal.set_down_refusals()
    return await usage(house.database, request, now_us=house.clock.wall())
