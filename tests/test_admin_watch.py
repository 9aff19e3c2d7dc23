"""The watch stream over the real socket: what changes in the daemon arrives, and nobody who watches can hold it up."""

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tornado.iostream import StreamClosedError

from common import paths, protocol
from common.protocol import Batch, Goodbye, Hello, KeysIssue, Message, Snapshot, UsersAdd, UserTarget
from console.client import Unreachable, pauses, watch
from console.mirror import Mirror
from daemon.admin.server import AdminServer
from tests.rigs.gatehouse import MODEL
from tests.rigs.office import Office, open_office
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        office.gate.house.hub.period = 0.02
        yield office


class Watching:
    """A mirror that is kept up in the background."""

    def __init__(self, path: Path) -> None:
        self.mirror = Mirror()
        self.messages: list[Message] = []
        self.task = asyncio.create_task(self._run(path))

    async def _run(self, path: Path) -> None:
        async with aclosing(watch(path)) as messages:
            async for message in messages:
                self.messages.append(message)
                self.mirror.apply(message)

    async def __aenter__(self) -> "Watching":
        await until(lambda: self.mirror.seq >= 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_the_stream_begins_with_the_daemon_and_everything_there_is(office: Office) -> None:
    """Hello with version and boot id, then users, keys, upstreams."""
    async with Watching(office.socket) as watching:
        hello, snapshot = watching.messages[:2]
        assert isinstance(hello, Hello) and isinstance(snapshot, Snapshot)
        assert hello.boot_id == office.gate.house.hub.boot_id
        rows = watching.mirror.rows
        assert [row["email"] for row in rows["user"].values()] == ["ana@example.org"]
        assert len(rows["key"]) == 1
        assert rows["upstream"]["up"]["seats"] == 2
        assert watching.mirror.totals.seats == 2


async def test_a_change_comes_back_as_an_event(office: Office) -> None:
    """The way of an admin action: verb, store, hub, watcher. A user's keys follow their user."""
    async with Watching(office.socket) as watching:
        rows = watching.mirror.rows
        await office.ask(protocol.USERS_ADD, UsersAdd("joe@example.org"))
        await until(lambda: "joe@example.org" in {row["email"] for row in rows["user"].values()})
        issued = await office.ask(protocol.KEYS_ISSUE, KeysIssue("joe@example.org", "laptop"))
        await until(lambda: rows["key"].get(issued.id, {}).get("state") == "active")
        await office.ask(protocol.USERS_DISABLE, UserTarget("joe@example.org"))
        await until(lambda: rows["key"][issued.id]["state"] == "suspended")
        assert "glk_" not in repr([msgspec.json.encode(message) for message in watching.messages])


async def test_a_registration_appears_and_turns_into_a_user(office: Office) -> None:
    """Pending entries have a kind of their own; on approval the entry goes and the user comes."""
    async with Watching(office.socket) as watching:
        rows = watching.mirror.rows
        url = office.gate.url + "/auth/register"
        body = {"email": "joe@example.org", "password": "correct horse battery"}
        code = (await office.gate.http.post(url, json=body)).json()["code"]
        await until(lambda: code in rows["registration"])
        assert rows["registration"][code]["address"] == "127.0.0.1"
        await office.ask(protocol.USERS_APPROVE, protocol.UsersApprove(code))
        await until(lambda: code not in rows["registration"])
        await until(lambda: "joe@example.org" in {row["email"] for row in rows["user"].values()})


async def test_a_request_is_seen_from_its_admission_to_its_end(office: Office) -> None:
    """State, progress and place in the line; gone when it has ended."""
    gate = asyncio.Event()
    office.gate.house.registry.upstreams[0].seats.resize(1)
    office.gate.upstream.next(stall_after(2, gate))
    async with Watching(office.socket) as watching:
        live = watching.mirror.rows["live"]
        first = asyncio.create_task(office.gate.chat(stream=True))
        await until(lambda: [row["state"] for row in live.values() if row["chunks_out"]] == ["run"])
        second = asyncio.create_task(office.gate.chat(stream=True))
        await until(
            lambda: sorted((row["state"], row["position"]) for row in live.values()) == [("queued", 1), ("run", None)]
        )
        assert (watching.mirror.totals.running, watching.mirror.totals.queued) == (1, 1)
        assert watching.mirror.totals.oldest_queued is not None
        assert {row["model"] for row in live.values()} == {MODEL}
        seats = office.gate.house.registry.upstreams[0].seats
        seats._holding = 1.0
        for place in seats._seated:
            place.since -= 100  # nobody left, and the wait became longer: the row says so
        await until(lambda: any((row["estimated_wait"] or 0) >= 100 for row in live.values()))
        gate.set()
        await asyncio.gather(first, second)
        await until(lambda: not live)


async def test_one_that_ends_is_in_sight_all_the_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its end is recorded it is live; then it goes and comes as ended in one and the same message, also where
    nobody would have looked for what moves by itself: a cursor on it is on it all the time."""
    house, kept = office.gate.house, asyncio.Event()
    closed = house.journal.closed

    def slowly(*given: Any) -> asyncio.Future[None]:
        async def close() -> None:
            await kept.wait()
            await closed(*given)

        return asyncio.ensure_future(close())

    monkeypatch.setattr(house.journal, "closed", slowly)
    async with Watching(office.socket) as watching:
        live, gate = watching.mirror.rows["live"], asyncio.Event()
        office.gate.upstream.next(stall_after(2, gate))
        asking = asyncio.create_task(office.gate.chat(stream=True))
        await until(lambda: [row for row in live.values() if row["state"] == "run"])
        request_id = next(iter(live))
        gate.set()
        await until(lambda: house.gate.live()[0].state is not None)
        house.hub.publish("live", request_id)
        await until(lambda: watching.mirror.seq == house.hub.seq)
        assert live[request_id]["state"] == "run"
        assert await office.ask(protocol.LIVE, protocol.Nothing()) == []
        assert house.hub._shared is not None
        house.hub._shared.at = math.inf  # no other look: only what is published is told
        kept.set()
        await asking
        await until(lambda: not live)
        batch = next(each for each in watching.messages if isinstance(each, Batch) and each.gone)
        assert [(row.kind, row.id) for row in batch.changed if row.kind == "ended"] == [("ended", request_id)]


async def test_a_stopping_daemon_says_goodbye(office: Office) -> None:
    """The stream ends with a word, not with silence."""
    watching = Watching(office.socket)
    async with watching:
        office.gate.house.hub.close("the daemon is stopping")
        await watching.task
    last = watching.messages[-1]
    assert isinstance(last, Goodbye) and last.reason == "the daemon is stopping"
    assert office.gate.house.hub.watchers == 0


async def test_who_leaves_is_forgotten(office: Office) -> None:
    """A console that is killed costs nothing afterwards."""
    async with Watching(office.socket):
        assert office.gate.house.hub.watchers == 1
    await until(lambda: office.gate.house.hub.watchers == 0)


async def test_a_watcher_that_does_not_read_is_told_and_closed(office: Office, tmp_path: Path) -> None:
    """It never holds up the daemon; its buffer is bounded, and when it reads on it finds a goodbye."""
    house = office.gate.house
    path = tmp_path / "second" / "gatelodge.sock"
    server = AdminServer(house, path, longest_stall=1.0)
    server.start()
    slow = paths.connect(path, timeout=5)
    try:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /watch HTTP/1.0\r\n\r\n")
        await until(lambda: house.hub.watchers == 1)
        notes = "x" * 2000
        user = office.gate.user

        async def busy() -> bool:
            changed = await house.directory.set_notes(_actor(), user.id, f"{notes[:1900]}{house.hub.seq}")
            return changed is not None and house.hub.watchers == 0

        await until(busy, timeout=20)
        slow.settimeout(5)
        received = await asyncio.to_thread(_read_all, slow)
        assert b'"type":"goodbye"' in received.splitlines()[-1]
        assert b"too slowly" in received.splitlines()[-1]
    finally:
        slow.close()
        house.hub._closed = ""
        await server.stop()


def _actor() -> object:
    from daemon.access.actor import DAEMON

    return DAEMON


def _read_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


async def test_a_lost_daemon_is_unreachable_in_words(tmp_path: Path) -> None:
    """No socket, no daemon behind it, or a stream that breaks off: each is told."""
    with pytest.raises(Unreachable, match="no socket"):
        await anext(watch(tmp_path / "none.sock"))
    path = tmp_path / "broken.sock"

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b'{"type":"heartbeat","seq":1}\n' + b'{"type":"hea')
        writer.close()

    async with await asyncio.start_unix_server(broken, path):
        messages = watch(path)
        await anext(messages)
        with pytest.raises(Unreachable, match="closed the connection"):
            await anext(messages)


def test_reconnecting_waits_longer_each_time_but_not_for_ever() -> None:
    """Doubling with jitter, bounded by what somebody who looks at the screen waits for."""
    waits = pauses()
    first = [next(waits) for _ in range(12)]
    assert 0.125 <= first[0] <= 0.25
    assert all(1.0 <= wait <= 2.0 for wait in first[-3:])


async def test_a_reader_that_leaves_is_no_error(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However its departure comes out of the handler, in the middle of an answer nothing is logged about it."""
    ended: list[BaseException | None] = []

    @contextmanager
    def watched(_: object) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            ended.append(error)
            raise

    monkeypatch.setattr("daemon.admin.server._Handler.ending_with_client", watched)
    reader, writer = await asyncio.open_unix_connection(str(office.socket))
    writer.write(b"GET /watch HTTP/1.0\r\n\r\n")
    await reader.readuntil(b"snapshot")
    writer.close()
    await writer.wait_closed()
    for number in range(50):
        await office.ask(protocol.USERS_ADD, UsersAdd(f"joe{number}@example.org"))
        if ended:
            break
    await until(lambda: bool(ended))
    await office.ask(protocol.STATUS, protocol.Nothing())  # what the handler does about it is done by then
    assert isinstance(ended[0], StreamClosedError)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
