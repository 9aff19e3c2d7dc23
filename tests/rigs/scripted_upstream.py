"""A real inference server on a real socket that does what a test tells it: Ollama's routes and OpenAI's.

    async with ScriptedUpstream() as upstream:
        upstream.next(stall_after(2, gate))          # what the next inference request meets
        ... a request to upstream.url + "/api/chat" ...
        seen = upstream.requests[-1]
        await seen.client_left.wait()

Without a script every request is answered well and at once: a stream of a few chunks with usage. A *behaviour* is an
`async def (turn: Turn)`; the functions at the end of this file make the usual ones, a test may write its own. Scripts
given with `next` are used up one by one by inference requests (chat, generate, completions, embeddings) and by nothing
else, unless `route=` names another route. Nothing here waits by the clock: pacing is by events and semaphores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from tests.rigs import upstream_routes, upstream_shapes

Behaviour = Callable[["Turn"], Awaitable[None]]
LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}


@dataclass(eq=False)
class SeenRequest:
    """One request as it arrived, and what became of it. Times are `time.monotonic()` seconds."""

    method: str
    path: str
    query: str
    headers: dict[str, str]  # lower-case names
    received: float
    connection: int  # number of the connection it came on, from 1
    raw: bytes = b""
    body: Any = None  # the parsed JSON, or None
    client_left: asyncio.Event = field(default_factory=asyncio.Event)  # set when it leaves before the answer's end
    left_at: float | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # the whole scripted answer is written
    sent: list[bytes] = field(default_factory=list)  # pieces of the answer's body, as they were written

    @property
    def document(self) -> dict[str, Any]:
        """The body, where it is a JSON object; else empty."""
        return self.body if isinstance(self.body, dict) else {}


class ScriptedUpstream:
    """The server. Attributes a test sets: models, words, seats, check_host; reads: requests, connections, running."""

    def __init__(
        self,
        *,
        models: tuple[str, ...] = ("smollm2:135m",),
        kind: str = "ollama",
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.kind = kind  # "openai", "anthropic": the /api routes do not exist, as in llama.cpp's server
        self.models: dict[str, dict[str, Any]] = {name: upstream_shapes.model_entry(name) for name in models}
        self.loaded: list[str] = []  # names shown by /api/ps
        self.blobs: dict[str, bytes] = {}
        self.words = ["Why", " not", "?"]  # what it answers by default
        self.default: Behaviour = well
        self.seats: asyncio.Semaphore | None = None  # how many run at once; further ones wait, headers withheld
        self.reading = asyncio.Event()  # cleared: request bodies are left in the socket
        self.reading.set()
        self.check_host = True  # Ollama's answer to a foreign Host is 403 and an empty body
        self.requests: list[SeenRequest] = []
        self.connections = 0  # ever accepted
        self.open_connections = 0
        self.running = 0  # inference requests being answered now
        self.most_running = 0
        self.port = port
        self._tls = tls
        self._scripts: dict[str, deque[Behaviour]] = {}
        self._server: asyncio.Server | None = None
        self._live: set[_Connection] = set()

    @property
    def url(self) -> str:
        """The base address, without a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def add_model(self, name: str, *, family: str = "llama", remote_host: str = "") -> None:
        """Install a model."""
        self.models[name] = upstream_shapes.model_entry(name, family=family, remote_host=remote_host)

    def next(self, *behaviours: Behaviour, route: str = "") -> None:
        """What the next requests meet, one behaviour each; of inference routes, or of the one path `route`."""
        self._scripts.setdefault(route, deque()).extend(behaviours)

    def seen(self, path: str) -> list[SeenRequest]:
        """The requests to `path`, oldest first."""
        return [request for request in self.requests if request.path == path]

    @property
    def inference(self) -> list[SeenRequest]:
        """The inference requests, oldest first."""
        return [request for request in self.requests if request.path in upstream_shapes.INFERENCE]

    def behaviour_for(self, path: str) -> Behaviour:
        """The next script for `path`, used up by this call; else the default."""
        for route in (path, "") if path in upstream_shapes.INFERENCE else (path,):
            if self._scripts.get(route):
                return self._scripts[route].popleft()
        return self.default if path in upstream_shapes.INFERENCE else well

    async def __aenter__(self) -> ScriptedUpstream:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; on the same port again after `stop`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, ssl=self._tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and cut the open ones, as a killed server does."""
        assert self._server is not None
        self._server.close()
        tasks = [connection.task for connection in self._live if connection.task is not None]
        for connection in list(self._live):
            connection.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def drop_idle_connections(self) -> None:
        """Close the connections that wait for a request, as a restarted server or an idle time-out does."""
        for connection in list(self._live):
            if connection.current is None:
                connection.transport.close()


class _Connection(asyncio.StreamReaderProtocol):
    """One accepted connection: reads requests, has each answered, notices at once when the client leaves."""

    transport: asyncio.Transport

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self.reader = asyncio.StreamReader(limit=2**20)
        self.current: SeenRequest | None = None
        self.task: asyncio.Task[None] | None = None
        self.number = 0
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, transport)
        self.upstream.connections += 1
        self.upstream.open_connections += 1
        self.number = self.upstream.connections
        self.upstream._live.add(self)
        self.writer = asyncio.StreamWriter(self.transport, self, self.reader, asyncio.get_running_loop())
        self.task = asyncio.create_task(self._serve())

    def eof_received(self) -> bool:
        self._client_left()
        super().eof_received()
        return self.upstream._tls is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_left()
        self.upstream.open_connections -= 1
        self.upstream._live.discard(self)
        super().connection_lost(exc)

    def _client_left(self) -> None:
        seen = self.current
        if seen is None or seen.answered.is_set() or seen.client_left.is_set():
            return
        seen.left_at = time.monotonic()
        seen.client_left.set()
        if self.task is not None:
            self.task.cancel()  # a real server stops generating, too

    def cut(self) -> None:
        """Close at once, in the middle of whatever it is."""
        if self.task is not None:
            self.task.cancel()
        self.transport.abort()

    async def _serve(self) -> None:
        try:
            while True:
                seen = await self._read_head()
                self.current = seen
                await self._read_body(seen)
                turn = Turn(self.upstream, seen, self)
                await self._answer(turn)
                self.current = None
                if turn.closing:
                    return
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client left, or the rig stops: either way this connection is over
        finally:
            self.transport.close()

    async def _answer(self, turn: Turn) -> None:
        seen, upstream = turn.seen, self.upstream
        host = urlsplit("//" + seen.headers.get("host", "")).hostname
        if upstream.check_host and host not in LOCAL_NAMES:
            await turn.head(403, {"Content-Length": "0"})
            seen.answered.set()
            return
        behaviour = upstream.behaviour_for(seen.path)
        if seen.path not in upstream_shapes.INFERENCE:
            await behaviour(turn)
            return
        async with upstream.seats or contextlib.nullcontext():
            upstream.running += 1
            upstream.most_running = max(upstream.most_running, upstream.running)
            try:
                await behaviour(turn)
            finally:
                upstream.running -= 1

    async def _read_head(self) -> SeenRequest:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        seen = SeenRequest(method, path, query, headers, time.monotonic(), self.number)
        self.upstream.requests.append(seen)
        return seen

    async def _read_body(self, seen: SeenRequest) -> None:
        # With an event rather than pausing the transport: the stream reader pauses by itself when nobody reads.
        await self.upstream.reading.wait()
        if "chunked" in seen.headers.get("transfer-encoding", ""):
            pieces = [piece async for piece in self._chunks()]
            seen.raw = b"".join(pieces)
        elif length := int(seen.headers.get("content-length", "0")):
            seen.raw = await self.reader.readexactly(length)
        with contextlib.suppress(ValueError):
            seen.body = json.loads(seen.raw) if seen.raw else None

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self.reader.readline()).split(b";")[0], 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()


class Turn:
    """One request to be answered: what a behaviour works with."""

    def __init__(self, upstream: ScriptedUpstream, seen: SeenRequest, connection: _Connection) -> None:
        self.upstream = upstream
        self.seen = seen
        self.closing = False  # whether the connection ends after this answer
        self.chunked = False
        self._connection = connection

    def pieces(self, words: list[str] | None = None) -> list[bytes]:
        """The right answer of an inference route, piece by piece; the last one is (or holds) its end."""
        words = self.upstream.words if words is None else words
        return upstream_shapes.pieces(self.seen.path, self.seen.document, words)

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return upstream_shapes.is_streamed(self.seen.path, self.seen.document)

    async def raw(self, data: bytes) -> None:
        """Write bytes as they are; waits while the client does not read."""
        self._connection.writer.write(data)
        await self._connection.writer.drain()

    async def head(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Status line and headers; chunked unless they give a length."""
        given = {"Content-Type": upstream_shapes.content_type(self.seen.path, self.streamed), **(headers or {})}
        self.chunked = "Content-Length" not in given
        if self.chunked:
            given["Transfer-Encoding"] = "chunked"
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        await self.raw(f"HTTP/1.1 {status} {'OK' if status < 300 else 'No'}\r\n{lines}\r\n".encode("latin-1"))

    async def send(self, piece: bytes) -> None:
        """A piece of the body."""
        self.seen.sent.append(piece)
        await self.raw(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)

    async def finish(self) -> None:
        """The end of a well-formed answer."""
        # Before the last bytes leave: a client that closes the moment it has them has not left early.
        self.seen.answered.set()
        if self.chunked:
            await self.raw(b"0\r\n\r\n")

    async def whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """An answer with a length, in one write."""
        await self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.seen.sent.append(body)
        self.seen.answered.set()
        if self.seen.method != "HEAD":
            await self.raw(body)

    def reset(self) -> None:
        """RST instead of FIN (SO_LINGER 0): the client meets ECONNRESET."""
        sock = self._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.seen.answered.set()
        self.closing = True
        self._connection.transport.abort()

    def half_close(self) -> None:
        """FIN: nothing more will be written, though this side would still read."""
        self._connection.transport.write_eof()

    async def close(self) -> None:
        """An orderly close of the whole connection, wherever the answer is."""
        self.seen.answered.set()
        self.closing = True
        self._connection.transport.close()

    async def until_client_leaves(self) -> None:
        """Wait for the client; cancelled when it goes."""
        await self.seen.client_left.wait()


async def well(turn: Turn) -> None:
    """The right answer, at once."""
    if turn.seen.path not in upstream_shapes.INFERENCE:
        await upstream_routes.answer(turn)
        return
    pieces = turn.pieces()
    if not turn.streamed:
        await turn.whole(200, pieces[0])
        return
    await turn.head()
    for piece in pieces:
        await turn.send(piece)
    await turn.finish()
