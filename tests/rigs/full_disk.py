"""What happens on a full disk, played on a small one: `python -m tests.rigs.full_disk SCENARIO FOLDER`.

FOLDER is the small disk (`small_disk.py`); whatever a scenario claims is asserted here, in the process that has it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from common import paths, protocol
from common.files import write_whole
from common.protocol import AuditExport, AuditExported, JobRow, JobsExport, JobsRetention, JobTarget
from common.times import iso
from daemon.ballast import NAME
from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.office import Office
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import chunks

EXCHANGES = 60
PROMPT = 120_000  # bytes of an incompressible prompt, in hex


@asynccontextmanager
async def filled(disk: Path) -> AsyncIterator[tuple[Gatehouse, Office]]:
    """A daemon on the small disk with some megabytes of audit and its reserve taken."""
    ballast = {"storage__ballast": 64 << 20}
    async with ScriptedUpstream() as upstream, gatehouse(disk, upstream, **ballast) as gate:
        for _ in range(EXCHANGES):
            body = {"messages": [{"role": "user", "content": secrets.token_hex(PROMPT // 2)}]}
            assert (await gate.chat(**body)).status_code == 200
        await gate.house.database.empty_log()
        gate.house.disk.look()
        assert (gate.data / NAME).stat().st_size == 2 << 20  # a 16th of 32 MiB
        yield gate, Office(gate)


def fill(disk: Path) -> Path:
    """Take all that is left, to the last block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler


async def ended(office: Office, id_: int) -> JobRow:
    """A job's row at its end."""

    async def row() -> JobRow | None:
        found = await office.ask(protocol.JOBS_SHOW, JobTarget(id_))
        return found if found.state not in ("queued", "running") else None

    return await until(row, timeout=30)  # type: ignore[no-any-return]


async def streams(disk: Path) -> None:
    """The disk fills in mid-stream: an explicit end, 503 for newcomers, and the journal recovers."""
    async with filled(disk) as (gate, _):
        pace = asyncio.Semaphore(3)
        gate.upstream.next(chunks(400, pace=pace))
        async with gate.streaming() as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            filler = fill(disk)
            # The flood of pieces goes on; the disk has no room for what is set down of it, nor for its end.
            gate.house.disk._ballast.release()
            fill_again = disk / "filler2"
            fill(disk).rename(fill_again)
            for _ in range(1000):
                pace.release()
            last = [line async for line in lines][-1]
        end = json.loads(last)
        refused = await gate.chat()
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) > 0
        assert len(gate.upstream.inference) == EXCHANGES + 1
        filler.unlink(missing_ok=True)
        fill_again.unlink()
        gate.house.disk.look()
        row = (await gate.records())[0]
        # Either the end was durable and said so, or it was not and the client was told of a failure.
        assert ("error" in end) or end["done"] is True, end
        admitted = await gate.chat()
        assert admitted.status_code == 200, admitted.text

        async def closed() -> str | None:
            return next(each.state for each in await gate.records() if each.request_id == row.request_id)

        state = await until(closed, timeout=10)
        assert (state == "ok") == ("error" not in end), (state, end)
        report = await gate.house.journal.verify()
        assert report.intact, report.problems
        print("in mid-stream:", "error" if "error" in end else "done", "recorded as", state)


async def keeping(disk: Path) -> None:
    """A full disk: an export to it fails and leaves nothing, one to elsewhere works, retention frees room."""
    async with filled(disk) as (gate, office):
        filler = fill(disk)
        gate.house.disk.look()
        refused = await gate.chat()
        assert refused.status_code == 503, refused.text
        assert refused.json()["code"] == "disk_full"
        # To the full disk: the reserve is not enough for it.
        job = await ended(office, (await office.ask(protocol.JOBS_EXPORT, JobsExport(format="jsonl"))).id)
        assert job.state == "failed", job
        assert "No space left" in (job.error or ""), job
        assert list(paths.exports_folder(gate.data).iterdir()) == []
        # To another file system, verified there.
        with tempfile.TemporaryDirectory(dir="/var/tmp") as elsewhere:
            file = Path(elsewhere) / "all.jsonl"
            question = AuditExport(format="jsonl")

            def export() -> AuditExported:
                with office.client.download(protocol.AUDIT_EXPORT, question) as download:
                    digest, size = write_whole(file, download)
                    return AuditExported(export=download.export, sha256=digest, bytes=size, file=str(file))

            report = await office.ask(protocol.AUDIT_EXPORTED, await asyncio.to_thread(export))
            assert report.verified
            assert len(file.read_text().splitlines()) == EXCHANGES
        before = paths.database_file(gate.data).stat().st_size
        wanted = JobsRetention(before=iso(gate.house.clock.wall()), exported=True)
        job = await ended(office, (await office.ask(protocol.JOBS_RETENTION, wanted)).id)
        assert job.state == "done", job
        after = paths.database_file(gate.data).stat().st_size
        assert after < before / 3, (before, after)
        verified = await gate.house.journal.verify()
        assert verified.intact, verified.problems
        # The filler is still there: what retention freed is enough to take up work and the reserve again.
        assert filler.exists()
        gate.house.disk.look()
        answer = await gate.chat()
        assert answer.status_code == 200, (answer.text, gate.house.disk._free)
        print(f"retention on a full disk: database {before} -> {after} bytes; {job.result}")


if __name__ == "__main__":
    asyncio.run({"streams": streams, "keeping": keeping}[sys.argv[1]](Path(sys.argv[2])))
