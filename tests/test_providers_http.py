"""The pooled client to an upstream: real sockets, plain asyncio and uvloop, every way in which an answer can break."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest, UpstreamFailed
from daemon.providers import connection as connection_module
from daemon.providers import http as http_module
from daemon.providers.http import ConnectFailed, ConnectTimedOut, Pool, UpstreamBroken, verifying_context
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.certificates import make_certificate, server_context
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream, Turn
from tests.rigs.until import holds, settled, until

CHAT = b'{"model":"smollm2:135m","messages":[{"role":"user","content":"why is that"}]}'


# Both loops (tests/conftest.py): their transports differ in what they tolerate.
EVENT_LOOPS = ("asyncio", "uvloop")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def pool(upstream: ScriptedUpstream) -> AsyncIterator[Pool]:
    """A pool to the scripted upstream that must not leak: at the end nothing is busy."""
    pool = Pool(upstream.url, name="there")
    yield pool
    await until(lambda: "0 busy" in repr(pool), what=f"no connection is busy any more: {pool!r}")
    await pool.close()
    await until(lambda: upstream.open_connections == 0)


async def chat(pool: Pool) -> bytes:
    """A whole chat answer."""
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        assert response.status == 200
        return await response.read(10**6)


def last_line(answer: bytes) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return line


async def test_an_answer_arrives_whole_and_the_next_request_reuses_its_connection(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """Keep-alive: one connection for requests one after the other, and what was sent is what arrives."""
    assert await chat(pool) == b"".join(upstream.inference[0].sent)
    assert last_line(await chat(pool))["done"] is True
    assert upstream.connections == 1
    assert repr(pool) == "<Pool there: 1 idle, 0 busy>"
    seen = upstream.inference[0]
    assert seen.raw == CHAT
    assert seen.headers["host"] == upstream.url.removeprefix("http://")
    assert set(seen.headers) == {"host", "user-agent", "accept-encoding", "content-length"}


async def test_pieces_arrive_as_they_are_sent(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Each chunk is there before the upstream writes the next one."""
    pace = asyncio.Semaphore(0)
    upstream.next(behaviours.chunks(3, pace=pace))
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        for number in range(3):
            pace.release()
            assert json.loads(await anext(response))["message"]["content"] == f"w{number} "
        pace.release()
        assert [last_line(piece)["done"] async for piece in response] == [True]


async def test_what_arrives_in_one_read_is_handed_on_in_one_piece(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A hundred chunks in one segment cost one wake-up and one write downstream, not a hundred."""

    async def burst(turn: Turn) -> None:
        body = b"".join(b"3\r\nab\n\r\n" for _ in range(100)) + b"0\r\n\r\n"
        await turn.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        turn.seen.answered.set()

    upstream.next(burst)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        assert [piece async for piece in response] == [b"ab\n" * 100]


async def test_dripped_byte_by_byte_it_is_the_same_answer(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Headers, framing and body may arrive in any pieces."""
    upstream.next(behaviours.drip)
    assert last_line(await chat(pool))["eval_count"] == 3


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (behaviours.reset_before_headers, "reset the connection before it answered"),
        (behaviours.close_before_headers, "closed the connection before it answered"),
        (behaviours.reset_after(1), "reset the connection in the middle"),
        (behaviours.half_close_after(1), "closed the connection in the middle"),
        (behaviours.close_after(2), "closed the connection in the middle"),
        (behaviours.garble(), "not HTTP"),
        (behaviours.garble(b"\x00" * 100_000), "not HTTP"),
        (behaviours.garble_after(1), "not HTTP"),
        (behaviours.garble(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), "not HTTP"),
        (behaviours.garble(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"), "not HTTP"),
        (behaviours.garble(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), "transfer coding"),
        (behaviours.garble(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"), "compressed"),
        (
            behaviours.garble(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            "another protocol",
        ),
        (behaviours.wrong_length(+10), "closed the connection in the middle"),
        (behaviours.endless_headers, "headers without an end"),
    ],
)
async def test_a_broken_answer_is_an_error_never_an_end(
    pool: Pool, upstream: ScriptedUpstream, behaviour: Behaviour, why: str
) -> None:
    """H5: each way to break is UpstreamBroken (502), says what happened, and leaves the next request unharmed."""
    upstream.next(behaviour)
    with pytest.raises(UpstreamBroken, match=why) as raised:
        await chat(pool)
    assert raised.value.status == 502
    assert "there" in raised.value.message
    assert last_line(await chat(pool))["done"] is True


@pytest.mark.timeout(30)  # without the bound it waits for ever
@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Some: some\r\n" * 9000 + b"\r\n",  # whole, and too much
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 66_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * 10,  # a chunk extension without an end
    ],
)
async def test_framing_is_bounded_however_it_is_cut(pool: Pool, upstream: ScriptedUpstream, data: bytes) -> None:
    """H5: headers, trailers and chunk extensions do not count as an answer, and their memory is bounded."""
    upstream.next(behaviours.stall_before_headers(asyncio.Event()))
    task = asyncio.create_task(chat(pool))
    await until(lambda: upstream.running == 1)
    (connection,) = pool._open
    connection.data_received(data)
    for _ in range(70):
        if not connection.closing:
            connection.data_received(b"x" * 1000)
    with pytest.raises(UpstreamBroken, match="headers without an end"):
        await task


async def test_a_finished_answer_that_is_read_late_does_not_touch_its_successor(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """Its connection serves somebody else by then, whose pace is not for it to change."""
    upstream.next(behaviours.error(200, b"{}"), behaviours.endless_line)
    async with pool.request("POST", "/api/chat", body=CHAT) as first:
        await until(lambda: first.complete)
        async with pool.request("POST", "/api/chat", body=CHAT) as second:
            await until(lambda: "paused" in repr(second._connection))
            assert upstream.connections == 1
            assert await first.read(10) == b"{}"
            assert "paused" in repr(second._connection)


async def test_what_came_before_the_break_is_delivered_before_the_error(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A person sees the words that were said; then the error, not an end."""
    gate = asyncio.Event()

    async def break_off(turn: Turn) -> None:
        await turn.head()
        await turn.send(b"one\n")
        await gate.wait()
        await turn.send(b"two\n")
        await turn.close()

    upstream.next(break_off)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        assert await anext(response) == b"one\n"
        gate.set()
        await until(lambda: response._error is not None)
        assert await anext(response) == b"two\n"
        with pytest.raises(UpstreamBroken):
            await anext(response)


async def test_more_than_the_announced_length_is_an_error_and_never_the_next_answer(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """Response splitting: bytes after the end neither complete this answer nor begin the next one."""

    async def excess(turn: Turn) -> None:
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        await turn.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + forged)
        turn.seen.answered.set()
        turn.closing = True

    upstream.next(excess)
    with pytest.raises(UpstreamBroken, match="more came than"):
        await chat(pool)
    upstream.next(behaviours.wrong_length(-5))
    with pytest.raises(UpstreamBroken):
        await chat(pool)
    assert last_line(await chat(pool))["done"] is True


async def test_unasked_bytes_on_an_idle_connection_close_it(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A 408 that arrives while the connection lies idle is not the answer to the next request."""
    gate = asyncio.Event()

    async def late(turn: Turn) -> None:
        await behaviours.saying("yes")(turn)
        await gate.wait()
        await turn.raw(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    upstream.next(late)
    await chat(pool)
    assert repr(pool) == "<Pool there: 1 idle, 0 busy>"
    gate.set()
    await until(lambda: "0 idle" in repr(pool))
    assert last_line(await chat(pool))["done"] is True


async def test_idle_connections_are_bounded_in_number_and_age(
    pool: Pool, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rush the sockets are given back; one that lay idle for long is likely to be dead."""
    monkeypatch.setattr(http_module, "IDLE_CONNECTIONS", 2)
    await asyncio.gather(*(chat(pool) for _ in range(6)))
    await until(lambda: repr(pool) == "<Pool there: 2 idle, 0 busy>")
    before = upstream.connections
    monkeypatch.setattr(http_module, "IDLE_SECONDS", -1.0)
    await chat(pool)
    assert upstream.connections == before + 1
    await until(lambda: repr(pool) == "<Pool there: 1 idle, 0 busy>")


async def test_a_connection_that_is_just_closing_is_not_handed_out(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Between the FIN and the loop turn in which the loss is told, it still lies in the pool."""
    await chat(pool)
    pool._idle[-1].eof_received()
    sent: list[int] = []
    async with pool.request("POST", "/api/chat", body=CHAT, on_sent=lambda: sent.append(1)) as response:
        await response.read(10**6)
    assert sent == [1]


async def test_a_connection_closed_while_idle_is_not_used_again(pool: Pool, upstream: ScriptedUpstream) -> None:
    """The FIN takes it out of the pool at once."""
    await chat(pool)
    upstream.drop_idle_connections()
    await until(lambda: repr(pool) == "<Pool there: 0 idle, 0 busy>")
    assert last_line(await chat(pool))["done"] is True


@pytest.mark.parametrize("behaviour", [behaviours.close_before_headers, behaviours.reset_before_headers])
async def test_a_dead_pooled_connection_costs_one_retry_on_a_fresh_one(
    pool: Pool, upstream: ScriptedUpstream, behaviour: Behaviour
) -> None:
    """The news of its death may cross with the request: as long as nothing was answered, it is sent once more."""
    await chat(pool)
    upstream.next(behaviour)
    sent = []
    async with pool.request("POST", "/api/chat", body=CHAT, on_sent=lambda: sent.append(1)) as response:
        assert last_line(await response.read(10**6))["done"] is True
    assert len(upstream.inference) == 3
    assert upstream.connections == 2
    assert len(sent) == 2


async def test_a_fresh_connection_that_dies_is_not_retried(pool: Pool, upstream: ScriptedUpstream) -> None:
    """An upstream that dies of a request must not get it again and again."""
    upstream.next(behaviours.close_before_headers)
    with pytest.raises(UpstreamBroken):
        await chat(pool)
    assert len(upstream.inference) == 1
    await chat(pool)
    upstream.next(behaviours.close_before_headers, behaviours.close_before_headers)
    with pytest.raises(UpstreamBroken):
        await chat(pool)
    assert len(upstream.inference) == 4  # once on the pooled, once on a fresh connection, and no more


@pytest.mark.parametrize("behaviour", [behaviours.reset_after(0), behaviours.garble(b"HT"), behaviours.garble()])
async def test_once_a_byte_was_answered_nothing_is_sent_twice(
    pool: Pool, upstream: ScriptedUpstream, behaviour: Behaviour
) -> None:
    """A generation that began is never started again behind the client's back."""
    await chat(pool)

    async def then_close(turn: Turn) -> None:
        try:
            await asyncio.wait_for(behaviour(turn), 0.2)
        except TimeoutError:
            await turn.close()

    upstream.next(then_close)
    with pytest.raises(UpstreamBroken):
        await chat(pool)
    assert len(upstream.inference) == 2


async def test_a_body_in_pieces_is_never_sent_twice(pool: Pool, upstream: ScriptedUpstream) -> None:
    """It is used up: the caller is told."""
    await chat(pool)
    upstream.next(behaviours.close_before_headers)

    async def pieces() -> AsyncIterator[bytes]:
        yield CHAT

    with pytest.raises(UpstreamBroken):
        async with pool.request("POST", "/api/chat", body=pieces()):
            pass
    assert len(upstream.inference) == 2


@pytest.mark.parametrize(
    "behaviour", [behaviours.stall_before_first_byte, lambda gate: behaviours.stall_after(2, gate)]
)
async def test_leaving_the_block_closes_the_connection_at_once(
    pool: Pool, upstream: ScriptedUpstream, behaviour: Any
) -> None:
    """H4: the upstream notices a departure after the headers within milliseconds."""
    upstream.next(behaviour(asyncio.Event()))
    async with pool.request("POST", "/api/chat", body=CHAT):
        pass
    assert repr(pool) in {"<Pool there: 0 idle, 1 busy>", "<Pool there: 0 idle, 0 busy>"}
    await until(upstream.inference[0].client_left.is_set, timeout=0.25)


async def test_cancelling_while_nothing_is_answered_closes_the_connection_at_once(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """H4: a departure during prefill, when not even headers have come."""
    upstream.next(behaviours.stall_before_headers(asyncio.Event()))
    task = asyncio.create_task(chat(pool))
    await until(lambda: upstream.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(upstream.inference[0].client_left.is_set, timeout=0.25)


async def test_cancelled_at_any_moment_no_connection_leaks(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Whatever await a cancellation meets, everything is closed or back in the pool, and the pool serves on."""
    for turns in range(60):
        task = asyncio.create_task(chat(pool))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: "0 busy" in repr(pool), what=f"after {turns} turns")
    assert last_line(await chat(pool))["done"] is True
    await until(lambda: upstream.open_connections == 1)


async def test_the_reader_s_pace_is_the_upstream_s_pace(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Backpressure: of an answer of 64 MiB that nobody reads, the gate holds a few hundred KiB."""
    sent = 0

    async def flood(turn: Turn) -> None:
        nonlocal sent
        await turn.head()
        for _ in range(1024):
            await turn.send(b"x" * 65536)
            turn.seen.sent.clear()
            sent += 65536
        await turn.finish()

    upstream.next(flood)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await until(lambda: "paused" in repr(response._connection))
        await settled(lambda: sent)  # the kernel's buffers fill up, then nothing moves
        assert sent < 32 * 2**20
        assert response._unread <= 512 * 1024
        size = 0
        async for piece in response:
            size += len(piece)
        assert size == 1024 * 65536
    assert len(pool._idle) == 1


async def test_a_slow_reader_holds_up_nobody_else(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Pausing one connection leaves the others alone."""
    upstream.next(behaviours.endless_line)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await until(lambda: "paused" in repr(response._connection))
        assert last_line(await chat(pool))["done"] is True


async def test_a_body_in_pieces_is_sent_at_the_upstream_s_pace(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A blob is streamed: what the upstream does not read is not asked of the source."""
    upstream.reading.clear()
    upstream.check_host = False
    taken = 0

    async def blob() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1024):
            taken += 65536
            yield b"x" * 65536

    digest = "sha256:" + "0" * 64

    async def upload() -> int:
        headers = [("Content-Length", str(1024 * 65536))]
        async with pool.request("POST", f"/api/blobs/{digest}", headers=headers, body=blob()) as response:
            return response.status

    task = asyncio.create_task(upload())
    await settled(lambda: taken)
    assert 0 < taken < 32 * 2**20
    upstream.reading.set()
    assert await task == 400  # "digest mismatch": it has read it all
    assert len(upstream.requests[0].raw) == 1024 * 65536


async def test_a_chunked_body_arrives_whole(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Without an announced length the body is chunked; empty pieces do not end it."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (CHAT[:10], b"", CHAT[10:]):
            yield piece

    async with pool.request("POST", "/api/chat", body=pieces()) as response:
        assert last_line(await response.read(10**6))["done"] is True
    assert upstream.inference[0].raw == CHAT
    assert len(pool._idle) == 1


async def test_a_body_shorter_than_announced_is_refused(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Neither side waits for bytes that will not come."""

    async def pieces() -> AsyncIterator[bytes]:
        yield CHAT

    with pytest.raises(BadRequest, match="announced"):
        async with pool.request("POST", "/api/chat", headers=[("Content-Length", "500")], body=pieces()):
            pass


async def test_what_the_body_s_source_raises_ends_the_request(pool: Pool, upstream: ScriptedUpstream) -> None:
    """The uploading client left: its error arrives where the answer is awaited, and the upstream sees the close."""

    async def pieces() -> AsyncIterator[bytes]:
        yield CHAT
        await until(lambda: upstream.requests)
        raise ConnectionResetError("the client left")

    with pytest.raises(ConnectionResetError, match="the client left"):
        async with pool.request("POST", "/api/chat", headers=[("Content-Length", "500")], body=pieces()):
            pass
    await until(upstream.requests[0].client_left.is_set)


async def test_an_answer_before_the_body_s_end_is_read_and_stops_the_upload(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """An upstream that refuses early is heard although the upload goes on; the connection is not reused."""
    closed = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 1000
            await asyncio.Event().wait()  # an uploading client that pauses
        finally:
            closed.set()

    server = await asyncio.start_server(_refuse_early, "127.0.0.1", 0)
    async with server:
        early = Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with early.request("POST", "/api/blobs/x", body=pieces()) as response:
            assert (response.status, await response.read(100)) == (413, b"no")
        assert closed.is_set()
        assert len(early._idle) == 0
        await early.close()


async def _refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    while await reader.read(65536):
        pass
    writer.close()


async def test_nobody_listens_is_connect_failed_and_nothing_was_sent(upstream: ScriptedUpstream) -> None:
    """502 at once, in words."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pool = Pool(f"http://127.0.0.1:{unused.getsockname()[1]}", name="gone")
        sent: list[int] = []
        with pytest.raises(ConnectFailed, match="the upstream gone cannot be reached: connection refused") as raised:
            async with pool.request("GET", "/api/tags", on_sent=lambda: sent.append(1)):
                pass
        assert not isinstance(raised.value, ConnectTimedOut)
        assert (raised.value.status, sent, repr(pool)) == (502, [], "<Pool gone: 0 idle, 0 busy>")


async def test_a_host_that_does_not_answer_is_connect_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect deadline, here met by a TLS handshake that never comes, leaves nothing behind."""
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        left.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        pool = Pool(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", name="mute", connect_timeout=0.05)
        with pytest.raises(ConnectTimedOut, match=r"within 0\.05 seconds"):
            async with pool.request("GET", "/api/tags"):
                pass
        assert repr(pool) == "<Pool mute: 0 idle, 0 busy>"
        await asyncio.wait_for(left.wait(), 5)


async def test_an_unknown_host_is_connect_failed() -> None:
    """A name that does not resolve."""
    pool = Pool("http://no-such-host.invalid:1", name="nameless")
    with pytest.raises(ConnectFailed, match="nameless cannot be reached"):
        async with pool.request("GET", "/"):
            pass


async def test_tls_is_verified_against_the_given_authority(tmp_path: Path) -> None:
    """An unknown certificate is refused; with its authority named, everything works as without TLS."""
    certificate, key = make_certificate(tmp_path)
    async with ScriptedUpstream(tls=server_context(certificate, key)) as upstream:
        wary = Pool(upstream.url, name="wary")
        with pytest.raises(ConnectFailed, match="certificate is not valid"):
            await chat(wary)
        await wary.close()
        pool = Pool(upstream.url, name="trusting", tls=verifying_context(certificate))
        assert last_line(await chat(pool))["done"] is True
        assert last_line(await chat(pool))["done"] is True
        upstream.next(behaviours.stall_after(1, asyncio.Event()))
        async with pool.request("POST", "/api/chat", body=CHAT) as response:
            await anext(response)
        await until(upstream.inference[-1].client_left.is_set, timeout=1)
        assert len({seen.connection for seen in upstream.inference}) == 1
        await pool.close()
        await until(lambda: upstream.open_connections == 0)


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    """The right authority does not help the wrong host."""
    certificate, key = make_certificate(tmp_path, "elsewhere.example")
    async with ScriptedUpstream(tls=server_context(certificate, key)) as upstream:
        pool = Pool(upstream.url, name="impostor", tls=verifying_context(certificate))
        with pytest.raises(ConnectFailed, match="certificate is not valid"):
            await chat(pool)
        await pool.close()


async def test_redirects_are_answers_not_orders(pool: Pool, upstream: ScriptedUpstream) -> None:
    """H7: nothing is fetched from where the upstream points."""
    async with ScriptedUpstream() as elsewhere:
        upstream.next(behaviours.redirect(elsewhere.url + "/api/chat"))
        async with pool.request("POST", "/api/chat", body=CHAT) as response:
            assert response.status == 307
        assert elsewhere.connections == 0


async def test_proxy_variables_are_not_read(
    pool: Pool, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream is where the configuration says."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert last_line(await chat(pool))["done"] is True


async def test_head_has_no_body_and_keeps_its_connection(pool: Pool, upstream: ScriptedUpstream) -> None:
    """A Content-Length on HEAD announces nothing to wait for."""
    upstream.next(behaviours.error(200, b"twelve bytes"), route="/api/blobs/sha256:x")
    async with pool.request("HEAD", "/api/blobs/sha256:x") as response:
        assert (response.status, response.headers["content-length"]) == (200, "12")
        assert await response.read(10) == b""
    assert last_line(await chat(pool))["done"] is True
    assert upstream.connections == 1


async def test_a_body_after_head_is_refused(pool: Pool, upstream: ScriptedUpstream) -> None:
    """It would be taken for the next answer."""
    upstream.next(behaviours.garble(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), route="/api/blobs/sha256:x")
    with pytest.raises(UpstreamBroken, match="a body where none belongs"):
        async with pool.request("HEAD", "/api/blobs/sha256:x") as response:
            await response.read(10)
    assert last_line(await chat(pool))["done"] is True


async def test_interim_answers_are_passed_over(pool: Pool, upstream: ScriptedUpstream) -> None:
    """103 Early Hints is not the answer."""

    async def hinting(turn: Turn) -> None:
        await turn.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await behaviours.saying("yes")(turn)

    upstream.next(hinting)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        assert (response.status, "link" in response.headers) == (200, False)
        assert last_line(await response.read(10**6))["eval_count"] == 1
    assert len(pool._idle) == 1


async def test_an_answer_framed_by_the_close_is_whole_only_without_tls(tmp_path: Path) -> None:
    """HTTP/1.0's way to end is accepted; over TLS, where a third party can forge it, it is a truncation."""

    async def old_style(turn: Turn) -> None:
        await turn.raw(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await turn.close()

    certificate, key = make_certificate(tmp_path)
    async with (
        ScriptedUpstream() as plain,
        ScriptedUpstream(tls=server_context(certificate, key)) as secure,
    ):
        plain.next(old_style)
        secure.next(old_style)
        pool = Pool(plain.url)
        assert await chat(pool) == b"hello"
        tls_pool = Pool(secure.url, tls=verifying_context(certificate))
        with pytest.raises(UpstreamBroken):
            await chat(tls_pool)
        await pool.close()
        await tls_pool.close()


async def test_connection_close_is_respected(pool: Pool, upstream: ScriptedUpstream) -> None:
    """`should_keep_alive` is asked while the parser still knows: such a connection is not pooled."""
    upstream.next(behaviours.error(200, b"{}", {"Connection": "close"}))
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        assert await response.read(10) == b"{}"
    assert len(pool._idle) == 0
    await chat(pool)
    assert upstream.connections == 2


async def test_a_released_answer_ends_its_framing_and_the_connection_is_reused(
    pool: Pool, upstream: ScriptedUpstream
) -> None:
    """The dialect's end came, the HTTP end is on its way: the reader goes on, the connection is not lost."""
    gate = asyncio.Event()

    async def late_end(turn: Turn) -> None:
        await turn.head()
        for piece in turn.pieces():
            await turn.send(piece)
        await gate.wait()
        await turn.finish()

    upstream.next(late_end)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        async for piece in response:
            if b'"done":true' in piece:
                response.release()
                break
    assert "1 busy" in repr(pool)
    gate.set()
    await until(lambda: repr(pool) == "<Pool there: 1 idle, 0 busy>")
    await chat(pool)
    assert upstream.connections == 1


async def test_a_released_answer_that_goes_on_is_cut(
    pool: Pool, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released is not forgotten: bytes or time beyond the allowance close the connection."""
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 60.0)
    upstream.next(behaviours.endless_line)
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await anext(response)
        response.release()
    await until(upstream.inference[0].client_left.is_set)
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.01)
    upstream.next(behaviours.stall_after(1, asyncio.Event()))
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await anext(response)
        response.release()
    await until(upstream.inference[1].client_left.is_set)


async def test_headers_and_targets_cannot_be_split(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Request splitting: a line break or a blank in what we send is a bug, not a second request."""
    for value in ("a\r\nX-Evil: 1", "a\nb", "a\rb"):
        with pytest.raises(ValueError, match="line break"):
            pool.request("GET", "/", headers=[("X-Request-Id", value)])
    for target in ("", "api", "/a b", "/a\r\nHost: x", "/\x00", "/é"):
        with pytest.raises(ValueError, match="target"):
            pool.request("GET", target)
    assert upstream.connections == 0


async def test_outcomes_are_reported_for_the_upstream_s_health(upstream: ScriptedUpstream) -> None:
    """A whole answer is a success, whatever its status; a wire failure is told; what the reader left tells nothing."""
    outcomes: list[UpstreamFailed | None] = []
    pool = Pool(upstream.url, outcome=outcomes.append)
    upstream.next(
        behaviours.error(500, "no", {"Connection": "close"}), behaviours.reset_before_headers, behaviours.close_after(1)
    )
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await response.read(1000)
    assert outcomes == [None]
    for _ in range(2):
        with pytest.raises(UpstreamBroken):
            await chat(pool)
    # No connection was reused, so no retry blurs the picture.
    assert [type(outcome) for outcome in outcomes] == [type(None), UpstreamBroken, UpstreamBroken]
    upstream.next(behaviours.stall_after(1, asyncio.Event()))
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await anext(response)
    assert len(outcomes) == 3
    async with pool.request("POST", "/api/chat", body=CHAT) as response:
        await anext(response)
        response.release()
    assert outcomes[3:] == [None]
    await pool.close()


async def test_closing_the_pool_cuts_what_runs(upstream: ScriptedUpstream) -> None:
    """Shutdown: nothing stays open, and nothing new is opened."""
    pool = Pool(upstream.url)
    await chat(pool)
    upstream.next(behaviours.stall_after(1, asyncio.Event()))
    running = asyncio.create_task(chat(pool))
    await until(lambda: upstream.running == 1)
    await pool.close()
    assert repr(pool).endswith("0 idle, 0 busy, closed>")
    await until(lambda: upstream.open_connections == 0)
    task_error = (await asyncio.gather(running, return_exceptions=True))[0]
    assert isinstance(task_error, UpstreamBroken)
    with pytest.raises(ConnectFailed):
        await chat(pool)


async def test_closing_the_pool_while_it_connects_leaves_nothing_open(upstream: ScriptedUpstream) -> None:
    """The connection that is being made is given up, too."""
    for turns in range(8):
        pool = Pool(upstream.url)
        connecting = asyncio.create_task(chat(pool))
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.close()
        (outcome,) = await asyncio.gather(connecting, return_exceptions=True)
        # A fast loop may have the whole answer by then; what matters is that nothing hangs and nothing stays.
        assert isinstance(outcome, ConnectFailed | UpstreamBroken | bytes)
        assert repr(pool).endswith("0 idle, 0 busy, closed>")
    await until(lambda: upstream.open_connections == 0)


async def test_a_prefix_in_the_address_is_kept(upstream: ScriptedUpstream) -> None:
    """An upstream behind a path."""
    pool = Pool(upstream.url + "/below/")
    async with pool.request("GET", "/api/tags") as response:
        await response.read(1000)
    assert upstream.requests[0].path == "/below/api/tags"
    await pool.close()


async def test_many_at_once_each_get_their_own_answer(pool: Pool, upstream: ScriptedUpstream) -> None:
    """Concurrent streams are never mixed up, over fresh and reused connections."""

    async def ask(number: int) -> None:
        body = json.dumps({"model": f"m{number}", "messages": []}).encode()
        async with pool.request("POST", "/api/chat", body=body) as response:
            assert last_line(await response.read(10**6))["model"] == f"m{number}"

    for _ in range(3):
        await asyncio.gather(*(ask(number) for number in range(40)))
    assert upstream.connections <= 120
    await holds(lambda: "0 busy" in repr(pool), turns=3)
