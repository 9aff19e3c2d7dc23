"""Jobs of the daemon: exports and verifications that survive whoever asked, have one end, and leave no half file."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import pytest

from common import protocol
from common.errors import BadRequest, Conflict, NotFound
from common.files import Differs, write_whole
from common.protocol import AuditFilter, JobsExport, JobsRetention, JobsVerify
from daemon.access.actor import Actor
from daemon.audit.child import read_lines
from daemon.jobs import exporting
from daemon.jobs.job import Job, JobFailed
from daemon.jobs.jobs import AT_ONCE, MOST_QUEUED, STOPPED, Jobs
from daemon.store.jobs import KEPT
from daemon.store.users import exchanges_beyond_export
from tests.rigs.journals import BEN
from tests.rigs.keeping import ROOT, Keeper, keeper_in
from tests.rigs.until import until

ANAS = AuditFilter(user="ana@example.org")


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    async with keeper_in(tmp_path) as opened:
        yield opened


async def never(job: Job) -> None:
    """Work that goes on until it is ended."""
    await asyncio.Event().wait()


async def idle(keeper: Keeper, work: object = never, kind: protocol.JobKind = "verify") -> Job:
    """A job that does what the test wants."""
    return await keeper.jobs.start(kind, work, actor=ROOT, target="nothing")  # type: ignore[arg-type]


async def test_an_export_job_leaves_a_whole_file_that_only_its_owner_reads_and_counts(keeper: Keeper) -> None:
    """T4, A7: 0600 in DATA/exports, no temporary left, the SHA-256 is the file's, and the user may be deleted."""
    for n in range(3):
        await keeper.desk.converse(f"ana {n}")
        await keeper.desk.converse(f"ben {n}", user_id=2, user=BEN)
    row = await keeper.finished(await keeper.keeping.export(ROOT, JobsExport(filter=ANAS)))
    assert (row.state, row.error, row.records, row.done, row.actor) == ("done", None, 3, 3, "root")
    assert row.target == "user:ana@example.org"
    assert row.path is not None
    data = Path(row.path).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (row.sha256, row.bytes)
    assert stat.S_IMODE(Path(row.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(keeper.folder.stat().st_mode) == 0o700
    assert keeper.files() == [Path(row.path).name]
    prompts = [line["prompt"] for line in csv.DictReader(io.StringIO(data.decode(), newline=""))]
    assert prompts == ["ana 0", "ana 1", "ana 2"]
    missing = await keeper.desk.database.read(lambda conn: [exchanges_beyond_export(conn, n) for n in (1, 2)])
    assert missing[0] is None
    assert missing[1] is not None
    told = [json.loads(detail) for (detail,) in await keeper.desk.rows("SELECT detail FROM journal WHERE detail > ''")]
    assert [(each["verb"], each["job"]) for each in told] == [("jobs export", row.id), ("audit export", row.id)]


async def test_what_is_filtered_is_exported_and_lets_nobody_be_deleted(keeper: Keeper) -> None:
    """The words of a search: model, state, text …; such a file does not hold everything of a user."""
    await keeper.desk.converse("about foxes", model="a:latest")
    await keeper.desk.converse("about geese", model="a:latest")
    await keeper.desk.converse("about foxes", model="b:latest")
    wanted = AuditFilter(user="ana@example.org", model="a", state="ok", text="FOXES")
    row = await keeper.finished(await keeper.keeping.export(ROOT, JobsExport(filter=wanted, format="jsonl")))
    assert (row.state, row.records) == ("done", 1)
    assert [(line["prompt"], line["model"]) for line in keeper.exported(row)] == [("about foxes", "a:latest")]
    assert await keeper.desk.database.read(lambda conn: exchanges_beyond_export(conn, 1)) is not None
    with pytest.raises(NotFound):
        await keeper.keeping.export(ROOT, JobsExport(filter=AuditFilter(user="nobody@example.org")))
    with pytest.raises(BadRequest):
        await keeper.keeping.export(ROOT, JobsExport(filter=AuditFilter(state="fine")))


async def test_where_the_file_cannot_be_written_the_job_says_why_and_nothing_counts(tmp_path: Path) -> None:
    """A folder that is none: failed, in words; no export is registered."""
    (tmp_path / "file").write_text("")
    async with keeper_in(tmp_path / "data", exports=tmp_path / "file") as keeper:
        await keeper.desk.converse("x")
        row = await keeper.finished(await keeper.keeping.export(ROOT, JobsExport()))
        assert (row.state, row.path) == ("failed", None)
        assert row.error is not None
        assert "exists" in row.error
        assert await keeper.desk.rows("SELECT * FROM exports") == []


def test_a_disk_that_gives_back_something_else_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A7: what was read back is compared with what was written; the file goes."""
    real = os.rename

    def rename(*names: str, **folders: int) -> None:
        real(*names, **folders)
        (tmp_path / "x.csv").write_bytes(b"rotten")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Differs):
        write_whole(tmp_path / "x.csv", [b"fresh"])
    assert list(tmp_path.iterdir()) == []


async def test_a_cancelled_export_leaves_no_file(keeper: Keeper) -> None:
    """The child is killed while it writes; the temporary file goes, the job is `cancelled`, once and for all."""
    for n in range(25):
        await keeper.desk.converse(f"{n} " + "x" * 2_000_000)  # some tenths of a second of writing
    job = await keeper.keeping.export(ROOT, JobsExport())
    await until(lambda: any(name.startswith(".writing-") for name in keeper.files()))
    cancelled = await keeper.jobs.cancel(ROOT, job.id)
    assert (cancelled.row().state, cancelled.row().path) == ("cancelled", None)
    assert keeper.files() == []
    with pytest.raises(Conflict):
        await keeper.jobs.cancel(ROOT, job.id)
    assert await keeper.desk.rows("SELECT * FROM exports") == []


async def test_a_file_that_nobody_registered_goes_with_its_job(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled when the child had just finished: what does not count does not stay."""

    async def deaf(verb: Literal["write"], arguments: dict[str, Any]) -> AsyncIterator[bytes]:
        async with aclosing(read_lines(verb, arguments)) as lines:
            async for line in lines:
                yield line
                await asyncio.Event().wait()

    monkeypatch.setattr(exporting, "read_lines", deaf)
    await keeper.desk.converse("x")
    job = await keeper.keeping.export(ROOT, JobsExport())
    await until(lambda: [name for name in keeper.files() if not name.startswith(".")])
    assert (await keeper.jobs.cancel(ROOT, job.id)).row().state == "cancelled"
    assert keeper.files() == []


async def test_verification_is_a_job_that_fails_where_anything_was_changed(keeper: Keeper) -> None:
    """`done` with the head of an intact journal; `failed` with the problem otherwise."""
    await keeper.desk.converse("x")
    await keeper.desk.journal.checkpoint()
    good = await keeper.finished(await keeper.keeping.verify(ROOT, JobsVerify()))
    assert (good.state, good.records) == ("done", 3)
    assert good.result.startswith("intact, 1 unsealed, head 3:")
    await keeper.desk.database.write(lambda conn: conn.execute("UPDATE journal SET model = 'm' WHERE seq = 1").rowcount)
    bad = await keeper.finished(await keeper.keeping.verify(ROOT, JobsVerify()))
    assert bad.state == "failed"
    assert bad.error is not None
    assert "record 1: its hash" in bad.error


async def test_jobs_are_remembered_and_what_ran_has_failed_without_a_file(tmp_path: Path) -> None:
    """After kill -9: the running and the waiting one are `failed: the daemon stopped`; a registered file stays."""
    async with keeper_in(tmp_path) as keeper:
        await keeper.desk.converse("x")
        whole = await keeper.finished(await keeper.keeping.export(ROOT, JobsExport()))
        running = [await idle(keeper) for _ in range(AT_ONCE)]
        waiting = await idle(keeper)
        half = keeper.folder / "00009-half.csv"
        (keeper.folder / ".writing-00009-half.csv").write_text("half")
        running[0].place(half)
        await keeper.desk.database.write(running[0].save)
        # What a crash between rename and registration leaves, and one just behind the registration.
        half.write_text("whole, perhaps")
        await keeper.desk.database.write(
            lambda conn: conn.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (whole.id,)).rowcount
        )
        kept = Path(whole.path or "").name
        again = await Jobs.load(keeper.desk.database, keeper.desk.clock)
        rows = {row.id: row for row in again.rows()}
        for job in (*running, waiting):
            assert (rows[job.id].state, rows[job.id].error) == ("failed", STOPPED)
            assert rows[job.id].ended is not None
        assert keeper.files() == [kept]
        assert [row.id for row in again.rows()] == sorted(rows, reverse=True)


async def test_a_stopping_daemon_ends_its_jobs(tmp_path: Path) -> None:
    """SIGTERM: what runs and what waits has failed, the row is stored, nothing new begins."""
    async with keeper_in(tmp_path) as keeper:
        jobs = [await idle(keeper) for _ in range(AT_ONCE + 1)]
        await keeper.jobs.close()
        assert {(job.row().state, job.row().error) for job in jobs} == {("failed", STOPPED)}
        assert await keeper.desk.rows("SELECT DISTINCT state FROM jobs") == [("failed",)]
        with pytest.raises(Conflict):
            await idle(keeper)


async def test_two_run_at_once_and_the_rest_waits_its_turn(keeper: Keeper) -> None:
    """At most two, in the order of asking; a bounded line; one that waits can be cancelled, too."""
    jobs = [await idle(keeper) for _ in range(AT_ONCE + 2)]
    assert [job.stored.state for job in jobs] == ["running", "running", "queued", "queued"]
    await keeper.jobs.cancel(ROOT, jobs[2].id)
    assert jobs[2].row().state == "cancelled"
    await keeper.jobs.cancel(ROOT, jobs[0].id)
    await until(lambda: jobs[3].stored.state == "running")
    for _ in range(MOST_QUEUED):
        await idle(keeper)
    with pytest.raises(Conflict):
        await idle(keeper)


async def test_history_is_bounded(keeper: Keeper) -> None:
    """In the store and in memory."""

    async def done(job: Job) -> None:
        pass

    for _ in range(KEPT // 20 + 1):
        jobs = [await idle(keeper, done) for _ in range(20)]
        await until(lambda jobs=jobs: all(job.is_over for job in jobs))
        await asyncio.gather(*(job.task for job in jobs if job.task is not None))
    await idle(keeper, done)
    ((count,),) = await keeper.desk.rows("SELECT COUNT(*) FROM jobs")
    assert count <= KEPT + 1
    assert len(keeper.jobs.rows(limit=10_000)) <= KEPT + 1
    assert len(keeper.jobs.rows(limit=3)) == 3


async def test_progress_has_a_rate_and_a_time_left(keeper: Keeper) -> None:
    """Of the step that runs; watchers are told of each."""
    told: list[int] = []
    keeper.jobs.changed = told.append
    job = await idle(keeper)
    job.advance("exporting", 0, 100, "exchanges")
    job._began = time.monotonic() - 2
    before = len(told)
    job.advance("exporting", 50, 100, "exchanges")
    row = job.row()
    assert len(told) == before + 1
    assert (row.step, row.done, row.total, row.unit) == ("exporting", 50, 100, "exchanges")
    assert row.rate == pytest.approx(25, rel=0.1)
    assert row.eta_seconds == pytest.approx(2, rel=0.1)


async def test_a_job_that_breaks_is_failed_and_the_next_one_runs(keeper: Keeper) -> None:
    """What is foreseen is told in words; a bug is told to the log."""

    async def foreseen(job: Job) -> None:
        raise JobFailed("no room")

    async def bug(job: Job) -> None:
        raise ZeroDivisionError

    jobs = [await idle(keeper, work) for work in (foreseen, bug, foreseen)]
    rows = [await keeper.finished(job) for job in jobs]
    assert [row.state for row in rows] == ["failed"] * 3
    assert rows[0].error == "no room"
    assert "ZeroDivisionError" in (rows[1].error or "")


async def test_only_one_retention_at_a_time(keeper: Keeper) -> None:
    """A second one is refused while the first one is queued or runs."""
    job = await idle(keeper, kind="retention")
    with pytest.raises(Conflict):
        await keeper.keeping.retention(ROOT, JobsRetention(before="2020-01-01"))
    await keeper.jobs.cancel(Actor(uid=1, name="x", via="socket"), job.id)
