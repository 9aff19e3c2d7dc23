"""The daemon's jobs: exports, verifications, retention. They go on when whoever asked has left.

Rules: what is heavy runs in a child process; at most two jobs run at once and one of a kind that erases; each has one
end, and what the daemon leaves unfinished is `failed` at its next start, without a file. What a job does is not known
here (`exporting.py`, `verifying.py`, `retaining.py`).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import Conflict, GatewayError, NotFound
from common.protocol import JobKind, JobRow, JobState
from daemon.access.actor import DAEMON, Actor
from daemon.clock import Clock
from daemon.jobs.job import Job
from daemon.store.database import Database, StoreFailed
from daemon.store.exports import is_registered
from daemon.store.jobs import KEPT, StoredJob, add_job, all_jobs, save_job
from daemon.store.journal import append_admin

log = logging.getLogger("gatelodge.jobs")

AT_ONCE = 2
MOST_QUEUED = 100
STOPPED = "the daemon stopped"
TEMPORARY = ".writing-"  # begins the name of a file that is not whole yet


class Jobs:
    """One per daemon. `changed` is told the number of a job whose row is another."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._jobs: dict[int, Job] = {}
        self._closing = False
        self.changed: Callable[[int], None] = lambda _: None

    @classmethod
    async def load(cls, database: Database, clock: Clock) -> Jobs:
        """What the store remembers; what an earlier daemon was at has failed, and its file is gone."""
        jobs = cls(database, clock)
        for stored in await database.write(partial(_take_up, now_us=clock.wall()), always=True):
            jobs._jobs[stored.id] = Job(stored, DAEMON)
        return jobs

    # --- asking ---

    def rows(self, state: JobState | None = None, limit: int = 50) -> list[JobRow]:
        """Newest first."""
        newest = sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)
        return [job.row() for job in newest if state is None or job.stored.state == state][: max(0, limit)]

    def row(self, id_: int) -> JobRow | None:
        """One job; None where nobody remembers it."""
        job = self._jobs.get(id_)
        return None if job is None else job.row()

    def find(self, id_: int) -> Job:
        """One job; NotFound."""
        if id_ not in self._jobs:
            raise NotFound(f"there is no job {id_}; `gatelodge jobs list` shows those that are remembered")
        return self._jobs[id_]

    def busy(self, kind: JobKind) -> bool:
        """Whether a job of this kind is queued or runs."""
        return any(job.stored.kind == kind and not job.is_over for job in self._jobs.values())

    # --- changing ---

    async def start(
        self,
        kind: JobKind,
        work: Callable[[Job], Awaitable[None]],
        *,
        actor: Actor,
        target: str,
        format_: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Job:
        """Queue a job; that it was asked for is in the audit before it begins. Conflict where too many wait."""
        if self._closing:
            raise Conflict("the daemon is stopping", code="stopping")
        if sum(job.stored.state == "queued" for job in self._jobs.values()) >= MOST_QUEUED:
            raise Conflict(f"{MOST_QUEUED} jobs are waiting already; cancel some", code="too_many_jobs")
        now = self._clock.wall()
        stored = StoredJob(
            id=0, kind=kind, state="queued", actor=actor.name, target=target, format=format_, path=None, size=None,
            sha256=None, records=None, result="", error=None, created_us=now, started_us=None, ended_us=None,
        )  # fmt: skip

        def store(conn: sqlite3.Connection) -> int:
            id_ = add_job(conn, stored)
            append_admin(
                conn, actor=actor, verb=f"jobs {kind}", target=target, detail={"job": id_, **(detail or {})},
                at_us=now, clock_us=self._clock.now(),
            )  # fmt: skip
            return id_

        try:
            id_ = await self._database.write(store)
        except StoreFailed:
            # A full disk has set its reserve free in the meantime (`daemon/ballast.py`).
            id_ = await self._database.write(store)
        job = Job(stored._replace(id=id_), actor, work)
        job.changed = partial(self._changed, id_)
        self._jobs[id_] = job
        self._forget()
        self._changed(id_)
        self._go_on()
        return job

    async def cancel(self, actor: Actor, id_: int) -> Job:
        """End a job that has not ended; its file, where one was begun, goes. Conflict where it is over."""
        job = self.find(id_)
        if job.is_over or job.finishing:
            raise Conflict(f"job {id_} is {job.stored.state if job.is_over else 'done'} already", code="job_over")
        job.cancelled = True
        detail = {"kind": job.stored.kind, "state": job.stored.state}
        if job.task is None:
            await self._end(job, "cancelled")
        else:
            job.task.cancel()
            await asyncio.wait({job.task})

        def record(conn: sqlite3.Connection) -> None:
            append_admin(
                conn, actor=actor, verb="jobs cancel", target=f"job:{id_}", detail=detail, at_us=self._clock.wall(),
                clock_us=self._clock.now(),
            )  # fmt: skip

        await self._database.write(record)
        return job

    async def close(self) -> None:
        """End what runs: it is `failed`, as the daemon stopped. Before the database closes."""
        self._closing = True
        waiting = [job for job in self._jobs.values() if job.stored.state == "queued"]
        tasks = {job.task for job in self._jobs.values() if job.task is not None and not job.task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for job in waiting:
            await self._end(job, "failed", STOPPED)

    # --- within ---

    def _go_on(self) -> None:
        """Start what may run now, in the order of asking."""
        running = [job.stored.kind for job in self._jobs.values() if job.stored.state == "running"]
        for job in self._jobs.values():
            if len(running) >= AT_ONCE or self._closing:
                return
            if job.stored.state == "queued" and not job.cancelled:
                if job.stored.kind == "retention" and "retention" in running:
                    continue
                running.append(job.stored.kind)
                job.stored = job.stored._replace(state="running", started_us=self._clock.wall())
                job.task = asyncio.create_task(self._carry(job), name=f"job {job.id}")

    async def _carry(self, job: Job) -> None:
        """One job from its start to its one end."""
        assert job.work is not None
        try:
            await self._save(job)
            await job.work(job)
        except asyncio.CancelledError:
            if job.cancelled:
                await self._end(job, "cancelled")
            else:
                await self._end(job, "failed", STOPPED)
        except (GatewayError, OSError) as error:
            await self._end(job, "failed", str(error))
        except Exception as error:
            log.exception("job %d failed", job.id)
            await self._end(job, "failed", f"{type(error).__name__}: the log has the details")
        else:
            await self._end(job, "done")

    async def _end(self, job: Job, state: JobState, error: str | None = None) -> None:
        job.stored = job.stored._replace(state=state, error=error, ended_us=self._clock.wall())
        if job.stored.sha256 is None:
            await asyncio.to_thread(remove_files, job.stored.path)
        self._changed(job.id)
        await self._save(job)
        log.info("job %d, %s of %s: %s", job.id, job.stored.kind, job.stored.target, error or state)
        self._go_on()

    async def _save(self, job: Job) -> None:
        try:
            await self._database.write(job.save, always=True)
        except StoreFailed as failure:
            # What the daemon remembers is right; after a restart it is a job that the daemon left.
            log.warning("job %d could not be stored: %s", job.id, failure)

    def _changed(self, id_: int) -> None:
        self.changed(id_)

    def _forget(self) -> None:
        over = [job.id for job in self._jobs.values() if job.is_over]
        for id_ in over[: max(0, len(over) - KEPT)]:
            del self._jobs[id_]
            self._changed(id_)


def temporary_of(path: Path) -> str:
    """The name, in the same folder, of a job's file that is not whole yet."""
    return f"{TEMPORARY}{path.name}"


def remove_files(path: str | None) -> None:
    """Take away what there is of a file that no export is registered for."""
    if path is not None:
        file = Path(path)
        for each in (file.with_name(temporary_of(file)), file):
            each.unlink(missing_ok=True)


def _take_up(conn: sqlite3.Connection, now_us: int) -> list[StoredJob]:
    """Every stored job; those that have no end get one."""
    jobs = []
    for job in all_jobs(conn):
        if job.state in ("queued", "running"):
            if job.path is not None and not is_registered(conn, job.path):
                try:
                    remove_files(job.path)
                except OSError as error:
                    log.warning("%s of job %d could not be removed: %s", job.path, job.id, error)
            job = job._replace(state="failed", error=STOPPED, ended_us=now_us)  # noqa: PLW2901
            save_job(conn, job)
        jobs.append(job)
    return jobs
