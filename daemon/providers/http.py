"""The pooled HTTP/1.1 client to one upstream, plain or TLS.

    async with pool.request("POST", "/api/chat", body=b"...") as response:
        async for piece in response: ...

Rules: leaving the block before the answer's end closes the connection at once, which is how an upstream learns that it
may stop generating. A connection is reused only if it is known to be idle and clean; a request that finds its pooled
connection dead before any byte was answered is sent once more on a fresh one, never otherwise. Redirects are not
followed, proxy variables not read, certificates always verified, through a proxy too (`tunnel.py`). Deadlines after the
connect are the caller's.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from common.errors import UpstreamFailed
from daemon.providers.connection import Connection, Response
from daemon.providers.errors import ConnectFailed, ConnectTimedOut, OutOfDescriptors, UpstreamBroken
from daemon.providers.tunnel import open_tunnel

__all__ = ["ConnectFailed", "ConnectTimedOut", "Pool", "Request", "Response", "UpstreamBroken", "verifying_context"]

IDLE_SECONDS = 30.0  # an idle connection older than this is not reused
IDLE_CONNECTIONS = 64  # idle connections that are kept

Body = bytes | AsyncIterator[bytes]


class Pool:
    """Connections to one upstream. `name` is what errors call it; `tls` a context that verifies (https only)."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        connect_timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        authorization: str = "",
        proxy: str = "",
        outcome: Callable[[UpstreamFailed | None], None] | None = None,
    ) -> None:
        """`url` is http:// or https://, a path in it is put before each target.

        `authorization`, where there is one, is that header of every request: a secret, which nothing here shows.
        `proxy`, where there is one, is the http:// address of a proxy through which an https:// upstream is reached.
        `outcome` is told of each request's: None when its answer was whole, else how the wire failed; nothing of an
        answer that its reader left.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"not an http:// or https:// address: {url!r}")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.name = name or f"{self.host}:{self.port}"
        self.connect_timeout = connect_timeout
        self._prefix = parts.path.rstrip("/")
        self._tls = (tls or verifying_context()) if parts.scheme == "https" else None
        named = urlsplit(proxy)
        self._proxy = (named.hostname, named.port or 80) if named.hostname and self._tls is not None else None
        self._outcome = outcome
        address = f"[{self.host}]" if ":" in self.host else self.host
        host = address if parts.port is None else f"{address}:{parts.port}"
        # The upstream's own name: Ollama refuses foreign Hosts. No coding but plain: chunks are forwarded unparsed.
        self._fixed = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gatelodge\r\nAccept-Encoding: identity\r\n"
        self._identity = ""
        if authorization:
            self.identify([("Authorization", authorization)])
        self._idle: deque[Connection] = deque()  # the last one freed is the first one reused
        self._open: set[Connection] = set()
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.name}: {len(self._idle)} idle, {self.busy} busy{', closed' if self._closed else ''}>"

    def identify(self, headers: Sequence[tuple[str, str]]) -> None:
        """From now on every request has these headers, too; a secret among them is shown nowhere here."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError("a header holds a line break")
        self._identity = lines

    @property
    def busy(self) -> int:
        """How many connections carry a request, or are being made for one."""
        return len(self._open) - len(self._idle)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: Body | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Request:
        """A request, sent on entering its `async with`, which yields the Response once its headers are there.

        A body given in pieces is sent at the upstream's pace: chunked, or with the Content-Length among `headers`.
        `on_sent` is called when the connection stands and the first byte goes out. ConnectFailed, ConnectTimedOut:
        nothing was sent. UpstreamBroken: the connection failed after that.
        """
        length = _announced(headers) if body is not None and not isinstance(body, bytes) else None
        head = self._head(method, target, headers, body, length)
        return Request(self, method, head, body=body, length=length, on_sent=on_sent)

    async def close(self) -> None:
        """Close every connection, and return when they are gone."""
        self._closed = True
        for connection in list(self._open):
            # Told, not only cut: whoever reads from it must not wait for ever.
            connection.fail(UpstreamBroken(f"the connections to the upstream {self.name} were closed"))
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    # --- which connection serves a request: decided synchronously ---

    def take_idle(self) -> Connection | None:
        """A connection that is idle and clean as far as anybody knows, or None: then one must be made."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.closing:
                continue
            if now - connection.idle_since <= IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def freed(self, connection: Connection) -> None:
        """An answer is whole and its connection fit for the next request."""
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)
        if len(self._idle) > IDLE_CONNECTIONS:
            self._idle.popleft().abort()

    def lost(self, connection: Connection) -> None:
        """A connection is closed, whoever closed it."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    async def connect(self) -> Connection:
        """A new connection."""
        if self._closed:
            raise ConnectFailed(f"the connections to the upstream {self.name} were closed")
        connection = Connection(self, tls=self._tls is not None)
        self._open.add(connection)
        made = False
        try:
            async with asyncio.timeout(self.connect_timeout):
                if self._proxy is not None and self._tls is not None:
                    await open_tunnel(connection, self._proxy, host=self.host, port=self.port, tls=self._tls)
                else:
                    await connection.loop.create_connection(
                        lambda: connection,
                        self.host,
                        self.port,
                        ssl=self._tls,
                        server_hostname=self.host if self._tls is not None else None,
                    )
            if connection.closing:  # the pool was closed meanwhile
                raise ConnectFailed(f"the connections to the upstream {self.name} were closed")
            made = True
            return connection
        except TimeoutError as error:
            raise ConnectTimedOut(
                f"the upstream {self.name} did not accept a connection within {self.connect_timeout:g} seconds"
            ) from error
        except OSError as error:  # ssl.SSLError is one
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                # No fault of the upstream's: it must not count as down.
                raise OutOfDescriptors(
                    f"the gateway cannot open another connection: {error.strerror}; try again in a moment",
                    retry_after=5,
                ) from error
            raise ConnectFailed(f"the upstream {self.name} cannot be reached: {_in_words(error)}") from error
        finally:
            if not made:
                connection.abort()
                self.lost(connection)

    def report(self, failure: UpstreamFailed | None) -> None:
        """Tell whoever watches this upstream's health."""
        if self._outcome is not None:
            self._outcome(failure)

    def _head(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: Body | None,
        length: int | None,
    ) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError("a header holds a line break")
        if not target.startswith("/") or not target.isascii() or not target.isprintable() or " " in target:
            raise ValueError(f"not a request target: {target!r}")
        if body is None:
            # GET and HEAD have no body to announce; the others say that theirs is empty.
            framing = "" if method in {"GET", "HEAD"} else "Content-Length: 0\r\n"
        elif isinstance(body, bytes):
            framing = f"Content-Length: {len(body)}\r\n"
        else:
            framing = "Transfer-Encoding: chunked\r\n" if length is None else ""  # else it is among `headers`
        return f"{method} {self._prefix}{target}{self._fixed}{self._identity}{lines}{framing}\r\n".encode("latin-1")


class Request:
    """One request, as an asynchronous context; see `Pool.request`."""

    __slots__ = ("_body", "_head", "_length", "_method", "_on_sent", "_pool", "_response", "_sender")

    def __init__(
        self,
        pool: Pool,
        method: str,
        head: bytes,
        *,
        body: Body | None,
        length: int | None,
        on_sent: Callable[[], None] | None,
    ) -> None:
        self._pool = pool
        self._method = method
        self._head = head
        self._body = body
        self._length = length
        self._on_sent = on_sent
        self._response: Response | None = None
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Response:
        try:
            return await self._answered()
        except UpstreamFailed as failure:
            self._pool.report(failure)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._response is not None
        self._response.leave()
        if isinstance(error, UpstreamBroken):
            self._pool.report(error)
        elif self._response.served:
            self._pool.report(None)
        if self._sender is not None:
            await self._stop_sending()

    async def _answered(self) -> Response:
        connection = self._pool.take_idle()
        if connection is not None:
            try:
                return await self._send_on(connection)
            except UpstreamBroken:
                assert self._response is not None
                replayable = self._body is None or isinstance(self._body, bytes)
                if self._response.answered or not replayable:
                    raise
                # It had closed while it lay idle, and the news crossed with our request.
        return await self._send_on(await self._pool.connect())

    async def _send_on(self, connection: Connection) -> Response:
        """Send it and wait for the answer's headers; on any failure the connection is closed."""
        pieces = None if self._body is None or isinstance(self._body, bytes) else self._body
        try:
            if self._on_sent is not None:
                self._on_sent()
            whole = (self._body or b"") if pieces is None else None
            assert whole is None or isinstance(whole, bytes)
            self._response = connection.begin(self._method, self._head, whole)
            if pieces is not None:
                self._sender = asyncio.create_task(connection.send_pieces(pieces, self._length))
                self._sender.add_done_callback(lambda sender: _pass_on_failure(sender, connection))
            await self._response.started()
        except BaseException:
            connection.abort()
            if self._sender is not None:
                await self._stop_sending()
            raise
        return self._response

    async def _stop_sending(self) -> None:
        """End the sending of the body, if the answer came (or the reader left) before its end."""
        assert self._sender is not None
        self._sender.cancel()
        await asyncio.wait({self._sender})


def _pass_on_failure(sender: asyncio.Task[None], connection: Connection) -> None:
    """What the body's source raised ends the request, and is raised where the answer is awaited."""
    if not sender.cancelled():
        error = sender.exception()
        if isinstance(error, Exception):
            connection.fail(error)


def verifying_context(authority: Path | None = None) -> ssl.SSLContext:
    """A TLS context that verifies names and certificates, against the system's authorities or the PEM file given."""
    return ssl.create_default_context(cafile=authority)


def _announced(headers: Sequence[tuple[str, str]]) -> int | None:
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value)
    return None


def _in_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    # Where a name has several addresses asyncio tells of all of them in one text.
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "connection refused"
    return error.strerror or str(error) or type(error).__name__
