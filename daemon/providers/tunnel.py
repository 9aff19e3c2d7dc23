"""A connection to an upstream through an HTTP proxy that the administrator named: CONNECT (RFC 9110, 9.3.6), then TLS.

Rule: the proxy learns the upstream's name and port and nothing else; certificates are verified as without it. What it
says before its 200 is over, and anything that is no 200, ends the attempt. No proxy is ever taken from the environment.
"""

from __future__ import annotations

import asyncio
import re
import ssl

from daemon.providers.connection import Connection

LONGEST_GREETING = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


async def open_tunnel(
    connection: Connection, proxy: tuple[str, int], *, host: str, port: int, tls: ssl.SSLContext
) -> None:
    """Have `connection` stand on a tunnel to host:port. OSError where the proxy or the upstream does not let it."""
    loop = asyncio.get_running_loop()
    transport, greeting = await loop.create_connection(lambda: _Greeting(loop), *proxy)
    try:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        transport.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: gatelodge\r\n\r\n".encode())
        await greeting.over
        secured = await loop.start_tls(transport, connection, tls, server_hostname=host)
        if secured is None:
            raise ConnectionResetError("the proxy closed the connection")
    except BaseException:
        transport.abort()
        raise
    connection.connection_made(secured)


class _Greeting(asyncio.Protocol):
    """What the proxy says to CONNECT: `over` is done when it opened the tunnel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.over: asyncio.Future[None] = loop.create_future()
        self._said = b""

    def data_received(self, data: bytes) -> None:
        self._said += data
        head, end, more = self._said.partition(b"\r\n\r\n")
        if self.over.done() or (not end and len(self._said) <= LONGEST_GREETING):
            return
        status = _STATUS.match(head)
        if status is None or not end:
            self._fail("the proxy does not answer as a proxy would")
        elif status[1] != b"200":
            self._fail(f"the proxy refused with {status[1].decode()}")
        elif more:
            self._fail("the proxy said more than that the tunnel is open")
        else:
            self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def _fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(OSError(why))
            self.over.exception()  # nobody may be waiting any more
