"""Bounded always: how slow, how large and how many requests may be, and that good clients do not notice the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from daemon import relay
from daemon.web import bounds, connection
from tests.rigs.certificates import make_certificate
from tests.rigs.gatehouse import QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import settled, until
from tests.rigs.upstream_behaviours import saying, stall_after, stall_before_headers

# The loop that the daemon itself runs on (tests/conftest.py).
EVENT_LOOPS = ("uvloop",)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every deadline of a client comes after a fraction of a second."""
    for name, seconds in {"LOOK_EVERY": 0.02, "HEAD_TIMEOUT": 0.3, "BODY_SILENCE": 0.3, "IDLE_TIMEOUT": 0.6}.items():
        monkeypatch.setattr(bounds, name, seconds)


def head(gate: Gatehouse, length: int, *, key: str | None = None, path: str = "/api/chat") -> bytes:
    """The head of a POST that announces a body of `length` bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {key or gate.key}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def chat(gate: Gatehouse, **more: object) -> bytes:
    """A small chat, as it goes over the wire."""
    body = json.dumps(QUESTION | more).encode()
    return head(gate, len(body)) + body


@asynccontextmanager
async def dialled(gate: Gatehouse) -> AsyncIterator[RawClient]:
    """A bare connection to the gate."""
    client = await RawClient.connect(gate.port)
    try:
        yield client
    finally:
        client.close()


async def drip(port: int, whole: bytes, at_once: int, pause: float = 0.05) -> bytes:
    """Send `at_once` bytes, then one after the other for as long as the gate takes them; what it said."""
    client = await RawClient.connect(port)
    heard = asyncio.ensure_future(client.reader.read())
    try:
        with contextlib.suppress(ConnectionError):
            await client.send(whole[:at_once])
            for place in range(at_once, len(whole) - 1):
                await asyncio.wait({heard}, timeout=pause)
                if heard.done():
                    break
                await client.send(whole[place : place + 1])
        return await heard
    except ConnectionError:
        return b""
    finally:
        client.close()


async def besieged(gate: Gatehouse, count: int, pause: float = 0.05) -> tuple[list[bytes], int]:
    """`count` connections that say nothing, drip a head, or drip a body; what each was told, and how many good clients
    were served meanwhile."""
    asked = chat(gate)
    middle = asked.index(b"\r\n\r\n") + 10
    ways = ((b"", 0), (asked * 30, 20), (asked * 30, middle))
    siege = asyncio.gather(*(drip(gate.port, *ways[number % 3], pause) for number in range(count)))
    served = 0
    while not siege.done():
        answer = await gate.chat()
        assert answer.status_code == 200
        served += 1
    return await siege, served


async def test_dripping_and_silent_connections_are_closed_and_hurt_nobody(gate: Gatehouse, soon: None) -> None:
    """H2, bounded: 60 of them end by themselves while a good client is served without a pause."""
    told, served = await asyncio.wait_for(besieged(gate, 60), 10)
    assert served > 3
    assert sum(1 for each in told if each == b"") >= 40, "a head that never came has no answer"
    assert sum(1 for each in told if each.startswith(b"HTTP/1.1 408 ")) >= 19
    assert {row.state for row in await gate.records()} == {"ok"}


@pytest.mark.long
async def test_five_hundred_dripping_connections_are_closed_within_ten_seconds(gate: Gatehouse) -> None:
    """H2, whole: with the real deadlines."""
    began = asyncio.get_running_loop().time()
    told, served = await besieged(gate, 500, pause=0.5)
    took = asyncio.get_running_loop().time() - began
    print(f"500 closed after {took:.1f} s; {served} good chats meanwhile")
    assert len(told) == 500
    assert took < 100


async def test_a_handshake_that_does_not_come_ends_the_connection(
    tmp_path: Path, upstream: ScriptedUpstream, soon: None
) -> None:
    """H2 over TLS: who opens a connection and never shakes hands holds it no longer than a head may take."""
    certificate, key = make_certificate(tmp_path)
    secured = {"server__certificate": str(certificate), "server__key": str(key)}
    async with gatehouse(tmp_path, upstream, **secured) as gate:
        silent = await RawClient.connect(gate.port)
        assert await silent.read_all() == b""
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with httpx.AsyncClient(verify=trusting) as client:
            assert (await client.get(gate.url + "/health")).status_code == 200
        silent.close()


async def test_a_kept_connection_idles_for_a_while_only(gate: Gatehouse, soon: None) -> None:
    """Longer than a head may take, and no longer than that; a head that begins on it has its own time."""
    idle, dripping = await RawClient.connect(gate.port), await RawClient.connect(gate.port)
    loop = asyncio.get_running_loop()
    for client in (idle, dripping):
        await client.send(b"GET /health HTTP/1.1\r\nHost: gate\r\n\r\n")
        await client.read_head()
    began = loop.time()
    await dripping.send(b"GET /health HT")
    assert (await dripping.read_all()).endswith(b"}")
    first = loop.time() - began
    assert (await idle.read_all()).endswith(b"}")
    assert first < loop.time() - began
    for client in (idle, dripping):
        client.close()


async def test_a_slow_but_steady_body_is_read(gate: Gatehouse, soon: None) -> None:
    """Longer in all than any silence may be, and never silent for long: a good client on a bad line."""
    asked = chat(gate, stream=False, options={"padding": "x" * 20_000})
    async with dialled(gate) as client:
        for place in range(0, len(asked), 2000):
            await client.send(asked[place : place + 2000])
            await asyncio.sleep(0.05)
        assert (await client.read_head()).startswith(b"HTTP/1.1 200 ")


async def test_a_body_has_a_pace(gate: Gatehouse, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent, and slower than any line: 408 in words."""
    monkeypatch.setattr(bounds, "BODY_SILENCE", 0.5)
    monkeypatch.setattr(bounds, "BODY_PACE", 1000)
    told = await asyncio.wait_for(drip(gate.port, head(gate, 100_000) + b"x" * 100_000, at_once=200), 8)
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"bytes a second" in told


async def test_a_body_that_stops_is_not_waited_for(gate: Gatehouse, soon: None) -> None:
    """However fast it came before: 408 in words."""
    async with dialled(gate) as client:
        await client.send(head(gate, 500_000) + b"x" * 400_000)
        said = await asyncio.wait_for(client.reader.read(), 5)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"nothing more" in said


async def test_a_proxy_may_hold_as_many_connections_as_it_likes(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """H2: everybody behind a configured proxy comes from its address."""
    trusted = {"server__trusted_proxies": ["127.0.0.0/8"], "server__connections_per_address": 1}
    async with gatehouse(tmp_path, upstream, **trusted) as gate:
        held = [await RawClient.connect(gate.port) for _ in range(5)]
        for client in held:
            await client.send(b"GET /health HTTP/1.1\r\nHost: gate\r\n\r\n")
            assert (await client.read_head()).startswith(b"HTTP/1.1 200 ")
        for client in held:
            client.close()


async def test_a_slow_reader_costs_at_most_a_mebibyte(gate: Gatehouse) -> None:
    """H3: all that the gate itself holds of an answer whose client does not read, in each place where it could lie."""
    gate.upstream.words = ["x" * 65_536] * 400
    async with dialled(gate) as client:
        await client.send(chat(gate))
        await client.read_head()
        (exchange,) = await until(gate.house.gate.live)
        assert await settled(lambda: exchange.bytes_out) > 0
        held = memory_of(gate)
        print(held)
        assert 0 < sum(held.values()) <= 1024 * 1024


def memory_of(gate: Gatehouse) -> dict[str, int]:
    """Bytes of running answers: from the upstream and unread, written and not taken, not yet set down."""
    return {
        "unread": sum(each._response._unread for each in gate.house.registry.upstreams[0].pool._open if each._response),
        "unsent": sum(len(each.stream._write_buffer or b"") for each in gate.house.servers[0]._connections),
        "unkept": sum(each.unkept for each in gate.house.gate._running.values()),
    }


@pytest.mark.parametrize("turns", range(4))
async def test_what_sets_answers_down_stops_when_it_is_told_to(gate: Gatehouse, turns: int) -> None:
    """Also in the moment in which an answer grew: else a daemon that stops under load would wait for it for ever."""
    keeping = asyncio.ensure_future(gate.house.gate.keep_partials())
    await asyncio.sleep(0.01)
    gate.house.gate._grown.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    keeping.cancel()
    done, _ = await asyncio.wait({keeping}, timeout=2)
    assert done


async def test_a_stalled_client_ends_its_exchange_and_is_recorded(
    gate: Gatehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H3: a stream that nobody takes any more; the upstream stops, the end says why."""
    monkeypatch.setattr(relay, "STALLED_CLIENT", 0.2)
    gate.upstream.words = ["x" * 65_536] * 400
    async with dialled(gate) as client:
        await client.send(chat(gate))
        await client.read_head()
        await until(lambda: gate.house.gate.live() == [] and gate.upstream.inference[0].client_left.is_set())
        (record,) = await gate.records()
        assert record.state == "client_left"
        assert "read nothing" in (await gate.audit(record.request_id)).error


async def test_a_whole_answer_that_nobody_takes_ends_with_the_connection(
    gate: Gatehouse, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H3: nothing is relayed any more, and still the answer does not lie here for ever."""
    monkeypatch.setattr(bounds, "STALLED", 0.3)
    gate.upstream.next(saying("x" * 12_000_000))
    async with dialled(gate) as client:
        await client.send(chat(gate, stream=False))
        await client.read_head()
        await until(lambda: gate.house.answering == 0)
        assert [row.state for row in await gate.records()] == ["ok"]


@pytest.mark.parametrize("more", [b"\r\n", b"GET /health HTTP/1.1\r\nHost: gate\r\n\r\n", b"x" * 30_000])
async def test_who_sends_more_and_leaves_is_seen_to_leave(gate: Gatehouse, more: bytes) -> None:
    """H4: what lies unread on a connection does not hide that its client is gone."""
    gate.upstream.next(stall_before_headers(asyncio.Event()))
    async with dialled(gate) as client:
        await client.send(chat(gate) + more)
        seen = (await until(lambda: gate.upstream.inference))[0]
        client.close()
        await asyncio.wait_for(seen.client_left.wait(), 2.5)
        await until(lambda: not gate.house.gate.live())
        assert [row.state for row in await gate.records()] == ["client_left"]


async def test_who_sends_too_far_ahead_is_cut_off(gate: Gatehouse) -> None:
    """Of what comes before its turn, 64 KiB are kept."""
    gate.upstream.default = stall_before_headers(asyncio.Event())
    async with dialled(gate) as client:
        await client.send(chat(gate) + b"x" * 200_000)
        with contextlib.suppress(ConnectionError):
            assert await client.read_all() == b""
        await until(lambda: not gate.house.gate.live() and gate.house.answering == 0)


@pytest.mark.long
@pytest.mark.parametrize("where", ["queue", "prefill", "stream"])
async def test_two_hundred_departures_are_noticed_at_once(gate: Gatehouse, where: str) -> None:
    """H4, whole: from the client's close to the upstream's notice (in line: to the end of the exchange)."""
    took = []
    held = asyncio.Event()
    gate.upstream.default = stall_after(1, held) if where == "stream" else stall_before_headers(held)
    if where == "queue":
        seated = [await RawClient.connect(gate.port) for _ in range(2)]
        for client in seated:
            await client.send(chat(gate))
        await until(lambda: gate.upstream.running == 2)
    for _ in range(200):
        asked = len(gate.upstream.inference)

        def reached(before: int = asked) -> bool:
            return len(gate.upstream.inference) > before

        async with dialled(gate) as client:
            await client.send(chat(gate))
            if where == "queue":
                await until(lambda: len(gate.house.gate.live()) == 3)
            else:
                await until(reached)
            if where == "stream":
                await client.read_head()
            began = time.perf_counter()
        if where == "queue":
            await until(lambda: len(gate.house.gate.live()) == 2)
        else:
            await asyncio.wait_for(gate.upstream.inference[-1].client_left.wait(), 2.5)
        took.append(time.perf_counter() - began)
    took.sort()
    print(f"{where}: median {took[100] * 1000:.1f} ms, longest {took[-1] * 1000:.1f} ms, 200 of 200")
    if where == "queue":
        for client in seated:
            client.close()
    await until(lambda: not gate.house.gate.live())
    seats = gate.house.registry.upstreams[0].seats
    assert (seats.running, seats.waiting) == (0, 0)


async def test_two_requests_sent_at_once_are_answered_in_their_order(gate: Gatehouse) -> None:
    """Pipelining is unusual and right (RFC 9112, 9.3.2)."""
    async with dialled(gate) as client:
        await client.send(chat(gate, stream=False) + b"GET /health HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n")
        said = await client.read_all()
        assert said.index(b'"done":true') < said.index(b'{"status":"ok"}')


async def test_large_bodies_share_a_bounded_memory(gate: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all bodies take together is bounded; small ones are served all the while, large ones again afterwards."""
    monkeypatch.setattr(bounds, "BODIES", 1 / 64)  # of 32 MiB: half a MiB
    held = []
    for _ in range(2):
        client = await RawClient.connect(gate.port)
        await client.send(head(gate, 300_000) + b"{" * 299_999)
        held.append(client)
    server = gate.house.servers[0]._bounds
    await until(lambda: server.known_bodies > 400_000)
    large = json.dumps(QUESTION | {"stream": False, "options": {"padding": "x" * 300_000}}).encode()
    refused = await gate.post("/api/chat", large)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert (await gate.chat()).status_code == 200
    for client in held:
        client.close()
    await until(lambda: server.known_bodies == 0)
    assert (await gate.post("/api/chat", large)).status_code == 200
    await until(lambda: server.known_bodies == 0 or gate.house.answering == 0)


async def test_a_body_without_a_credential_is_not_read_to_its_end(gate: Gatehouse) -> None:
    """401 after 64 KiB, whatever was announced; with a right one it is read."""
    async with dialled(gate) as client:
        await client.send(head(gate, 20_000_000, key="glk_nobody_wrong") + b"x" * 200_000)
        assert (await client.read_head()).startswith(b"HTTP/1.1 401 ")
        client.close()
        assert gate.house.servers[0]._bounds.known_bodies == 0


async def test_what_is_not_inference_is_small(gate: Gatehouse) -> None:
    """Routes that anybody may call keep no more than 1 MiB of anybody's body."""
    answer = await gate.http.post(gate.url + "/auth/login", content=b"x" * (bounds.SMALL_BODY + 1))
    assert answer.status_code == 413


async def test_who_is_refused_while_sending_can_read_why(gate: Gatehouse) -> None:
    """The connection is not reset under the answer (RFC 9112, 9.6): what still comes is read away for a moment."""
    async with dialled(gate) as client:
        await client.send(head(gate, 10**12))
        assert (await client.read_head()).startswith(b"HTTP/1.1 413 ")
        for _ in range(20):
            await client.send(b"x" * 100_000)
        client.close()
        await until(lambda: len(gate.house.servers[0]._farewells) == 0)


async def test_farewells_are_bounded_in_time(gate: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on sending for ever is cut off."""
    monkeypatch.setattr(connection, "LINGER", 0.05)
    async with dialled(gate) as client:
        await client.send(b"nonsense\r\n\r\n")
        with pytest.raises(ConnectionError):
            while True:
                await client.send(b"x" * 1000)
                await asyncio.sleep(0.005)


async def test_an_abandoned_upload_leaves_nothing_behind(gate: Gatehouse) -> None:
    """A blob whose client goes away in the middle: the upstream's half is cut, no answer stays open."""
    _, key = await gate.member("root@example.org", role="admin")
    async with dialled(gate) as client:
        await client.send(head(gate, 1_000_000, key=key, path="/api/blobs/sha256:" + "0" * 64) + b"x" * 100_000)
        await until(lambda: gate.house.answering == 1)
        client.close()
        await until(lambda: gate.house.answering == 0)
        await until(lambda: gate.upstream.open_connections <= 1)
