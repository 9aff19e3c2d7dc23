"""The client that leaves, and everybody else who may end an exchange: upstream stopped, seat free, end recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rigs.gatehouse import ADMIN, QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after, stall_before_headers

# The loop that the daemon itself runs on; the other tests of the gate run on asyncio's own (tests/conftest.py).
EVENT_LOOPS = ("uvloop",)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


async def ask(gate: Gatehouse, **more: object) -> RawClient:
    """Send a chat on a bare connection and read nothing yet."""
    body = json.dumps(QUESTION | more).encode()
    client = await RawClient.connect(gate.port)
    await client.send(
        b"POST /api/chat HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (gate.key.encode(), len(body), body)
    )
    return client


async def last_state(gate: Gatehouse) -> str:
    rows = await gate.records()
    return str(rows[0].state)


async def ended(gate: Gatehouse, states: list[str]) -> bool:
    return sorted(str(row.state) for row in await gate.records()) == states


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_leaving_in_the_queue_gives_the_place_up(gate: Gatehouse, leave: str) -> None:
    """Never sent upstream: the place in line and in the request window come back."""
    held = asyncio.Event()
    gate.upstream.next(*[stall_before_headers(held)] * 2)
    seated = [asyncio.ensure_future(gate.chat()) for _ in range(2)]
    await until(lambda: len(gate.upstream.inference) == 2)
    client = await ask(gate)
    await until(lambda: len(gate.house.gate.live()) == 3)
    getattr(client, leave)()
    await until(lambda: len(gate.house.gate.live()) == 2)
    held.set()
    await asyncio.gather(*seated)
    assert len(gate.upstream.inference) == 2
    # Who leaves while the opening record is still being written is closed right after it.
    await until(lambda: ended(gate, ["client_left", "ok", "ok"]))


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_during_prefill_frees_the_gpu(gate: Gatehouse, leave: str, stream: bool) -> None:
    """The upstream connection is closed while it has not said a byte, streamed or not."""
    gate.upstream.next(stall_before_headers(asyncio.Event()))
    client = await ask(gate, stream=stream)
    seen = (await until(lambda: gate.upstream.inference))[0]
    getattr(client, leave)()
    await asyncio.wait_for(seen.client_left.wait(), 2.5)
    await until(lambda: not gate.house.gate.live())
    assert await last_state(gate) == "client_left"
    assert (await gate.chat()).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_in_mid_stream_frees_the_gpu(gate: Gatehouse, stream: bool) -> None:
    """Streamed or assembled: the upstream sees the close, what was delivered is recorded."""
    gate.upstream.next(stall_after(2, asyncio.Event()))
    client = await ask(gate, stream=stream)
    seen = (await until(lambda: gate.upstream.inference))[0]
    await until(lambda: len(seen.sent) == 2)
    if stream:
        await client.read_head()
        await client.reader.readuntil(b"}\n")
    await until(lambda: gate.house.gate.live()[0].first_byte)
    client.close()
    await asyncio.wait_for(seen.client_left.wait(), 2.5)
    await until(lambda: not gate.house.gate.live())
    record = (await gate.records())[0]
    assert record.state == "client_left"
    shown = await gate.audit(record.request_id)
    assert shown.response, "what was generated until the departure is on record"


async def test_two_hundred_departures_leave_nothing_behind(gate: Gatehouse) -> None:
    """H4, bounded: every one is seen by the upstream, no seat and no exchange stays."""
    gate.upstream.default = stall_after(1, asyncio.Event())
    for round_number in range(20):
        clients = [await ask(gate) for _ in range(10)]
        await until(lambda: gate.upstream.running == 2)
        for client in clients:
            client.close() if round_number % 2 else client.reset()
        await until(lambda: not gate.house.gate.live())
    await until(lambda: gate.upstream.running == 0)
    seats = gate.house.registry.upstreams[0].seats
    assert seats.running == 0
    assert seats.waiting == 0


async def test_an_administrator_cancels_and_the_client_is_told_in_the_stream(gate: Gatehouse) -> None:
    """After the first byte: a last line with the error, no done:true; the upstream stops."""
    gate.upstream.next(stall_after(1, asyncio.Event()))
    async with gate.streaming() as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        request_id = answer.headers["x-request-id"]
        assert gate.house.gate.cancel(request_id)
        rest = [json.loads(line) async for line in lines]
    assert rest == [{"error": "cancelled by an administrator"}]
    await asyncio.wait_for(gate.upstream.inference[0].client_left.wait(), 2.5)
    assert (await gate.audit(request_id)).state == "cancelled_by_admin"


async def test_cancelled_before_the_first_byte_is_503(gate: Gatehouse) -> None:
    """Before the first byte the status tells it."""
    gate.upstream.next(stall_before_headers(asyncio.Event()))
    asking = asyncio.ensure_future(gate.chat())
    live = await until(lambda: gate.upstream.inference and gate.house.gate.live())
    gate.house.gate.cancel(live[0].request_id)
    answer = await asking
    assert answer.status_code == 503
    assert answer.json()["code"] == "cancelled_by_admin"


@pytest.mark.parametrize(("end", "status"), [("revoke", 401), ("disable", 403)])
async def test_cut_before_the_first_byte_the_status_says_why(gate: Gatehouse, end: str, status: int) -> None:
    """Revoked: 401 with a challenge (RFC 9110, 15.5.2); disabled: 403; in line or in prefill."""
    user, secret = await gate.member("joe@example.org")
    gate.upstream.next(*[stall_before_headers(asyncio.Event())] * 2)
    asking = [asyncio.ensure_future(gate.chat(key=secret)) for _ in range(3)]
    await until(lambda: len(gate.upstream.inference) == 2 and len(gate.house.gate.live()) == 3)
    if end == "revoke":
        await gate.house.directory.revoke_key(ADMIN, gate.keys[secret].id)
    else:
        await gate.house.directory.disable(ADMIN, user.id)
    for answer in await asyncio.gather(*asking):
        assert answer.status_code == status
        assert answer.json()["code"] == ("credential_revoked" if end == "revoke" else "user_disabled")
        assert ('error="invalid_token"' in answer.headers.get("www-authenticate", "")) == (end == "revoke")


async def test_disabling_a_user_cuts_their_streams_and_their_key(gate: Gatehouse) -> None:
    """Row 51: acts on the next request, and on the one that runs."""
    gate.upstream.next(stall_after(1, asyncio.Event()))
    async with gate.streaming() as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await gate.house.directory.disable(ADMIN, gate.user.id)
        rest = [json.loads(line) async for line in lines]
    assert list(rest[-1]) == ["error"]
    assert (await gate.chat()).status_code == 401
    await gate.house.directory.enable(ADMIN, gate.user.id)
    assert (await gate.chat()).status_code == 200
    assert "user_disabled" in [row.state for row in await gate.records()]


async def test_revoking_a_key_ends_only_its_streams(gate: Gatehouse) -> None:
    """J5: the key's live stream ends as credential_revoked; another key of the same user goes on."""
    held = asyncio.Event()
    gate.upstream.next(*[stall_after(1, held)] * 2)
    key, secret = await gate.house.directory.issue_key(ADMIN, gate.user.id, label="second")
    async with gate.streaming() as mine, gate.streaming(key=secret) as revoked:
        await anext(first := mine.aiter_lines())
        await anext(second := revoked.aiter_lines())
        await gate.house.directory.revoke_key(ADMIN, key.id)
        assert "error" in json.loads([line async for line in second][-1])
        held.set()
        assert json.loads([line async for line in first][-1])["done"] is True
    assert sorted(row.state for row in await gate.records()) == ["credential_revoked", "ok"]
