"""What one request may be and how long it may take: head, body, answer; the checks that ask nobody who is calling.

    idle ──first byte──▶ head ──▶ body ──▶ answer ──▶ idle
     60 s               8.5 s     8 s of silence,     32 s in which the
                                  4 KiB/s on average  client takes nothing

Rule: what is too large, too many, too slow or ambiguous is refused here, before a handler exists. Time is looked at
once a second for all connections (a timer a request was measured at 25 us), so each bound holds within a second.
Of the bodies, what is beyond the first 64 KiB of each is accounted for: however many clients there are, all bodies
together stay within `BODIES` times `server.max_body`.
"""

from __future__ import annotations

import asyncio
import enum
from http.client import responses
from typing import Any

import msgspec
from tornado import httputil
from tornado.web import Application

from common.errors import GatewayError
from daemon.exchange import new_request_id
from daemon.web import heads
from daemon.web.connection import ClientConnection, RequestConnection
from daemon.web.inference import JSON, Carriers, InferenceRequest

LOOK_EVERY = 1.0  # seconds between two looks at who is late
HEAD_TIMEOUT = 8.5  # seconds until a head is complete, from its first byte or from the connection's beginning
IDLE_TIMEOUT = 60.0  # seconds that a kept connection may idle
BODY_SILENCE = 8.0  # seconds without a byte of the body
BODY_PACE = 4 * 1024  # bytes a second that a body must come with on average, after the first seconds
BLOB_SILENCE = 60.0  # of a model file, which comes at the upstream's pace
STALLED = 32.0  # seconds in which a client takes nothing of its answer; the relay says why after 30

FREE_BODY = 64 * 1024  # bytes of a body that are not accounted for; nearly every request is smaller
SMALL_BODY = 1024 * 1024  # bytes of a body on routes that are not inference
BODIES = 16  # times `server.max_body`: what all bodies of callers with a credential may take together
OTHER_BODIES = 64 * SMALL_BODY  # and of all other requests
MAX_BLOB = 256 * 1024**3

_FORM_ROUTES = ("/oauth/",)
_STREAMED = ("/api/blobs/",)


class _Phase(enum.Enum):
    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    BLOB = enum.auto()
    ANSWER = enum.auto()


class Bounds(httputil.HTTPServerConnectionDelegate):
    """Puts a `BoundedRequest` in front of whoever reads each request, and looks at who is late."""

    def __init__(self, application: Application, carriers: Carriers, max_body: int) -> None:
        self.application = application
        self.carriers = carriers
        self.max_body = max_body
        self.known_bodies = 0  # bytes of them, of callers with a credential
        self.other_bodies = 0
        self._open: dict[ClientConnection, BoundedRequest] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> BoundedRequest:
        assert isinstance(server_conn, ClientConnection)
        assert isinstance(request_conn, RequestConnection)
        before = self._open.get(server_conn)
        if before is not None:
            before.give_back()
        request = self._open[server_conn] = BoundedRequest(self, server_conn, request_conn)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)
        return request

    def on_close(self, server_conn: object) -> None:
        assert isinstance(server_conn, ClientConnection)
        request = self._open.pop(server_conn, None)
        if request is not None:
            request.give_back()
        self.application.on_close(server_conn)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for request in list(self._open.values()):
            request.look(now)
        self._timer = loop.call_later(LOOK_EVERY, self._look) if self._open else None


class BoundedRequest(httputil.HTTPMessageDelegate):
    """Reads one request's head and body within bounds; what is outside gets its status and the connection ends."""

    def __init__(self, bounds: Bounds, client: ClientConnection, connection: RequestConnection) -> None:
        self._bounds = bounds
        self._client = client
        self._connection = connection
        self._refused = False
        self._held = 0  # bytes of the body that are accounted for
        self._known = False  # whether in `known_bodies`
        self._phase = _Phase.IDLE if client.served else _Phase.HEAD
        self._since = asyncio.get_running_loop().time()  # when something last happened, as far as `look` knows
        self._seen = 0  # what it saw then
        self._method = ""
        self.inner: httputil.HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Any:
        assert isinstance(start_line, httputil.RequestStartLine)
        bounds = self._bounds
        self._method = start_line.method
        if start_line.path.startswith("/k/"):
            start_line = heads.take_key(start_line, headers)
        path = start_line.path.partition("?")[0]
        carrier = bounds.carriers.get(path) if start_line.method == "POST" else None
        streamed = carrier is None and path.startswith(_STREAMED)
        limit = bounds.max_body if carrier is not None else MAX_BLOB if streamed else min(bounds.max_body, SMALL_BODY)
        self._left = self._max_body = limit
        self._counted_below = 0 if streamed else max(0, limit - FREE_BODY)
        self._known = carrier is not None
        self._since = self._announced = asyncio.get_running_loop().time()
        self._phase = _Phase.BLOB if streamed else _Phase.BODY
        try:
            if self._connection.refused is not None:
                raise self._connection.refused
            length = heads.check(start_line, headers)
            if length is not None and length > limit:
                raise self._too_large()
        except heads.Refused as refused:
            if carrier is not None:
                self.inner = carrier(self._connection, start_line, headers)  # which knows the words of its dialect
            return self.refuse(refused.status, refused.message)
        if carrier is not None:
            self.inner = carrier(self._connection, start_line, headers)
            return None
        self.inner = bounds.application.start_request(self._client, self._connection)
        if "Content-Type" in headers and not path.startswith(_FORM_ROUTES):
            # Handlers read JSON whatever the type says, as Ollama does; Tornado would parse `curl -d` as a form.
            del headers["Content-Type"]
        return self.inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        if self._refused:
            return None
        self._left -= len(chunk)
        if self._left < self._counted_below and self._has_no_room(len(chunk)):
            return None
        assert self.inner is not None
        return self.inner.data_received(chunk)

    def finish(self) -> None:
        self._phase = _Phase.ANSWER
        if not self._refused:
            assert self.inner is not None
            self.inner.finish()

    def on_connection_close(self) -> None:
        if not self._refused and self.inner is not None:
            self.inner.on_connection_close()

    def give_back(self) -> None:
        """The request is over: its body takes no memory any more."""
        if self._held:
            if self._known:
                self._bounds.known_bodies -= self._held
            else:
                self._bounds.other_bodies -= self._held
            self._held = 0

    def look(self, now: float) -> None:
        """Called once a second: end what takes too long."""
        stream = self._client.stream
        match self._phase:
            case _Phase.IDLE if stream.begun:
                self._phase, self._since = _Phase.HEAD, now
            case _Phase.IDLE if now - self._since >= IDLE_TIMEOUT:
                stream.close()
            case _Phase.HEAD if now - self._since >= HEAD_TIMEOUT:
                stream.close()
            case _Phase.BODY if not self._refused:
                received = self._max_body - self._left
                if now - self._announced >= BODY_SILENCE + received / BODY_PACE:
                    self.refuse(408, f"the request body comes with less than {BODY_PACE:,} bytes a second")
                elif self._still(received, now) >= BODY_SILENCE:
                    self.refuse(408, f"nothing more of the request body came for {BODY_SILENCE:.0f} seconds")
            case _Phase.BLOB if self._still(self._left, now) >= BLOB_SILENCE:
                stream.close()
            case _Phase.ANSWER | _Phase.BODY if stream.writing() and self._still(stream.taken, now) >= STALLED:
                stream.close()

    def _still(self, seen: int, now: float) -> float:
        """For how many seconds `seen` has been what it is."""
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since

    def _has_no_room(self, size: int) -> bool:
        """Account for `size` bytes more of the body; whether that was too much, and is refused."""
        if self._left < 0:
            refused = self._too_large()
            self.refuse(refused.status, refused.message)
            return True
        if not self._held and isinstance(self.inner, InferenceRequest) and self.inner.unwelcome():
            self._refused = True
            self._phase = _Phase.ANSWER
            self.inner.finish()
            return True
        if not self._held and self._known:
            self._known = isinstance(self.inner, InferenceRequest) and self.inner.known
        bounds = self._bounds
        taken = bounds.known_bodies if self._known else bounds.other_bodies
        if taken + size > (BODIES * bounds.max_body if self._known else OTHER_BODIES):
            self.refuse(503, "too many large request bodies at once; try again in a moment")
            return True
        self._held += size
        if self._known:
            bounds.known_bodies += size
        else:
            bounds.other_bodies += size
        return False

    def _too_large(self) -> heads.Refused:
        return heads.Refused(413, f"the request body exceeds {self._max_body} bytes")

    def refuse(self, status: int, message: str) -> Any:
        """Answer with `status` and end the connection: what else the client sends is not read as a request."""
        self._refused = True
        if self.inner is not None:
            self.inner.on_connection_close()  # whoever works on the part that came may stop
        code = {413: "too_large", 431: "too_large", 503: "busy"}.get(status, "invalid_request")
        request_id, content_type = new_request_id(), JSON
        body = msgspec.json.encode({"error": message, "code": code})
        if isinstance(self.inner, InferenceRequest):
            request_id = self.inner.request_id
            _, content_type, body = self.inner.worded(GatewayError(message, status=status, code=code))
        headers = httputil.HTTPHeaders(
            {
                "Content-Type": content_type,
                "Content-Length": str(len(body)),
                "Connection": "close",
                "X-Request-Id": request_id,
            }
        )
        if status == 503:
            headers["Retry-After"] = "5"
        reason = responses.get(status, "Refused")
        start_line = httputil.ResponseStartLine("HTTP/1.1", status, reason)
        told = None if self._method == "HEAD" else body  # the length, but not the body (RFC 9110, 9.3.2)
        wrote = self._connection.write_headers(start_line, headers, told)
        self._connection.finish()
        return wrote
