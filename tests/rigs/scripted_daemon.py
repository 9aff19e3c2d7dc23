"""A daemon's admin socket that says what a test tells it to: the real protocol, without a daemon behind it.

    async with ScriptedDaemon(tmp_path / "sock") as daemon:
        daemon.answers["limits/use"] = [LimitUse(…)]           # a document, or the items of many
        daemon.answers["jobs/show"] = lambda question: …       # or what comes of the question
        daemon.put("live", "ab12", LiveRow(…)); daemon.send()  # the next batch

What nobody scripted is answered with an empty list, or `not_scripted`. `asked` is every question, with its verb.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from common.protocol import (
    LIVE_FOLLOW,
    PROTOCOL_VERSION,
    VERBS,
    Batch,
    Changed,
    End,
    Failure,
    Goodbye,
    Heartbeat,
    Hello,
    Kind,
    Message,
    Named,
    Snapshot,
    Totals,
)

_VERBS = {verb.name: verb for verb in VERBS}
QUIET = Totals(running=0, seats=0, queued=0, oldest_queued=None)


class ScriptedDaemon:
    """Speaks on the Unix socket at `path`; `refuses` is what `/watch` is refused with, if anything."""

    def __init__(self, path: Path, *, boot_id: str = "boot", version: str = "0.1.0") -> None:
        self.path = path
        self.boot_id = boot_id
        self.version = version
        self.totals = QUIET
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuses: Failure | None = None
        self.watchers: list[asyncio.StreamWriter] = []
        self._rows: dict[tuple[Kind, str], msgspec.Raw] = {}
        self._changed: dict[tuple[Kind, str], msgspec.Raw | None] = {}
        self.seq = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedDaemon:
        self._server = await asyncio.start_unix_server(self._connected, str(self.path))
        self._heart = asyncio.create_task(self._keep_beating())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in (self._heart, *self._connections):
            connection.cancel()
        await asyncio.gather(self._heart, *self._connections, return_exceptions=True)
        self.watchers.clear()
        await self._server.wait_closed()

    # -- what is watched -----------------------------------------------------------------------------------------------

    def put(self, kind: Kind, row_id: str, row: Message) -> None:
        """A row as it is from now on; told with the next `send`."""
        self._changed[kind, row_id] = self._rows[kind, row_id] = msgspec.Raw(msgspec.json.encode(row))

    def take(self, kind: Kind, row_id: str) -> None:
        """A row that is no more."""
        self._rows.pop((kind, row_id), None)
        self._changed[kind, row_id] = None

    def clear(self) -> None:
        """No rows at all."""
        for kind, row_id in list(self._rows):
            self.take(kind, row_id)

    def send(self) -> None:
        """Tell every watcher what changed since the last time."""
        changed = [Changed(kind, row_id, row) for (kind, row_id), row in self._changed.items() if row is not None]
        gone = [Named(kind, row_id) for (kind, row_id), row in self._changed.items() if row is None]
        self._changed.clear()
        self.seq += 1
        self._say(Batch(after=self.seq - 1, seq=self.seq, changed=changed, gone=gone, totals=self.totals))

    def beat(self) -> None:
        """Nothing changed."""
        self._say(Heartbeat(seq=self.seq))

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(5)
            self.beat()

    def leave(self, reason: str) -> None:
        """Say goodbye to every watcher."""
        self._say(Goodbye(reason=reason))
        for watcher in self.watchers:
            watcher.close()
        self.watchers.clear()

    def _say(self, message: Message) -> None:
        line = msgspec.json.encode(message) + b"\n"
        for watcher in self.watchers:
            watcher.write(line)

    def counted(self) -> Counter[str]:
        """How often each verb was asked."""
        return Counter(name for name, _ in self.asked)

    def changes_asked(self) -> list[str]:
        """The verbs asked for that change something."""
        return [name for name, _ in self.asked if _VERBS[name].changes]

    # -- the socket ----------------------------------------------------------------------------------------------------

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _, path, _ = (await reader.readline()).decode().split()
            length = 0
            while line := (await reader.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            if path == "/watch":
                self._watch(writer)
                await reader.read()  # until the console leaves
                if writer in self.watchers:
                    self.watchers.remove(writer)
            else:
                if await self._answer(writer, path[1:], json.loads(await reader.readexactly(length) or b"{}")):
                    await reader.read()  # it goes on until the console leaves
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    def _watch(self, writer: asyncio.StreamWriter) -> None:
        if self.refuses is not None:
            writer.write(_head(409) + msgspec.json.encode(self.refuses))
            return
        hello = Hello(protocol_version=PROTOCOL_VERSION, version=self.version, boot_id=self.boot_id)
        rows = [Changed(kind, row_id, row) for (kind, row_id), row in self._rows.items()]
        self._changed.clear()
        for message in (hello, Snapshot(seq=self.seq, rows=rows, totals=self.totals)):
            writer.write((_head(200) if message is hello else b"") + msgspec.json.encode(message) + b"\n")
        self.watchers.append(writer)

    async def _answer(self, writer: asyncio.StreamWriter, name: str, question: dict[str, Any]) -> bool:
        """Answer; whether more would follow: what is followed ends only when it is said to have."""
        goes_on = False
        self.asked.append((name, question))
        verb = _VERBS[name]
        answer = self.answers.get(name, [] if verb.form == "many" or verb.answer.__class__ is not type else None)
        if callable(answer):
            answer = answer(question)
        if answer is None:
            answer = Failure(f"nobody scripted {name}", "not_scripted")
        if isinstance(answer, Failure):
            writer.write(_head(409) + msgspec.json.encode(answer))
        elif verb.form == "many":
            assert isinstance(answer, Sequence)
            goes_on = name == LIVE_FOLLOW.name and not any(news.ended for news in answer)
            lines = [msgspec.json.encode(item) + b"\n" for item in (*answer, *(() if goes_on else (End(),)))]
            writer.write(_head(200) + b"".join(lines))
        else:
            body = msgspec.json.encode(answer)
            writer.write(_head(200, len(body)) + body)
        await writer.drain()
        return goes_on


def _head(status: int, length: int | None = None) -> bytes:
    told = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.0 {status} So\r\n{told}\r\n".encode()
