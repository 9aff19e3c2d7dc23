"""The reserve for a full disk: a file that holds room, given up when there is none, so that what frees room can work.

SQLite needs room to erase, too (its log grows before the database shrinks): on a full disk retention would fail with
SQLITE_FULL. Rules: the room is really taken (fallocate, no hole); it is given up at the first write that finds no room,
or when hardly any is left; it is taken again once there is plenty. Nobody is admitted meanwhile (`daemon/disk.py`).
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("gatelodge.disk")

NAME = "ballast"
OF_THE_DISK = 16  # at most this part of it


class Ballast:
    """The file, of `wanted` bytes or what part of a small disk is decent; 0 keeps none."""

    def __init__(self, data: Path, wanted: int) -> None:
        self._path = data / NAME
        total = os.statvfs(data).f_blocks * os.statvfs(data).f_frsize
        self.size = min(wanted, total // OF_THE_DISK)

    @property
    def is_held(self) -> bool:
        """Whether the room is taken."""
        with suppress(OSError):
            return self._path.stat().st_size >= self.size
        return self.size == 0

    def look(self, free: int, min_free: int) -> None:
        """Give it up, or take it again, by what is free now."""
        if self.size == 0:
            self.release()
        elif self.is_held:
            if free < self.size // 4:
                self.release()
        elif free >= max(min_free, self.size) + 2 * self.size:
            # Enough for it and for what would make us give it up again.
            self._take()

    def release(self) -> None:
        """Give the room up. Never fails: it is called where everything else does."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the reserve %s could not be given up: %s", self._path, error.strerror)
            return
        if self.size:
            log.warning("the disk is full: the reserve of %d MiB is given up for what frees room", self.size >> 20)

    def _take(self) -> None:
        try:
            # A wrong length would be a half one of a start that was killed.
            self._path.unlink(missing_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            log.warning("no reserve for a full disk could be taken: %s", error.strerror)
