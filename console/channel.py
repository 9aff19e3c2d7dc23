"""Verbs asked without blocking: what the console screen uses, on the event loop that also draws.

Rule: as in `console/client.py`: `Unreachable` where there is no daemon, `Refused` where it says no, in its words. The
answer's strings are foreign; the pages clean them where they decode (`cleaned`).
Cancelling the task that asks closes the connection, which ends in the daemon what only we were waiting for.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.protocol import PROTOCOL_VERSION, VERSION_HEADER, Failure, Request, Verb
from console.client import BrokenOff, Refused, Unreachable, reach, why_unreachable

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")

LONGEST_WAIT = 300.0  # seconds without a byte until a daemon counts as hung
LARGEST_LINE = 64 * 1024 * 1024


class Channel:
    """Asks the daemon behind the socket at `path`; one connection a question."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self, verb: Verb[Q, A], request: Q) -> A:
        """The answer of a verb that gives one document."""
        async with self._answer(verb, request) as (reader, length):
            async with asyncio.timeout(LONGEST_WAIT):
                body = await (reader.read() if length is None else reader.readexactly(length))
            return msgspec.json.decode(body, type=verb.answer)

    async def items(self, verb: Verb[Q, A], request: Q) -> AsyncGenerator[A, None]:
        """The items of a verb that gives many, as they come. Closing the generator ends the work in the daemon."""
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(verb.answer)
        async with self._answer(verb, request) as (reader, _):
            while True:
                async with asyncio.timeout(LONGEST_WAIT):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionResetError("the answer broke off")
                end = msgspec.json.decode(line, type=_Ending)
                if end.end:
                    if end.failure is not None:
                        raise Refused(end.failure, 200)
                    return
                yield decoder.decode(line)

    @asynccontextmanager
    async def _answer(
        self, verb: Verb[Q, A], request: Q
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, int | None], None]:
        """The reader of an answer whose head was good, and how long its body is where that is told."""
        is_sent = False
        try:
            connection = await reach(self.path)
            reader, writer = await asyncio.open_connection(sock=connection, limit=LARGEST_LINE)
            try:
                body = msgspec.json.encode(request)
                # HTTP/1.0: the answer is then not cut into chunks and ends with the connection.
                head = (
                    f"POST /{verb.name} HTTP/1.0\r\nContent-Type: application/json\r\n"
                    f"{VERSION_HEADER}: {PROTOCOL_VERSION}\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode("ascii") + body)
                is_sent = True
                yield reader, await _read_head(reader)
            finally:
                writer.close()
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
            if is_sent and verb.changes:
                raise BrokenOff from error
            cut = isinstance(error, asyncio.IncompleteReadError)
            raise Unreachable(why_unreachable(self.path, http.client.IncompleteRead(b"") if cut else error)) from error


class _Ending(msgspec.Struct):
    """What tells the last line of many from an item."""

    end: bool = False
    failure: Failure | None = None


async def _read_head(reader: asyncio.StreamReader) -> int | None:
    """Content-Length, where it is told. Refused where the status is not 200."""
    async with asyncio.timeout(LONGEST_WAIT):
        status_line = (await reader.readline()).split()
        length = None
        while line := (await reader.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(status_line) < 2:
            raise ConnectionResetError("no answer")
        if status_line[1] != b"200":
            failure = msgspec.json.decode(await reader.read(1024 * 1024), type=Failure)
            raise Refused(failure, int(status_line[1]))
        return length
