"""What keeping costs: export, verification and retention of N exchanges, and what others' commits wait meanwhile.

    .venv/bin/python -m tests.bench.keeping [N]

Prints a line a job. The child processes are real, the disk is that of the temporary folder.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from common.protocol import JobRow, JobsExport, JobsVerify
from daemon.jobs.job import Job
from tests.rigs.keeping import ROOT, Keeper, keeper_in

WRITERS = 100
EVERY = 0.002  # seconds between two writes of somebody else


async def main(count: int) -> None:
    """Fill a database, then keep it."""
    with tempfile.TemporaryDirectory() as folder:
        async with keeper_in(Path(folder)) as keeper:
            await asyncio.gather(*(_converse(keeper, count // WRITERS) for _ in range(WRITERS)))
            for form in ("jsonl", "csv"):
                row = await _timed(
                    keeper,
                    f"export {form}",
                    keeper.keeping.export(ROOT, JobsExport(format=form)),  # type: ignore[arg-type]
                )
                assert row.records == count
            await _timed(keeper, "verify", keeper.keeping.verify(ROOT, JobsVerify()))
            before = keeper.desk.path.stat().st_size
            started = time.monotonic()
            async with _others(keeper) as waits:
                row = await keeper.retain()
            print(f"retention   {time.monotonic() - started:6.2f} s  {row.state}: {row.result}")
            print(f"            file {before / 1e6:.1f} MB -> {keeper.desk.path.stat().st_size / 1e6:.1f} MB")
            waits.sort()
            told = [waits[int(len(waits) * share)] * 1000 for share in (0.5, 0.99)]
            print(
                f"            others' commits p50 {told[0]:.1f} ms, p99 {told[1]:.1f} ms, max {waits[-1] * 1000:.1f} ms"
            )
            assert (await keeper.verify()).intact


async def _converse(keeper: Keeper, times: int) -> None:
    for _ in range(times):
        await keeper.desk.converse(secrets.token_hex(1000), answer=secrets.token_hex(1000))


async def _timed(keeper: Keeper, name: str, asked: Awaitable[Job]) -> JobRow:
    started = time.monotonic()
    row = await keeper.finished(await asked)
    seconds = time.monotonic() - started
    print(f"{name:<12}{seconds:6.2f} s  {row.state}, {row.records} records, {row.bytes or 0} bytes")
    return row


@asynccontextmanager
async def _others(keeper: Keeper) -> AsyncIterator[list[float]]:
    """Somebody else writes all the while; how long each write took."""
    waits: list[float] = []

    async def write() -> None:
        while True:
            started = time.perf_counter()
            await keeper.desk.database.write(lambda conn: conn.execute("SELECT 1").fetchone())
            waits.append(time.perf_counter() - started)
            await asyncio.sleep(EVERY)

    writing = asyncio.create_task(write())
    try:
        yield waits
    finally:
        writing.cancel()
        await asyncio.wait({writing})


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
