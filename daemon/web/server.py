"""The LAN listener: Tornado's HTTP server over connections of our own making.

Rule: how many connections one address may hold is decided here; what a request may be, in `bounds.py`; the checks that
need to know who is asking, in `base.py`.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tornado import netutil
from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.web import Application

from daemon.config import Config, Server
from daemon.descriptors import Accepting, for_clients
from daemon.web import heads
from daemon.web.bounds import MAX_BLOB, Bounds
from daemon.web.connection import ClientConnection, Farewells, PlainStream, TlsStream
from daemon.web.inference import Carriers

BACKLOG = 1024  # connections that the kernel keeps until they are accepted


class GateServer(HTTPServer):
    """An HTTP server that holds at most so many connections of one address."""

    def initialize(  # type: ignore[override]
        self,
        application: Application,
        *,
        config: Config,
        ssl_options: ssl.SSLContext | None = None,
        carriers: Carriers | None = None,
    ) -> None:
        """`carriers`: by path, who carries a POST in place of the application."""
        self._bounds = Bounds(application, carriers or Carriers({}), config.server.max_body)
        super().initialize(
            self._bounds,
            ssl_options=ssl_options,
            max_header_size=heads.MAX_HEAD,
            body_timeout=None,
            chunk_size=16 * 1024,  # of a read: a buffer of that size is cleared for each, however short the request
            max_body_size=MAX_BLOB,  # each route's own bound is told by `Bounds`
            max_buffer_size=config.server.max_body + 1024 * 1024,
        )
        # Tornado's own costs a timer and a task a request (measured: 25 us); `Bounds` has one timer for all.
        self.conn_params.header_timeout = None
        self._per_address = config.server.connections_per_address
        self._proxies = [ipaddress.ip_network(text, strict=False) for text in config.server.trusted_proxies]
        self._open: Counter[str] = Counter()
        self._farewells = Farewells()

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        # Tornado's own loop spins where no descriptor is left.
        for each in sockets:
            self._sockets[each.fileno()] = each
            self._handlers[each.fileno()] = Accepting(each, self._handle_connection, ceiling=for_clients()).stop

    def take_up(self, server: Server) -> None:
        """Go on with these bounds; connections that stand keep what they were given."""
        self._per_address = server.connections_per_address
        self._proxies = [ipaddress.ip_network(text, strict=False) for text in server.trusted_proxies]
        self.max_buffer_size = server.max_body + 1024 * 1024
        self._bounds.max_body = server.max_body

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        # Tornado's TCPServer calls this for each accepted socket: the earliest place to refuse one.
        host = address[0] if isinstance(address, tuple) else ""
        if self._open[host] >= self._per_address and not self._is_proxy(host):
            connection.close()
            return
        make: type[PlainStream | TlsStream] = PlainStream
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.ssl_options is not None:
                make = TlsStream
                connection = netutil.ssl_wrap_socket(
                    connection, self.ssl_options, server_side=True, do_handshake_on_connect=False
                )
        except OSError:  # gone again, as a port scanner is; ssl.SSLError is one
            connection.close()
            return
        size = self.conn_params.chunk_size
        stream = make(connection, max_buffer_size=self.max_buffer_size, read_chunk_size=size)
        context = _HTTPRequestContext(stream, address, self.protocol, self.trusted_downstream)
        client = ClientConnection(stream, self.conn_params, context, self._farewells)
        self._open[host] += 1
        self._connections.add(client)
        client.start_serving(self)

    async def close_all_connections(self) -> None:
        await super().close_all_connections()
        self._farewells.close()

    def on_close(self, server_conn: object) -> None:
        context = getattr(server_conn, "context", None)
        address = getattr(context, "address", None)
        host = address[0] if isinstance(address, tuple) and address else ""
        self._open[host] -= 1
        if self._open[host] <= 0:
            del self._open[host]
        self._bounds.on_close(server_conn)
        super().on_close(server_conn)

    def _is_proxy(self, host: str) -> bool:
        if not self._proxies:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def listen(server: GateServer, host: str, port: int) -> int:
    """Bind and start `server`; the port that was taken. OSError if it cannot be had."""
    # A rush of connections waits here for its turn; one that finds no room would try again after a second only.
    sockets = netutil.bind_sockets(port, address=host or None, backlog=BACKLOG)
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
