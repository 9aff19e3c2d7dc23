"""What the client to the upstream costs by itself: CPU microseconds of this process a request and a chunk.

    .venv/bin/python -m tests.bench.upstream_client [--seconds 3]

The upstream is a child process, so that only the client's own CPU is counted; it answers requests at once, and streams
a chunk to each of its clients every 50 ms. Figures move with the machine; hold them against each other.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import cast

import uvloop

from daemon.providers.http import Pool

MESSAGE = b'"message":{"role":"assistant","content":" w"}'
LINE = b'{"model":"m","created_at":"2026-01-02T03:04:05.678901234Z",' + MESSAGE + b',"done":false}\n'
CHUNK = b"%x\r\n%b\r\n" % (len(LINE), LINE)
SMALL = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(LINE), LINE)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"why " * 100 + b'"}]}'
INTERVAL = 0.05  # seconds between two chunks of a stream


class Upstream(asyncio.Protocol):
    """The child: /small is answered at once, anything else streams for ever."""

    transport: asyncio.Transport
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(b'"}]}'):
            return
        small = self.received.startswith(b"POST /small")
        self.received = b""
        if small:
            self.transport.write(SMALL)
        else:
            self.transport.write(STREAM)
            self.stream()

    def stream(self) -> None:
        self.transport.write(CHUNK)
        self.timer = asyncio.get_running_loop().call_later(INTERVAL, self.stream)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()


async def serve() -> None:
    """The child's life: tell the port, serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def cpu_of(work: Callable[[], Awaitable[int]]) -> tuple[float, int]:
    """(CPU microseconds a unit, units) of what `work` does; it returns how many units that was."""
    before = time.process_time()
    units = await work()
    return (time.process_time() - before) * 1e6 / units, units


async def requests(pool: Pool, seconds: float, at_once: int) -> int:
    """Small requests, `at_once` in flight, for that long; how many."""
    until = time.monotonic() + seconds
    count = 0

    async def one_after_the_other() -> None:
        nonlocal count
        while time.monotonic() < until:
            async with pool.request("POST", "/small", body=BODY) as response:
                async for _ in response:
                    pass
            count += 1

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return count


async def chunks(pool: Pool, seconds: float, streams: int) -> int:
    """So many streams, each left after that long; how many chunks came."""
    until = time.monotonic() + seconds
    count = 0

    async def stream() -> None:
        nonlocal count
        async with pool.request("POST", "/stream", body=BODY) as response:
            async for piece in response:
                count += piece.count(b"\n")
                if time.monotonic() > until:
                    return

    await asyncio.gather(*(stream() for _ in range(streams)))
    return count


async def measure(port: int, seconds: float) -> None:
    """Print the table."""
    pool = Pool(f"http://127.0.0.1:{port}")
    await requests(pool, seconds / 10, 20)  # warm up
    for at_once in (1, 20):
        cost, count = await cpu_of(lambda at_once=at_once: requests(pool, seconds, at_once))  # type: ignore[misc]
        print(f"request, {at_once:3} at once        {cost:7.1f} us   ({count / seconds:,.0f}/s)")
    for streams in (100, 500):
        cost, count = await cpu_of(lambda streams=streams: chunks(pool, seconds, streams))  # type: ignore[misc]
        print(f"chunk, {streams:3} streams         {cost:7.1f} us   ({count / seconds:,.0f}/s)")
    await pool.close()


def main() -> None:
    """Start the child, measure, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(serve())
        return
    with subprocess.Popen([sys.executable, "-m", __spec__.name, "--serve"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            uvloop.run(measure(int(child.stdout.readline()), given.seconds))
        finally:
            child.kill()


if __name__ == "__main__":
    main()
