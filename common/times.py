"""Moments and durations as people and JSON write them: ISO 8601 in UTC, and `90d`, `1h`, `30m`, `45s`.

Rule: on the wire and in files a moment is ISO 8601 UTC with microseconds and a `Z`; inside, Unix microseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d+)([smhdw]?)")


def iso(microseconds: int) -> str:
    """Unix microseconds as `2026-01-31T09:05:07.000123Z`."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def iso_or_none(microseconds: int | None) -> str | None:
    """As `iso`; None stays None."""
    return None if microseconds is None else iso(microseconds)


def from_iso(text: str) -> int:
    """Unix microseconds of an ISO 8601 date or moment; without a zone it is UTC. ValueError if it is none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def seconds_of(text: str) -> int:
    """Seconds of a duration such as `90d`, `36h`, `10m` or `45` (seconds). ValueError if it is none."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a whole number and s, m, h, d or w, such as 90d")
    seconds = int(match[1]) * _UNITS[match[2] or "s"]
    if seconds > 100 * 366 * 86400:
        raise ValueError(f"{text!r} is longer than a century")
    return seconds


def moment_of(text: str, *, now: int) -> int:
    """Unix microseconds of what a person wrote: an ISO 8601 moment, or a duration before `now` (`1h` = an hour ago)."""
    if _DURATION.fullmatch(text.strip().lower()):
        return now - seconds_of(text) * SECOND
    try:
        return from_iso(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a duration such as 1h nor a moment such as 2026-01-31 or 2026-01-31T09:00:00Z"
        ) from None


def short(seconds: float) -> str:
    """A span for a table: `41s`, `1m12s`, `3h05m`, `12d`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 2 * 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d"
