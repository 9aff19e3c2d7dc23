"""The client's end of a relayed answer: head, pieces, end; with the client's pace felt by whoever sends.

Rule: on a plain socket everything leaves by `socket.send` as soon as the socket takes it, and only what it does not
take goes through Tornado's buffer (measured: the buffered way costs more than the rest of a piece's journey). TLS
always takes the buffered way. Framing is ours; when the connection is free for the next request is Tornado's.
"""

from __future__ import annotations

import email.utils
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from http.client import responses

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, RequestStartLine
from tornado.iostream import SSLIOStream, StreamClosedError


class ClientStream:
    """Writes one answer to one client: `begin`, `send` as often as needed, `finish`."""

    def __init__(
        self,
        connection: HTTP1Connection,
        asked: RequestStartLine,
        headers: HTTPHeaders,
        fixed: Iterable[tuple[str, str]],
    ) -> None:
        """`asked` and `headers` are the request's; `fixed` are headers that every answer has, whatever it is."""
        self._connection = connection
        self._stream = connection.stream
        self._direct = not isinstance(self._stream, SSLIOStream)
        # HTTP/1.0 knows no chunks: there the end of the connection is the end of the answer.
        self._chunked = asked.version == "HTTP/1.1"
        self._last = not self._chunked or headers.get("Connection", "").lower() == "close"
        self.fixed = [*fixed, ("Connection", "close")] if self._last else [*fixed]  # headers of whatever is answered
        self._head = ""
        self.whole: Callable[[bytes], bytes] | None = None  # changes an answer that leaves in one piece
        self.started = False  # the head is out: from now on errors are told in the stream

    def begin(self, content_type: str, headers: dict[str, str], status: int = 200) -> None:
        """Prepare the head; it leaves with the first piece."""
        lines = [("Content-Type", content_type), ("Date", _date(int(time.time()))), *self.fixed, *headers.items()]
        # An upstream may answer with a status that no RFC knows.
        first = f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}\r\n"
        self._head = first + "".join([f"{name}: {value}\r\n" for name, value in lines])
        if self._head.count("\n") != len(lines) + 1 or self._head.count("\r") != len(lines) + 1:
            raise ValueError("a header holds a line break")

    def send(self, data: bytes) -> Awaitable[None] | None:
        """Send a piece now. What is returned, if anything, must be awaited before the next piece: the client is slow.

        The awaitable raises StreamClosedError where the client left.
        """
        frame = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if not self.started:
            self.started = True
            head = self._head + ("Transfer-Encoding: chunked\r\n\r\n" if self._chunked else "\r\n")
            frame = head.encode("latin-1") + frame
        return self._write(frame)

    async def finish(self, data: bytes) -> None:
        """Send the last bytes (or, where nothing was sent yet, the whole answer with its length) and end the answer."""
        if not self.started:
            self.started = True
            if self.whole is not None:
                data = self.whole(data)
            frame = f"{self._head}Content-Length: {len(data)}\r\n\r\n".encode("latin-1") + data
        elif self._chunked:
            frame = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        else:
            frame = data
        slow = self._write(frame)
        if slow is not None:
            try:
                await slow
            except StreamClosedError:
                pass  # the client left after the end was decided and recorded: nobody is there to be told
        self._connection.finish()
        if self._last:
            self._stream.close()

    def abort(self) -> None:
        """Cut the connection: the client must not take what it has for a whole answer."""
        if not self._chunked and self._stream.socket is not None:
            # Where the end of the connection is the end of the answer, only a reset tells the difference.
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.close()

    def _write(self, frame: bytes) -> Awaitable[None] | None:
        stream = self._stream
        if stream.closed():
            return None
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


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)
