"""The hub: publishing never waits, watchers get each row's latest state, and nothing falls between two messages."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import msgspec
import pytest

from common.protocol import Batch, Goodbye, Heartbeat, Hello, Message, Snapshot, Totals
from console.mirror import Gap, Mirror
from daemon.hub import Hub, Source
from tests.rigs.until import until


class Row(Message):
    """A row of the test's own making."""

    id: str
    value: int


class Rows:
    """Rows that a hub shows as `live`."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.values: dict[str, int] = {}
        self.moved: dict[str, int] = {}
        hub.sources["live"] = Source(
            rows=lambda: [(key, Row(key, value)) for key, value in self.values.items()],
            row=lambda key: Row(key, self.values[key]) if key in self.values else None,
            progress=lambda: self.moved,
        )

    def put(self, key: str, value: int) -> None:
        self.values[key] = value
        self.hub.publish("live", key)

    def drop(self, key: str) -> None:
        del self.values[key]
        self.hub.publish("live", key)


@pytest.fixture
def hub() -> Hub:
    return Hub(version="test", period=0.01, heartbeat=0.05)


async def test_first_hello_then_everything_then_what_changed(hub: Hub) -> None:
    """Hello names the daemon, the snapshot is whole, a batch follows on it without a gap."""
    rows = Rows(hub)
    rows.put("a", 1)
    async with hub.watch() as watcher:
        hello, snapshot = await anext(watcher), await anext(watcher)
        assert isinstance(hello, Hello)
        assert hello.boot_id == hub.boot_id
        assert isinstance(snapshot, Snapshot)
        assert [(row.id, msgspec.json.decode(row.row)["value"]) for row in snapshot.rows] == [("a", 1)]
        rows.put("b", 2)
        rows.drop("a")
        batch = await anext(watcher)
        assert isinstance(batch, Batch)
        assert batch.after == snapshot.seq
        assert batch.seq == hub.seq
        assert [row.id for row in batch.changed] == ["b"]
        assert [row.id for row in batch.gone] == ["a"]


async def test_nothing_falls_between_subscription_and_snapshot(hub: Hub) -> None:
    """A change right after entering, before the snapshot was even sent, is in the first batch."""
    rows = Rows(hub)
    async with hub.watch() as watcher:
        rows.put("late", 1)
        await anext(watcher)
        snapshot = await anext(watcher)
        assert isinstance(snapshot, Snapshot)
        assert snapshot.rows == []
        batch = await anext(watcher)
        assert isinstance(batch, Batch)
        assert [row.id for row in batch.changed] == ["late"]


async def test_a_thousand_changes_of_a_row_are_one_with_the_last_state(hub: Hub) -> None:
    """The latest state wins; what stood between is never sent."""
    rows = Rows(hub)
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        for value in range(1000):
            rows.put("a", value)
        batch = await anext(watcher)
        assert isinstance(batch, Batch)
        assert [msgspec.json.decode(row.row)["value"] for row in batch.changed] == [999]


async def test_batches_come_no_faster_than_the_period() -> None:
    """However fast rows change, two batches are a period apart (four a second by default)."""
    assert Hub().period == 0.25
    hub = Hub(period=0.05)
    rows = Rows(hub)
    loop = asyncio.get_running_loop()
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        sent = []
        for value in range(5):
            rows.put("a", value)
            await anext(watcher)
            sent.append(loop.time())
    assert all(later - earlier >= 0.049 for earlier, later in pairwise(sent))


async def test_rows_that_move_by_themselves_are_looked_at_each_period(hub: Hub) -> None:
    """A relayed stream publishes nothing for each piece; its progress shows all the same, and once only."""
    rows = Rows(hub)
    rows.values["r"] = 1
    rows.moved["r"] = 1
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        rows.moved["r"] = 2
        batch = await anext(watcher)
        assert isinstance(batch, Batch)
        assert [row.id for row in batch.changed] == ["r"]
        assert isinstance(await anext(watcher), Heartbeat)


async def test_a_row_that_was_published_with_its_amount_is_told_once(hub: Hub) -> None:
    """Not again by the look that finds it; what moves after that is."""
    rows = Rows(hub)
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        rows.values["a"] = rows.moved["a"] = 1
        hub.publish("live", "a", amount=1)
        batch = await anext(watcher)
        assert isinstance(batch, Batch) and [row.id for row in batch.changed] == ["a"]
        assert isinstance(await anext(watcher), Heartbeat)
        rows.moved = {"a": 2}
        assert isinstance(await anext(watcher), Batch)


async def test_watchers_share_what_was_read_and_miss_nothing() -> None:
    """Three whose batches are due together read a row once; what changes afterwards is read anew by each."""
    hub = Hub(period=0.1)
    rows = Rows(hub)
    rows.put("a", 0)
    read: list[str] = []
    plain = hub.sources["live"]
    hub.sources["live"] = Source(plain.rows, lambda key: read.append(key) or plain.row(key), plain.progress)  # type: ignore[func-returns-value]
    async with hub.watch() as one, hub.watch() as two, hub.watch() as three:
        for watcher in (one, two, three):
            await anext(watcher), await anext(watcher)
        for value in (1, 2):
            del read[:]
            rows.put("a", value)
            for watcher in (one, two, three):
                batch = await anext(watcher)
                assert isinstance(batch, Batch)
                assert [msgspec.json.decode(each.row)["value"] for each in batch.changed] == [value]
            assert read == ["a"]
        # Moved by itself after the first of them was served: the others, and then the first, are told of it.
        rows.values["a"], rows.moved = 3, {"a": 3}
        for watcher in (one, two, three):
            batch = await anext(watcher)
            assert isinstance(batch, Batch)
            rows.values["a"], rows.moved = 4, {"a": 4}
        for watcher in (one, two, three):
            last = batch
            while msgspec.json.decode(last.changed[0].row)["value"] != 4:
                last = await anext(watcher)  # type: ignore[assignment]
                assert isinstance(last, Batch)


async def test_silence_has_a_heartbeat(hub: Hub) -> None:
    """Five seconds by default; it carries the sequence number."""
    assert Hub().heartbeat == 5.0
    Rows(hub).put("a", 1)
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        beat = await anext(watcher)
        assert isinstance(beat, Heartbeat)
        assert beat.seq == hub.seq


async def test_a_watcher_that_falls_behind_is_told_and_forgotten() -> None:
    """Its map is bounded: beyond it, goodbye, and the hub holds nothing of it any more."""
    hub = Hub(period=0.01, largest_backlog=10)
    rows = Rows(hub)
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        for number in range(11):
            rows.put(f"r{number}", 1)
        assert hub.watchers == 0
        assert isinstance(await anext(watcher), Goodbye)
        with pytest.raises(StopAsyncIteration):
            await anext(watcher)


async def test_publishing_is_cheap_without_watchers_and_leaving_frees(hub: Hub) -> None:
    """Who left is not told; the sequence goes on."""
    rows = Rows(hub)
    async with hub.watch():
        assert hub.watchers == 1
    assert hub.watchers == 0
    before = hub.seq
    rows.put("a", 1)
    assert hub.seq == before + 1


async def test_closing_says_goodbye_to_those_who_wait_and_those_who_come(hub: Hub) -> None:
    """A stopping daemon ends each stream with a word; a new watcher gets the same at once."""
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        waiting = asyncio.ensure_future(anext(watcher))
        await until(lambda: not waiting.done())
        hub.close("the daemon is stopping")
        goodbye = await waiting
        assert isinstance(goodbye, Goodbye)
        assert goodbye.reason == "the daemon is stopping"
    async with hub.watch() as late:
        assert isinstance(await anext(late), Hello)
        assert isinstance(await anext(late), Goodbye)


async def test_too_many_watchers_are_told_so(hub: Hub) -> None:
    """The bound is the hub's; those who are connected are not disturbed."""
    watchers = [hub.watch() for _ in range(65)]
    for watcher in watchers:
        await watcher.__aenter__()
    assert hub.watchers == 64
    assert isinstance(await anext(watchers[64]), Hello)
    assert isinstance(await anext(watchers[64]), Goodbye)
    for watcher in watchers:
        await watcher.__aexit__(None, None, None)
    assert hub.watchers == 0


async def _messages(hub: Hub) -> AsyncIterator[Message]:
    async with hub.watch() as watcher:
        async for message in watcher:
            yield message


async def test_a_mirror_ends_up_equal_to_what_is_there(hub: Hub) -> None:
    """Applying every message gives the rows as they are, whatever came and went meanwhile."""
    rows = Rows(hub)
    mirror = Mirror()
    stream = _messages(hub)
    for number in range(60):
        rows.put(f"r{number % 7}", number)
        if number % 5 == 4:
            rows.drop(f"r{number % 7}")
        if number % 3 == 0:
            mirror.apply(await anext(stream))
    while mirror.seq != hub.seq:
        mirror.apply(await anext(stream))
    await stream.aclose()
    assert {key: row["value"] for key, row in mirror.rows["live"].items()} == rows.values
    assert hub.watchers == 0


def test_a_mirror_notices_a_gap_and_a_new_daemon() -> None:
    """What does not follow on what was seen is refused; a new hello makes everything void until the snapshot."""
    totals = Totals(running=0, seats=0, queued=0, oldest_queued=None)
    mirror = Mirror()
    mirror.apply(Snapshot(seq=5, rows=[], totals=totals))
    mirror.apply(Batch(after=5, seq=6, changed=[], gone=[], totals=totals))
    with pytest.raises(Gap):
        mirror.apply(Batch(after=7, seq=8, changed=[], gone=[], totals=totals))
    mirror.apply(Hello(protocol_version=1, version="", boot_id="another"))
    with pytest.raises(Gap):
        mirror.apply(Batch(after=6, seq=7, changed=[], gone=[], totals=totals))


def test_a_mirror_cleans_what_strangers_wrote() -> None:
    """T1: applied where the console decodes; an escape in a client label never gets further."""
    totals = Totals(running=0, seats=0, queued=0, oldest_queued=None)
    row = msgspec.json.encode({"client_label": "\x1b[2J\u202e", "nested": ["\x9b"]})
    mirror = Mirror()
    mirror.apply(
        msgspec.json.decode(
            msgspec.json.encode(
                {
                    "type": "snapshot",
                    "seq": 1,
                    "rows": [{"kind": "live", "id": "r", "row": msgspec.Raw(row)}],
                    "totals": totals,
                }
            ),
            type=Snapshot,
        )
    )
    assert mirror.rows["live"]["r"] == {"client_label": "\\x1b[2J\\u202e", "nested": ["\\x9b"]}


async def test_watchers_at_the_same_place_share_what_was_read() -> None:
    """Three consoles cost little more than one: a row is read once for all, and all get the same batch."""
    hub = Hub(period=0.02)
    rows = Rows(hub)
    reads: list[str] = []

    def read(key: str) -> Row:
        reads.append(key)
        return Row(key, rows.values[key])

    hub.sources["live"] = Source(rows=list, row=read)
    async with hub.watch() as first, hub.watch() as second, hub.watch() as third:
        for watcher in (first, second, third):
            await anext(watcher), await anext(watcher)
        rows.put("a", 1)
        rows.put("b", 1)
        batches = await asyncio.gather(*(anext(watcher) for watcher in (first, second, third)))
    assert sorted(reads) == ["a", "b"]
    assert batches[0] is batches[1] is batches[2]


async def test_who_joins_later_is_told_of_what_goes() -> None:
    """Each mirror is true: one that knows a row is told that it went, whoever shares the message."""
    hub = Hub(period=0.02)
    rows = Rows(hub)
    rows.put("a", 1)
    async with hub.watch() as first:
        await anext(first), await anext(first)
        rows.put("b", 1)
        async with hub.watch() as second:
            await anext(second), await anext(second)
            rows.drop("a")
            rows.drop("b")
            for watcher in (first, second):
                batch = await anext(watcher)
                assert isinstance(batch, Batch)
                gone = {row.id for row in batch.gone}
                assert gone == ({"a"} if watcher is first else {"a", "b"})


async def test_a_row_that_goes_without_an_event_is_told(hub: Hub) -> None:
    """What is no longer among the numbers is looked at, too."""
    rows = Rows(hub)
    rows.values["a"] = rows.moved["a"] = 1
    async with hub.watch() as watcher:
        await anext(watcher), await anext(watcher)
        del rows.values["a"], rows.moved["a"]
        rows.moved = {}
        batch = await anext(watcher)
        assert isinstance(batch, Batch)
        assert [row.id for row in batch.gone] == ["a"]
