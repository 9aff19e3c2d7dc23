"""The audit journal alone: `python -m tests.bench.journal [--brief] [SECONDS] [FOLDER]`.

Prints exchanges per second with bodies of 4 KiB, durable, 50 at once; how long `opened` takes at 50 requests a second;
and, over what was written, the times of a list page, a user's last day, and of verify.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from common.protocol import AuditFilter, AuditSearch
from common.times import iso
from daemon.audit.search import search
from daemon.exchange import EndState
from tests.rigs.journals import ANA, Desk, desk_in, finish, streamed

AT_ONCE = 50
BODY = 4096
TURNS = 40
WORDS = "the gateway records every request before a byte of it goes to the model and the answer after it".split()  # noqa: SIM905


def prose(dice: random.Random) -> str:
    """4 KiB that are new each time."""
    words = " ".join(dice.choices(WORDS, k=BODY // 5))
    return f"{dice.random()} {words}"[:BODY]


async def exchanges_per_second(desk: Desk, seconds: float) -> float:
    """As many as go through, AT_ONCE at a time."""
    texts = [prose(random.Random(n)) for n in range(64)]
    numbers = itertools.count()
    stop = time.monotonic() + seconds
    done = 0

    async def drive() -> None:
        nonlocal done
        while time.monotonic() < stop:
            n = next(numbers)
            exchange = desk.exchange(f"{n} {texts[n % 64]}", user_id=1 + n % 2)
            await desk.journal.opened(exchange)
            finish(exchange, EndState.OK, desk.clock)
            await desk.journal.closed(exchange, [streamed_whole(f"{n} {texts[(n + 7) % 64]}")])
            done += 1

    started = time.monotonic()
    cpu = time.process_time()
    await asyncio.gather(*(drive() for _ in range(AT_ONCE)))
    took = time.monotonic() - started
    database = desk.database
    print(
        f"  {done} exchanges in {took:.1f} s, {1e6 * (time.process_time() - cpu) / done:.0f} us of CPU each,"
        f" {database.jobs_done / database.commits:.1f} jobs a commit, writer busy {database.seconds_writing / took:.0%}"
    )
    return done / took


def streamed_whole(text: str) -> bytes:
    """An answer as /api/chat sends it, four lines of text and the end."""
    step = len(text) // 4 + 1
    lines = [text[n : n + step].replace(" ", "\u00a0") for n in range(0, len(text), step)]
    return b"".join(streamed(" ".join(lines)))


async def opening(desk: Desk, rate: int, count: int) -> list[float]:
    """Milliseconds that `opened` takes at a steady rate."""
    times: list[float] = []
    dice = random.Random(1)

    async def one() -> None:
        exchange = desk.exchange(prose(dice))
        started = time.perf_counter()
        await desk.journal.opened(exchange)
        times.append(1000 * (time.perf_counter() - started))
        await desk.end(exchange, EndState.OK, "Yes.")

    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*tasks)
    return sorted(times)


async def opening_at_once(desk: Desk, count: int) -> list[float]:
    """Milliseconds that `opened` takes while AT_ONCE exchanges are always under way, each streaming for a while: what
    recording adds to the time to the first token (A3)."""
    times: list[float] = []
    left = iter(range(count))

    async def one_after_the_other(dice: random.Random) -> None:
        for _ in left:
            exchange = desk.exchange(prose(dice))
            started = time.perf_counter()
            await desk.journal.opened(exchange)
            times.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(dice.uniform(0.05, 0.35))
            await desk.end(exchange, EndState.OK, "Yes.")

    await asyncio.gather(*(one_after_the_other(random.Random(n)) for n in range(AT_ONCE)))
    return sorted(times)


async def turns(desk: Desk) -> float:
    """A conversation of TURNS turns, each with all that was said before: bytes stored for a byte of distinct text."""
    dice = random.Random(7)
    said: list[str] = []
    for _ in range(TURNS):
        said.append(prose(dice)[:1000])
        answer = prose(dice)[:1000]
        await desk.converse(*said, answer=answer, user_id=2)
        said.append(answer)
    rows = await desk.rows("SELECT SUM(LENGTH(data)), SUM(size) FROM parts WHERE user_id = 2")
    ((stored, size),) = rows
    print(
        f"{TURNS} turns: {stored:,} bytes lie in the table for {sum(map(len, said)):,} of text, {size:,} uncompressed"
    )
    return float(size) / sum(map(len, said))


async def timed_search(desk: Desk, wanted: AuditFilter) -> float:
    """Milliseconds for a page of 50."""
    started = time.perf_counter()
    async with aclosing(search(desk.database, AuditSearch(filter=wanted), now_us=desk.clock.wall())) as rows:
        async for _ in rows:
            pass
    return 1000 * (time.perf_counter() - started)


async def main(seconds: float, openings: int, folder: Path) -> None:
    """Everything, in order."""
    async with desk_in(folder) as desk:
        print(f"  stored of each byte of text, before compression: {await turns(desk):.2f} (demand: 1.5)")
        rate = await exchanges_per_second(desk, seconds)
        print(f"journal: {rate:.0f} exchanges/s with {BODY} bytes each way, durable (aim: 2,000)")
        times = await opening(desk, 50, openings)
        print(f"opened at 50/s: p50 {statistics.median(times):.2f} ms, p99 {times[int(len(times) * 0.99)]:.2f} ms")
        times = await opening_at_once(desk, openings * 10)
        print(
            f"opened, {AT_ONCE} exchanges under way ({len(times)} measured): p50 {statistics.median(times):.2f} ms,"
            f" p99 {times[int(len(times) * 0.99)]:.2f} ms (A3: 2 and 25)"
        )
        day = iso(desk.clock.wall() - 24 * 3600 * 1_000_000)
        print(f"list page: {await timed_search(desk, AuditFilter()):.1f} ms (aim: 20)")
        print(f"a user's last day: {await timed_search(desk, AuditFilter(user=ANA, since=day)):.1f} ms (aim: 100)")
        print(f"state:crashed, none there: {await timed_search(desk, AuditFilter(state='crashed')):.1f} ms")
        await desk.journal.checkpoint()
        started = time.perf_counter()
        report = await desk.journal.verify()
        took = time.perf_counter() - started
        pace = 100_000 * took / report.records
        print(f"verify: {report.records} records in {took:.1f} s, {pace:.1f} s per 100,000 (aim: 10)")
        assert report.intact, report.problems


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--brief"]
    brief = len(given) < len(sys.argv) - 1
    with tempfile.TemporaryDirectory() as scratch:
        length = float(given[0]) if given else 1.0 if brief else 5.0
        asyncio.run(main(length, 50 if brief else 200, Path(given[1] if len(given) > 1 else scratch)))
