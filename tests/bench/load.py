"""The load: `python -m tests.bench.load SPEC`, one measurement of one target, whose figures it prints as JSON.

A process of its own, so that its work is nobody else's. Rule: it must cost next to nothing (raw protocols, ready-made
requests, no HTTP library), it reads the target's CPU at the edges of the measured time only, and an answer that is not
whole is counted as lost, never as fast.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import uvloop

from tests.bench import proc
from tests.bench.upstream import MODEL, OPENAI_MODEL

# By dialect: the route, a chunk with its time, what is in the end alone.
_DIALECTS = {
    "ollama": ("/api/chat", re.compile(rb'"content":"(\d+)"},"done":false'), b'"done":true'),
    "openai": ("/v1/chat/completions", re.compile(rb'"content":"(\d+)"},"finish_reason":null'), b"data: [DONE]"),
    "anthropic": ("/v1/messages", re.compile(rb'"text_delta","text":"(\d+)"'), b"event: message_stop"),
}
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
WARM_UP = 0.3  # seconds before the measured time
PATIENCE = 20.0  # seconds for what should have come long ago
OPENED_A_SECOND = 250


class Spec(msgspec.Struct):
    """What to measure. `cpu_of` is the process whose tree is charged; `upstream` the port that knows the departures."""

    row: str
    port: int
    upstream: int
    key: str
    cpu_of: int
    seconds: float
    core: int | None = None
    whole: bool = False
    connections: int = 0  # of small requests: each asks again as soon as it is answered
    streams: int = 0
    rate: float = 0.0  # chunks a second and stream; requests a second
    dialect: str = "ollama"  # that the client speaks
    at: str = "ollama"  # the kind of the upstream that is to answer


class Result(msgspec.Struct):
    """The figures of one measurement, those that its row has. Times in seconds."""

    units: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    ages: list[float] = []
    lost: int = 0
    memory: float = 0.0  # MiB


class Client(asyncio.Protocol):
    """One connection, on which one request after the other is asked."""

    def __init__(self, dialect: str = "ollama") -> None:
        _, self._age, self._last = _DIALECTS[dialect]
        self.chunks = 0
        self.first: float | None = None  # when the current answer's first piece came
        self.ages: list[float] | None = None  # of its chunks, where somebody wants them
        self.begun: Callable[[], None] | None = None
        self._tail = b""
        self._answer: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[bool]:
        """Send it; the future tells whether the answer came whole."""
        self._tail = b""
        self.chunks = 0
        self.first = None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self.first is None:
            self.first = now / 1e9
            if self.begun is not None:
                self.begun()
        tail = self._tail + data if self._tail else data
        counted = 0
        for found in self._age.finditer(tail):
            counted = found.end()
            self.chunks += 1
            if self.ages is not None:
                self.ages.append((now - int(found[1])) / 1e9)
        self._tail = tail[counted:]  # a chunk, or the end, may come in two reads
        if self._is_whole(tail):
            self._end(self._last in tail)

    def _is_whole(self, tail: bytes) -> bool:
        if tail.endswith(b"\r\n0\r\n\r\n"):
            return True
        if not tail.startswith(b"HTTP/1.1"):
            return False
        length = _LENGTH.search(tail)
        return length is not None and len(tail.partition(b"\r\n\r\n")[2]) >= int(length[1])

    def connection_lost(self, error: Exception | None) -> None:
        self._end(False)

    def _end(self, whole: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(whole)


async def connect(port: int, dialect: str = "ollama") -> Client:
    """A connection to the target, or to the upstream."""
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(dialect), "127.0.0.1", port)
    return client


def chat(spec: Spec, *, chunks: int, every: float = 0.0, after: float = 0.0, name: str = "0") -> bytes:
    """A request whose prompt tells the upstream what to do; times in seconds."""
    prompt = f"after {after * 1e6:.0f} us {chunks} chunks every {every * 1e6:.0f} us as {name}"
    stream = "false" if spec.whole else "true"
    longest = ',"max_tokens":1000000' if spec.dialect == "anthropic" else ""
    model = OPENAI_MODEL if spec.at == "openai" else MODEL
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"{prompt}"}}],"stream":{stream}{longest}}}'
    return (
        f"POST {_DIALECTS[spec.dialect][0]} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {spec.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def requests(spec: Spec) -> Result:
    """Small requests, as many as go through: CPU of each."""
    result = Result()
    request = chat(spec, chunks=1)
    stop = asyncio.Event()

    async def drive() -> None:
        client = await connect(spec.port)
        while not stop.is_set():
            if not await asyncio.wait_for(client.ask(request), PATIENCE):
                result.lost += 1
                client.transport.abort()
                client = await connect(spec.port)
            result.units += 1
        client.transport.close()

    async def measure() -> None:
        await asyncio.sleep(WARM_UP)
        units, cpu, since = result.units, proc.cpu_seconds(spec.cpu_of), time.monotonic()
        await asyncio.sleep(spec.seconds)
        result.cpu = proc.cpu_seconds(spec.cpu_of) - cpu
        result.seconds = time.monotonic() - since
        units = result.units - units
        stop.set()
        await asyncio.gather(*driving)
        result.units = units

    driving = [asyncio.create_task(drive()) for _ in range(spec.connections)]
    await measure()
    return result


async def streams(spec: Spec) -> Result:
    """Streams at a steady rate: CPU of each chunk, its age at the client, and whether every one came."""
    result = Result()
    opening = spec.streams / OPENED_A_SECOND
    # Enough chunks that the first stream still runs when the measured time ends.
    count = int(spec.rate * (spec.seconds + 2 * opening + 2 * WARM_UP + 0.5))
    request = chat(spec, chunks=count, every=1 / spec.rate, after=0.001)
    clients: list[Client] = []
    answers: list[asyncio.Future[bool]] = []
    all_begun = asyncio.Event()
    waiting = spec.streams

    def begun() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            all_begun.set()

    for _ in range(spec.streams):
        client = await connect(spec.port, spec.dialect)
        client.begun = begun
        clients.append(client)
        answers.append(client.ask(request))
        await asyncio.sleep(1 / OPENED_A_SECOND)
    await asyncio.wait_for(all_begun.wait(), PATIENCE)
    await asyncio.sleep(WARM_UP)
    before, cpu, since = sum(each.chunks for each in clients), proc.cpu_seconds(spec.cpu_of), time.monotonic()
    ages: list[float] = []
    for client in clients:
        client.ages = ages
    await asyncio.sleep(spec.seconds)
    result.cpu = proc.cpu_seconds(spec.cpu_of) - cpu
    result.seconds = time.monotonic() - since
    result.units = sum(each.chunks for each in clients) - before
    result.memory = proc.memory(spec.cpu_of)
    for client in clients:
        client.ages = None
    result.ages = sorted(ages)
    await asyncio.wait(answers, timeout=PATIENCE)
    complete = sum(answer.done() and answer.result() for answer in answers)
    result.lost = (len(answers) - complete) + sum(count - client.chunks for client in clients)
    for client in clients:
        client.transport.abort()
    return result


async def first_token(spec: Spec) -> Result:
    """Requests at a steady rate, each on a connection that was used before: time to the first byte of the answer."""
    result = Result()
    request = chat(spec, chunks=1)
    clients = [await connect(spec.port) for _ in range(4)]
    idle = clients[:]  # where one answer is late, the next request must not be sent behind it
    asking: set[asyncio.Task[None]] = set()
    measured = False

    async def one(client: Client) -> None:
        asked = time.monotonic()
        whole = await asyncio.wait_for(client.ask(request), PATIENCE)
        if not whole or client.first is None:
            result.lost += 1
        elif measured:
            result.ages.append(client.first - asked)
        idle.append(client)

    started = time.monotonic()
    for number in range(len(clients) * 2 + int(spec.seconds * spec.rate)):
        measured = number >= len(clients) * 2
        await asyncio.sleep(started + number / spec.rate - time.monotonic())
        client = idle.pop(0) if idle else await connect(spec.port)
        task = asyncio.create_task(one(client))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    result.units, result.ages = len(result.ages), sorted(result.ages)
    return result


async def departures(spec: Spec) -> Result:
    """Clients that leave while nothing was answered, in mid-stream, and while a whole answer is put together.

    Each age is the time from the client's close to the upstream's sight of it.
    """
    result = Result()
    until = time.monotonic() + spec.seconds
    number = 0
    while time.monotonic() < until:
        number += 1
        name = f"n{time.monotonic_ns()}"
        client = await connect(spec.port)
        if spec.row == "prefill":
            client.ask(chat(spec, chunks=1, after=3600, name=name))
            await _told(spec.upstream, "seen", name)
        elif spec.row == "whole":
            client.ask(chat(spec, chunks=10**6, every=0.005, after=0.005, name=name))
            await _told(spec.upstream, "seen", name)
            await asyncio.sleep(0.01)
        else:
            first = asyncio.Event()
            client.begun = first.set
            client.ask(chat(spec, chunks=10**6, every=0.005, after=0.005, name=name))
            await asyncio.wait_for(first.wait(), PATIENCE)
        left = time.monotonic_ns()
        client.transport.abort()
        try:
            result.ages.append((await _told(spec.upstream, "gone", name) - left) / 1e9)
        except TimeoutError:
            result.lost += 1
    result.units, result.ages = number, sorted(result.ages)
    return result


async def _told(port: int, event: str, name: str) -> int:
    """When the upstream saw it, in nanoseconds; TimeoutError where that takes too long."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET /bench/{event}/{name} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            length = _LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
            assert length is not None
            return int(await reader.readexactly(int(length[1])))
        finally:
            writer.close()


_ROWS: dict[str, Callable[[Spec], Awaitable[Result]]] = {
    "requests": requests,
    "streams": streams,
    "first_token": first_token,
    "prefill": departures,
    "mid_stream": departures,
    "whole": departures,
}


async def main(argument: str) -> None:
    """Measure and print."""
    spec = msgspec.json.decode(argument, type=Spec)
    proc.pin(spec.core)
    print(msgspec.json.encode(await _ROWS[spec.row](spec)).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
