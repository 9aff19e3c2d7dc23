"""The free space of the data folder: below `storage.min_free` nothing is admitted, so that what runs is recorded.

Where a write finds no room at all, the reserve (`daemon/ballast.py`) is given up for what frees room.
"""

from __future__ import annotations

import asyncio
import shutil

from common.errors import Unavailable
from daemon.ballast import Ballast
from daemon.config import Config

LOOK_EVERY = 5.0  # seconds between two looks at the free space


class Disk:
    """Watches the free space."""

    def __init__(self, config: Config) -> None:
        self._data = config.data
        self.min_free = config.storage.min_free
        self._free = shutil.disk_usage(self._data).free
        self._ballast = Ballast(self._data, config.storage.ballast)
        self._is_full = False  # a write found no room, or there was hardly any

    def check(self) -> None:
        """Unavailable (503) where too little was free at the last look, or a write found no room since."""
        if self._free < self.min_free or self._is_full:
            raise Unavailable(self._words(), code="disk_full", retry_after=60)

    async def why_not_ready(self) -> str:
        """Empty, or what is wrong, as it is now."""
        self._free = shutil.disk_usage(self._data).free
        return self._words() if self._free < self.min_free or self._is_full else ""

    def full(self) -> None:
        """A write found no room. The reserve is not for requests."""
        self._is_full = True
        self._ballast.release()
        self._free = shutil.disk_usage(self._data).free

    def look(self) -> None:
        """See how much is free, and what that means for the reserve."""
        self._free = shutil.disk_usage(self._data).free
        self._ballast.look(self._free, self.min_free)
        if self._ballast.size and self._free < self._ballast.size // 4:
            self._is_full = True
        elif self._free >= max(self.min_free, 2 * self._ballast.size):
            self._is_full = False

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await asyncio.to_thread(self.look)  # some file systems take long to set room aside
            await asyncio.sleep(LOOK_EVERY)

    def _words(self) -> str:
        wanted = max(self.min_free, 2 * self._ballast.size)
        return (
            f"the gateway's disk is nearly full ({self._free >> 20} MiB free, {wanted >> 20} MiB wanted): "
            "nothing can be recorded, so nothing is served; its administrator must free space"
        )
