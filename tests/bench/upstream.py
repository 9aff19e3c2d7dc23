"""An Ollama made of nothing but a socket, and an OpenAI-like server: `python -m tests.bench.upstream` prints its port.

Rule: it must cost next to nothing, so that what is measured is the gateway. It parses only what it needs, answers from
ready-made bytes, and does what the prompt tells it: `after A us C chunks every E us as NAME`. Every chunk carries the
time at which it was sent (CLOCK_MONOTONIC, the same for every process), so whoever receives it knows its age.
`GET /bench/seen/NAME` answers once that request is there, `GET /bench/gone/NAME` once its connection is closed, with
the nanosecond in which that was seen. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import heapq
import re
import signal
import sys
import time
from typing import NamedTuple, cast

import uvloop

MODEL = "bench:latest"
OPENAI_MODEL = "bench-v1"  # which is asked for at /v1/chat/completions
TICK = 0.0005  # seconds between two looks at what is due: a timer of the event loop knows milliseconds only

_ORDER = re.compile(rb"after (\d+) us (\d+) chunks every (\d+) us as (\w+)")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_BEFORE = (
    b'{"model":"bench:latest","created_at":"2025-01-01T00:00:00.000000Z","message":{"role":"assistant","content":"'
)
_END = (
    _BEFORE + b'"},"done_reason":"stop","done":true,"total_duration":5000000,"load_duration":1000,'
    b'"prompt_eval_count":12,"prompt_eval_duration":1000000,"eval_count":%d,"eval_duration":4000000}\n'
)
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1735689600,"model":"bench-v1",'
    b'"system_fingerprint":"b1","choices":[%b]%b}\n\n'
)
_EVENT_END = (
    _EVENT % (b'{"index":0,"delta":{},"finish_reason":"stop"}', b"")
    + _EVENT.replace(b"%b", b"", 1) % b',"usage":{"prompt_tokens":12,"completion_tokens":%d,"total_tokens":0}'
    + b"data: [DONE]\n\n"
)
_READY = {
    b"/api/version": b'{"version":"0.9.3"}',
    b"/api/ps": b'{"models":[]}',
    b"/api/tags": b'{"models":[{"name":"bench:latest","model":"bench:latest","modified_at":"2025-01-01T00:00:00Z",'
    b'"size":1,"digest":"00","details":{"format":"gguf","family":"llama","families":["llama"],'
    b'"parameter_size":"1M","quantization_level":"Q4_0"}}]}',
    b"/v1/models": b'{"object":"list","data":[{"id":"bench-v1","object":"model","created":1,"owned_by":"bench"}]}',
}


class Dialect(NamedTuple):
    """How an answer begins and ends, and what is before and after a chunk's time."""

    head: bytes
    before: bytes
    after: bytes
    end: bytes  # with a %d for the count of chunks

    def chunk(self) -> bytes:
        """One that carries the time of now."""
        return b"%b%d%b" % (self.before, time.monotonic_ns(), self.after)


_OLLAMA = Dialect(_HEAD % b"application/x-ndjson" + _CHUNKED, _BEFORE, b'"},"done":false}\n', _END)
_OPENAI = Dialect(
    _HEAD % b"text/event-stream" + _CHUNKED,
    *(_EVENT % (b'{"index":0,"delta":{"content":"@"},"finish_reason":null}', b"")).split(b"@"),
    _EVENT_END,
)


class Pace:
    """What is due when: one heap for all streams, looked at every half millisecond while there are any."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Stream]] = []
        self._number = 0

    def add(self, when: float, stream: Stream) -> None:
        """Let `stream.go(now)` be called at `when`; what that returns is its next time, or None."""
        if not self._due:
            signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        self._number += 1
        heapq.heappush(self._due, (when, self._number, stream))

    def tick(self) -> None:
        """Serve what is due."""
        now = time.monotonic()
        due = self._due
        while due and due[0][0] <= now:
            _, number, stream = due[0]
            following = stream.go(now)
            if following is None:
                heapq.heappop(due)
            else:
                heapq.heapreplace(due, (following, number, stream))
        if not due:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Stream:
    """One answer in pieces; what falls behind is sent late, never left out."""

    def __init__(self, transport: asyncio.Transport, dialect: Dialect, first: float, count: int, every: float) -> None:
        self._transport = transport
        self._dialect = dialect
        self._next = first
        self._left = self._count = count
        self._every = every

    def go(self, now: float) -> float | None:
        """Send the chunk that is due; when the next one is, or None after the end."""
        if self._transport.is_closing():
            return None
        head = self._dialect.head if self._left == self._count else b""
        if self._left == 0:
            self._transport.write(head + _framed(self._dialect.end % self._count) + b"0\r\n\r\n")
            return None
        self._transport.write(head + _framed(self._dialect.chunk()))
        self._left -= 1
        self._next += self._every
        return self._next


class Noted:
    """When each named request came, and when its connection closed (nanoseconds)."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], asyncio.Future[int]] = {}

    def time_of(self, event: str, name: str) -> asyncio.Future[int]:
        """`event` is "seen" or "gone"; its future is there before the event."""
        return self._times.setdefault((event, name), asyncio.get_running_loop().create_future())

    def happened(self, event: str, name: str) -> None:
        """Now."""
        future = self.time_of(event, name)
        if not future.done():
            future.set_result(time.monotonic_ns())


class Server(asyncio.Protocol):
    """One connection: a request at a time, whole before it is looked at."""

    def __init__(self, pace: Pace, noted: Noted) -> None:
        self._pace = pace
        self._noted = noted
        self._unread = b""
        self._serving = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._serving:
            self._noted.happened("gone", self._serving)

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        head, complete, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not complete or (length and len(body) < int(length[1])):
            self._unread = data
            return
        self._unread = b""
        path = head.split(b" ", 2)[1]
        order = _ORDER.search(body)
        if order is not None:
            dialect = _OPENAI if path.startswith(b"/v1/") else _OLLAMA
            self._chat(order, dialect, whole=b'"stream":false' in body.replace(b" ", b""))
        elif path.startswith(b"/bench/"):
            event, name = path.decode().split("/")[2:4]
            self._noted.time_of(event, name).add_done_callback(lambda at: self._answer(b"%d" % at.result()))
        else:
            self._answer(_READY.get(path, b"{}"))

    def _chat(self, order: re.Match[bytes], dialect: Dialect, *, whole: bool) -> None:
        after, count, every = (int(text) for text in order.groups()[:3])
        if order[4] != b"0":  # a name that somebody will ask for
            self._serving = order[4].decode()
            self._noted.happened("seen", self._serving)
        if whole and not after:
            self._answer(_END % count)
        elif not after and not every:
            self._transport.write(
                dialect.head + _framed(dialect.chunk()) * count + _framed(dialect.end % count) + b"0\r\n\r\n",
            )
        else:
            first = time.monotonic() + after / 1e6
            self._pace.add(first, Stream(self._transport, dialect, first, count, every / 1e6))

    def _answer(self, body: bytes) -> None:
        self._transport.write(_HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    pace, noted = Pace(), Noted()
    loop.add_signal_handler(signal.SIGALRM, pace.tick)
    server = await loop.create_server(lambda: Server(pace, noted), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: ended.done() or ended.set_result(None))
    await ended


if __name__ == "__main__":
    uvloop.run(main())
