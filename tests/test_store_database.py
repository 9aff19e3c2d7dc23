"""The store's door: durable group commit, savepoints, bounds, and a start that refuses what is not safe."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import StartError
from daemon.clock import SystemClock
from daemon.store import opening
from daemon.store.database import QUEUED_BYTES, QUEUED_JOBS, Database, StoreBusy, StoreFailed
from daemon.store.filesystem import file_system_of, free_bytes, is_network
from daemon.store.migrate import Migration, known_migrations, migrate, statements
from daemon.store.moments import last_moment
from daemon.store.settings import clear_setting, get_setting, set_setting
from tests.rigs.until import until


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "gatelodge.db")
    yield opened
    await opened.close()


def put(name: str):
    return lambda conn: set_setting(conn, name, "x")


async def has(database: Database, name: str) -> bool:
    return await database.read(lambda conn: get_setting(conn, name)) is not None


async def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """A returned write is in the file."""
    path = tmp_path / "data" / "gatelodge.db"
    first = await Database.open(path)
    await first.write(lambda conn: set_setting(conn, "colour", "green"))
    await first.write(lambda conn: set_setting(conn, "colour", "blue"))
    await first.close()
    second = await Database.open(path)
    assert await second.read(lambda conn: get_setting(conn, "colour")) == "blue"
    await second.write(lambda conn: clear_setting(conn, "colour"))
    assert not await has(second, "colour")
    await second.close()


async def test_a_new_database_is_found_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite syncs its files; each folder that something was made in is synced by us, once."""
    synced: list[Path] = []
    monkeypatch.setattr(opening, "sync_folder", synced.append)
    path = tmp_path / "new" / "data" / "gatelodge.db"
    await (await Database.open(path)).close()
    assert sorted(synced) == [tmp_path, tmp_path / "new", tmp_path / "new" / "data"]
    await (await Database.open(path)).close()
    assert len(synced) == 3


async def test_only_the_owner_may_read_the_files(database: Database) -> None:
    """Database, log and index are 0600, the folder that was made for them 0700."""
    await database.write(put("a"))
    files = sorted(database.path.parent.glob("gatelodge.db*"))
    assert [file.name for file in files] == ["gatelodge.db", "gatelodge.db-shm", "gatelodge.db-wal"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_the_writer_is_fully_synchronous_and_logs_ahead(database: Database) -> None:
    """WAL with synchronous=FULL: the only pair that keeps what it acknowledged over a power cut."""
    modes = await database.write(
        lambda conn: [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert modes == ["wal", 2]


async def test_jobs_that_wait_together_share_one_commit(database: Database) -> None:
    """Group commit: while the writer is busy everything gathers and leaves in one transaction."""
    gate = threading.Event()
    first = database.submit(lambda conn: gate.wait(5))
    await until(lambda: not database._waiting)
    rest = [database.submit(put(f"n{n}")) for n in range(50)]
    before = database.commits
    gate.set()
    await asyncio.gather(first, *rest)
    assert database.commits == before + 2
    assert all([await has(database, f"n{n}") for n in range(50)])


async def test_a_failing_job_undoes_only_itself(database: Database) -> None:
    """A savepoint each: neighbours of the same commit stay, and the failed one gets its own error."""

    def half(conn: sqlite3.Connection) -> None:
        set_setting(conn, "half", "x")
        raise ValueError("changed my mind")

    def twice(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO settings VALUES ('before', 'y')")

    outcomes = await asyncio.gather(
        *(database.submit(job) for job in (put("before"), half, twice, put("after"))), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, sqlite3.IntegrityError, type(None)]
    assert await has(database, "before") and await has(database, "after") and not await has(database, "half")


async def test_jobs_run_in_the_order_of_their_submission(database: Database) -> None:
    """The journal closes by id what it opened before, even when nobody awaited the opening."""
    seen: list[int] = []
    await asyncio.gather(*(database.submit(lambda conn, n=n: seen.append(n)) for n in range(200)))
    assert seen == list(range(200))


async def test_a_cancelled_caller_does_not_cancel_its_write(database: Database) -> None:
    """Writes are shielded: half of a change is never what is left of a departed client."""
    gate = threading.Event()
    blocked = database.submit(lambda conn: gate.wait(5))
    task = asyncio.create_task(database.write(put("kept")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await blocked
    await until(lambda: database.pending_jobs == 0)
    assert await has(database, "kept")


async def test_the_queue_is_bounded_in_jobs_and_bytes(database: Database) -> None:
    """A2: 1,000 jobs or 64 MiB; what is bounded elsewhere passes; the bound lifts as the queue empties."""
    gate = threading.Event()
    waiting = [database.submit(lambda conn: gate.wait(5), size=QUEUED_BYTES - 10)]
    with pytest.raises(StoreBusy):
        database.submit(put("big"), size=11)
    waiting += [database.submit(put("small")) for _ in range(QUEUED_JOBS - 1)]
    with pytest.raises(StoreBusy) as refusal:
        database.submit(put("one more"))
    assert refusal.value.status == 503 and refusal.value.retry_after
    waiting.append(database.submit(put("closing"), size=11, always=True))
    gate.set()
    await asyncio.gather(*waiting)
    await database.write(put("big"), size=QUEUED_BYTES)
    assert await has(database, "closing") and not await has(database, "one more")


async def test_a_full_disk_fails_the_write_and_the_next_one_works_when_there_is_room(database: Database) -> None:
    """SQLITE_FULL is StoreFailed for every job of that commit; nothing of them stays; nothing needs a restart."""

    def pages(limit: int):
        return lambda conn: conn.execute(f"PRAGMA max_page_count = {limit}").fetchone()

    await database.write(pages(1))  # SQLite takes the present size as the least
    outcomes = await asyncio.gather(
        database.submit(put("small")),
        database.submit(lambda conn: set_setting(conn, "large", "x" * 100_000)),
        database.submit(put("behind")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [StoreFailed] * 3
    assert "full" in str(outcomes[0]) and outcomes[0].retry_after
    assert not await has(database, "small")
    await database.write(pages(1_000_000))
    await database.write(lambda conn: set_setting(conn, "large", "x" * 100_000))
    assert await has(database, "large")


async def test_after_a_failed_fsync_nothing_is_acknowledged_any_more(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel forgets a failed fsync; a later success would prove nothing. Only a restart reads the truth."""

    def lost(conn: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with pytest.raises(StoreFailed):
        await database.write(lost)
    with pytest.raises(StoreFailed, match="restart"):
        await database.write(put("later"))
    assert [record.message[:24] for record in caplog.records] == ["the disk lost a write (f"]
    assert "broken" in repr(database)


async def test_what_waits_behind_a_lost_write_is_not_acknowledged(database: Database) -> None:
    """Those in line when the fsync failed are told so; they are not written by a connection that may be wrong."""
    gate = threading.Event()

    def lost(conn: sqlite3.Connection) -> None:
        gate.wait(5)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    losing = database.submit(lost)
    await until(lambda: not database._waiting)
    behind = database.submit(put("behind"))
    gate.set()
    outcomes = await asyncio.gather(losing, behind, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreFailed] * 2 and "restart" in str(outcomes[1])
    assert not await has(database, "behind")


async def test_damage_met_while_writing_stops_all_writing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A page that is not SQLite's: told in the log once, with what to do; nothing is acknowledged until a restart;
    what can still be read is read."""
    await database.write(lambda conn: set_setting(conn, "colour", "green"))
    await database.write(lambda conn: conn.execute("CREATE TABLE victim (a)") and None)
    await database.empty_log()
    (page,) = await database.read(
        lambda conn: conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'victim'").fetchone()
    )
    with database.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)

    def touch(conn: sqlite3.Connection) -> None:
        conn.execute("PRAGMA shrink_memory")
        conn.execute("INSERT INTO victim VALUES (1)")

    with pytest.raises(StoreFailed, match="malformed"):
        await database.write(touch)
    for _ in range(2):
        with pytest.raises(StoreFailed, match="its log says why"):
            await database.write(put("later"))
    assert [record.levelname for record in caplog.records if "is damaged" in record.message] == ["ERROR"]
    assert await database.read(lambda conn: get_setting(conn, "colour")) == "green"
    with pytest.raises(StoreFailed, match="malformed"):
        await database.read(lambda conn: conn.execute("SELECT * FROM victim").fetchall())


async def test_a_reader_that_opens_for_a_departed_caller_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled first read leaves no connection and no thread behind that nobody closes."""
    database = await Database.open(tmp_path / "a.db")
    gate = threading.Event()
    opened: list[sqlite3.Connection] = []

    def slowly(path: Path) -> sqlite3.Connection:
        gate.wait(5)
        opened.append(opening.connect_to_read(path))
        return opened[0]

    monkeypatch.setattr("daemon.store.database.connect_to_read", slowly)
    reading = asyncio.create_task(database.read(lambda conn: get_setting(conn, "a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(reading, closing, return_exceptions=True)
    assert opened
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].total_changes  # noqa: B018


async def test_reading_is_one_snapshot_and_cannot_write(database: Database) -> None:
    """A reader sees one commit throughout and has no way to change anything."""
    await database.write(put("a"))
    entered, leave = threading.Event(), threading.Event()

    def look_twice(conn: sqlite3.Connection) -> tuple[bool, bool]:
        first = get_setting(conn, "b") is None
        entered.set()
        leave.wait(5)
        return first, get_setting(conn, "b") is None

    looking = asyncio.create_task(database.read(look_twice))
    await until(entered.is_set)
    await database.write(put("b"))
    leave.set()
    assert await looking == (True, True)
    assert await has(database, "b")
    with pytest.raises(StoreFailed, match="readonly"):
        await database.read(lambda conn: set_setting(conn, "c", "x"))


async def test_a_departed_reader_gives_its_connection_back(database: Database) -> None:
    """There are two readers: five cancelled reads must not use them up."""
    for _ in range(5):
        task = asyncio.create_task(database.read(lambda conn: get_setting(conn, "a")))
        await asyncio.sleep(0)
        task.cancel()
    assert await asyncio.wait_for(has(database, "a"), 5) is False


async def test_the_log_is_emptied_unless_a_reader_looks_at_it(database: Database) -> None:
    """What was erased must not live on in the log; a reader is waited for by trying again, not by holding up writes."""
    log = database.path.with_name("gatelodge.db-wal")
    await database.write(put("a"))
    assert log.stat().st_size
    entered, leave = threading.Event(), threading.Event()

    def look(conn: sqlite3.Connection) -> None:
        get_setting(conn, "a")
        entered.set()
        leave.wait(5)

    looking = asyncio.create_task(database.read(look))
    await until(entered.is_set)
    await database.write(put("b"))
    assert await asyncio.wait_for(database.empty_log(), 2) is False
    await database.write(put("c"))
    leave.set()
    await looking
    assert await database.empty_log() is True
    assert log.stat().st_size == 0
    assert await has(database, "c")


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    """What was submitted before the close is stored; what comes after is refused."""
    database = await Database.open(tmp_path / "a.db")
    futures = [database.submit(put(f"n{n}")) for n in range(10)]
    await database.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreFailed):
        await database.write(put("late"))
    with pytest.raises(StoreFailed):
        await database.read(lambda conn: None)
    await asyncio.wait_for(database.close(), 5)  # once more does nothing


async def test_the_gateway_clock_goes_on_after_the_last_commit(tmp_path: Path) -> None:
    """Every transaction carries the moment, so time does not fall back however the daemon ended."""
    path = tmp_path / "a.db"
    first = await Database.open(path, clock=SystemClock(offset=10**15))
    await first.write(put("a"))
    then = first.clock.now()
    await first.close()
    second = await Database.open(path)
    assert then <= second.clock.now() < then + 60_000_000
    kept = await second.read(last_moment)
    assert kept == second.last_moment is not None
    await second.close()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse.glusterfs"])
async def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    """A10: one line that names folder, file system and what to do; no file is made."""
    with pytest.raises(StartError, match=f"network file system .{kind}.*storage.data") as refusal:
        await Database.open(tmp_path / "a.db", file_system=lambda path: kind)
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs", "zfs", "overlay", "tmpfs", "fuse.ntfs-3g", ""])
def test_a_local_file_system_is_taken(kind: str) -> None:
    """Only what is shared over a network is refused."""
    assert not is_network(kind)


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF", "EXTRA?"])
async def test_less_than_full_synchronous_is_refused(tmp_path: Path, synchronous: str) -> None:
    """A10: NORMAL loses acknowledged rows in a power cut."""
    with pytest.raises(StartError, match="synchronous"):
        await Database.open(tmp_path / "a.db", synchronous=synchronous)


def test_the_file_system_is_read_from_the_mount_table(tmp_path: Path) -> None:
    """The deepest mount above the path counts, the later of two on one point, names with escaped blanks, too."""
    folder = tmp_path / "on the net"
    folder.mkdir()
    blank = str(folder).replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 999:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 999:2 / {blank} rw shared:1 master:2 - xfs /dev/sdb rw\n"
        f"3 1 999:3 / {blank} rw - nfs4 server:/x rw\n"
    )
    assert file_system_of(folder, mounts) == "nfs4"
    assert file_system_of(tmp_path, mounts) == "ext4"
    assert file_system_of(tmp_path, tmp_path / "absent") == ""
    assert free_bytes(tmp_path) > 0


async def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    """Going back to an older release must not eat the data."""
    path = tmp_path / "a.db"
    database = await Database.open(path)
    await database.write(lambda conn: conn.execute("INSERT INTO migrations VALUES (9999, 'future', 0)") and None)
    await database.close()
    with pytest.raises(StartError, match="newer release"):
        await Database.open(path)


async def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    """A damaged file and an unwritable place are one line each."""
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 400)
    with pytest.raises(StartError, match="damaged"):
        await Database.open(path)
    with pytest.raises(StartError, match="cannot create the data folder"):
        await Database.open(path / "under a file" / "a.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StartError, match="cannot read the database"):
        await Database.open(tmp_path / "folder.db")


def test_a_failing_schema_step_leaves_nothing_of_itself() -> None:
    """A step is one transaction: half of it is never applied."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    steps = known_migrations()
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert migrate(conn, steps, 1) == [step.number for step in steps]
    assert migrate(conn, steps, 2) == []
    bad = Migration(9998, "bad", "CREATE TABLE extra (a); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError):
        migrate(conn, [*steps, bad], 3)
    assert conn.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    assert migrate(conn, steps, 4) == []


def test_a_script_is_split_into_statements() -> None:
    """Comments and semicolons in strings do not mislead; a forgotten semicolon is an error, not a silent loss."""
    assert statements("-- a;\nSELECT ';' ;\nSELECT 2;\n-- end\n") == ["-- a;\nSELECT ';' ;", "SELECT 2;"]
    with pytest.raises(ValueError, match="unfinished"):
        statements("SELECT 1")
