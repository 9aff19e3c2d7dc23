"""One HTTP/1.1 connection to an upstream, and the answer that arrives on it.

    idle --begin()--> busy --message complete--> idle again, or closed where it may not be reused
      \\                \\--fail()/abort()-------> closed
       \\--any byte, EOF, reset------------------> closed

Rules: one request at a time, never pipelined. Bytes that nobody asked for close the connection. An answer is complete
only if its framing says so: a connection that ends earlier is an error, never an end. Reading stops while more than
64 KiB lie unread. Which connection serves which request is the pool's business (`http.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol, cast

import httptools

from common.errors import BadRequest
from daemon.providers.errors import UpstreamBroken

UNREAD_LIMIT = 64 * 1024  # bytes of an answer that may wait for their reader before the socket is left alone
OVERHEAD_LIMIT = 64 * 1024  # bytes of headers, trailers or chunk framing without a byte of body between them
LINGER_SECONDS = 1.0  # how long a released answer may take to end its framing


class Owner(Protocol):
    """Who keeps the connection: told when it is free again, and when it is gone."""

    name: str

    def freed(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...


class Response:
    """An answer as it arrives. Iterate over it for its body in pieces, as they come; one reader.

    `headers` have lower-case names; repeated ones are joined with ", ". `complete` is true once the whole message has
    arrived; `answered` once any byte has.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_error",
        "_released",
        "_unread",
        "_waiter",
        "answered",
        "begun",
        "complete",
        "headers",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answered = False
        self.begun = False
        self.complete = False
        self._connection = connection
        self._chunks: list[bytes] = []
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._released = False

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{self._unread} bytes unread" if self.begun else "not begun"
        return f"<Response {self.status or '---'} {state}>"

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> bytes:
        """All that has arrived since the last call, in one piece; UpstreamBroken where the answer breaks off."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                raise StopAsyncIteration
            await self._news()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._unread = 0
        if not self.complete:  # else the connection may be serving somebody else by now
            self._connection.resume_reading()
        return data

    async def read(self, limit: int) -> bytes:
        """The whole body; UpstreamBroken if it is longer than `limit` bytes."""
        pieces = []
        size = 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise UpstreamBroken(f"the answer of {self._connection.owner.name} is longer than {limit} bytes")
        return b"".join(pieces)

    def release(self) -> None:
        """The reader has what it wants (the dialect's end came): leaving now does not close the connection.

        It gets a second to end its framing and is then reused; should it say more than that, it is closed after all.
        """
        self._released = True
        self._chunks.clear()
        self._unread = 0

    @property
    def served(self) -> bool:
        """Whether the reader got what it wanted: the whole message, or as much as it released."""
        return self.complete or (self._released and self._error is None)

    async def started(self) -> None:
        """Wait for the status and the headers; raises what the connection failed with."""
        while not self.begun:
            if self._error is not None:
                raise self._error
            await self._news()

    def leave(self) -> None:
        """The reader goes: an answer that still comes is cut off at once, so that nothing is generated for nobody."""
        if self.complete:
            return
        if self.served:
            self._connection.linger()
        else:
            self._connection.abort()

    async def _news(self) -> None:
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """The transport's end of it: bytes in, pieces of the current response out."""

    def __init__(self, owner: Owner, *, tls: bool) -> None:
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.closing = False
        self.used = False  # whether it has served a request before the current one
        self.idle_since = 0.0
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._paused = False
        self._sending = False  # a request body is still on its way
        self._writable: asyncio.Future[None] | None = None  # set while the transport wants no more bytes
        self._linger: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        if self.closing:
            state = "closed"
        elif self._response is None:
            state = "idle"
        else:
            state = f"busy, {self._response!r}{', paused' if self._paused else ''}"
        return f"<Connection to {self.owner.name}: {state}>"

    # --- requests ---

    def begin(self, method: str, head: bytes, body: bytes | None) -> Response:
        """Send a request; with `body` None its body is sent by `send_pieces`. Returns the answer to be."""
        assert self._transport is not None and self._response is None
        self._parser = httptools.HttpResponseParser(self)
        self._response = response = Response(self)
        self._head_only = method == "HEAD"
        self._interim = False
        self._until_close = False
        self._keep_alive = False
        self._progress = False
        self._overhead = 0
        self._why = ""
        if body is None:
            self._sending = True
            self._transport.write(head)
        elif len(body) <= UNREAD_LIMIT:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)  # apart: joining would copy the whole of a large prompt
        return response

    async def send_pieces(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Send the request's body at the upstream's pace: chunked, or as `length` bytes. Ends early with the answer."""
        assert self._transport is not None
        sent = 0
        try:
            async for piece in pieces:
                if not piece:
                    continue
                sent += len(piece)
                if self.closing or self._response is None:
                    return
                if length is None:
                    self._transport.writelines([b"%x\r\n" % len(piece), piece, b"\r\n"])
                elif sent <= length:
                    self._transport.write(piece)
                if self._writable is not None:
                    await self._writable
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        if length is None:
            if not self.closing:
                self._transport.write(b"0\r\n\r\n")
        elif sent != length:
            raise BadRequest(f"the request's body has {sent} bytes, not the {length} announced")
        self._sending = False

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- the end of things ---

    def fail(self, error: Exception) -> None:
        """Close, and let the reader of the current answer know why."""
        response = self._response
        self.abort()
        # Also where the message was whole already: more than it announced makes the announced length doubtful, too.
        if response is not None and response._error is None:
            response._error = error
            response._wake()

    def abort(self) -> None:
        """Close at once, without sending what is still buffered: the upstream sees it within this loop turn."""
        self._let_go()
        if not self.closing:
            self.closing = True
            if self._transport is not None:
                self._transport.abort()

    def linger(self) -> None:
        """Nobody reads the current answer any more, but it is about to end: wait for that a little."""
        if self.closing:
            return
        self._linger = self.loop.call_later(LINGER_SECONDS, self.abort)
        self.resume_reading()

    def resume_reading(self) -> None:
        """The reader has caught up."""
        if self._paused and not self.closing:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    # --- asyncio's callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        if self.closing:  # given up while it was being made
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            # A late error page, a 408, a second answer: whatever it is, nobody can tell any more what belongs to what.
            self.abort()
            return
        assert self._parser is not None
        response.answered = True
        self._progress = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._broken(self._why or f"what came is not HTTP ({error})")
            return
        if response.complete:
            self._finish()
        elif self._progress:
            self._overhead = 0
            if response._unread > UNREAD_LIMIT and not self._paused:
                assert self._transport is not None
                self._paused = True
                self._transport.pause_reading()
        else:
            self._overhead += len(data)
            if self._overhead > OVERHEAD_LIMIT:
                self._broken("headers without an end")
                return
        # Here and not in each callback: what came in one read goes on in one piece.
        response._wake()

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self.resume_writing()
        self.owner.lost(self)
        self._transport = None

    def _finish(self) -> None:
        """The message is whole: the connection goes back to its owner if it can serve another one."""
        self._let_go()
        self.used = True
        if self._keep_alive and not self._sending and not self.closing:
            self.resume_reading()
            self.owner.freed(self)
        else:
            self.abort()

    def _let_go(self) -> None:
        """The current answer and its parser are over."""
        self._response = None
        self._parser = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _ended(self, exc: Exception | None) -> None:
        response = self._response
        if response is None:
            self.abort()
        elif self._until_close and exc is None and response.begun and not self._tls:
            # Framed by the close itself (HTTP/1.0). Not believed over TLS, where anybody on the way can forge it.
            response.complete = True
            response._wake()
            self.abort()
        else:
            how = "reset the connection" if isinstance(exc, ConnectionError) else "closed the connection"
            self._broken(f"it {how} {'in the middle of its answer' if response.begun else 'before it answered'}")

    def _broken(self, why: str) -> None:
        self.fail(UpstreamBroken(f"the upstream {self.owner.name} broke off: {why}"))

    # --- the parser's callbacks; an exception here surfaces in data_received as HttpParserCallbackError ---

    def on_message_begin(self) -> None:
        assert self._response is not None
        if self._response.complete:
            self._refuse("more came than its length announced")

    def on_header(self, name: bytes, value: bytes) -> None:
        response = self._response
        assert response is not None
        if response.begun or self._interim:
            return  # trailers; nothing in them matters to us
        self._overhead += len(name) + len(value)
        if self._overhead > OVERHEAD_LIMIT:
            self._refuse("headers without an end")
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = response.headers.get(key)
        response.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        assert response is not None and parser is not None
        status = parser.get_status_code()
        if status == 101:
            self._refuse("it wants to speak another protocol")
        if status < 200:
            self._interim = True
            response.headers.clear()
            return
        headers = response.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            self._refuse("it compressed an answer that was asked for plain")
        coding = headers.get("transfer-encoding", "")
        if coding and coding.lower() != "chunked":
            self._refuse("a transfer coding that was not asked for")
        response.status = status
        response.begun = True
        self._overhead = 0
        self._progress = True
        if self._head_only:
            # The parser cannot be told that no body follows; what would come all the same is refused in on_body.
            self._keep_alive = parser.should_keep_alive()
            response.complete = True
        elif not coding and "content-length" not in headers and status not in {204, 304}:
            self._until_close = True

    def on_body(self, data: bytes) -> None:
        response = self._response
        assert response is not None
        if response.complete:
            self._refuse("a body where none belongs")
        if response._released:
            return  # nobody wants it: it counts as framing, which is bounded
        self._progress = True
        response._chunks.append(data)
        response._unread += len(data)

    def on_message_complete(self) -> None:
        response, parser = self._response, self._parser
        assert response is not None and parser is not None
        if self._interim:
            self._interim = False
            return
        # Asked here: once the callback is over, the parser has forgotten.
        self._keep_alive = parser.should_keep_alive()
        response.complete = True

    def _refuse(self, why: str) -> None:
        self._why = why
        raise ValueError(why)
