"""What a client is told of limits: the 429 in words and fields, and the RateLimit header lines.

Rule: pure; every number comes from the window that decided. `Retry-After` is rounded up, so that one waiter who comes
back after it is never early. Header fields after draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import LimitExceeded
from common.times import iso

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Field:
    """One of the limits that a target can have."""

    name: str  # as in the command line, the configuration and JSON: "requests_per_minute"
    words: str  # for people, after a number: "requests per minute"
    policy: str  # its name in the RateLimit fields: "rpm"
    unit: str  # "requests", "tokens", "concurrent-requests"
    period: int  # microseconds; 0 for concurrency


REQUESTS_PER_MINUTE = Field("requests_per_minute", "requests per minute", "rpm", "requests", MINUTE)
REQUESTS_PER_HOUR = Field("requests_per_hour", "requests per hour", "rph", "requests", HOUR)
REQUESTS_PER_DAY = Field("requests_per_day", "requests per day", "rpd", "requests", DAY)
TOKENS_PER_MINUTE = Field("tokens_per_minute", "tokens per minute", "tpm", "tokens", MINUTE)
TOKENS_PER_DAY = Field("tokens_per_day", "tokens per day", "tpd", "tokens", DAY)
CONCURRENCY = Field("concurrency", "requests at once", "concurrency", "concurrent-requests", 0)

FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        REQUESTS_PER_MINUTE,
        REQUESTS_PER_HOUR,
        REQUESTS_PER_DAY,
        TOKENS_PER_MINUTE,
        TOKENS_PER_DAY,
        CONCURRENCY,
    )
}


@dataclass(frozen=True, slots=True)
class FullWindow:
    """A window that refuses, or is asked how near it is to that. Times are gateway-clock microseconds."""

    field: Field
    scope: str  # whose it is, for people: "user ana@example.org"
    policy: str  # before the field's name in the RateLimit fields; empty for a user's own
    used: int
    max: int
    period: int
    frees_at: int | None  # when it admits again; None: never, as it admits nothing
    target: str = ""  # whose limit it is; empty: nobody's in particular

    @property
    def remaining(self) -> int:
        return max(0, self.max - self.used)


def refusal(full: FullWindow, *, now: int, wall: int) -> LimitExceeded:
    """The 429: which limit, how much is used, when it frees (wall clock, Unix microseconds, is only shown)."""
    scope = f"{full.scope}: {full.max} {full.field.words}"
    retry_after = None if full.frees_at is None else seconds_rounded_up(full.frees_at - now)
    if retry_after is None:
        message = f"{scope}: none are allowed; ask the administrator of this gateway"
    else:
        message = f"{scope}, and {full.used} are used; try again in {retry_after} s"
    return LimitExceeded(
        message,
        retry_after=retry_after,
        detail={
            "limit": full.field.name,
            "scope": scope,
            "used": full.used,
            "max": full.max,
            "frees_at": None if full.frees_at is None else iso(wall + full.frees_at - now),
            "retry_after": retry_after,
            "estimate": full.field.unit != "requests",
        },
        headers=rate_limit_headers(full, now=now),
    )


def rate_limit_headers(window: FullWindow, *, now: int) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` for one window.

    `t` is the number of whole seconds until some of the quota comes back: where nothing remains, the Retry-After.
    """
    name = f"{window.policy}-{window.field.policy}" if window.policy else window.field.policy
    policy = f'"{name}";q={window.max};w={window.period // SECOND}'
    if window.field.unit != "requests":
        policy += f';qu="{window.field.unit}"'
    state = f'"{name}";r={window.remaining}'
    if window.frees_at is not None:
        state += f";t={seconds_rounded_up(window.frees_at - now)}"
    return {"RateLimit-Policy": policy, "RateLimit": state}


def seconds_rounded_up(microseconds: int) -> int:
    """Whole seconds, at least one for anything that is still to come."""
    return max(0, -(-microseconds // SECOND))
