"""The one door to SQLite: a single writer connection with group commit, and a few readers.

Rule: every write is a job, a plain function of a `sqlite3.Connection`; jobs that are waiting when the writer gets free
go to its thread in one hop and become durable with one COMMIT (WAL, synchronous=FULL: Gatelodge acknowledges nothing
that a power cut could take back). Each job has a savepoint of its own: one that raises undoes only itself. Nobody
else opens the database for writing, and the SQL itself lives in the other modules of this package.
"""

from __future__ import annotations

import asyncio
import os
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
from daemon.store.filesystem import file_system_of, is_network
from daemon.store.migrate import known_migrations, migrate
from daemon.store.moments import keep_moment, last_moment

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

QUEUED_JOBS = 1_000
QUEUED_BYTES = 64 * 1024 * 1024
READERS = 2
BUSY_PATIENCE = 5.0  # seconds for a lock that only a foreign program can hold
WAL_LIMIT = 64 * 1024 * 1024  # bytes that the log keeps on the disk after it grew behind a long reader

# Errors of the file or the machine, not of one job: the whole transaction is lost with them, and SQLite has usually
# rolled it back by itself (https://www.sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction").
_COMMON_CAUSES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
# After a failed fsync the kernel may have dropped the pages and forgotten the error: a later success proves nothing
# (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). Only a restart re-reads the truth.
_LOST_PAGES = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


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
        self._broken = ""
        self._readers: list[_Connection] = []
        self._idle_readers: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(READERS):
            self._idle_readers.put_nowait(None)  # opened when first needed
        self._writing = asyncio.create_task(self._write_batches(), name="store writer")

    def __repr__(self) -> str:
        state = f"broken: {self._broken}" if self._broken else "closing" if self._closing else "open"
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
        _prepare_file(path, file_system)
        writer = _Connection(partial(_connect, path), 64)
        try:
            await writer
            moment = await writer.run(partial(_make_ready, path=path))
        except BaseException as error:
            # A connection that never opened has stopped its thread itself.
            if writer._connection is not None:
                await writer.close()
            if isinstance(error, sqlite3.Error):
                raise StartError(_why_not_open(path, error)) from error
            raise
        return cls(path, writer, clock or SystemClock.continued(moment), moment)

    async def close(self) -> None:
        """Finish what is queued, then close. Later writes raise StoreFailed."""
        self._closing = True
        self._wake.set()
        await self._writing
        for reader in self._readers:
            await reader.close()
        # The last connection to close moves the log into the database.
        await self._writer.close()

    # --- writing ---

    async def write(self, job: Job[T], *, size: int = 0, always: bool = False) -> T:
        """Run `job` in the next group commit; returns its result once that commit is durable.

        Raises what the job raises (only its own changes are undone), StoreBusy, or StoreFailed. A cancelled caller does
        not cancel the write. `size`: bytes the job holds; `always`: skip the bound, for what is bounded elsewhere.
        """
        return await asyncio.shield(self.submit(job, size=size, always=always))

    def submit(self, job: Job[T], *, size: int = 0, always: bool = False) -> asyncio.Future[T]:
        """As `write`, without waiting: jobs run in the order of their submission."""
        if self._broken or self._closing:
            raise StoreFailed(self._broken or "the database is closed", retry_after=5)
        if not always and (self._pending_jobs >= QUEUED_JOBS or self._pending_bytes + size > QUEUED_BYTES):
            raise StoreBusy("more writes are waiting for the disk than may wait; try again", retry_after=2)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, size, future))
        self._pending_jobs += 1
        self._pending_bytes += size
        self._wake.set()
        return future

    @property
    def pending_jobs(self) -> int:
        """Writes that are queued or under way."""
        return self._pending_jobs

    def stalled_for(self) -> float:
        """Seconds that the running commit has taken so far; 0 where none is running."""
        return 0.0 if self._batch_since is None else time.monotonic() - self._batch_since

    async def _write_batches(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._waiting = self._waiting, []
            started = self._batch_since = time.monotonic()
            try:
                outcomes = await self._writer.run(partial(_commit, [each.run for each in batch], self.clock))
            except StoreFailed as failure:
                outcomes = [(None, failure)] * len(batch)
                self._look_at(failure)
            else:
                self.commits += 1
                self.jobs_done += len(batch)
            self._batch_since = None
            self.seconds_writing += time.monotonic() - started
            for waiting, (result, error) in zip(batch, outcomes, strict=True):
                self._pending_jobs -= 1
                self._pending_bytes -= waiting.size
                _tell(waiting.future, result, error)

    def _look_at(self, failure: StoreFailed) -> None:
        if getattr(failure.__cause__, "sqlite_errorcode", None) in _LOST_PAGES:
            self._broken = "the disk lost a write (fsync failed): check the disk, then restart the daemon"

    # --- reading ---

    async def read(self, job: Job[T]) -> T:
        """Run `job` on a reader connection in one snapshot of the last commit. Keep it short: an open reader lets the
        log grow. A cancelled caller does not stop it."""
        if self._closing:
            raise StoreFailed("the database is closed")
        reader = await self._idle_readers.get()
        try:
            if reader is None:
                reader = await self._open_reader()
        except BaseException:
            self._idle_readers.put_nowait(None)
            raise
        reading = asyncio.ensure_future(reader.run(partial(_snapshot, job)))
        reading.add_done_callback(partial(self._reader_is_idle, reader))
        return await asyncio.shield(reading)

    def _reader_is_idle(self, reader: _Connection, reading: asyncio.Future[Any]) -> None:
        self._idle_readers.put_nowait(reader)
        if not reading.cancelled():
            reading.exception()  # its caller may have left: nobody is scolded for not asking

    async def _open_reader(self) -> _Connection:
        reader = _Connection(partial(connect_to_read, self.path), 64)
        await reader
        self._readers.append(reader)
        return reader


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for the readers here and for the child processes of `daemon/audit`."""
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_PATIENCE)
    # A damaged text is shown as far as it goes; only `audit verify` must tell every byte.
    conn.text_factory = lambda text: text.decode("utf-8", "replace")
    conn.execute("PRAGMA query_only = ON")
    conn.execute("PRAGMA cache_size = -2048")
    conn.execute("PRAGMA temp_store = MEMORY")
    return conn


# --- what runs in the writer's thread ---


def _commit(jobs: list[Job[Any]], clock: Clock, conn: sqlite3.Connection) -> list[tuple[Any, Exception | None]]:
    """All jobs in one transaction; of each its result or its own error. StoreFailed: nothing of any is stored."""
    try:
        conn.execute("BEGIN IMMEDIATE")
        outcomes = [_in_savepoint(conn, job) for job in jobs]
        if isinstance(clock, SystemClock):
            keep_moment(conn, clock.moment())
        conn.execute("COMMIT")
    except sqlite3.Error as error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise StoreFailed(f"the database could not be written: {error}", retry_after=5) from error
    return outcomes


def _in_savepoint(conn: sqlite3.Connection, job: Job[Any]) -> tuple[Any, Exception | None]:
    conn.execute("SAVEPOINT job")
    try:
        result = job(conn)
    except Exception as error:
        if _is_common_cause(error):
            raise
        conn.execute("ROLLBACK TO job")
        conn.execute("RELEASE job")
        return None, error
    conn.execute("RELEASE job")
    return result, None


def _is_common_cause(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _COMMON_CAUSES


def _snapshot(job: Job[T], conn: sqlite3.Connection) -> T:
    conn.execute("BEGIN")
    try:
        return job(conn)
    except sqlite3.Error as error:
        raise StoreFailed(f"the database could not be read: {error}") from error
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY_PATIENCE, cached_statements=256)


def _make_ready(conn: sqlite3.Connection, path: Path) -> Moment | None:
    """Set the writer's modes, check that they hold, bring the schema up to date."""
    (journal_mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
    conn.execute("PRAGMA synchronous = FULL")
    (synchronous,) = conn.execute("PRAGMA synchronous").fetchone()
    if journal_mode != "wal" or synchronous != 2:
        raise StartError(
            f"{path}: SQLite would not use its write-ahead log with synchronous=FULL here "
            f"(journal_mode={journal_mode}, synchronous={synchronous}); put the data on a local disk"
        )
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA temp_store = MEMORY")
    conn.execute("PRAGMA cache_size = -8192")
    conn.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    # What is deleted is overwritten where that costs no extra write; erasing bodies turns it fully on.
    conn.execute("PRAGMA secure_delete = FAST")
    migrate(conn, known_migrations(), time.time_ns() // 1000)
    return last_moment(conn)


# --- opening ---


def _prepare_file(path: Path, file_system: Callable[[Path], str]) -> None:
    """Folder and file exist on a disk of this machine; only the owner may read them (log and index take their mode)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartError(f"cannot create the data folder {path.parent}: {error.strerror}") from error
    kind = file_system(path.parent)
    if is_network(kind):
        raise StartError(
            f"{path.parent} lies on a network file system ({kind}), where a database is not safe: "
            "put storage.data on a local disk"
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StartError(f"cannot write the database {path}: {error.strerror}") from error


def _why_not_open(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"the database {path} is damaged ({error}): restore a backup, or move the file away to start empty"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"the database {path} is held by another program: close it and start again"
    if code == sqlite3.SQLITE_FULL:
        return f"no room left on the disk of {path}"
    return f"cannot open the database {path}: {error}"


def _tell(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return  # its owner stopped listening
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # whoever awaits still gets it; nobody is scolded for not asking
