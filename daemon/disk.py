"""The free space of the data folder: below `storage.min_free` nothing is admitted, so that what runs is recorded."""

from __future__ import annotations

import asyncio
import shutil

from common.errors import Unavailable
from daemon.config import Config

LOOK_EVERY = 5.0  # seconds between two looks at the free space


class Disk:
    """Watches the free space."""

    def __init__(self, config: Config) -> None:
        self._data = config.data
        self.min_free = config.storage.min_free
        self._free = shutil.disk_usage(self._data).free

    def check(self) -> None:
        """Unavailable (503) where too little was free at the last look."""
        if self._free < self.min_free:
            raise Unavailable(self._words(), code="disk_full", retry_after=60)

    async def why_not_ready(self) -> str:
        """Empty, or what is wrong, as it is now."""
        self._free = shutil.disk_usage(self._data).free
        return self._words() if self._free < self.min_free else ""

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._free = shutil.disk_usage(self._data).free

    def _words(self) -> str:
        return (
            f"the gateway's disk is nearly full ({self._free >> 20} MiB free, {self.min_free >> 20} MiB wanted): "
            "nothing can be recorded, so nothing is served; its administrator must free space"
        )
