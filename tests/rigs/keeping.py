"""Jobs over a real database, with child processes as they are: a desk (`journals.py`) that keeps, exports, erases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.protocol import JobRow, JobsRetention, VerifyReport
from common.times import iso
from daemon import config as configuration
from daemon.access.actor import Actor
from daemon.clock import Clock
from daemon.jobs.job import Job
from daemon.jobs.jobs import Jobs
from daemon.jobs.keeping import Keeping
from tests.rigs.journals import Desk, desk_in
from tests.rigs.until import until

ROOT = Actor(uid=0, name="root", via="socket")


@dataclass
class Keeper:
    """A desk and its jobs."""

    desk: Desk
    jobs: Jobs
    keeping: Keeping
    folder: Path

    async def finished(self, job: Job) -> JobRow:
        """The job's row, once it has ended."""
        await until(lambda: job.is_over and (job.task is None or job.task.done()), timeout=20)
        return job.row()

    async def retain(self, before_us: int | None = None, *, exported: bool = False) -> JobRow:
        """Retention of what was received before then (now), at its end."""
        before = iso(self.desk.clock.wall() if before_us is None else before_us)
        return await self.finished(await self.keeping.retention(ROOT, JobsRetention(before=before, exported=exported)))

    async def verify(self) -> VerifyReport:
        """What `audit verify` says."""
        return await self.desk.journal.verify()

    def files(self) -> list[str]:
        """What lies in the folder of exports."""
        return sorted(file.name for file in self.folder.iterdir()) if self.folder.exists() else []

    def exported(self, row: JobRow) -> list[dict[str, Any]]:
        """The lines of a job's JSONL file."""
        assert row.path is not None
        return [json.loads(line) for line in Path(row.path).read_text(encoding="utf-8").splitlines()]

    async def erased(self) -> list[int]:
        """The parts that have no text any more."""
        return [id_ for (id_,) in await self.desk.rows("SELECT id FROM parts WHERE data IS NULL ORDER BY id")]


@asynccontextmanager
async def keeper_in(
    folder: Path, *, clock: Clock | None = None, exports: Path | None = None, days: int | None = None
) -> AsyncIterator[Keeper]:
    """Open (again) the database in `folder`, with its jobs."""
    flags: dict[str, Any] = {"storage.data": str(folder), "retention.directory": str(exports or "")}
    config = configuration.load(environment={}, flags=flags | ({} if days is None else {"retention.days": days}))
    async with desk_in(folder, clock=clock) as desk:
        jobs = await Jobs.load(desk.database, desk.clock)
        try:
            keeping = Keeping(desk.database, desk.clock, desk.journal, jobs, config)
            yield Keeper(desk, jobs, keeping, exports or folder / "exports")
        finally:
            await jobs.close()
