"""Cost as work grows: the same request at a gateway that has much behind it, beside one that has nothing.

    nothing stored      a user, a key, an empty journal
    exchanges           so many stored, of a hundred users, over thirty days
    users and keys      so many of either
    three watchers      nothing stored, and three consoles attached that are shown everything live

Each house is a daemon of its own; in a round all are measured before the next round begins. The journal is filled
through the store's own functions (chain, indexes, bodies), but without waiting for the disk.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common import paths
from common.protocol import AuditFilter, AuditSearch
from common.times import iso
from console.client import watch
from daemon.audit.chain import Record
from daemon.audit.search import search
from daemon.exchange import new_request_id
from daemon.store.bodies import keep_body
from daemon.store.database import Database
from daemon.store.journal import append
from daemon.store.opening import connect_to_write
from tests.bench import proc, targets
from tests.bench.load import Result
from tests.bench.targets import Cores, Target

DAYS = 30
DAY = 24 * 3600 * 1_000_000  # microseconds
AUTHORS = 100  # users whose exchanges are stored
AT_ONCE = 5_000  # exchanges in one transaction of the filling
WATCHERS = 3
REQUESTS = {"row": "requests", "whole": True, "connections": 64}
STREAMS = {"row": "streams", "streams": 20, "rate": 100.0}

Measure = Callable[[Target, dict[str, float | bool | str]], Awaitable[Result]]


@dataclass(frozen=True)
class Sizes:
    """How much is behind each house."""

    exchanges: int
    users: int
    keys: int
    chunks: bool  # whether streams are measured, too


LONG = Sizes(1_000_000, 10_000, 1_000, chunks=True)
SHORT = Sizes(10_000, 300, 30, chunks=False)


@dataclass
class _House:
    """One column: what stands behind it, and what was measured."""

    title: str
    target: Target
    watched: bool = False
    idle: float = 0.0  # MiB
    requests: list[float] = field(default_factory=list)  # us each
    chunks: list[float] = field(default_factory=list)


async def table(folder: Path, upstream: Target, cores: Cores, sizes: Sizes, rounds: int, measure: Measure) -> str:
    """Start the houses, measure, print; a gateway that loses an answer makes it raise."""
    stored = folder / "exchanges"
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(targets.gatelodge(folder / "nothing", upstream, cores))
        full = await stack.enter_async_context(
            targets.gatelodge(stored, upstream, cores, users=AUTHORS, fill=lambda path: fill(path, sizes.exchanges))
        )
        crowd = await stack.enter_async_context(
            targets.gatelodge(folder / "people", upstream, cores, users=sizes.users, keys=sizes.keys)
        )
        houses = [
            _House("nothing stored", plain),
            _House(f"{sizes.exchanges:,} exchanges", full),
            _House(f"{sizes.users:,} users, {sizes.keys:,} keys", crowd),
            _House(f"{WATCHERS} watchers", plain, watched=True),
        ]
        for house in houses:
            await _at_rest(house.target.pid)
            house.idle = proc.memory(house.target.pid)
        for _ in range(rounds):
            for spec in (REQUESTS, STREAMS) if sizes.chunks else (REQUESTS,):
                for house in houses:
                    async with _watching(folder / "nothing", WATCHERS if house.watched else 0):
                        result = await measure(house.target, spec)
                    if result.lost:
                        raise RuntimeError(f"{result.lost} lost at {house.title}")
                    cost = 1e6 * result.cpu / result.units
                    (house.requests if spec is REQUESTS else house.chunks).append(cost)
    page, day = await _looking(stored)
    return _printed(houses, sizes, page, day)


def fill(path: Path, exchanges: int) -> None:
    """Store that many answered exchanges of the first `AUTHORS` users, evenly over the last `DAYS` days."""
    conn = connect_to_write(path)
    conn.execute("PRAGMA synchronous = OFF")  # nothing is promised to anybody yet
    dice = random.Random(1)
    now = time.time_ns() // 1000
    step = DAYS * DAY // exchanges
    users = conn.execute("SELECT id, email FROM users ORDER BY id LIMIT ?", (AUTHORS,)).fetchall()
    bodies = {}
    for start in range(0, exchanges, AT_ONCE):
        conn.execute("BEGIN IMMEDIATE")
        if not bodies:
            for id_, _ in users:
                asked = keep_body(conn, id_, [b'{"model":"bench:latest","messages":[', b'{"role":"user"}', b"]}"])
                bodies[id_] = asked, keep_body(conn, id_, [b'{"role":"assistant","content":"It scatters."}'])
        for number in range(start, min(start + AT_ONCE, exchanges)):
            at = now - DAYS * DAY + number * step
            user_id, email = dice.choice(users)
            _exchange(conn, at, user_id, email, bodies[user_id])
        conn.execute("COMMIT")
    conn.close()


def _exchange(conn: sqlite3.Connection, at: int, user_id: int, email: str, bodies: tuple[object, object]) -> None:
    (asked, asked_digest), (answered, answered_digest) = bodies  # type: ignore[misc]
    request_id = new_request_id()
    opened = Record(
        event="opened",
        at_us=at,
        clock_us=at,
        request_id=request_id,
        user_id=user_id,
        user=email,
        key_id="k1",
        client_label="notebook",
        address="192.0.2.7",
        user_agent="curl/8",
        route="/api/chat",
        model_asked="bench",
        model="bench:latest",
        upstream="ollama",
        stream=1,
        received_us=at,
        admitted_us=at,
        body=asked,
        body_digest=asked_digest,
    )
    seq = append(conn, opened)
    closed = Record(
        event="closed",
        at_us=at + 500_000,
        clock_us=at + 500_000,
        request_id=request_id,
        opened_seq=seq,
        user_id=user_id,
        state="ok",
        error="",
        sent_upstream=1,
        tokens_in=12,
        tokens_out=30,
        bytes_out=900,
        received_us=at,
        seated_us=at,
        first_byte_us=at + 100_000,
        ended_us=at + 500_000,
        body=answered,
        body_digest=answered_digest,
    )
    append(conn, closed)


async def _at_rest(pid: int) -> None:
    """Until the daemon does nothing: after its start it adds up what it finds."""
    for _ in range(600):
        before = proc.cpu_seconds(pid)
        await asyncio.sleep(0.5)
        if proc.cpu_seconds(pid) - before <= 0.02:
            return


@asynccontextmanager
async def _watching(data: Path, count: int) -> AsyncIterator[None]:
    """So many consoles attached to the daemon of `data`, reading all they are told."""
    attached = 0
    all_attached = asyncio.Event()

    async def read() -> None:
        nonlocal attached
        async with aclosing(watch(paths.admin_socket(data))) as messages:
            await anext(messages)
            attached += 1
            if attached == count:
                all_attached.set()
            async for _ in messages:
                pass

    readers = [asyncio.create_task(read()) for _ in range(count)]
    try:
        if readers:
            await asyncio.wait_for(all_attached.wait(), 10)
        yield
        assert not any(reader.done() for reader in readers), "a watcher was sent away"
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _looking(data: Path) -> tuple[float, float]:
    """Milliseconds for a list page, and for a user's last day: medians of seven, the first after opening included."""
    database = await Database.open(paths.database_file(data))
    try:
        (email,) = await database.read(lambda conn: conn.execute("SELECT email FROM users WHERE id = 7").fetchone())
        since = iso(database.clock.wall() - DAY)
        page = [await _found(database, AuditFilter()) for _ in range(7)]
        day = [await _found(database, AuditFilter(user=email, since=since)) for _ in range(7)]
        return statistics.median(page), statistics.median(day)
    finally:
        await database.close()


async def _found(database: Database, wanted: AuditFilter) -> float:
    started = time.perf_counter()
    question = AuditSearch(filter=wanted)
    async with aclosing(search(database, question, now_us=database.clock.wall())) as rows:
        async for _ in rows:
            pass
    return 1000 * (time.perf_counter() - started)


def _printed(houses: list[_House], sizes: Sizes, page: float, day: float) -> str:
    first = houses[0]

    def cells(of: Callable[[_House], list[float]]) -> list[str]:
        base = statistics.median(of(first))
        found = [statistics.median(of(house)) for house in houses]
        return [f"{value:.1f} ({value / base:.2f}x)" for value in found]

    lines = [
        ["cost as work grows", *(house.title for house in houses)],
        ["start until it listens, s", *(f"{house.target.started:.2f}" for house in houses[:-1]), ""],
        ["memory, idle, MiB", *(f"{house.idle:.1f}" for house in houses[:-1]), ""],
        ["CPU per small request, 64 at once, us", *cells(lambda house: house.requests)],
    ]
    if sizes.chunks:
        lines.append(["CPU per chunk, 20 streams, us", *cells(lambda house: house.chunks)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        [
            *("  ".join(map(_aligned, line, widths, range(len(line)))) for line in lines),
            f"of {sizes.exchanges:,} exchanges a list page: {page:.1f} ms (demand: 20),"
            f" a user's last day: {day:.1f} ms (demand: 100)",
        ]
    )


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
