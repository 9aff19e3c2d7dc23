"""Usage: who used what in a stretch of time, quickly whatever the journal's length, and exactly.

Rule: hours are added up from the journal in the background, by sequence number, a little at a time; a request knows
nothing of it. What an answer is made of: `daemon/store/usage.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from functools import partial
from typing import Any

from common.errors import BadRequest, Unavailable
from common.protocol import Usage, UsageBucket, UsageRequest, UsageRow
from common.times import SECOND, from_iso, iso
from daemon.store import usage as sums
from daemon.store.database import Database
from daemon.store.usage import HOUR, Span, Sums

log = logging.getLogger("gatelodge.usage")

AT_ONCE = 4_000  # records added up in one step: some ten milliseconds of a reader
OFTEN = 2_000  # records that wait are added up; fewer after a while
EVERY = 2.0  # seconds between two looks
AT_LEAST_EVERY = 30.0
FAR_BEHIND = 200_000  # records; more are not read for an answer
BETWEEN = 0.02  # seconds between two steps where much waits
LONGEST = 10 * 366 * 24 * HOUR
MOST_ROWS = 1_000

_COLUMNS = {"user": "user", "model": "model", "key": "key_id", "client": "client_label"}
_DAY = 24 * HOUR
# A span up to so long has points of so much.
_WIDTHS = ((2 * HOUR, 60 * SECOND), (2 * _DAY, HOUR), (8 * _DAY, 3 * HOUR), (35 * _DAY, 12 * HOUR), (LONGEST, _DAY))


async def keep_added_up(database: Database) -> None:
    """Add up what the journal gained, until cancelled."""
    loop = asyncio.get_running_loop()
    added_at = loop.time()
    while True:
        try:
            waiting = await database.read(sums.behind)
            if waiting >= OFTEN or (waiting and loop.time() - added_at >= AT_LEAST_EVERY):
                added = AT_ONCE
                while added == AT_ONCE:
                    added = await add_up(database)
                    await asyncio.sleep(BETWEEN)
                added_at = loop.time()
        except Unavailable as error:
            log.warning("usage could not be added up: %s", error)
        await asyncio.sleep(EVERY)


async def add_up(database: Database) -> int:
    """One step; how many records it took."""
    added = await database.read(partial(sums.add_up, most=AT_ONCE))
    if added.through > added.after:
        await database.write(partial(sums.put, added=added))
    return added.through - added.after


async def usage(database: Database, question: UsageRequest, *, now_us: int) -> Usage:
    """What `question` asks for. BadRequest where its moments make no sense."""
    until = _moment("until", question.until, now_us)
    since = _moment("since", question.since, until - _DAY)
    if not 0 < until - since <= LONGEST:
        raise BadRequest("since must be before until, and at most ten years before")
    if not 1 <= question.top <= MOST_ROWS:
        raise BadRequest(f"top must be between 1 and {MOST_ROWS}")
    width = next(width for longest, width in _WIDTHS if until - since <= longest)
    user = None if question.user is None else question.user.strip().casefold()
    span = Span(since, until, user, width, hours=width >= HOUR)

    def read(conn: sqlite3.Connection) -> tuple[list[tuple[str, Sums]], dict[int, Sums]]:
        waiting = sums.behind(conn)
        if waiting > FAR_BEHIND:
            # Once, after an upgrade: reading them all would keep a reader busy for many seconds.
            raise Unavailable(
                f"usage is being added up for the first time: {waiting} records are left; try again in a minute",
                code="usage_behind",
                retry_after=60,
            )
        return sums.by_name(conn, span, _COLUMNS[question.by]), sums.by_time(conn, span)

    names, times = await database.read(read)
    names.sort(key=lambda each: (-each[1].tokens_out, -each[1].requests, -each[1].refusals, each[0]))
    shown, others = names[: question.top], names[question.top :]
    starts = range(since // width * width, until, width)
    return Usage(
        since=iso(since),
        until=iso(until),
        by=question.by,
        total=_row("", [each for _, each in names]),
        rows=[_row(name, [each]) for name, each in shown],
        others=_row("", [each for _, each in others]) if others else None,
        bucket_seconds=width // SECOND,
        series=[_bucket(start, times.get(start, Sums())) for start in starts],
    )


def _row(name: str, some: list[Sums]) -> UsageRow:
    return UsageRow(**_fields(name, Sums(*map(sum, zip(*some, strict=True))) if some else Sums()))


def _bucket(start: int, of: Sums) -> UsageBucket:
    return UsageBucket(start=iso(start), **_fields("", of))


def _fields(name: str, of: Sums) -> dict[str, Any]:
    fields: dict[str, Any] = {**of._asdict(), "name": name, "gpu_seconds": round(of.gpu_us / SECOND, 3)}
    del fields["gpu_us"]
    return fields


def _moment(name: str, text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    try:
        return from_iso(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: {text!r} is not a moment such as 2026-01-31T09:00:00Z") from error
