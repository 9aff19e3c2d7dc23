"""Upstreams that fail: a status before the first byte, an error in the stream after it, never a false end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rigs import upstream_behaviours as ways
from tests.rigs.gatehouse import QUESTION, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream
from tests.rigs.until import until


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


BEFORE: dict[str, Behaviour] = {
    "reset": ways.reset_before_headers,
    "close": ways.close_before_headers,
    "garbage": ways.garble(),
    "endless headers": ways.endless_headers,
    "truncated at once": ways.close_after(0),
    "reset at once": ways.reset_after(0),
}
MIDDLE: dict[str, Behaviour] = {
    "reset": ways.reset_after(2),
    "close": ways.close_after(2),
    "half-close": ways.half_close_after(2),
    "garbled framing": ways.garble_after(2),
    "garbled line": ways.garbled_line_after(2),
}


@pytest.mark.parametrize("way", list(BEFORE))
@pytest.mark.parametrize("stream", [True, False])
async def test_failing_before_the_first_byte_is_502(gate: Gatehouse, way: str, stream: bool) -> None:
    """H5: a status and words, recorded as upstream_error; the next request is served."""
    gate.upstream.next(BEFORE[way], BEFORE[way])
    answer = await gate.chat(stream=stream)
    assert answer.status_code == 502
    assert answer.json()["code"] == "upstream_error"
    assert answer.json()["error"]
    assert (await gate.audit(answer.headers["x-request-id"])).state == "upstream_error"
    gate.upstream._scripts.clear()
    assert (await gate.chat()).status_code == 200


@pytest.mark.parametrize("way", list(MIDDLE))
async def test_failing_in_mid_stream_is_an_explicit_last_line(gate: Gatehouse, way: str) -> None:
    """Row 82: the pieces that came, then `{"error": …}` under the 200 that is out already; no done:true."""
    gate.upstream.next(MIDDLE[way])
    answer = await gate.chat(stream=True)
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert len(lines) == 3
    assert list(lines[-1]) == ["error"]
    assert not any(line.get("done") for line in lines)
    record = await gate.audit(answer.headers["x-request-id"])
    assert record.state == "upstream_error"
    assert record.error
    assert record.response, "the partial answer is on record"


@pytest.mark.parametrize("way", list(MIDDLE))
async def test_a_cut_answer_is_never_assembled_into_a_whole_one(gate: Gatehouse, way: str) -> None:
    """Unstreamed: the client gets 502, not the pieces."""
    gate.upstream.next(MIDDLE[way])
    answer = await gate.chat(stream=False)
    assert answer.status_code == 502
    assert "message" not in answer.json()


async def test_a_stream_that_ends_without_its_end_is_an_error(gate: Gatehouse) -> None:
    """A stopped Ollama truncates NDJSON under a clean HTTP end: that is a failure too."""
    gate.upstream.next(ways.without_end(2))
    answer = await gate.chat(stream=True)
    assert list(json.loads(answer.content.splitlines()[-1])) == ["error"]


async def test_an_error_told_in_the_stream_is_passed_on(gate: Gatehouse) -> None:
    """Ollama's own way to fail in mid-stream."""
    gate.upstream.next(ways.error_in_stream(2, "the runner has gone"))
    answer = await gate.chat(stream=True)
    assert json.loads(answer.content.splitlines()[-1]) == {"error": "the runner has gone"}


async def test_an_endless_line_ends_the_exchange(gate: Gatehouse) -> None:
    """Memory is bounded: a line that never ends is no answer."""
    gate.upstream.next(ways.endless_line)
    answer = await gate.chat(stream=False)
    assert answer.status_code == 502


@pytest.mark.parametrize("difference", [5, -5])
async def test_a_wrong_length_is_an_error(gate: Gatehouse, difference: int) -> None:
    """Too long or too short: never taken for a whole answer."""
    gate.upstream.next(ways.wrong_length(difference))
    answer = await gate.chat(stream=False)
    assert answer.status_code == 502


@pytest.mark.parametrize(("status", "seen"), [(400, 400), (404, 404), (500, 502), (503, 503)])
async def test_an_upstreams_own_error_keeps_its_words(gate: Gatehouse, status: int, seen: int) -> None:
    """What the client can mend keeps its status; the upstream's own failures are the gate's 502."""
    gate.upstream.next(ways.error(status, "its own words"))
    answer = await gate.chat()
    assert answer.status_code == seen
    assert answer.json()["error"] == "its own words"


async def test_a_dead_upstream_is_502_and_gives_the_request_back(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Not reachable: nothing was sent, so the request keeps no place in its window."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=2) as gate:
        assert (await gate.chat()).status_code == 200
        await upstream.stop()
        for _ in range(3):
            assert (await gate.chat()).status_code == 502
        await upstream.start()
        assert (await gate.chat()).status_code == 200
        assert (await gate.chat()).status_code == 429


async def test_a_connection_that_died_in_the_pool_is_retried_once(gate: Gatehouse) -> None:
    """A restarted upstream costs no request."""
    await gate.chat()
    gate.upstream.drop_idle_connections()
    answers = [await gate.chat() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]


async def deadline(tmp_path: Path, upstream: ScriptedUpstream, way: Behaviour, **flags: float) -> tuple[int, str, str]:
    async with gatehouse(tmp_path, upstream, **flags) as gate:
        upstream.next(way)
        answer = await gate.chat(stream=True)
        record = await gate.audit(answer.headers["x-request-id"])
        await until(lambda: not gate.house.gate.live())
        seen = upstream.inference[0]
        await asyncio.wait_for(seen.client_left.wait(), 2.5)
        return answer.status_code, str(record.state), answer.text


async def test_no_first_byte_in_time_is_504(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """deadlines.first_byte, its own end state; the upstream is closed."""
    way = ways.stall_before_headers(asyncio.Event())
    status, state, _ = await deadline(tmp_path, upstream, way, deadlines__first_byte=0.05)
    assert (status, state) == (504, "timeout_first_byte")


async def test_headers_alone_are_no_first_byte(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """An upstream that sends its head and then nothing has not begun to answer."""
    way = ways.stall_before_first_byte(asyncio.Event())
    status, state, _ = await deadline(tmp_path, upstream, way, deadlines__first_byte=0.05)
    assert (status, state) == (504, "timeout_first_byte")


async def test_silence_in_mid_stream_is_timeout_idle(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """deadlines.idle: after the first byte the stream itself tells."""
    way = ways.stall_after(1, asyncio.Event())
    status, state, text = await deadline(tmp_path, upstream, way, deadlines__idle=0.05)
    assert (status, state) == (200, "timeout_idle")
    assert list(json.loads(text.splitlines()[-1])) == ["error"]


async def test_taking_too_long_in_all_is_timeout_total(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """deadlines.total: from the seat on."""
    way = ways.stall_after(1, asyncio.Event())
    status, state, _ = await deadline(tmp_path, upstream, way, deadlines__total=0.05)
    assert (status, state) == (200, "timeout_total")


async def test_a_connection_that_does_not_stand_in_time_is_timeout_connect(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """deadlines.connect: a listener whose backlog is full answers no SYN; 502, and the request is given back."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        upstreams = [
            {"name": "up", "url": upstream.url},
            {"name": "full", "url": url},
        ]
        async with gatehouse(tmp_path, upstream, upstreams=upstreams, deadlines__connect=0.1) as gate:
            stuck = gate.house.registry.upstream("full")
            gate.house.registry.upstream("up").pool = stuck.pool
            answer = await gate.chat()
            assert answer.status_code == 502
            assert (await gate.audit(answer.headers["x-request-id"])).state == "timeout_connect"
        for filler in fillers:
            filler.close()


async def test_questions_are_not_repeated_after_a_byte_was_answered(gate: Gatehouse) -> None:
    """A failure after the answer began is never retried: the model would have been asked twice."""
    gate.upstream.next(ways.reset_after(1))
    await gate.post("/api/chat", QUESTION)
    assert len(gate.upstream.inference) == 1
