"""The windows' past, read back from the journal: at the start, and when a limit looks further back than memory does.

Rule: nothing is written. While the past is read, admission goes on by what it knows; then the fresh tallies take over
in one step. Reading is by pages, so that neither memory nor the event loop feels a busy day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from daemon.clock import Clock
from daemon.store.admissions import PastAdmission, admissions_from, admissions_settled_from, first_since
from daemon.store.database import Database
from daemon.traffic.admission import Admission, Subject
from daemon.traffic.limits import Limits

PAGE = 500  # admissions read, and then counted, at a time: a few milliseconds


async def restore(admission: Admission, limits: Limits, database: Database, clock: Clock) -> None:
    """Give a new admission its past, and let `limits` ask for more whenever a window looks further back."""
    reading = asyncio.Lock()

    async def recall() -> None:
        async with reading:
            await _recall(admission, database, since=clock.now() - limits.needed_history())

    limits.recall = recall
    await recall()


async def _recall(admission: Admission, database: Database, *, since: int) -> None:
    rebuild = admission.begin_rebuild()
    try:
        seq = await database.read(partial(first_since, since_clock=since))
        rebuild.remember(_remembered(await database.read(partial(admissions_settled_from, seq=seq))))
        while page := await database.read(partial(admissions_from, seq=seq, limit=PAGE)):
            rebuild.remember(_remembered(page))
            seq = page[-1].seq + 1
    except BaseException:
        admission.drop_rebuild()
        raise
    admission.finish_rebuild()


@dataclass(frozen=True, slots=True)
class _Past:
    """An admission as the journal knows it."""

    subject: Subject
    admitted_clock: int
    given_back: bool
    tokens: int
    spent_clock: int


def _remembered(rows: list[PastAdmission]) -> Iterator[_Past]:
    for row in rows:
        yield _Past(
            subject=Subject(row.user_id, row.user, row.key_id, row.model, row.address),
            admitted_clock=row.admitted_clock,
            given_back=not row.kept,
            tokens=row.tokens,
            spent_clock=row.settled_clock or 0,
        )
