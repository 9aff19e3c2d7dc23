"""Exports that the daemon writes itself, to a folder of its own, verified there and registered.

Rule: an export counts, for deleting a user or for retention, only once the child has read it back and what it read is
what it wrote; registration and its `admin` record are one transaction.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sqlite3
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec

from common.protocol import AuditFilter
from common.times import iso
from daemon.audit.child import read_lines
from daemon.audit.search import wanted_by
from daemon.clock import Clock
from daemon.jobs.job import Job, JobFailed
from daemon.jobs.jobs import temporary_of
from daemon.jobs.lines import CannotWrite, Progress, Written, decode
from daemon.jobs.writing import Order
from daemon.store.database import Database
from daemon.store.exports import Export, add_export
from daemon.store.journal import append_admin, head
from daemon.store.search import Criteria

_FOREIGN = re.compile(r"[^A-Za-z0-9@._+-]+")


def target_of(wanted: AuditFilter) -> str:
    """A filter in the words of a search; "everybody" where nothing narrows it."""
    words = [f"{name}:{value}" for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) is not None]
    return " ".join(words) or "everybody"


class Exporting:
    """Writes exports into `folder`."""

    def __init__(self, database: Database, clock: Clock, folder: Path) -> None:
        self._database = database
        self._clock = clock
        self.folder = folder

    async def check(self, wanted: AuditFilter) -> None:
        """BadRequest or NotFound where a filter makes no sense: before a job is queued for it."""
        await self._database.read(partial(wanted_by, wanted, self._clock.wall()))

    async def run(self, job: Job, wanted: AuditFilter) -> None:
        """Write what `wanted` finds, verify and register it."""
        criteria = await self._database.read(partial(wanted_by, wanted, self._clock.wall()))
        through = (await self._database.read(head)).seq
        path = self._path(job, wanted.user or "everybody")
        order = Order(str(path), temporary_of(path), job.stored.format or "csv", through, criteria, wanted.text or "")
        written = await self.write(job, path, order)
        narrowed = msgspec.structs.replace(wanted, user=None, since=None, until=None)
        is_plain = narrowed == AuditFilter()
        export = Export(
            id=secrets.token_hex(8),
            user_id=criteria.user_id,
            since_us=criteria.since_us,
            until_us=criteria.until_us,
            through_seq=through,
            sha256=bytes.fromhex(written.sha256),
            size=written.size,
            at_us=self._clock.wall(),
            where_to=str(path),
            format=order.format,
            filter=None if is_plain else msgspec.json.encode(narrowed).decode(),
        )
        await self.register(job, export, written.records)

    async def write(self, job: Job, path: Path, order: Order) -> Written:
        """Have the child write the file. JobFailed where it could not; a cancelled job leaves no file."""
        await asyncio.to_thread(path.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        job.place(path)
        await self._database.write(job.save, always=True)
        async with aclosing(read_lines("write", {"database": str(self._database.path), "order": order})) as lines:
            async for line in lines:
                match decode(line):
                    case Progress() as progress:
                        job.note(progress)
                    case CannotWrite(words):
                        raise JobFailed(words)
                    case Written() as written:
                        job.finishing = True
                        return written
        raise JobFailed("the file was not finished")

    async def register(self, job: Job, export: Export, records: int) -> None:
        """From now on the export counts."""
        # Once it is asked for, it is seen through: a file that counts must not be taken for one that does not.
        registering = self._database.submit(partial(self._register, job, export, records), always=True)
        was_cancelled = await _ended(registering)
        job.finishing = False
        registering.result()
        job.stored = job.stored._replace(
            size=export.size,
            sha256=export.sha256,
            records=records,
            result=f"{records} exchange{'' if records == 1 else 's'} written and read back",
        )
        if was_cancelled:
            raise asyncio.CancelledError

    def _register(self, job: Job, export: Export, records: int, conn: sqlite3.Connection) -> None:
        add_export(conn, export)
        append_admin(
            conn,
            actor=job.actor,
            verb="audit export",
            target="everybody" if export.user_id is None else f"user {export.user_id}",
            detail={
                "export": export.id, "job": job.id, "file": export.where_to, "format": export.format,
                "sha256": export.sha256.hex(), "bytes": export.size, "since_us": export.since_us,
                "until_us": export.until_us, "through": export.through_seq, "filter": export.filter,
                "exchanges": records,
            },
            at_us=export.at_us,
            clock_us=self._clock.now(),
            user_id=export.user_id,
        )  # fmt: skip

    def _path(self, job: Job, whose: str) -> Path:
        day = iso(self._clock.wall())[:10]
        return self.folder / f"{job.id:05d}-{_FOREIGN.sub('_', whose)[:100]}-{day}.{job.stored.format}"


async def _ended(future: asyncio.Future[None]) -> bool:
    """Wait until `future` is done, whatever happens; whether somebody cancelled the waiting."""
    was_cancelled = False
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            was_cancelled = True
    return was_cancelled


def retention_path(folder: Path, job: Job, before_us: int) -> Path:
    """Where retention puts what it is going to erase."""
    return folder / f"{job.id:05d}-before-{iso(before_us)[:10]}.jsonl"


def retention_order(path: Path, before_us: int, through_seq: int) -> Order:
    """What retention may erase, as JSONL: the only form that loses nothing."""
    return Order(str(path), temporary_of(path), "jsonl", through_seq, Criteria(), "", before_us)
