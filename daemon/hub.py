"""Live events: who watches is told what changed, coalesced to a few messages a second.

`publish` only notes *which* row changed; a watcher reads the row as it is when its next batch is due, so the latest
state wins and a thousand changes of one row cost one entry. Watchers whose batches are due at about the same time
share what was read: three consoles cost little more than one. Rules: publish never waits and costs next to nothing
without watchers; subscribing and the snapshot happen in the same tick, so nothing falls between them; a watcher holds
at most one entry a row, is told when it fell too far behind, and ends then.

What the rows are is not known here: each kind of row has a source (`daemon/admin/watch.py`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType

import msgspec

from common.protocol import (
    PROTOCOL_VERSION,
    Batch,
    Changed,
    Goodbye,
    Heartbeat,
    Hello,
    Kind,
    Message,
    Named,
    Snapshot,
    Totals,
    WatchMessage,
)

PERIOD = 0.25  # seconds between two batches of one watcher
HEARTBEAT = 5.0  # seconds of silence after which a heartbeat is due
LARGEST_BACKLOG = 20_000  # rows that may wait for one watcher
MOST_WATCHERS = 64

_NO_TOTALS = Totals(running=0, seats=0, queued=0, oldest_queued=None)


@dataclass(frozen=True)
class Source:
    """Where the rows of one kind come from. `progress` gives a number for each row that moves without an event."""

    rows: Callable[[], Iterable[tuple[str, Message]]]
    row: Callable[[str], Message | None]
    progress: Callable[[], Mapping[str, int]] | None = None


@dataclass
class _Look:
    """What moved by itself, and the rows that were read since, encoded; None: it is gone.

    A row in it is never older than `progress`: whoever compares by that number misses nothing.
    """

    at: float
    progress: dict[tuple[Kind, str], int]
    rows: dict[tuple[Kind, str], msgspec.Raw | None]


class Hub:
    """Knows the sources and the watchers."""

    def __init__(
        self,
        *,
        version: str = "",
        period: float = PERIOD,
        heartbeat: float = HEARTBEAT,
        largest_backlog: int = LARGEST_BACKLOG,
    ) -> None:
        self.boot_id = secrets.token_hex(8)
        self.version = version
        self.period = period
        self.heartbeat = heartbeat
        self.largest_backlog = largest_backlog
        self.seq = 0
        self.sources: dict[Kind, Source] = {}
        self.totals: Callable[[], Totals] = lambda: _NO_TOTALS
        self._watchers: set[Watcher] = set()
        self._shared: _Look | None = None
        self._closed = ""

    def publish(self, kind: Kind, row_id: str) -> None:
        """The row changed, appeared or went; the watchers will look."""
        self.seq += 1
        if self._shared is not None:
            self._shared.rows.pop((kind, row_id), None)
        for watcher in tuple(self._watchers):  # one that falls behind leaves meanwhile
            watcher.note((kind, row_id))

    def watch(self) -> Watcher:
        """A new watcher, to be entered with `async with`."""
        return Watcher(self)

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def close(self, reason: str) -> None:
        """Say goodbye to every watcher, now and later."""
        self._closed = reason
        for watcher in tuple(self._watchers):
            watcher.end(reason)

    def _enter(self, watcher: Watcher) -> None:
        if self._closed:
            watcher.end(self._closed)
        elif len(self._watchers) >= MOST_WATCHERS:
            watcher.end(f"{MOST_WATCHERS} watchers are connected already")
        else:
            self._watchers.add(watcher)

    def _leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers:
            self._shared = None

    def _look(self) -> _Look:
        """What is there now; for half a period it is the same for everybody."""
        now = _now()
        if self._shared is None or now - self._shared.at >= self.period / 2:
            progress = {
                (kind, row_id): amount
                for kind, source in self.sources.items()
                if source.progress is not None
                for row_id, amount in source.progress().items()
            }
            self._shared = _Look(now, progress, {})
        return self._shared

    def _row(self, key: tuple[Kind, str]) -> msgspec.Raw | None:
        """The row as it is now, encoded; None once it is gone."""
        rows = self._look().rows
        if key not in rows:
            row = self.sources[key[0]].row(key[1])
            rows[key] = None if row is None else _raw(row)
        return rows[key]

    def __repr__(self) -> str:
        return f"<Hub seq={self.seq} watchers={len(self._watchers)}{' closed' if self._closed else ''}>"


class Watcher:
    """One stream of messages: `async with hub.watch() as watcher: async for message in watcher`.

    First Hello and Snapshot, then batches and heartbeats; Goodbye is the last one.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[tuple[Kind, str], None] = {}  # in the order of their first change
        self._known: set[tuple[Kind, str]] = set()  # the rows this watcher has been shown
        self._progress: dict[tuple[Kind, str], int] = {}
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._ending = ""
        self._done = False
        self._first: list[WatchMessage] = []
        self._seq = 0
        self._sent_at = 0.0

    async def __aenter__(self) -> Watcher:
        self._hub._enter(self)
        self._first = [Hello(PROTOCOL_VERSION, self._hub.version, self._hub.boot_id)]
        if not self._ending:
            # In the same tick as the subscription: what changes from here on is in a batch.
            self._first.append(self._snapshot())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub._leave(self)

    def note(self, key: tuple[Kind, str]) -> None:
        """A row changed. Never waits."""
        self._waiting[key] = None
        if len(self._waiting) > self._hub.largest_backlog:
            self._waiting.clear()
            self.end("this watcher fell too far behind; connect again for a new snapshot")
        self._changed.set()

    def end(self, reason: str) -> None:
        """Goodbye is the next message."""
        self._ending = self._ending or reason
        self._hub._leave(self)
        self._over.set()
        self._changed.set()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> WatchMessage:
        if self._first:
            self._sent_at = _now()
            return self._first.pop(0)
        if self._done:
            raise StopAsyncIteration
        while True:
            if self._ending:
                self._done = True
                return Goodbye(self._ending)
            silence = _now() - self._sent_at
            if silence >= self._hub.period:
                self._note_progress()
                if self._waiting:
                    return self._batch()
            if silence >= self._hub.heartbeat:
                self._sent_at = _now()
                return Heartbeat(self._seq)
            self._changed.clear()
            # Not sooner than the period allows; afterwards at each change, and each period for what moves by itself.
            awaited = self._over if silence < self._hub.period else self._changed
            await _within(awaited, self._hub.period - silence if silence < self._hub.period else self._hub.period)

    def _snapshot(self) -> Snapshot:
        # Before the rows: what moves between the two is then told again.
        self._progress = self._hub._look().progress
        rows = []
        for kind, source in self._hub.sources.items():
            for row_id, row in source.rows():
                self._known.add((kind, row_id))
                rows.append(Changed(kind, row_id, _raw(row)))
        self._seq = self._hub.seq
        return Snapshot(self._seq, rows, self._hub.totals())

    def _batch(self) -> Batch:
        waiting, self._waiting = self._waiting, {}
        changed, gone = [], []
        for key in waiting:
            kind, row_id = key
            row = self._hub._row(key)
            if row is not None:
                self._known.add(key)
                changed.append(Changed(kind, row_id, row))
            elif key in self._known:
                self._known.discard(key)
                gone.append(Named(kind, row_id))
        after, self._seq = self._seq, self._hub.seq
        self._sent_at = _now()
        return Batch(after, self._seq, changed, gone, self._hub.totals())

    def _note_progress(self) -> None:
        before, self._progress = self._progress, self._hub._look().progress
        if before is self._progress:
            return
        for key, amount in self._progress.items():
            if before.get(key) != amount:
                self._waiting[key] = None


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _raw(row: Message) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(row))


def _now() -> float:
    return asyncio.get_running_loop().time()
