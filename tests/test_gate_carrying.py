"""An inference request over HTTP: versions, kept connections, slow readers, late bodies; plain and TLS."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, RequestStartLine
from tornado.iostream import IOStream

from daemon.exchange import Exchange
from daemon.web import bounds
from daemon.web.stream import ClientStream
from tests.rigs.certificates import make_certificate
from tests.rigs.gatehouse import QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import chunks, stall_before_headers


@pytest.fixture(params=["plain", "tls"])
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Gatehouse]:
    """A gate on one listener, spoken to plainly and over TLS: its answers are the same."""
    secured = {}
    if request.param == "tls":
        certificate, key = make_certificate(tmp_path)
        secured = {"server__certificate": str(certificate), "server__key": str(key)}
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream, **secured) as gate:
        yield gate


@asynccontextmanager
async def connected(gate: Gatehouse) -> AsyncIterator[RawClient]:
    """A bare connection to the gate."""
    _, port, tls = gate.house.addresses[0]
    trusting = ssl.create_default_context(cafile=gate.house.config.server.certificate) if tls else None
    name = "127.0.0.1" if tls else None
    client = RawClient(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=name))
    try:
        yield client
    finally:
        client.close()


def request(gate: Gatehouse, *headers: str, version: str = "1.1", **fields: object) -> bytes:
    """A small chat, as it goes over the wire."""
    body = json.dumps(QUESTION | fields).encode()
    lines = [f"POST /api/chat HTTP/{version}", "Host: gate", f"Authorization: Bearer {gate.key}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def test_a_kept_connection_carries_one_answer_after_the_other(gate: Gatehouse) -> None:
    """Streamed, whole, refused, streamed again: each ends where the next begins."""
    async with connected(gate) as client:
        for fields, status, end in (
            ({}, 200, b"\r\n0\r\n\r\n"),
            ({"stream": False}, 200, b"}"),
            ({"model": "nobody:1b"}, 404, b"}"),
            ({}, 200, b"\r\n0\r\n\r\n"),
        ):
            await client.send(request(gate, **fields))
            head = await client.read_head()
            assert head.startswith(b"HTTP/1.1 %d " % status)
            if b"Content-Length" in head:
                length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
                body = await client.reader.readexactly(length)
            else:
                assert b"Transfer-Encoding: chunked" in head
                body = await client.reader.readuntil(b"\r\n0\r\n\r\n")
            assert body.endswith(end)


async def test_an_http_1_0_client_gets_no_chunks_and_the_connections_end(gate: Gatehouse) -> None:
    """The end of the connection is the end of the answer, even where it asked to keep it."""
    async with connected(gate) as client:
        await client.send(request(gate, "Connection: keep-alive", version="1.0"))
        head, _, body = (await client.read_all()).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"Connection: close" in head
        assert body == b"".join(gate.upstream.inference[-1].sent)


@pytest.mark.parametrize("stream", [True, False])
async def test_who_wants_the_connection_closed_has_it_closed(gate: Gatehouse, stream: bool) -> None:
    """`Connection: close` is confirmed and kept."""
    async with connected(gate) as client:
        await client.send(request(gate, "Connection: Close", stream=stream))
        said = await client.read_all()
        assert b"\r\nConnection: close\r\n" in said
        assert b'"done":true' in said


async def stuck(gate: Gatehouse) -> Exchange:
    """The one live exchange, once its client does not take any more."""
    (exchange,) = await until(gate.house.gate.live)
    seen: list[int] = []

    def stands() -> bool:
        seen.append(exchange.bytes_out)
        return len(seen) > 20 and seen[-1] == seen[-20] > 0

    await until(stands)
    return exchange


async def read_chunks(client: RawClient) -> list[bytes]:
    """A chunked body, to its end."""
    pieces = []
    while size := int(await client.reader.readline(), 16):
        pieces.append(await client.reader.readexactly(size))
        assert await client.reader.readexactly(2) == b"\r\n"
    return pieces


async def test_a_slow_reader_gets_every_byte_in_order(gate: Gatehouse) -> None:
    """What the socket does not take waits for the client, and nothing overtakes it."""
    gate.upstream.words = [f"{number:06}" * 5_000 for number in range(400)]
    async with connected(gate) as client:
        await client.send(request(gate, "Connection: close"))
        await stuck(gate)
        assert (await client.read_head()).startswith(b"HTTP/1.1 200 ")
        assert b"".join(await read_chunks(client)) == b"".join(gate.upstream.inference[-1].sent)


async def test_what_waits_is_not_overtaken_though_the_socket_has_room_again() -> None:
    """Between the client's reading and Tornado's writing there is a moment in which the socket would take a piece."""
    near, far = socket.socketpair()
    near.setblocking(False)
    stream = IOStream(near)
    client = ClientStream(
        HTTP1Connection(stream, False), RequestStartLine("POST", "/api/chat", "HTTP/1.1"), HTTPHeaders(), []
    )
    client.begin("text/plain", {}, status=499)  # in no RFC
    first = client.send(b"x" * 4_000_000)
    assert first is not None
    said = far.recv(1_000_000)
    second = client.send(b"late")
    assert second is not None
    both = asyncio.gather(first, second)
    far.setblocking(False)
    while not both.done():
        said += await asyncio.get_running_loop().sock_recv(far, 1_000_000)
    stream.close()
    while more := await asyncio.get_running_loop().sock_recv(far, 1_000_000):
        said += more
    far.close()
    assert said.startswith(b"HTTP/1.1 499 Unknown\r\n")
    assert said.endswith(b"x\r\n4\r\nlate\r\n")


async def test_every_answer_has_a_date_an_id_and_the_limits(gate: Gatehouse) -> None:
    """RFC 9110, 6.6.1; and our own (wire.md)."""
    for fields in ({}, {"stream": False}, {"model": "nobody:1b"}):
        async with connected(gate) as client:
            await client.send(request(gate, "Connection: close", **fields))
            head = await client.read_head()
            for name in (b"Date: ", b"X-Request-Id: ", b"Content-Type: "):
                assert head.count(b"\r\n" + name) == 1
            assert b"Server:" not in head


async def test_a_failure_that_nobody_foresaw_is_500_under_its_id(
    gate: Gatehouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told no more than where to look; the log has the traceback. The connection goes on."""
    async with connected(gate) as client:
        with monkeypatch.context() as broken:
            broken.setattr(gate.house.access, "identify", lambda *_, **__: 1 / 0)
            await client.send(request(gate))
            head = await client.read_head()
        assert head.startswith(b"HTTP/1.1 500 ")
        request_id = head.partition(b"X-Request-Id: ")[2].split(b"\r\n")[0].decode()
        told = json.loads(
            await client.reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
        )
        assert request_id in told["error"]
        assert "ZeroDivisionError" not in told["error"]
        (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert request_id in record.getMessage()
        assert record.exc_info is not None
        await client.send(request(gate, "Connection: close"))
        assert (await client.read_all()).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(gate.house.answered.wait(), 5)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_departure_is_no_failure(gate: Gatehouse, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is answered, nothing is logged but the exchange, and the gate may stop: no answer is under way."""
    async with connected(gate) as client:
        gate.upstream.next(stall_before_headers(asyncio.Event()))
        await client.send(request(gate, stream=stream))
        await until(lambda: gate.upstream.inference)
    await until(lambda: not gate.house.gate.live())
    await asyncio.wait_for(gate.house.answered.wait(), 5)
    gc.collect()
    assert [each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == []


async def test_a_body_that_does_not_come_is_408(gate: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dripping client holds a connection no longer than a body may take; nothing was admitted."""
    monkeypatch.setattr(bounds, "BODY_SILENCE", 0.05)
    monkeypatch.setattr(bounds, "LOOK_EVERY", 0.01)
    async with connected(gate) as client:
        await client.send(request(gate)[:-1])
        assert (await client.read_all()).startswith(b"HTTP/1.1 408 ")
        assert gate.upstream.inference == []
        assert gate.house.answered.is_set()


async def test_a_head_that_does_not_come_ends_the_connection(gate: Gatehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a kept connection on which nothing more is asked; one that is being answered is left alone."""
    monkeypatch.setattr(bounds, "HEAD_TIMEOUT", 0.05)
    monkeypatch.setattr(bounds, "LOOK_EVERY", 0.01)
    async with connected(gate) as dripping, connected(gate) as idle, connected(gate) as busy:
        await dripping.send(request(gate)[:20])
        pace = asyncio.Semaphore(1)
        gate.upstream.next(chunks(2, pace=pace))
        await busy.send(request(gate, "Connection: close"))
        await until(gate.house.gate.live)
        assert await dripping.read_all() == b""
        assert await idle.read_all() == b""
        pace.release()
        pace.release()
        assert b'"done":true' in await busy.read_all()


async def test_a_foreign_host_and_a_stopping_gate_are_refused(tmp_path: Path) -> None:
    """On the inference routes as on every other: nothing is admitted."""
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream, server__allowed_hosts=["gate"]) as gate:
        foreign = request(gate, "Connection: close").replace(b"Host: gate", b"Host: elsewhere")
        malformed = request(gate, "Connection: close").replace(b"Host: gate", b"Host: gate, elsewhere")
        for asked, status in ((foreign, 421), (malformed, 400)):
            async with connected(gate) as client:
                await client.send(asked)
                assert (await client.read_all()).startswith(b"HTTP/1.1 %d " % status)
        gate.house.stopping = True
        assert (await gate.post("/api/chat", QUESTION, headers={"Host": "gate"})).status_code == 503
        assert upstream.inference == []


async def test_a_page_of_an_allowed_origin_may_read_answers_and_errors(tmp_path: Path) -> None:
    """On the inference routes, where pages of other origins get nothing."""
    async with (
        ScriptedUpstream() as upstream,
        gatehouse(tmp_path, upstream, server__cors_origins=["http://ui"]) as gate,
    ):
        for model in ("smollm2:135m", "nobody:1b"):
            told = await gate.post("/api/chat", QUESTION | {"model": model}, headers={"Origin": "http://ui"})
            assert told.headers["access-control-allow-origin"] == "http://ui"
            untold = await gate.post("/api/chat", QUESTION | {"model": model}, headers={"Origin": "http://evil"})
            assert "access-control-allow-origin" not in untold.headers
