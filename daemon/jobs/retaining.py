"""Retention, one job: export, verify, erase (A7). Off unless `retention.days` is set or somebody asks.

    export     what was received before the moment, is closed and not erased yet, to a JSONL file
    verify     synced, renamed, read back: the child (`daemon/jobs/writing.py`); then registered
    record     a *rule* in the chain, which needs the registered export; sealed by a checkpoint
    erase      what rules cover and nothing else refers to, in short steps of the one writer
    give back  free pages to the file system, in short steps, too

A crash between any two of them is safe: without the rule nothing is erased, and what a rule covers and is still there
goes with the next retention.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from itertools import chain
from typing import TypeVar

from common.times import iso
from daemon.audit.child import read_lines
from daemon.audit.journal import Journal
from daemon.clock import Clock
from daemon.jobs.exporting import Exporting, retention_order, retention_path
from daemon.jobs.job import Job, JobFailed
from daemon.jobs.lines import Doomed, Planned, Progress, decode
from daemon.store.database import Database, StoreFailed
from daemon.store.exports import Export, export_of_everybody
from daemon.store.journal import head
from daemon.store.retention import LiveParts, add_rule, erase_some, expired, free_pages, give_back, rules

log = logging.getLogger("gatelodge.jobs")

T = TypeVar("T")

PAGES_A_STEP = 100
PAUSE = 2.0  # times what a step took: the writer is everybody's
LONGEST_PAUSE = 0.5  # seconds
NEARLY_THERE = 200  # records that the writer may look at itself
TIGHT = 256 * 1024 * 1024  # free bytes below which the log is kept short
TRIES = 5  # of a step on a full disk, whose reserve is set free in the meantime
EMPTYING = 40  # tries to empty the log, a twentieth of a second each


class Retention:
    """Erases bodies; one run at a time."""

    def __init__(self, database: Database, clock: Clock, journal: Journal, exporting: Exporting) -> None:
        self._database = database
        self._clock = clock
        self._journal = journal
        self._exporting = exporting

    async def run(self, job: Job, before_us: int, *, exported: bool) -> None:
        """Erase what was received before then. `exported`: only what an export holds that was verified before."""
        if exported:
            export = await self._database.read(lambda conn: export_of_everybody(conn, before_us))
            if export is None:
                raise JobFailed(
                    f"no verified export of everybody's exchanges as JSONL covers the time before {iso(before_us)}; "
                    "make one: gatelodge audit export --format jsonl --output FILE",
                    code="not_exported",
                )
        else:
            export = await self._exported(job, before_us)
        if export is not None:
            await self._record(job, export, before_us)
        erased = await self._erase(job)
        pages = await self._give_back(job)
        told = f"{erased} parts of bodies erased, {pages} pages given back"
        result = f"{job.stored.result}; {told}" if job.stored.result else told
        job.stored = job.stored._replace(result=result)

    async def _exported(self, job: Job, before_us: int) -> Export | None:
        """The verified, registered export of what is to be erased; None where there is nothing."""
        through = (await self._database.read(head)).seq

        def has_any(conn: sqlite3.Connection) -> bool:
            return next(chain.from_iterable(expired(conn, before_us, through, rules(conn))), None) is not None

        if not await self._database.read(has_any):
            return None
        path = retention_path(self._exporting.folder, job, before_us)
        written = await self._exporting.write(job, path, retention_order(path, before_us, through))
        export = Export(
            id=secrets.token_hex(8),
            user_id=None,
            since_us=None,
            until_us=before_us,
            through_seq=through,
            sha256=bytes.fromhex(written.sha256),
            size=written.size,
            at_us=self._clock.wall(),
            where_to=str(path),
            format="jsonl",
        )
        await self._exporting.register(job, export, written.records)
        return export

    async def _record(self, job: Job, export: Export, before_us: int) -> None:
        """The record that lets bodies be missing, in the sealed part of the chain."""

        def record(conn: sqlite3.Connection) -> None:
            if any(rule.before_us >= before_us and rule.through_seq >= export.through_seq for rule in rules(conn)):
                return
            add_rule(conn, export, before_us, actor=job.actor, at_us=self._clock.wall(), clock_us=self._clock.now())

        await self._step(record)
        await self._journal.checkpoint()

    async def _erase(self, job: Job) -> int:
        """Erase what rules cover; how many parts."""
        erased = seen = 0
        live, planned = LiveParts(0), Planned(0, 0)
        async with aclosing(read_lines("plan", {"database": str(self._database.path)})) as lines:
            async for line in lines:
                match decode(line):
                    case Progress() as progress:
                        job.note(progress)
                    case Planned() as planned:
                        live = await self._caught_up(planned.through)
                    case Doomed(ids):
                        erased += await self._step(partial(_erase_some, ids, live))
                        seen += len(ids)
                        job.advance("erasing", seen, planned.parts, "parts")
        if erased:
            self._journal.bodies_were_erased()
        return erased

    async def _caught_up(self, seq: int) -> LiveParts:
        """What records behind `seq` refer to, seen on a reader, so that there is little left for the writer."""
        live = LiveParts(seq)
        while (end := (await self._database.read(head)).seq) - live.seq > NEARLY_THERE:
            await self._database.read(lambda conn, end=end: live.catch_up(conn, end))  # type: ignore[misc]
        return live

    async def _give_back(self, job: Job) -> int:
        """Make the file smaller; how many pages were given back."""
        total = left = await self._database.read(free_pages)
        while left:
            now = await self._step(lambda conn: give_back(conn, PAGES_A_STEP))
            if now >= left:
                break
            left = now
            job.advance("freeing space", total - left, total, "pages")
        for _ in range(EMPTYING):
            # What was erased lies in the log until then, and the file shrinks only then.
            if await self._database.empty_log():
                break
            await asyncio.sleep(0.05)
        return total - left

    async def _step(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """One short write, and a pause in proportion."""
        for last in range(TRIES - 1, -1, -1):
            started = time.monotonic()
            if shutil.disk_usage(self._database.path.parent).free < TIGHT:
                # The log grows with every step. Before it has taken the last room: then it could not even be emptied.
                with suppress(sqlite3.OperationalError):
                    await self._database.empty_log()
            try:
                result = await self._database.write(step, always=True)
            except StoreFailed as failure:
                if not last or self._database.trouble:
                    raise
                log.warning("retention could not write, tries again: %s", failure)
                await asyncio.sleep(0.2)
            else:
                await asyncio.sleep(min(LONGEST_PAUSE, PAUSE * (time.monotonic() - started)))
                return result
        raise AssertionError("unreachable")


def _erase_some(ids: list[int], live: LiveParts, conn: sqlite3.Connection) -> int:
    return erase_some(conn, ids, live, head(conn).seq)
