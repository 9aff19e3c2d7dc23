"""A2: what cannot be recorded is refused: 503 with Retry-After, and the upstream is not even connected to."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.audit.journal import PATIENCE
from daemon.store.database import QUEUED_BYTES, QUEUED_JOBS, Database, StoreFailed
from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gatehouse]:
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as opened:
        assert (await opened.chat()).status_code == 200
        # The models are known, and nothing of this is in the pool any more.
        upstream.drop_idle_connections()
        yield opened


@contextmanager
def stalled(database: Database):
    """The writer's thread hangs, as on a disk that does not answer."""
    go_on = threading.Event()
    database.submit(lambda conn: go_on.wait(20))
    try:
        yield
    finally:
        go_on.set()


@asynccontextmanager
async def a_failing_disk(gate: Gatehouse) -> AsyncIterator[None]:
    """Every commit fails."""

    def fail(*_: Any) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    database = gate.house.database
    run, database._writer.run = database._writer.run, fail  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        database._writer.run = run  # type: ignore[method-assign]


@asynccontextmanager
async def a_disk_that_hangs(gate: Gatehouse) -> AsyncIterator[None]:
    gate.house.journal._patience = 0.05
    with stalled(gate.house.database):
        yield


@asynccontextmanager
async def many_events_in_line(gate: Gatehouse) -> AsyncIterator[None]:
    database = gate.house.database
    with stalled(database):
        await until(lambda: database.stalled_for() > 0)
        while database.pending_jobs < QUEUED_JOBS:
            database.submit(lambda conn: None, always=True)
        yield


@asynccontextmanager
async def many_bytes_in_line(gate: Gatehouse) -> AsyncIterator[None]:
    database = gate.house.database
    with stalled(database):
        await until(lambda: database.stalled_for() > 0)
        database.submit(lambda conn: None, size=QUEUED_BYTES)
        yield


@pytest.mark.parametrize("trouble", [a_failing_disk, a_disk_that_hangs, many_events_in_line, many_bytes_in_line])
async def test_what_cannot_be_recorded_is_refused_and_goes_nowhere(
    gate: Gatehouse, trouble: Callable[[Gatehouse], Any]
) -> None:
    """503, a Retry-After, no connection to the upstream; and the next request works when the trouble is over."""
    before, seen = gate.upstream.connections, len(gate.upstream.inference)
    async with trouble(gate):
        answer: httpx.Response = await asyncio.wait_for(gate.chat(), 10)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert (gate.upstream.connections, len(gate.upstream.inference)) == (before, seen)
    await until(lambda: gate.house.database.pending_jobs == 0)
    assert (await gate.chat()).status_code == 200


def test_the_bounds_are_those_that_are_promised() -> None:
    """Two seconds; 1,000 events or 64 MiB."""
    assert (PATIENCE, QUEUED_JOBS, QUEUED_BYTES) == (2.0, 1_000, 64 << 20)


async def test_ready_says_so_and_why(gate: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer hears of it, and nobody of paths or particulars: those are in the log."""
    gate.house.readiness.KEPT = 0.0
    assert (await gate.http.get(gate.url + "/ready")).json()["checks"]["audit"] == "ok"
    monkeypatch.setattr("daemon.store.database.STALLED", 0.05)
    with stalled(gate.house.database):
        await until(lambda: gate.house.database.stalled_for() > 0.05)
        answer = await gate.http.get(gate.url + "/ready")
        assert (answer.status_code, answer.json()["checks"]["audit"]) == (503, "the disk does not answer")

    def damaged(conn: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StoreFailed):
        await gate.house.database.write(damaged)
    answer = await gate.http.get(gate.url + "/ready")
    assert answer.status_code == 503 and "its log says why" in answer.json()["checks"]["audit"]
    refused = await gate.chat()
    assert refused.status_code == 503 and str(gate.data) not in refused.text
