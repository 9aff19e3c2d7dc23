"""Jobs as administrators reach them: the command line, the admin socket, the watch stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common import protocol
from common.protocol import Batch, JobsExport, JobTarget, Snapshot, UserTarget
from console.client import watch
from daemon.jobs.job import Job
from tests.rigs.keeping import ROOT
from tests.rigs.office import Office, open_office
from tests.rigs.until import until


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        yield office


async def test_an_export_by_the_daemon_from_the_command_line(office: Office) -> None:
    """`audit export --job --wait`: a file in DATA/exports; listed, shown, and over means over."""
    await office.gate.chat()
    row = await office.json("audit", "export", "--job", "--wait", "user:ana@example.org", "--format", "jsonl")
    assert (row["state"], row["kind"], row["records"], row["target"]) == ("done", "export", 1, "user:ana@example.org")
    file = Path(row["path"])
    assert file.parent == office.gate.data / "exports"
    assert json.loads(file.read_text())["prompt"] == "Why?"
    assert [each["id"] for each in await office.json("jobs", "list")] == [row["id"]]
    assert await office.json("jobs", "list", "--state", "failed") == []
    assert (await office.json("jobs", "show", str(row["id"])))["sha256"] == row["sha256"]
    table = (await office.done("jobs", "list")).stdout
    assert str(file) in table
    assert row["sha256"] in (await office.done("jobs", "show", str(row["id"]))).stdout
    result = await office.cli("jobs", "cancel", str(row["id"]))
    assert result.exit_code == 1
    assert "already" in result.stderr
    assert (await office.cli("jobs", "show", "4711")).exit_code == 1
    assert (await office.cli("audit", "export", "user:ana@example.org")).exit_code == 2
    assert (await office.cli("audit", "export", "--job", "--output", "x")).exit_code == 2


async def test_verification_and_retention_from_the_command_line(office: Office) -> None:
    """What is asked for begins at once; without `--wait` the number tells where to look; a failed job is exit 1."""
    await office.gate.chat()
    said = await office.done("audit", "verify", "--job")
    assert "gatelodge jobs show 1" in said.stderr
    verified = await office.json("audit", "verify", "--job", "--wait")
    assert verified["result"].startswith("intact")
    result = await office.cli("audit", "retain", "--before", "1d")
    assert result.exit_code == 1  # nobody there to be asked
    erased = await office.json("audit", "retain", "--before", "0s", "--wait", "--yes")
    assert (erased["state"], erased["records"]) == ("done", 1)
    (found,) = await office.json("audit", "search")
    shown = await office.json("audit", "show", str(found["log_id"]))
    assert (shown["erased"], shown["prompt"]) == (True, "")
    assert (await office.json("audit", "verify"))["intact"] is True
    result = await office.cli("audit", "retain", "--before", "0s", "--exported", "--wait", "--yes", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "failed"
    assert (await office.cli("audit", "retain", "--yes")).exit_code == 2  # retention.days is not set


async def test_a_refused_deletion_names_the_export_that_lets_it_happen(office: Office) -> None:
    """`detail.export` is the question for `jobs/export`; after that job the user can be deleted."""
    await office.gate.chat()
    await office.done("users", "disable", "ana@example.org", "--yes")
    refused = await office.refused(protocol.USERS_DELETE, UserTarget("ana@example.org"))
    assert refused.code == "not_exported"
    answer = await office.http("POST", "/jobs/export", json=refused.detail["export"])
    id_ = answer.json()["id"]

    async def over() -> bool:
        return (await office.ask(protocol.JOBS_SHOW, JobTarget(id_))).state == "done"

    await until(over, timeout=20)
    assert (await office.ask(protocol.USERS_DELETE, UserTarget("ana@example.org"))).deleted


async def test_whoever_watches_sees_a_job_move(office: Office) -> None:
    """The snapshot has the jobs that are remembered; a batch each change, with `done` and the state."""
    first = await office.ask(protocol.JOBS_EXPORT, JobsExport())
    seen: list[dict[str, Any]] = []
    go_on = asyncio.Event()

    async def work(job: Job) -> None:
        job.advance("exporting", 5, 10, "exchanges")
        await go_on.wait()

    async def look() -> None:
        async with aclosing(watch(office.socket)) as messages:
            async for message in messages:
                if isinstance(message, Snapshot | Batch):
                    rows = message.rows if isinstance(message, Snapshot) else message.changed
                    seen.extend(msgspec.json.decode(each.row) for each in rows if each.kind == "job")

    watching = asyncio.create_task(look())
    try:
        await until(lambda: any(row["id"] == first.id for row in seen))
        job = await office.gate.house.keeping.jobs.start("export", work, actor=ROOT, target="x")
        await until(lambda: any(row["id"] == job.id and row["done"] == 5 for row in seen))
        go_on.set()
        await until(lambda: any(row["id"] == job.id and row["state"] == "done" for row in seen))
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def test_status_tells_when_the_disk_will_be_full(office: Office) -> None:
    """Not before something is known; nothing is invented."""
    told = await office.json("status")
    assert told["disk"]["growth_per_day"] is None
    assert told["disk"]["days_left"] is None
    forecast = office.gate.house.forecast
    forecast.history = [use._replace(at_us=use.at_us - 86_400_000_000, used=0) for use in forecast.history]
    told = await office.json("status")
    assert told["disk"]["growth_per_day"] > 0
    assert told["disk"]["days_left"] > 0
    assert "a day" in (await office.done("status")).stdout
