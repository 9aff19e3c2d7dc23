"""Moments of the protocol as spans from now: `12m` ago, `in 3d`. Pure; `now` is Unix seconds.

Rule: coarse on purpose. A list in which every age ticks each second is a list that nobody can read.
"""

from __future__ import annotations

import time

from common.times import from_iso


def coarse(seconds: float) -> str:
    """A span in its largest unit: `41s`, `12m`, `3h`, `5d`, `2y`."""
    whole = max(0, int(seconds))
    for size, unit in ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if whole >= size * (2 if unit in "yd" else 1):
            return f"{whole // size}{unit}"
    return f"{whole}s"


def nearest(seconds: float) -> str:
    """A span to the nearest of its largest unit, as people speak of what is ahead: a moment under `90d` is `90d`."""
    whole = max(0, round(seconds))
    for size, unit, smaller in ((365 * 86400, "y", 86400), (86400, "d", 3600), (3600, "h", 60), (60, "m", 1)):
        least = size * (2 if unit in "yd" else 1)
        if whole >= least - smaller // 2:
            return f"{(whole + size // 2) // size}{unit}"
    return f"{whole}s"


def age(moment: str | None, now: float) -> str:
    """How long ago: `12m`; a dash where it never was, `?` where that is no moment (an upstream's words)."""
    if moment is None:
        return "-"
    at = _seconds(moment)
    return "?" if at is None else coarse(now - at)


_NEVER = 200 * 365 * 86_400.0


def time_left(moment: str | None, now: float, *, never: str = "never") -> str:
    """How long until then: `in 3d`; `over` once it was. A moment centuries away is how some servers say never."""
    if moment is None:
        return never
    at = _seconds(moment)
    if at is None:
        return "?"
    left = at - now
    if left > _NEVER:
        return "never"
    return "over" if left <= 0 else f"in {nearest(left)}"


def _seconds(moment: str) -> float | None:
    try:
        return from_iso(moment) / 1e6
    except (ValueError, OverflowError):
        return None


def day_and_time(moment: str | None) -> str:
    """`2026-01-31 09:05:07Z`."""
    return f"{moment[:10]} {moment[11:19]}Z" if moment else "-"


def clock(now: float) -> str:
    """`09:05:07Z`, the same wherever one looks from."""
    return time.strftime("%H:%M:%SZ", time.gmtime(now))
