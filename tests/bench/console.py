"""The console alone, on a real pty: `python -m tests.bench.console [--brief]`.

Prints the time to the first paint and to the first rows, what it costs while nothing happens, what it costs and sends
at 200 live rows that all change four times a second, and its memory before and after an hour's worth of events, sent as
fast as it takes them. The daemon is a scripted one in this process, so that what is charged is the console's alone.
CPU is a share of one core; demands are those of performance for the console (first paint < 0.5 s, idle < 1 %, 200 rows
< 30 kB/s, no growth).
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from common import times
from common.protocol import EndedRow, LiveRow, Totals, UpstreamRow, UserRow
from tests.bench import proc
from tests.rigs.console import gatelodge
from tests.rigs.pty_program import PtyProgram
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.specimens import specimen
from tests.rigs.until import until

SIZE = (120, 40)
ROWS = 200
HERTZ = 4
HOUR = 3600 * HERTZ  # batches


def _row(number: int, since: float) -> LiveRow:
    name = f"user{number % 60}@example.org"
    row: LiveRow = specimen(
        LiveRow,
        lambda: "llama3.3:70b",
        request_id=f"{number:08x}-0000",
        state="run",
        position=None,
        user=name,
        address=f"192.0.2.{number % 250}",
        received=times.iso(round((time.time() - since) * 1e6)),
        tokens_out=number,
        tokens_per_second=40.0,
        piece_age=0.0,
        estimated_wait=None,
    )
    return row


def furnish(daemon: ScriptedDaemon, rows: int) -> None:
    """A house of 60 users, and this many running requests."""
    for number in range(60):
        user = specimen(UserRow, lambda number=number: f"user{number}@example.org", id=number, code=None)
        daemon.put("user", str(number), msgspec.structs.replace(user, status="active"))
    daemon.put("upstream", "gpu1", specimen(UpstreamRow, lambda: "gpu1", error=None, last_error=None))
    for number in range(rows):
        daemon.put("live", f"{number:08x}-0000", _row(number, number))
    daemon.totals = Totals(running=rows, seats=256, queued=0, oldest_queued=None)


async def first_paint(daemon: ScriptedDaemon, starts: int) -> None:
    """From the start of the process to its first bytes of a frame, and to the rows."""
    paints, rows, cpus = [], [], []
    for _ in range(starts):
        async with PtyProgram(gatelodge(daemon.path), size=SIZE) as program:
            await until(lambda it=program: b"gatelodge" in it.sent, timeout=30)
            paints.append(time.monotonic() - program.started)
            cpus.append(proc.cpu_seconds(program.process.pid))
            await program.shows("● LIVE".encode())
            await program.shows(b"user")
            rows.append(time.monotonic() - program.started)
    paint, row = 1000 * statistics.median(paints), 1000 * statistics.median(rows)
    cpu, best = 1000 * statistics.median(cpus), 1000 * min(paints)
    print(
        f"first paint: median {paint:.0f} ms, best {best:.0f} ms (demand < 500), {cpu:.0f} ms of CPU;"
        f" first rows: median {row:.0f} ms; {starts} starts"
    )


async def idle(daemon: ScriptedDaemon, seconds: float) -> None:
    """Nothing runs; a heartbeat every five seconds."""
    async with PtyProgram(gatelodge(daemon.path), size=SIZE) as program:
        await program.shows("● LIVE".encode())
        await asyncio.sleep(2)  # what a start leaves to do is not idling
        cpu, sent, began = proc.cpu_seconds(program.process.pid), program.count, time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            await asyncio.sleep(min(5.0, left))
            daemon.beat()
        took = time.monotonic() - began
        used = proc.cpu_seconds(program.process.pid) - cpu
    print(
        f"idle: {100 * used / took:.2f} % CPU (demand < 1), {(program.count - sent) / took:.0f} bytes/s; {took:.0f} s"
    )


async def busy(daemon: ScriptedDaemon, seconds: float) -> None:
    """Every row changes in every batch, four batches a second."""
    async with PtyProgram(gatelodge(daemon.path), size=SIZE) as program:
        await program.shows("● LIVE".encode())
        await program.settles()
        dice = random.Random(1)
        cpu, sent, began = proc.cpu_seconds(program.process.pid), program.count, time.monotonic()
        rows = [_row(number, number) for number in range(ROWS)]
        batches = round(seconds * HERTZ)
        for batch in range(batches):
            for number, row in enumerate(rows):
                row.tokens_out += dice.randint(5, 15)
                row.tokens_per_second = 40 + 10 * dice.random()
                daemon.put("live", f"{number:08x}-0000", row)
            daemon.totals.tokens_per_second = 8000 + 400 * dice.random()
            daemon.send()
            await asyncio.sleep(max(0.0, began + (batch + 1) / HERTZ - time.monotonic()))
        took = time.monotonic() - began
        used = proc.cpu_seconds(program.process.pid) - cpu
    print(
        f"{ROWS} rows, all changed at {HERTZ} Hz, {SIZE[0]}x{SIZE[1]}: {(program.count - sent) / took / 1000:.1f} kB/s"
        f" (demand < 30), {100 * used / took:.1f} % CPU; {took:.0f} s"
    )


async def an_hour(daemon: ScriptedDaemon, batches: int) -> None:
    """Requests come, change and go, with their ends shown for a while, in as many batches as an hour has."""
    async with PtyProgram(gatelodge(daemon.path), size=SIZE) as program:
        await program.shows("● LIVE".encode())
        dice = random.Random(2)
        running, ended = [f"{number:08x}-0000" for number in range(ROWS)], list[str]()
        number, marks, began = ROWS, list[float](), time.monotonic()
        for batch in range(batches):
            for _ in range(2):
                gone = running.pop(dice.randrange(len(running)))
                daemon.take("live", gone)
                row = specimen(EndedRow, lambda: "llama3.3:70b", id=gone, request_id=gone, state="ok")
                daemon.put("ended", gone, msgspec.structs.replace(row, ended=times.iso(round(time.time() * 1e6))))
                ended.append(gone)
                running.append(f"{number:08x}-{batch:04x}")
                daemon.put("live", running[-1], _row(number, 0.0))
                number += 1
            while len(ended) > 80:
                daemon.take("ended", ended.pop(0))
            for request in dice.sample(running, 20):
                daemon.put("live", request, _row(dice.randrange(10**6), 5.0))
            daemon.send()
            for watcher in daemon.watchers:
                await watcher.drain()
            if batch % max(1, batches // 20) == 0:
                await program.settles(0.02)
                marks.append(proc.memory(program.process.pid))
                program.take()
        await program.settles()
        marks.append(proc.memory(program.process.pid))
        took = time.monotonic() - began
    settled = marks[len(marks) // 4]
    print(
        f"memory: {marks[0]:.1f} MiB at the start, {settled:.1f} after a quarter, {marks[-1]:.1f} at the end of"
        f" {batches} batches, {number - ROWS} requests (an hour has {HOUR} batches; growth after the first quarter"
        f" {marks[-1] - settled:+.1f} MiB); {took:.0f} s"
    )


async def main(*, brief: bool) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedDaemon(Path(folder) / "quiet") as daemon:
            furnish(daemon, 3)
            await first_paint(daemon, 3 if brief else 11)
            for number in range(3):
                daemon.take("live", f"{number:08x}-0000")
            daemon.totals = Totals(running=0, seats=256, queued=0, oldest_queued=None)
            await idle(daemon, 3 if brief else 20)
        async with ScriptedDaemon(Path(folder) / "busy") as daemon:
            furnish(daemon, ROWS)
            await busy(daemon, 3 if brief else 20)
            await an_hour(daemon, HOUR // 40 if brief else HOUR)


if __name__ == "__main__":
    asyncio.run(main(brief="--brief" in sys.argv))
