"""Live events: who watches is told what changed, coalesced to a few messages a second.

`publish` only notes *which* row changed, once for all watchers; a watcher reads the row as it is when its next batch
is due, so the latest state wins and a thousand changes of one row cost one entry. Watchers whose batches are due at
about the same time share what was read: three consoles cost little more than one. Rules: publish never waits and costs
next to nothing without watchers; subscribing and the snapshot happen in the same tick, so nothing falls between them;
at most one entry a row is kept, and a watcher that fell too far behind is told so and ends then.

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
    """Where the rows of one kind come from. `progress` gives a number for each row that comes, moves or goes without an
    event; it is compared at each look."""

    rows: Callable[[], Iterable[tuple[str, Message]]]
    row: Callable[[str], Message | None]
    progress: Callable[[], Mapping[str, int]] | None = None


@dataclass
class _Look:
    """What moved by itself, the rows that were read since, encoded (None: it is gone), and the last batch made of them.

    A row in it is never older than `progress`: whoever compares by that number misses nothing.
    """

    at: float
    progress: dict[tuple[Kind, str], int]
    rows: dict[tuple[Kind, str], msgspec.Raw | None]
    batch: Batch | None = None


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
        self._asleep: set[Watcher] = set()  # they wait for the next change
        self._log: dict[tuple[Kind, str], int] = {}  # rows that changed and the number of the change, oldest first
        self._shared: _Look | None = None
        self._beat = 0  # every watcher sends at most one batch in each
        self._next_beat = 0.0
        self._closed = ""

    def publish(self, kind: Kind, row_id: str, *, amount: int | None = None) -> None:
        """The row changed, appeared or went; the watchers will look. `amount`: its progress from now on, where it has
        one, so that the next look does not tell of it again."""
        self.seq += 1
        if not self._watchers:
            return
        key = (kind, row_id)
        self._log.pop(key, None)  # to the end with it
        self._log[key] = self.seq
        if self._shared is not None:
            self._shared.rows.pop(key, None)
            if amount is not None:
                self._shared.progress[key] = amount
        if len(self._log) > self.largest_backlog:
            self._shorten()
        if self._asleep:
            asleep, self._asleep = self._asleep, set()
            for watcher in asleep:
                watcher.wake()

    def changed_since(self, seq: int) -> list[tuple[Kind, str]]:
        """The rows that changed after the change number `seq`, oldest change first."""
        keys = []
        for key, at in reversed(self._log.items()):
            if at <= seq:
                break
            keys.append(key)
        keys.reverse()
        return keys

    def sleep(self, watcher: Watcher) -> None:
        """Have it woken by the next change."""
        self._asleep.add(watcher)

    def _shorten(self) -> None:
        """Forget what every watcher has seen; where that is too little, who has seen the least falls behind."""
        while len(self._log) > self.largest_backlog:
            seen = min(watcher.seq for watcher in self._watchers)
            done = [key for key, at in self._log.items() if at <= seen]
            for key in done:
                del self._log[key]
            if done:
                continue
            for watcher in tuple(self._watchers):
                if watcher.seq == seen:
                    watcher.end("this watcher fell too far behind; connect again for a new snapshot")
            if not self._watchers:
                return

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
            self._log.clear()

    def beat(self) -> tuple[int, float]:
        """The number of the beat, and seconds until the next: all watchers send in the same beats, so that what one of
        them had read serves the others."""
        now = _now()
        if now >= self._next_beat:
            self._beat += 1
            self._next_beat = now + self.period
        return self._beat, self._next_beat - now

    def look(self) -> _Look:
        """What is there now; for half a period it is the same for everybody. Rows that moved by themselves since the
        last look are published."""
        now, before = _now(), self._shared
        if before is not None and now - before.at < self.period / 2:
            return before
        progress = {
            (kind, row_id): amount
            for kind, source in self.sources.items()
            if source.progress is not None
            for row_id, amount in source.progress().items()
        }
        self._shared = look = _Look(now, progress, {})
        if before is not None:
            for key, amount in progress.items():
                if before.progress.get(key) != amount:
                    self.publish(*key)
            for key in before.progress.keys() - progress.keys():
                self.publish(*key)
        return look

    def row(self, look: _Look, key: tuple[Kind, str]) -> msgspec.Raw | None:
        """The row as it is now, encoded; None once it is gone."""
        if key not in look.rows:
            row = self.sources[key[0]].row(key[1])
            look.rows[key] = None if row is None else _raw(row)
        return look.rows[key]

    def __repr__(self) -> str:
        return f"<Hub seq={self.seq} watchers={len(self._watchers)}{' closed' if self._closed else ''}>"


class Watcher:
    """One stream of messages: `async with hub.watch() as watcher: async for message in watcher`.

    First Hello and Snapshot, then batches and heartbeats; Goodbye is the last one.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._known: set[tuple[Kind, str]] = set()  # the rows this watcher has been shown
        self._beat = 0  # in which the last batch left
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._ending = ""
        self._done = False
        self._first: list[WatchMessage] = []
        self.seq = hub.seq  # the last change it was told of
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

    def wake(self) -> None:
        """Something changed. Never waits."""
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
            beat, rest = self._hub.beat()
            if self._beat < beat:
                self._hub.look()
                if self.seq != self._hub.seq:
                    self._beat = beat
                    return self._batch()
            if _now() - self._sent_at >= self._hub.heartbeat:
                self._sent_at = _now()
                return Heartbeat(self.seq)
            self._changed.clear()
            if self._beat == beat:
                await _within(self._over, rest)  # not sooner than the period allows
            else:
                # At the next change; and each period for what moves by itself.
                self._hub.sleep(self)
                await _within(self._changed, self._hub.period)

    def _snapshot(self) -> Snapshot:
        self._hub.look()  # before the rows: what moves between the two is then told again
        rows = []
        for kind, source in self._hub.sources.items():
            for row_id, row in source.rows():
                self._known.add((kind, row_id))
                rows.append(Changed(kind, row_id, _raw(row)))
        self.seq = self._hub.seq
        return Snapshot(self.seq, rows, self._hub.totals())

    def _batch(self) -> Batch:
        """What changed since the last one. Watchers at the same place have been told the same: they share it."""
        hub, look = self._hub, self._hub.look()
        batch = look.batch
        if batch is None or (batch.after, batch.seq) != (self.seq, hub.seq):
            changed, gone = [], []
            for key in hub.changed_since(self.seq):
                row = hub.row(look, key)
                if row is not None:
                    changed.append(Changed(*key, row))
                elif key in self._known:
                    gone.append(Named(*key))
            batch = look.batch = Batch(self.seq, hub.seq, changed, gone, hub.totals())
        self._known.update([(row.kind, row.id) for row in batch.changed])
        self._known.difference_update([(row.kind, row.id) for row in batch.gone])
        self.seq = batch.seq
        self._sent_at = _now()
        return batch


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
