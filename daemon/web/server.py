"""The LAN listener: Tornado's HTTP server, with our bounds in front of it.

Rule: what is too large, too many, too slow or ambiguous is refused here, before a handler exists. The checks that need
to know who is asking live in `base.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from http.client import responses
from typing import Any

import msgspec
from tornado import httputil, iostream, netutil
from tornado.httpserver import HTTPServer
from tornado.web import Application

from daemon.config import Config
from daemon.exchange import new_request_id
from daemon.web.inference import Carrier

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
HEAD_TIMEOUT = 60.0  # seconds until the head of a request is complete; also how long a kept connection may idle
BODY_TIMEOUT = 60.0  # seconds for a whole body; blobs have their own pace (`ollama_admin.py`)
LOOK_EVERY = 1.0  # seconds between two looks at who is late
MAX_BLOB = 256 * 1024**3

_TOKEN = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
_HOST = re.compile(r"^[0-9A-Za-z._~!$&'()*+;=:%\[\]-]*$")
_FORM_ROUTES = ("/oauth/",)
_STREAMED = ("/api/blobs/",)


class GateServer(HTTPServer):
    """An HTTP server that holds at most so many connections of one address."""

    def initialize(  # type: ignore[override]
        self,
        application: Application,
        *,
        config: Config,
        ssl_options: ssl.SSLContext | None = None,
        carriers: Mapping[str, Carrier] | None = None,
    ) -> None:
        """`carriers`: by path, who carries a POST in place of the application."""
        super().initialize(
            _Bounds(application, carriers or {}, config.server.max_body),
            ssl_options=ssl_options,
            max_header_size=2 * MAX_HEADER_BYTES,  # up to there it is answered, beyond it the connection is cut
            body_timeout=None,
            chunk_size=16 * 1024,  # of a read: a buffer of that size is cleared for each, however short the request
            max_body_size=MAX_BLOB,
            max_buffer_size=config.server.max_body + 1024 * 1024,
        )
        # Tornado's own costs a timer and a task a request (measured: 25 us); `_Lateness` is one timer for all.
        self.conn_params.header_timeout = None
        self._per_address = config.server.connections_per_address
        self._proxies = [ipaddress.ip_network(text, strict=False) for text in config.server.trusted_proxies]
        self._open: Counter[str] = Counter()

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        # Tornado's TCPServer calls this for each accepted socket: the earliest place to refuse one.
        host = address[0] if isinstance(address, tuple) else ""
        if self._open[host] >= self._per_address and not self._is_proxy(host):
            connection.close()
            return
        super()._handle_connection(connection, address)

    def handle_stream(self, stream: iostream.IOStream, address: tuple[Any, ...]) -> None:
        host = address[0] if isinstance(address, tuple) and address else ""
        self._open[host] += 1
        # Once, not twice an answer as Tornado does: with Nagle's delay the first token waits 41 ms for an
        # acknowledgement, and nothing here is written in small pieces that belong together.
        stream.set_nodelay(True)
        stream.set_nodelay = _as_it_is  # type: ignore[method-assign]
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        context = getattr(server_conn, "context", None)
        address = getattr(context, "address", None)
        host = address[0] if isinstance(address, tuple) and address else ""
        self._open[host] -= 1
        if self._open[host] <= 0:
            del self._open[host]
        super().on_close(server_conn)

    def _is_proxy(self, host: str) -> bool:
        if not self._proxies:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def _as_it_is(value: bool) -> None:
    del value


class _Bounds(httputil.HTTPServerConnectionDelegate):
    """Puts a `_BoundedRequest` in front of whoever reads each request."""

    def __init__(self, application: Application, carriers: Mapping[str, Carrier], max_body: int) -> None:
        self.application = application
        self.carriers = carriers
        self.max_body = max_body
        self.lateness = _Lateness()

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return _BoundedRequest(self, server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        self.lateness.arrived(server_conn)
        self.application.on_close(server_conn)


class _Lateness:
    """Who still owes a head or a body, until when, and what happens then. One timer for all connections."""

    def __init__(self) -> None:
        self._due: dict[object, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, server_conn: object, seconds: float, otherwise: Callable[[], object]) -> None:
        """Call `otherwise` if the connection has not `arrived` in so many seconds."""
        loop = asyncio.get_running_loop()
        self._due[server_conn] = (loop.time() + seconds, otherwise)
        if self._timer is None:
            self._timer = loop.call_later(LOOK_EVERY, self._look)

    def arrived(self, server_conn: object) -> None:
        """What was expected is there, or the connection is gone."""
        self._due.pop(server_conn, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for server_conn, (due, otherwise) in list(self._due.items()):
            if due <= now:
                del self._due[server_conn]
                otherwise()
        self._timer = loop.call_later(LOOK_EVERY, self._look) if self._due else None


class _BoundedRequest(httputil.HTTPMessageDelegate):
    """Reads one request's head and body within bounds; what is outside gets its status and the connection ends."""

    inner: httputil.HTTPMessageDelegate

    def __init__(self, bounds: _Bounds, server_conn: object, connection: httputil.HTTPConnection) -> None:
        self.bounds = bounds
        self.server_conn = server_conn
        self.connection = connection
        self.left = self.max_body = bounds.max_body
        self.refused = False
        bounds.lateness.expect(server_conn, HEAD_TIMEOUT, self._hang_up)

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Any:
        assert isinstance(start_line, httputil.RequestStartLine)
        path = start_line.path.partition("?")[0]
        streamed = path.startswith(_STREAMED)
        if streamed:
            self.left = MAX_BLOB
            self.bounds.lateness.arrived(self.server_conn)
        else:
            self.bounds.lateness.expect(self.server_conn, BODY_TIMEOUT, self._refuse_late_body)
        problem = self._problem(start_line, headers)
        if problem is not None:
            return self._refuse(*problem)
        carrier = self.bounds.carriers.get(path) if start_line.method == "POST" else None
        if carrier is not None:
            self.inner = carrier(self.connection, start_line, headers)  # type: ignore[arg-type]
            return None
        self.inner = self.bounds.application.start_request(self.server_conn, self.connection)
        if "Content-Type" in headers and not path.startswith(_FORM_ROUTES):
            # Handlers read JSON whatever the type says, as Ollama does; Tornado would parse `curl -d` as a form.
            del headers["Content-Type"]
        return self.inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        if self.refused:
            return None
        self.left -= len(chunk)
        if self.left < 0:
            return self._refuse(413, f"the request body exceeds {self.max_body} bytes")
        return self.inner.data_received(chunk)

    def finish(self) -> None:
        self.bounds.lateness.arrived(self.server_conn)
        if not self.refused:
            self.inner.finish()

    def on_connection_close(self) -> None:
        if not self.refused:
            self.inner.on_connection_close()

    def _problem(self, start_line: httputil.RequestStartLine, headers: httputil.HTTPHeaders) -> tuple[int, str] | None:
        count = size = 0
        for name, value in headers.get_all():
            count += 1
            size += len(name) + len(value)
            if not _TOKEN.match(name):
                return 400, "a header name holds a character that is not allowed"
        if count > MAX_HEADERS:
            return 431, f"more than {MAX_HEADERS} header lines"
        if size > MAX_HEADER_BYTES:
            return 431, f"more than {MAX_HEADER_BYTES} bytes of headers"
        lengths = headers.get_list("Content-Length")
        if len(lengths) > 1:
            return 400, "more than one Content-Length"
        if "Transfer-Encoding" in headers:
            if start_line.version == "HTTP/1.0":
                return 400, "Transfer-Encoding has no meaning in HTTP/1.0"
            if lengths:
                return 400, "both Content-Length and Transfer-Encoding"
        if len(headers.get_list("Authorization")) > 1:
            return 400, "more than one Authorization header"
        if len(headers.get_list("Host")) > 1 or (start_line.version == "HTTP/1.1" and "Host" not in headers):
            return 400, "exactly one Host header is needed"
        if not _HOST.match(headers.get("Host", "")):
            return 400, "the Host header is not a host"
        if not start_line.path.startswith("/") and start_line.path != "*":
            return 400, "the request target must be a path"
        if "Content-Encoding" in headers and headers["Content-Encoding"].lower() != "identity":
            return 415, "a compressed request body is not accepted; send it plain"
        if lengths and lengths[0].isdigit() and int(lengths[0]) > self.left:
            return 413, f"the request body exceeds {self.max_body} bytes"
        return None

    def _refuse_late_body(self) -> None:
        self._refuse(408, f"the request body did not come within {BODY_TIMEOUT:.0f} seconds")

    def _refuse(self, status: int, message: str) -> Any:
        self.refused = True
        body = msgspec.json.encode(
            {"error": message, "code": "too_large" if status in {413, 431} else "invalid_request"}
        )
        headers = httputil.HTTPHeaders(
            {
                "Content-Type": "application/json; charset=utf-8",
                "Content-Length": str(len(body)),
                "Connection": "close",
                "X-Request-Id": new_request_id(),
            }
        )
        reason = responses.get(status, "Refused")
        wrote = self.connection.write_headers(httputil.ResponseStartLine("HTTP/1.1", status, reason), headers, body)
        wrote.add_done_callback(lambda _: self._hang_up())
        self.connection.finish()
        return wrote

    def _hang_up(self) -> None:
        stream = getattr(self.connection, "stream", None)
        if stream is not None:
            stream.close()


def listen(server: GateServer, host: str, port: int) -> int:
    """Bind and start `server`; the port that was taken. OSError if it cannot be had."""
    sockets = netutil.bind_sockets(port, address=host or None)
    server.add_sockets(sockets)
    name = sockets[0].getsockname()
    return int(name[1])


def check_address(host: str, port: int) -> None:
    """OSError where `listen` could not have that address now. Binds and lets go again."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind(address)


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """The context for a certificate chain and its key (PEM files); None where neither is given."""
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context
