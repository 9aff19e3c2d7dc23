"""The daemon's admin socket, from the other side: blocking for one verb after another, async for the watch stream.

Standard library and `common/protocol.py` only, so that a command starts quickly. Rule: whatever goes wrong on the way
to the daemon is `Unreachable` and says what to do; whatever the daemon answers in the negative is `Refused`, in its
words. Strings that come back are foreign: whoever shows them cleans them (`console/tables.py`).
"""

from __future__ import annotations

import asyncio
import errno
import getpass
import grp
import http.client
import os
import pwd
import random
import socket
import stat
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common import paths
from common.protocol import (
    EXPORT_HEADER,
    PROTOCOL_VERSION,
    VERSION_HEADER,
    Failure,
    Goodbye,
    Message,
    Request,
    Verb,
    WatchMessage,
)

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")

LONGEST_ANSWER = 300.0  # seconds without a byte until a daemon counts as hung


class Unreachable(Exception):
    """There is no daemon to talk to; the text says why and what to do."""


class BrokenOff(Unreachable):
    """A change was asked for, and the connection broke before the answer came."""

    def __init__(self) -> None:
        super().__init__("the connection broke before the answer: it may have been done; look before you repeat it")


class Refused(Exception):
    """The daemon refused, or failed: `code` is a stable word, the text a sentence (of foreign words, perhaps)."""

    def __init__(self, failure: Failure, status: int) -> None:
        super().__init__(failure.error)
        self.code = failure.code
        self.detail = failure.detail
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("gatelodge", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = paths.connect(self._path, timeout=self.timeout)


class Download:
    """A raw answer: its pieces, and the id under which to report what was written."""

    def __init__(self, response: http.client.HTTPResponse, path: Path) -> None:
        self._response = response
        self._path = path
        self.export = response.headers.get(EXPORT_HEADER, "")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with _talking(self._path):
                piece = self._response.read1(256 * 1024)
            if not piece:
                return
            yield piece


class Client:
    """Asks the daemon behind the socket at `path`."""

    def __init__(self, path: Path, *, timeout: float | None = LONGEST_ANSWER) -> None:
        self.path = path
        self._timeout = timeout

    def ask(self, verb: Verb[Q, A], request: Q) -> A:
        """The answer of a verb that gives one document."""
        with self._answer(verb, request) as response:
            with _talking(self.path):
                body = response.read()
            return msgspec.json.decode(body, type=verb.answer)

    def items(self, verb: Verb[Q, A], request: Q) -> Generator[A, None, None]:
        """The items of a verb that gives many, as they come. Closing the generator ends the work in the daemon."""
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(verb.answer)
        with self._answer(verb, request) as response:
            while True:
                with _talking(self.path):
                    line = response.readline()
                    if not line:
                        raise http.client.IncompleteRead(b"")
                end = msgspec.json.decode(line, type=_Ending)
                if end.end:
                    if end.failure is not None:
                        raise Refused(end.failure, 200)
                    return
                yield decoder.decode(line)

    @contextmanager
    def download(self, verb: Verb[Q, bytes], request: Q) -> Iterator[Download]:
        """The bytes of a raw verb. Unreachable if they end before they are whole."""
        with self._answer(verb, request) as response:
            yield Download(response, self.path)

    @contextmanager
    def _answer(self, verb: Verb[Q, A], request: Q) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, self._timeout)
        headers = {"Content-Type": "application/json", VERSION_HEADER: str(PROTOCOL_VERSION)}
        try:
            with _talking(self.path):
                connection.request("POST", f"/{verb.name}", msgspec.json.encode(request), headers)
                response = connection.getresponse()
                if response.status != 200:
                    raise _refusal(response)
            yield response
        finally:
            connection.close()


@contextmanager
def _talking(path: Path) -> Iterator[None]:
    """Around each exchange of bytes with the daemon, and nothing else: the caller's own I/O errors are its own."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(why_unreachable(path, error)) from error


class _Ending(msgspec.Struct):
    """What tells the last line of many from an item."""

    end: bool = False
    failure: Failure | None = None


def _refusal(response: http.client.HTTPResponse) -> Refused:
    body = response.read(1024 * 1024)
    try:
        failure = msgspec.json.decode(body, type=Failure)
    except msgspec.DecodeError:
        failure = Failure(f"the daemon answered {response.status} without a reason", "internal_error")
    return Refused(failure, response.status)


def why_unreachable(path: Path, error: BaseException) -> str:
    """What keeps us from the daemon, and what to do about it."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, TimeoutError):
        return f"the daemon behind {path} did not answer in time; look at its log, or restart it"
    if number in {errno.EACCES, errno.EPERM}:
        return _why_no_permission(path)
    if number in {errno.ENOENT, errno.ENOTDIR}:
        start = f"start the daemon ({_how_to_start()}), or name its socket: --socket PATH"
        return f"no daemon: there is no socket at {path}; {start}"
    if number in {errno.ECONNREFUSED, errno.ENOTSOCK} and path.exists() and not path.is_socket():
        return f"{path} is no socket; name the daemon's: --socket PATH"
    if number in {errno.ECONNREFUSED, errno.ENOTSOCK}:
        return (
            f"no daemon behind {path}: the socket was left by one that is gone; start the daemon again "
            f"({_how_to_start()}), it replaces the stale socket"
        )
    if isinstance(error, http.client.IncompleteRead | ConnectionError | http.client.RemoteDisconnected):
        return f"the daemon behind {path} closed the connection before its answer was whole; is it stopping? try again"
    return f"cannot talk to the daemon behind {path}: {error}"


def _how_to_start() -> str:
    return "./run" if paths.checkout() is not None else "systemctl start gatelodge"


def _why_no_permission(path: Path) -> str:
    """The nearest thing on the way to the socket that keeps us out, whose it is, and which group would help."""
    barrier, status = path, None
    for place in (path, *path.parents):
        try:
            status = place.stat()
        except OSError:
            continue
        barrier = place
        break
    if status is None:
        return f"you may not open {path}"
    owner, group = _user_name(status.st_uid), _group_name(status.st_gid)
    needed = stat.S_IWGRP if stat.S_ISSOCK(status.st_mode) else stat.S_IXGRP
    if status.st_mode & needed:
        return (
            f"you may not open {path}: {barrier} is for the group {group!r}; have an administrator run "
            f"`sudo usermod -aG {group} {_user_name(os.geteuid())}`, then log in again"
        )
    return (
        f"you may not open {path}: {barrier} is for its owner {owner!r} alone; run this as that user "
        f"(`sudo -u {owner} gatelodge …`), or let a group in with admin.group in the daemon's configuration"
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return getpass.getuser() if uid == os.geteuid() else str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


_messages: msgspec.json.Decoder[WatchMessage] = msgspec.json.Decoder(WatchMessage)

LONGEST_SILENCE = 15.0  # seconds; a heartbeat comes every 5
PATIENCE = 5.0  # seconds for being let into a full queue
LARGEST_MESSAGE = 64 * 1024 * 1024


async def watch(path: Path) -> AsyncGenerator[Message, None]:
    """The watch stream of one connection: Hello, Snapshot, then what changes, Goodbye last.

    Unreachable where there is no daemon, or where it falls silent or goes without a goodbye.
    """
    try:
        connection = await reach(path)
    except OSError as error:
        raise Unreachable(why_unreachable(path, error)) from error
    reader, writer = await _open(connection)
    try:
        # HTTP/1.0: the answer is then not cut into chunks and ends with the connection.
        writer.write(f"GET /watch HTTP/1.0\r\n{VERSION_HEADER}: {PROTOCOL_VERSION}\r\n\r\n".encode("ascii"))
        await _read_head(reader)
        while True:
            async with asyncio.timeout(LONGEST_SILENCE):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                raise ConnectionResetError("the stream ended without a goodbye")
            message = _messages.decode(line)
            yield message
            if isinstance(message, Goodbye):
                return
    except (OSError, ValueError, TimeoutError) as error:
        raise Unreachable(why_unreachable(path, error)) from error
    finally:
        writer.close()


async def reach(path: Path) -> socket.socket:
    """Connected, or OSError, without ever holding up the event loop: where a daemon hangs and its queue of connections
    is full, a Unix socket would wait for it, and whoever draws with us."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return paths.connect(path, timeout=0)
            except BlockingIOError:
                await asyncio.sleep(0.1)


async def _open(connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection.setblocking(False)
    return await asyncio.open_connection(sock=connection, limit=LARGEST_MESSAGE)


async def _read_head(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(LONGEST_SILENCE):
        status_line = (await reader.readline()).split()
        while (await reader.readline()).strip():
            pass
        if len(status_line) < 2:
            raise ConnectionResetError("no answer")
        if status_line[1] != b"200":
            body = await reader.read(1024 * 1024)
            raise Refused(msgspec.json.decode(body, type=Failure), int(status_line[1]))


def pauses(*, first: float = 0.25, longest: float = 2.0) -> Iterator[float]:
    """Seconds to wait between attempts to reconnect: doubling, with jitter, so that many do not come at once.
    The socket is on this machine, or a tunnel to it: trying costs little, and who looks waits for it."""
    pause = first
    while True:
        yield pause * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing
        pause = min(longest, pause * 2)
