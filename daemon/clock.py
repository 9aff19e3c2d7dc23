"""The gateway's own clock: microseconds that never run backwards, across restarts and reboots.

Limits are counted on this clock. Within a boot it is CLOCK_BOOTTIME plus a fixed offset, so a stepped wall clock
decides nothing. After a reboot the offset is chosen so that the clock goes on where the last recorded moment
stopped, plus the downtime the wall clock shows; a wall clock set back counts the downtime as nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MICROSECONDS = 1_000_000


class Clock(Protocol):
    """What limits, journal and queue ask the time of; tests give their own."""

    def now(self) -> int:
        """Gateway time in microseconds: monotonic, continued across restarts."""
        ...

    def wall(self) -> int:
        """Unix time in microseconds, as the operating system believes it now."""
        ...


@dataclass(frozen=True)
class Moment:
    """The last moment that the store knows of: of which boot, when on either clock."""

    boot_id: str
    now: int
    wall: int
    boottime: int


class SystemClock:
    """CLOCK_BOOTTIME plus an offset."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    @classmethod
    def continued(cls, last: Moment | None) -> SystemClock:
        """A clock that goes on after `last` (the store's latest moment, or None for a new store)."""
        boottime = _boottime()
        if last is None:
            # A new store begins at its wall time only so that the numbers look familiar; nothing depends on it.
            return cls(_wall() - boottime)
        if last.boot_id == boot_id():
            return cls(last.now - last.boottime)
        downtime = max(0, _wall() - last.wall)
        return cls(last.now + downtime - boottime)

    def now(self) -> int:
        return _boottime() + self.offset

    def wall(self) -> int:
        return time.time_ns() // 1000

    def moment(self) -> Moment:
        """This very moment, in the form the store keeps."""
        boottime = _boottime()
        return Moment(boot_id(), boottime + self.offset, _wall(), boottime)


def _boottime() -> int:
    return time.clock_gettime_ns(_BOOTTIME) // 1000


def _wall() -> int:
    return time.time_ns() // 1000


def boot_id() -> str:
    """The kernel's identifier of the running boot; empty where there is none (then each start is a new boot)."""
    global _boot_id
    if _boot_id is None:
        try:
            _boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            _boot_id = f"start-{time.time_ns()}"
    return _boot_id


_boot_id: str | None = None
# macOS has no CLOCK_BOOTTIME; its monotonic clock is the nearest.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
