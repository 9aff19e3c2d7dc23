"""One connection of a client, beneath the requests it carries: Tornado's, where it is too kind mended.

    Tornado                                                  here
    takes bare LF, odd names, hundreds of header lines       `heads.parse` decides
    cuts a connection whose head is too long                 it is answered: 431
    stops listening once unread bytes lie there              who pipelines and leaves is seen to leave
    serves what it read before it closed                     a closed connection asks for nothing
    closes over what a refused client still sends            reads that away for a moment, or the answer would be
                                                             lost in a reset before it is read (RFC 9112, 9.6)

Rule: these are overrides of Tornado's inner methods; tests/vectors/smuggling shows each of them at work, so that a
new Tornado that calls them no more turns red.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httputil import HTTPHeaders, HTTPInputError, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError

from daemon.web import heads

log = logging.getLogger("gatelodge.web")

UNREAD = 64 * 1024  # bytes that a client may send while its answer is under way
LINGER = 2.0  # seconds that a refused client gets to read why
LINGERING = 64  # connections that do so at once; more are closed over what they send

_scratch = bytearray(64 * 1024)


class _Watched(IOStream):
    """A client's stream that knows how long a head may be, and listens while an answer is under way."""

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """The head of the next request: the one thing that Tornado's server reads by a pattern. Too long a head comes
        back cut off, to be answered.
        """
        del regex, max_bytes
        return self.read_until(heads.END)

    def _find_read_pos(self) -> int | None:
        place = super()._find_read_pos()
        if place is None and self._read_delimiter == heads.END and self._read_buffer_size > heads.MAX_HEAD:
            return self._read_buffer_size
        return place

    def set_nodelay(self, value: bool) -> None:
        """Set once and for all when it was made: with Nagle's delay the first token waits 41 ms for an acknowledgement,
        and nothing here is written in small pieces that belong together. Tornado would set it twice an answer.
        """
        del value

    def _handle_events(self, fd: int | socket.socket, events: int) -> None:  # type: ignore[override]
        super()._handle_events(fd, events)
        if self._read_buffer_size and not self._closed:
            self._maybe_add_error_listener()

    def _maybe_add_error_listener(self) -> None:
        if self._read_future is not None or self._closed or self._close_callback is None:
            return
        if self._read_buffer_size <= UNREAD:
            self._add_io_state(self.io_loop.READ)
        else:
            self.close()  # a client that sends that much before it was answered is none of ours

    @property
    def begun(self) -> bool:
        """Whether bytes lie here that nobody has read."""
        return self._read_buffer_size > 0

    @property
    def taken(self) -> int:
        """How many bytes the socket has taken of what went through the buffer; grows while the client reads."""
        return self._total_write_done_index


class PlainStream(_Watched):
    """A client's stream."""


class TlsStream(_Watched, SSLIOStream):
    """A client's stream over TLS."""


class Farewells:
    """Refused connections whose clients may still be sending: read away until they stop, at most `LINGER` seconds."""

    def __init__(self) -> None:
        self._open: dict[socket.socket, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: IOStream) -> None:
        """Let the client of `stream`, which has been sent its answer and is closed by the caller now, read that."""
        if len(self._open) >= LINGERING or stream.socket is None:
            return
        # A second descriptor of the same connection: it stays open when the stream's own is closed.
        left = socket.socket(fileno=os.dup(stream.socket.fileno()))
        loop = asyncio.get_running_loop()
        try:
            left.shutdown(socket.SHUT_WR)
        except OSError:
            left.close()
            return
        self._open[left] = loop.call_later(LINGER, self._end, left)
        loop.add_reader(left, self._read_away, left)

    def close(self) -> None:
        """End them all."""
        for left in list(self._open):
            self._end(left)

    def _read_away(self, left: socket.socket) -> None:
        try:
            count = left.recv_into(_scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count == 0:
            self._end(left)

    def _end(self, left: socket.socket) -> None:
        self._open.pop(left).cancel()
        asyncio.get_running_loop().remove_reader(left)
        left.close()


class ClientConnection(HTTP1ServerConnection):
    """What an accepted socket becomes: requests one after the other."""

    stream: PlainStream | TlsStream

    def __init__(self, stream: IOStream, params: object, context: object, farewells: Farewells) -> None:
        super().__init__(stream, params, context)  # type: ignore[arg-type]
        self.farewells = farewells
        self.served = 0  # requests begun
        self.held = 0  # bytes of the current request's body that are accounted for (`bounds.py`)

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        try:
            # Tornado would go on with what it has read of a connection that is closed already: a request behind one
            # that was refused, or that asked for the close, would be carried out for nobody.
            while not self.stream.closed():
                request = RequestConnection(self)
                if not await request.read_response(delegate.start_request(self, request)):
                    return
                self.served += 1
                await asyncio.sleep(0)  # who sends many requests at once gets one at a time
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            pass  # the client is gone, or the gateway stops
        except Exception:
            log.exception("a connection failed")
            self.stream.close()
        finally:
            delegate.on_close(self)


class RequestConnection(HTTP1Connection):
    """The connection as one request has it. `refused` is what was wrong with its head, if anything was."""

    def __init__(self, client: ClientConnection) -> None:
        super().__init__(client.stream, False, client.params, client.context)
        self._farewells = client.farewells
        self.refused: heads.Refused | None = None

    def close(self) -> None:
        if self._write_finished and not self._read_finished and self.stream is not None and not self.stream.closed():
            self._farewells.add(self.stream)
        super().close()

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        try:
            return heads.parse(data)
        except heads.Refused as refused:
            self.refused = refused
            return "GET / HTTP/1.1", HTTPHeaders()  # stands in for what cannot be read; nobody serves it

    def _read_body(self, code: int, headers: HTTPHeaders, delegate: HTTPMessageDelegate) -> Awaitable[None] | None:
        if self._write_finished:
            return None  # refused by its head: `close` does away with the rest
        body = super()._read_body(code, headers, delegate)
        return None if body is None else self._answered(body, delegate)

    async def _answered(self, body: Awaitable[None], delegate: HTTPMessageDelegate) -> None:
        """The body; where its framing is wrong or it does not fit the delegate says so, as it does of the head."""
        try:
            await body
        except (HTTPInputError, MemoryError) as error:
            refuse = getattr(delegate, "refuse", None)
            if refuse is None or self._write_finished:
                raise
            if isinstance(error, MemoryError):
                await refuse(503, "the gateway has too little memory for this request now; try again in a moment")
            else:
                await refuse(400, "the chunks of the request body are malformed")
