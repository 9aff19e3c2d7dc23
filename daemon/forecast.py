"""When the disk will refuse: from what the last days took of it.

An hourly look at the disk's use is kept in the store for a week, so that a restart forgets nothing. Rule: no forecast
from less than an hour; what others take of the disk counts, as it fills all the same.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

from common.errors import Unavailable
from daemon.clock import MICROSECONDS, Clock
from daemon.store.database import Database
from daemon.store.settings import get_setting, set_setting

log = logging.getLogger("gatelodge.disk")

SETTING = "disk_use"
EVERY = 3600 * MICROSECONDS
KEPT = 7 * 24 + 1
DAY = 24 * EVERY
AT_LEAST = EVERY  # of history, for a forecast


class Use(NamedTuple):
    """How many bytes of the disk were in use."""

    at_us: int  # wall clock
    used: int


class Forecast:
    """Watches the disk of the data folder."""

    def __init__(self, database: Database, clock: Clock, data: Path, history: list[Use]) -> None:
        self._database = database
        self._clock = clock
        self._data = data
        self.history = history

    @classmethod
    async def load(cls, database: Database, clock: Clock, data: Path) -> Forecast:
        """With what earlier runs saw."""
        text = await database.read(lambda conn: get_setting(conn, SETTING))
        return cls(database, clock, data, msgspec.json.decode(text, type=list[Use]) if text else [])

    def growth_per_day(self) -> int | None:
        """Bytes that a day takes; negative where the disk gets emptier. None where too little is known."""
        now = Use(self._clock.wall(), shutil.disk_usage(self._data).used)
        return growth(self.history, now)

    def days_left(self, min_free: int) -> float | None:
        """Until `min_free` is met; 0 where it is, None where it is not to be seen."""
        free = shutil.disk_usage(self._data).free
        if free <= min_free:
            return 0.0
        daily = self.growth_per_day()
        return (free - min_free) / daily if daily is not None and daily > 0 else None

    async def look(self) -> None:
        """Note the use, if an hour has passed."""
        now = self._clock.wall()
        # A wall clock that was set back: what seems to come from the future is of no use.
        history = [use for use in self.history if use.at_us <= now]
        if history and now - history[-1].at_us < EVERY:
            return
        self.history = [*history, Use(now, shutil.disk_usage(self._data).used)][-KEPT:]
        text = msgspec.json.encode(self.history).decode()
        await self._database.write(lambda conn: set_setting(conn, SETTING, text))

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                await self.look()
            except Unavailable as failure:
                log.warning("the disk's use could not be noted: %s", failure)
            await asyncio.sleep(60)


def growth(history: list[Use], now: Use) -> int | None:
    """Bytes a day between the oldest look and now."""
    first = min(history, default=now)
    if now.at_us - first.at_us < AT_LEAST:
        return None
    return (now.used - first.used) * DAY // (now.at_us - first.at_us)
