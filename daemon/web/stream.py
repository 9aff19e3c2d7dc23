"""The client's end of a relayed answer: head, pieces, end; with the client's pace felt by whoever sends.

Rule: `send` puts a piece on the socket at once where the socket takes it, and only otherwise through Tornado's buffer
(measured: the buffered way costs more than the rest of a piece's journey). Never on TLS. The end goes out through
Tornado, so that the connection's own state stays right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.web import RequestHandler


class ClientStream:
    """Writes one answer to one client."""

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler
        self._stream: IOStream | None = None
        self._chunked = True
        self._direct = True
        self.started = False  # the head is out: from now on errors are told in the stream

    def begin(self, content_type: str, headers: dict[str, str]) -> None:
        """Prepare the head of a 200; it leaves with the first piece."""
        self._handler.set_header("Content-Type", content_type)
        for name, value in headers.items():
            self._handler.set_header(name, value)

    def send(self, data: bytes) -> Awaitable[None] | None:
        """Send a piece now. What is returned, if anything, must be awaited before the next piece: the client is slow.

        The awaitable raises StreamClosedError where the client left.
        """
        if not self.started:
            return self._send_head(data)
        stream = self._stream
        if stream is None or stream.closed():
            return None
        frame = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if self._direct and not stream.writing():
            try:
                sent = stream.socket.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                stream.close()
                return None
            if sent == len(frame):
                return None
            frame = frame[sent:]
        return stream.write(frame)

    async def finish(self, data: bytes) -> None:
        """Send the last bytes (or, where nothing was sent yet, the whole answer with its length) and end the answer."""
        try:
            await self._handler.finish(data)
        except StreamClosedError:
            pass  # the client left after the end was decided and recorded: nobody is there to be told

    def abort(self) -> None:
        """Cut the connection: the client must not take what it has for a whole answer."""
        if self._stream is not None:
            self._stream.close()

    def _send_head(self, data: bytes) -> Awaitable[None] | None:
        self.started = True
        handler = self._handler
        connection = handler.request.connection
        stream = getattr(connection, "stream", None)
        if stream is None or stream.closed():
            return None
        self._stream = stream
        # Without it the first token waits 41 ms for a delayed acknowledgement.
        stream.set_nodelay(True)
        self._chunked = handler.request.version == "HTTP/1.1"
        self._direct = not isinstance(stream, SSLIOStream)
        handler.write(data)
        return asyncio.ensure_future(_flushed(handler)) if stream.writing() else _flush_now(handler)


def _flush_now(handler: RequestHandler) -> Awaitable[None] | None:
    future = handler.flush()
    return None if future.done() and not future.exception() else future


async def _flushed(handler: RequestHandler) -> None:
    await handler.flush()
