"""The one door to SQLite: a single writer connection with group commit, and a few readers.

Rule: every write is a job, a plain function of a `sqlite3.Connection`; jobs that are waiting when the writer gets free
go to its thread in one hop and become durable with one COMMIT (WAL, synchronous=FULL: Gatelodge acknowledges nothing
that a power cut could take back). A job that raises undoes only itself (`transactions.py`). Nobody else opens the
database for writing, and the SQL itself lives in the other modules of this package.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from common.errors import StartError, Unavailable
from daemon.clock import Clock, Moment, SystemClock
from daemon.store.examining import examine
from daemon.store.filesystem import file_system_of
from daemon.store.opening import (
    connect_to_read,
    connect_to_write,
    is_damage,
    make_ready,
    prepare_file,
    prepare_folder,
    why_not_open,
)
from daemon.store.transactions import LOST_PAGES, commit, empty_log

log = logging.getLogger("gatelodge.store")

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

QUEUED_JOBS = 1_000
QUEUED_BYTES = 64 * 1024 * 1024
READERS = 2
STALLED = 2.0  # seconds of one commit, from which it is told that the disk does not answer

# For clients; the log has the particulars.
_UNTIL_REPAIRED = "nothing can be recorded until the gateway was looked at and restarted; its log says why"


class StoreBusy(Unavailable):
    """More writes are waiting than may wait."""

    code = "store_busy"


class StoreFailed(Unavailable):
    """The database could not be written or read: nothing of the job is stored."""

    code = "store_failed"


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs whole functions in its thread: a batch costs one hop, not one a statement."""

    async def run(self, work: Job[T]) -> T:
        # The one place that leans on a private name of aiosqlite; its public methods are this, a statement each.
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job in line, with whom to tell."""

    run: Job[Any]
    size: int
    repeatable: bool
    future: asyncio.Future[Any]


class Database:
    """Opened with `await Database.open(path)`, closed with `await close()`."""

    def __init__(self, path: Path, writer: _Connection, clock: Clock, moment: Moment | None) -> None:
        self.path = path
        self.clock = clock  # goes on where the store's last moment stopped
        self.last_moment = moment
        self.commits = 0
        self.jobs_done = 0
        self.seconds_writing = 0.0
        self._writer = writer
        self._waiting: list[_Waiting] = []
        self._pending_jobs = 0
        self._pending_bytes = 0
        self._batch_since: float | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self.trouble = ""  # why nothing can be written any more, until a restart
        self.when_full: Callable[[], None] = lambda: None  # told that a write found no room
        self._readers: list[_Connection] = []
        self._idle_readers: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(READERS):
            self._idle_readers.put_nowait(None)  # opened when first needed
        self._writing = asyncio.create_task(self._write_batches(), name="store writer")

    def __repr__(self) -> str:
        state = f"broken: {self.trouble}" if self.trouble else "closing" if self._closing else "open"
        return f"<Database {self.path} {state}, {self._pending_jobs} waiting, {self.commits} commits>"

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock | None = None,
        synchronous: str = "FULL",
        file_system: Callable[[Path], str] = file_system_of,
    ) -> Database:
        """Open or create the database at `path`, with the newest schema.

        Without a `clock`, the system's clock continued after the last stored moment. StartError, one line for people,
        on a network file system, a schema of a newer release, a damaged or unwritable file.
        """
        if synchronous.upper() != "FULL":
            raise StartError(
                f"synchronous={synchronous} is refused: a power cut would lose acknowledged records; use FULL"
            )
        prepare_folder(path, file_system)
        examine(path)
        prepare_file(path)
        writer = _Connection(partial(connect_to_write, path), 64)
        try:
            await writer
            moment = await writer.run(partial(make_ready, path=path))
        except BaseException as error:
            # A connection that never opened has stopped its thread itself.
            if writer._connection is not None:
                await writer.close()
            if isinstance(error, sqlite3.Error):
                raise StartError(why_not_open(path, error)) from error
            raise
        return cls(path, writer, clock or SystemClock.continued(moment), moment)

    async def close(self) -> None:
        """Finish what is queued, then close. Later writes raise StoreFailed; closing again does nothing."""
        if self._closing:
            await self._writing
            return
        self._closing = True
        self._wake.set()
        await self._writing
        for _ in range(READERS):
            await self._idle_readers.get()  # whoever still reads, or is about to, comes to an end first
        while self._readers:
            await self._readers.pop().close()
        for _ in range(READERS):
            self._idle_readers.put_nowait(None)  # to close once more does nothing
        # The last connection to close moves the log into the database.
        await self._writer.close()

    # --- writing ---

    async def write(self, job: Job[T], *, size: int = 0, always: bool = False, repeatable: bool = False) -> T:
        """Run `job` in the next group commit; returns its result once that commit is durable.

        Raises what the job raises (only its own changes are undone), StoreBusy, or StoreFailed. A cancelled caller does
        not cancel the write. `size`: bytes the job holds; `always`: skip the bound, for what is bounded elsewhere;
        `repeatable`: after it was undone the job may be run again, to the same end.
        """
        return await self.submit(job, size=size, always=always, repeatable=repeatable)

    def submit(
        self, job: Job[T], *, size: int = 0, always: bool = False, repeatable: bool = False
    ) -> asyncio.Future[T]:
        """As `write`, without waiting: jobs run in the order of their submission."""
        if self.trouble or self._closing:
            raise StoreFailed(_UNTIL_REPAIRED if self.trouble else "the database is closed", retry_after=5)
        if not always and (self._pending_jobs >= QUEUED_JOBS or self._pending_bytes + size > QUEUED_BYTES):
            raise StoreBusy("more writes are waiting for the disk than may wait; try again", retry_after=2)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, size, repeatable, future))
        self._pending_jobs += 1
        self._pending_bytes += size
        self._wake.set()
        return future

    @property
    def pending_jobs(self) -> int:
        """Writes that are queued or under way."""
        return self._pending_jobs

    async def empty_log(self) -> bool:
        """Move the write-ahead log into the database and cut it to nothing, so that nothing erased is left in it.

        False where a reader still looks at it: try again.
        """
        return await self._writer.run(empty_log)

    def stalled_for(self) -> float:
        """Seconds that the running commit has taken so far; 0 where none is running."""
        return 0.0 if self._batch_since is None else time.monotonic() - self._batch_since

    async def why_not_ready(self) -> str:
        """For /ready: what keeps every request from being recorded; empty where nothing does."""
        if self.trouble:
            return _UNTIL_REPAIRED
        return "the disk does not answer" if self.stalled_for() > STALLED else ""

    async def _write_batches(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            # One turn more, in which whoever is about to write joins: a commit costs as much CPU as eight of its jobs.
            await asyncio.sleep(0)
            batch, self._waiting = self._waiting, []
            started = self._batch_since = time.monotonic()
            try:
                if self.trouble:
                    raise sqlite3.OperationalError(self.trouble)  # found by the batch before, with these in line
                jobs, repeatable = [each.run for each in batch], all(each.repeatable for each in batch)
                outcomes = await self._writer.run(partial(commit, jobs, self.clock, repeatable=repeatable))
            except sqlite3.Error as cause:
                self._look_for_trouble(cause)
                outcomes = [(None, _failure(cause)) for _ in batch]
            else:
                self.commits += 1
                self.jobs_done += len(batch)
            self._batch_since = None
            self.seconds_writing += time.monotonic() - started
            for waiting, (result, error) in zip(batch, outcomes, strict=True):
                self._pending_jobs -= 1
                self._pending_bytes -= waiting.size
                _tell(waiting.future, result, error)

    def _look_for_trouble(self, cause: sqlite3.Error) -> None:
        """After some failures no later success would prove anything: nothing more is acknowledged."""
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            self.when_full()
        if self.trouble:
            return
        if getattr(cause, "sqlite_errorcode", None) in LOST_PAGES:
            self.trouble = "the disk lost a write (fsync failed): check the disk, then restart the daemon"
        elif is_damage(cause):
            self.trouble = why_not_open(self.path, cause)
        else:
            return
        log.error("%s; until then every request is refused", self.trouble)

    # --- reading ---

    async def read(self, job: Job[T]) -> T:
        """Run `job` on a reader connection in one snapshot of the last commit. Keep it short: an open reader lets the
        log grow. A cancelled caller does not stop it."""
        if self._closing:
            raise StoreFailed("the database is closed")
        reader = await self._idle_readers.get()
        # The opening of a reader, too, goes on without its caller: a half-open one would be nobody's to close.
        reading = asyncio.ensure_future(self._read_on(reader, job))
        reading.add_done_callback(_heard)
        return await asyncio.shield(reading)

    async def _read_on(self, reader: _Connection | None, job: Job[T]) -> T:
        try:
            if self._closing:
                raise StoreFailed("the database is closed")
            if reader is None:
                reader = await self._open_reader()
            return await reader.run(partial(_snapshot, job))
        except sqlite3.Error as cause:
            raise self._unreadable(cause) from cause
        finally:
            self._idle_readers.put_nowait(reader)

    def _unreadable(self, cause: sqlite3.Error) -> StoreFailed:
        if is_damage(cause):
            log.error("%s; reading goes on where it can", why_not_open(self.path, cause))
        return StoreFailed(f"the database could not be read: {cause}")

    async def _open_reader(self) -> _Connection:
        reader = _Connection(partial(connect_to_read, self.path), 64)
        await reader
        self._readers.append(reader)
        return reader


def _failure(cause: sqlite3.Error) -> StoreFailed:
    failure = StoreFailed(f"the database could not be written: {cause}", retry_after=5)
    failure.__cause__ = cause
    return failure


def _snapshot(job: Job[T], conn: sqlite3.Connection) -> T:
    conn.execute("BEGIN")
    try:
        return job(conn)
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def _heard(reading: asyncio.Future[Any]) -> None:
    if not reading.cancelled():
        reading.exception()  # its caller may have left: nobody is scolded for not asking


def _tell(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return  # its owner stopped listening
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # whoever awaits still gets it; nobody is scolded for not asking
