"""The admin socket: HTTP over a Unix socket in a private folder. Who may open it is the file system's answer.

Rule: the peer's account is known before a verb runs, and every change is recorded under it. An error is translated to
a `Failure` here and nowhere else. A client that leaves ends what only it was waiting for; a change goes on to its end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from tornado import iostream
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from common.errors import BadRequest, GatewayError, NotFound
from common.protocol import PROTOCOL_VERSION, VERSION_HEADER, End, Failure, Goodbye
from daemon.access.actor import Actor
from daemon.admin.binding import bind, group_id
from daemon.admin.bound import Bound, Download
from daemon.admin.peer import actor_of
from daemon.admin.verbs import TABLE
from daemon.admin.watch import feed
from daemon.descriptors import Accepting

if TYPE_CHECKING:
    from daemon.house import House

log = logging.getLogger("gatelodge.admin")

LARGEST_BODY = 1024 * 1024
LONGEST_STALL = 10.0  # seconds that a watcher may leave its messages unread
PATIENCE_AT_STOP = 5.0  # seconds that changes under way may still take when the daemon stops
TOO_SLOW = "this watcher reads too slowly; connect again for a new snapshot"


class AdminServer:
    """Listens on the Unix socket at `path`; with `group`, that group may use it besides its owner."""

    def __init__(self, house: House, path: Path, *, group: str = "", longest_stall: float = LONGEST_STALL) -> None:
        self._house = house
        self._path = path
        self._group = group
        self._bound: tuple[int, int] | None = None
        self._answering: set[asyncio.Task[Any]] = set()
        given: dict[str, Any] = {"house": house, "answering": self._answering}
        self._server = _Listener(
            Application(
                [
                    (r"/watch", _Watch, given | {"longest_stall": longest_stall}),
                    (r"/metrics", _Metrics, given),
                    (r"/(.*)", _Verb, given),
                ],
                log_function=_log_request,
            ),
            max_body_size=LARGEST_BODY,
            max_buffer_size=2 * LARGEST_BODY,
            body_timeout=30.0,
        )

    def start(self) -> None:
        """Bind and listen; StartError where that cannot be."""
        gid = group_id(self._group) if self._group else None
        listening = bind(self._path, gid)
        feed(self._house)
        status = self._path.stat()
        self._bound = (status.st_dev, status.st_ino)
        self._server.add_sockets([listening])

    async def stop(self) -> None:
        """Say goodbye to the watchers, stop listening, end the connections, remove the socket."""
        self._house.hub.close("the daemon is stopping")
        self._server.stop()
        await self._server.close_all_connections()
        # Their clients are gone; what they hold (a child process, an upstream's connection) is given back first.
        # A change may go on to its end, but not hold up the stop.
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=PATIENCE_AT_STOP)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._bound is not None:
            # Only our own: a successor may have replaced it.
            try:
                status = self._path.lstat()
                if (status.st_dev, status.st_ino) == self._bound:
                    self._path.unlink()
            except FileNotFoundError:
                pass
            self._bound = None


class _Listener(HTTPServer):
    """Tornado's server, but for an accept loop that does not spin where no descriptor is left."""

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        for each in sockets:
            self._sockets[each.fileno()] = each
            self._handlers[each.fileno()] = Accepting(each, self._handle_connection).stop


class _Handler(RequestHandler):
    """What every route of the socket shares: the peer's account, errors as `Failure`."""

    SUPPORTED_METHODS = ("GET", "POST")
    actor: Actor

    def initialize(self, house: House, answering: set[asyncio.Task[Any]]) -> None:
        self.house = house
        self._answering = answering
        self._task: asyncio.Task[Any] | None = None  # what ends with its client
        self._left = False

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json; charset=utf-8")

    def prepare(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        connection: Any = self.request.connection
        self.actor = actor_of(connection.stream.socket)
        spoken = self.request.headers.get(VERSION_HEADER)
        if spoken is not None and spoken != str(PROTOCOL_VERSION):
            raise GatewayError(
                f"this daemon speaks version {PROTOCOL_VERSION} of the admin protocol and the program that asks "
                f"version {spoken}: use the `gatelodge` of the same release, and restart the daemon after an upgrade",
                status=426,
                code="version_mismatch",
            )

    def on_connection_close(self) -> None:
        if self._task is not None:
            self._left = True
            self._task.cancel()

    @contextmanager
    def ending_with_client(self) -> Iterator[None]:
        """What runs inside is cancelled when the client leaves, and that is no error."""
        task = self._task = asyncio.current_task()
        try:
            yield
        except iostream.StreamClosedError:
            pass  # it left while we were writing
        except asyncio.CancelledError:
            if not self._left or task is None:
                raise
            task.uncancel()
        finally:
            self._task = None

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if self._headers_written and isinstance(error, iostream.StreamClosedError | asyncio.CancelledError):
            # Nobody is there to be told, and that is no error: Tornado would log one.
            if not self._finished:
                self.finish()
            return
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, HTTPError):
            error = GatewayError(
                f"the admin socket has no such route or method ({status_code})",
                status=status_code,
                code="method_not_allowed" if status_code == 405 else "invalid_request",
            )
        if not isinstance(error, GatewayError):
            error = GatewayError("the daemon failed on this request; its log tells more")
        self.set_status(error.status)
        self.finish(msgspec.json.encode(failure(error)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, GatewayError | HTTPError | iostream.StreamClosedError | asyncio.CancelledError):
            log.error("admin request %s failed", self.request.path, exc_info=value)


class _Verb(_Handler):
    """`POST /verb`: decode, run, encode."""

    async def post(self, path: str) -> None:
        bound = TABLE.get(path)
        if bound is None:
            raise NotFound(f"there is no verb {path!r}; docs/command-line.md lists them all", code="unknown_verb")
        try:
            request = msgspec.json.decode(self.request.body or b"{}", type=bound.verb.request)
        except msgspec.DecodeError as error:
            raise BadRequest(f"{path}: {error}") from error
        if bound.verb.form == "one" and bound.verb.changes:
            # A change is carried to its end even where its caller leaves: memory and store must not part.
            await self._answer(bound, request)
            return
        with self.ending_with_client():
            await self._answer(bound, request)

    async def _answer(self, bound: Bound, request: Any) -> None:
        if bound.verb.form == "many":
            await self._send_items(bound, request)
            return
        answer = await bound.run(self.house, self.actor, request)
        if isinstance(answer, Download):
            await self._send_pieces(answer)
        else:
            self.finish(msgspec.json.encode(answer))

    async def _send_items(self, bound: Bound, request: Any) -> None:
        self.set_header("Content-Type", "application/x-ndjson")
        begun = False
        try:
            async with aclosing(bound.run(self.house, self.actor, request)) as items:
                async for item in items:
                    begun = True
                    self.write(msgspec.json.encode(item) + b"\n")
                    await self.flush()
            last = End()
        except GatewayError as error:
            if not begun:
                raise
            last = End(failure=failure(error))
        self.finish(msgspec.json.encode(last) + b"\n")

    async def _send_pieces(self, download: Download) -> None:
        self.set_header("Content-Type", download.content_type)
        for name, value in download.headers.items():
            self.set_header(name, value)
        try:
            async with aclosing(download.pieces) as pieces:
                async for piece in pieces:
                    self.write(piece)
                    await self.flush()
        except BaseException as error:
            if not self._headers_written:
                raise
            # The missing last chunk tells the client that this is not the whole.
            connection: Any = self.request.connection
            connection.stream.close()
            if not isinstance(error, GatewayError):
                raise
            log.warning("an export ended early: %s", error.message)
            return
        self.finish()


class _Watch(_Handler):
    """`GET /watch`: the live stream."""

    def initialize(self, house: House, answering: set[asyncio.Task[Any]], longest_stall: float = LONGEST_STALL) -> None:
        super().initialize(house, answering)
        self._longest_stall = longest_stall

    async def get(self) -> None:
        self.set_header("Content-Type", "application/x-ndjson")
        with self.ending_with_client():
            async with self.house.hub.watch() as watcher:
                async for message in watcher:
                    self.write(msgspec.json.encode(message) + b"\n")
                    if not await self._left_in_time():
                        watcher.end(TOO_SLOW)  # the hub forgets it at once, however long the parting takes
                        await self._part()
                        return
            self.finish()

    async def _left_in_time(self) -> bool:
        try:
            async with asyncio.timeout(self._longest_stall):
                await self.flush()
        except TimeoutError:
            return False
        return True

    async def _part(self) -> None:
        """Goodbye to one who reads slowly: it gets the word if it reads on within the same patience, else the end."""
        self.write(msgspec.json.encode(Goodbye(TOO_SLOW)) + b"\n")
        try:
            async with asyncio.timeout(self._longest_stall):
                await self.finish()
        except TimeoutError:
            connection: Any = self.request.connection
            connection.stream.close()


class _Metrics(_Handler):
    """`GET /metrics`: Prometheus text."""

    def get(self) -> None:
        content_type, page = self.house.metrics.render(self.house.gate.live(), self.house.registry.upstreams)
        self.set_header("Content-Type", content_type)
        self.finish(page)


def failure(error: GatewayError) -> Failure:
    """The error as it crosses the socket."""
    detail = dict(error.detail)
    if error.retry_after is not None:
        detail["retry_after"] = error.retry_after
    return Failure(error=error.message, code=error.code, detail=detail)


def _log_request(handler: RequestHandler) -> None:
    actor = getattr(handler, "actor", None)
    name = actor.name if actor is not None else "?"
    log.debug("%s %s by %s: %d", handler.request.method, handler.request.path, name, handler.get_status())
