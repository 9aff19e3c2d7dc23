"""What may be asked of the jobs: an export, a verification, retention; and the daily retention.

Rule: a question that makes no sense is refused at once, in words, not by a job that fails later.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

from common import paths
from common.errors import BadRequest, Conflict, GatewayError
from common.protocol import JobsExport, JobsRetention, JobsVerify
from common.times import SECOND, from_iso, iso
from daemon.access.actor import DAEMON, Actor
from daemon.audit.journal import Journal
from daemon.audit.verify import Expectation
from daemon.clock import Clock
from daemon.config import Config
from daemon.jobs.exporting import Exporting, target_of
from daemon.jobs.job import Job
from daemon.jobs.jobs import Jobs
from daemon.jobs.retaining import Retention
from daemon.jobs.verifying import verify
from daemon.store.database import Database
from daemon.store.settings import get_setting, set_setting

log = logging.getLogger("gatelodge.jobs")

DAY = 24 * 3600 * SECOND
LOOK_EVERY = 60.0  # seconds between two looks at whether retention is due
LAST = "retention_began"  # the setting that says when the daily one last began


class Keeping:
    """The jobs of one daemon, by what they are for."""

    def __init__(self, database: Database, clock: Clock, journal: Journal, jobs: Jobs, config: Config) -> None:
        self.jobs = jobs
        self._database = database
        self._clock = clock
        self._journal = journal
        self._days = config.retention.days
        directory = config.retention.directory
        folder = Path(directory).absolute() if directory else paths.exports_folder(config.data)
        self._exporting = Exporting(database, clock, folder)
        self._retention = Retention(database, clock, journal, self._exporting)

    async def export(self, actor: Actor, request: JobsExport) -> Job:
        """Write what the filter finds into the folder of exports. BadRequest, NotFound, Conflict."""
        await self._exporting.check(request.filter)
        return await self.jobs.start(
            "export",
            partial(self._exporting.run, wanted=request.filter),
            actor=actor,
            target=target_of(request.filter),
            format_=request.format,
        )

    async def verify(self, actor: Actor, request: JobsVerify) -> Job:
        """Look at the whole journal."""
        if request.expect is not None:
            Expectation.read(request.expect)
        return await self.jobs.start(
            "verify",
            partial(verify, journal=self._journal, expect=request.expect),
            actor=actor,
            target="the journal" if request.expect is None else f"expect:{request.expect}",
        )

    async def retention(self, actor: Actor, request: JobsRetention) -> Job:
        """Export, verify, erase what was received before a moment. Conflict while another one runs."""
        now = self._clock.wall()
        if request.before is not None:
            try:
                before = from_iso(request.before)
            except (ValueError, OverflowError) as error:
                raise BadRequest(f"before: {request.before!r} is not a moment such as 2026-01-31") from error
            if before > now:
                raise BadRequest("before: only what is past can be erased; this moment is still to come")
        elif self._days is None:
            raise BadRequest("name a moment with --before, or set retention.days in the configuration")
        else:
            before = now - self._days * DAY
        if self.jobs.busy("retention"):
            raise Conflict("retention is running already; see `gatelodge jobs list`", code="retention_runs")
        return await self.jobs.start(
            "retention",
            partial(self._retention.run, before_us=before, exported=request.exported),
            actor=actor,
            target=f"until:{iso(before)}",
            format_=None if request.exported else "jsonl",
        )

    async def run(self) -> None:
        """Start the daily retention when it is due, where one is configured; until cancelled."""
        while self._days is not None:
            try:
                await self.look()
            except GatewayError as failure:
                log.warning("the daily retention could not begin: %s", failure)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Begin the daily retention if the last one began a day ago."""
        now = self._clock.wall()
        last = await self._database.read(lambda conn: get_setting(conn, LAST))
        # A wall clock that was set back does not put it off for longer than a day.
        if last is not None and 0 <= now - int(last) < DAY:
            return
        if not self.jobs.busy("retention"):
            await self.retention(DAEMON, JobsRetention())
            await self._database.write(lambda conn: set_setting(conn, LAST, str(now)))
