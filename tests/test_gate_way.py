"""The way of one exchange, end to end: what goes upstream, what reaches the client, in which order it is recorded."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.protocol import AuditExchange
from tests.rigs.gatehouse import MODEL, QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream, Turn
from tests.rigs.until import holds, until
from tests.rigs.upstream_behaviours import chunks, stall_before_headers


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


class HeldWriter:
    """Keeps the store's writer busy until released: whatever must be durable first has to wait."""

    def __init__(self, gate: Gatehouse) -> None:
        self._release = threading.Event()
        self._held = threading.Event()
        self._job = gate.house.database.submit(self._wait)

    def _wait(self, _: object) -> None:
        self._held.set()
        self._release.wait(10)

    async def held(self) -> HeldWriter:
        await until(self._held.is_set)
        return self

    async def release(self) -> None:
        self._release.set()
        await self._job


async def test_a_streamed_chat_reaches_the_client_as_the_upstream_said_it(gate: Gatehouse) -> None:
    """Same dialect at both ends: the very bytes, and Ollama's content type."""
    answer = await gate.chat(stream=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.content == b"".join(gate.upstream.inference[-1].sent)
    assert len(answer.headers["x-request-id"]) == 26


async def test_streaming_is_the_default(gate: Gatehouse) -> None:
    """Ollama streams unless told otherwise."""
    answer = await gate.post("/api/chat", QUESTION)
    assert len(answer.content.splitlines()) > 1


async def test_an_unstreamed_answer_is_one_object_though_the_upstream_streams(gate: Gatehouse) -> None:
    """`stream: false`: the gate asks with `stream: true`, so that a departure stops the engine, and assembles."""
    answer = await gate.chat(stream=False)
    said = answer.json()
    assert said["message"]["content"] == "Why not?"
    assert said["done"] is True
    assert said["eval_count"] > 0
    assert gate.upstream.inference[-1].document["stream"] is True


async def test_generate_embed_and_embeddings_work(gate: Gatehouse) -> None:
    """The other inference routes of Ollama."""
    generated = await gate.post("/api/generate", {"model": MODEL, "prompt": "Why?", "stream": False})
    assert generated.json()["response"] == "Why not?"
    embedded = await gate.post("/api/embed", {"model": MODEL, "input": ["a", "b"]})
    assert len(embedded.json()["embeddings"]) == 2
    older = await gate.post("/api/embeddings", {"model": MODEL, "prompt": "a"})
    assert older.json()["embedding"]


async def test_unknown_fields_and_options_pass_through(gate: Gatehouse) -> None:
    """What only the upstream understands is not the gate's business."""
    await gate.chat(options={"temperature": 0, "brand_new": 1}, brand_new={"a": [1]}, keep_alive="5m")
    seen = gate.upstream.inference[-1].document
    assert seen["options"] == {"temperature": 0, "brand_new": 1}
    assert seen["brand_new"] == {"a": [1]}
    assert seen["keep_alive"] == "5m"


async def test_content_type_is_ignored_even_with_thousands_of_ampersands(gate: Gatehouse) -> None:
    """`curl -d` sends a form's content type; a prompt full of `&` is no form."""
    prompt = "&".join(["a"] * 5001)
    body = json.dumps({"model": MODEL, "prompt": prompt, "stream": False}).encode()
    answer = await gate.post("/api/generate", body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200
    assert gate.upstream.inference[-1].document["prompt"] == prompt


async def test_credentials_cookies_and_origins_stay_at_the_gate(gate: Gatehouse) -> None:
    """H7: nothing of the client's own headers is forwarded."""
    await gate.post("/api/chat", QUESTION, headers={"Cookie": "a=b", "Origin": "http://evil", "X-Evil": "1"})
    headers = gate.upstream.inference[-1].headers
    assert not {"authorization", "cookie", "origin", "x-api-key", "x-evil"} & set(headers)
    assert gate.key not in str(headers)
    assert gate.key.encode() not in gate.upstream.inference[-1].raw


async def test_nothing_goes_upstream_before_the_request_is_on_disk(gate: Gatehouse) -> None:
    """A1: while the journal cannot commit, the upstream hears nothing; once it can, the exchange goes on."""
    writer = await HeldWriter(gate).held()
    asking = asyncio.ensure_future(gate.chat())
    await until(gate.house.gate.live)
    await holds(lambda: not gate.upstream.inference)
    await writer.release()
    assert (await asking).status_code == 200


async def test_the_end_leaves_after_the_closing_commit(gate: Gatehouse) -> None:
    """Who has seen `done:true` is in the audit as ok: pieces flow, the end waits for the commit."""
    pace = asyncio.Semaphore(1)
    gate.upstream.next(chunks(3, pace=pace))
    async with gate.streaming() as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        writer = await HeldWriter(gate).held()
        for _ in range(3):
            pace.release()
        pieces = [json.loads(await anext(lines)) for _ in range(2)]
        assert not any(piece["done"] for piece in pieces)
        end = asyncio.ensure_future(anext(lines))
        await until(gate.upstream.inference[-1].answered.is_set)
        await holds(lambda: not end.done())
        await writer.release()
        assert json.loads(await end)["done"] is True
    record = await gate.audit(answer.headers["x-request-id"])
    assert record.state == "ok"


async def test_an_unstreamed_answer_waits_for_the_closing_commit_as_a_whole(gate: Gatehouse) -> None:
    """The whole of an unstreamed answer is its end."""
    held = asyncio.Event()
    gate.upstream.next(stall_before_headers(held))
    asking = asyncio.ensure_future(gate.chat(stream=False))
    await until(lambda: gate.upstream.inference)
    writer = await HeldWriter(gate).held()
    held.set()
    await until(gate.upstream.inference[-1].answered.is_set)
    await holds(lambda: not asking.done())
    await writer.release()
    assert (await asking).json()["done"] is True


async def test_the_record_tells_everything_about_the_exchange(gate: Gatehouse) -> None:
    """Who, from where, which model, when, how much, and both texts."""
    answer = await gate.post("/api/chat", QUESTION, headers={"X-Client-Label": "ignored: the key has one"})
    record = await gate.audit(answer.headers["x-request-id"])
    assert record.user == "ana@example.org"
    assert record.client_label == "test"
    assert record.address == "127.0.0.1"
    assert record.route == "/api/chat"
    assert (record.model_asked, record.model, record.upstream) == (MODEL, MODEL, "up")
    assert record.prompt == "Why?"
    assert record.response == "Why not?"
    assert record.tokens_in and record.tokens_out
    times = [record.received, record.admitted, record.seated, record.first_byte, record.ended]
    assert all(times) and times == sorted(times)


async def test_a_crowd_waits_in_line_and_everybody_is_served(gate: Gatehouse) -> None:
    """Two seats, twenty requests: never more than two at the upstream, all answered."""
    answers = await asyncio.gather(*(gate.chat() for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert gate.upstream.most_running <= 2


async def test_one_sees_ones_own_place_in_the_queue(gate: Gatehouse) -> None:
    """GET /v1/queue: position and state of the caller's own, and nobody else's."""
    held = asyncio.Event()
    gate.upstream.next(*[stall_before_headers(held)] * 3)
    asking = [asyncio.ensure_future(gate.chat()) for _ in range(3)]
    await until(lambda: len(gate.upstream.inference) == 2)
    await until(lambda: len(gate.house.gate.live()) == 3)
    rows = (await gate.get("/v1/queue")).json()
    assert sorted(row["state"] for row in rows) == ["prefill", "prefill", "queued"]
    queued = next(row for row in rows if row["state"] == "queued")
    assert queued["position"] == 1
    _, other = await gate.member("joe@example.org")
    assert (await gate.get("/v1/queue", key=other)).json() == []
    held.set()
    await asyncio.gather(*asking)


async def test_a_full_queue_is_503_with_retry_after_and_costs_nothing(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """The queue's bounds are part of the one admit step; the refusal was never in a window."""
    held = asyncio.Event()
    async with gatehouse(tmp_path, upstream, queue__size=1, queue__per_user=1) as gate:
        upstream.next(*[stall_before_headers(held)] * 3)
        asking = [asyncio.ensure_future(gate.chat()) for _ in range(3)]
        await until(lambda: len(gate.house.gate.live()) == 3)
        refused = await gate.chat()
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        held.set()
        assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3


async def test_waiting_too_long_is_503_queue_timeout(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A request that waited `queue.longest_wait` is refused, recorded as queue_timeout, and gives its place back."""
    held = asyncio.Event()
    async with gatehouse(tmp_path, upstream, queue__longest_wait=0.05) as gate:
        upstream.next(*[stall_before_headers(held)] * 2)
        asking = [asyncio.ensure_future(gate.chat()) for _ in range(2)]
        await until(lambda: len(upstream.inference) == 2)
        late = await gate.chat()
        assert late.status_code == 503
        assert late.json()["code"] == "queue_timeout"
        assert "retry-after" in late.headers
        assert (await gate.audit(late.headers["x-request-id"])).state == "queue_timeout"
        held.set()
        await asyncio.gather(*asking)


async def test_a_slow_client_slows_the_upstream_and_costs_little_memory(gate: Gatehouse) -> None:
    """H3: backpressure both ways; the gate does not swallow what the client does not read."""
    gate.upstream.words = ["x" * 65536] * 400
    body = json.dumps(QUESTION).encode()
    client = await RawClient.connect(gate.port)
    await client.send(
        b"POST /api/chat HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (gate.key.encode(), len(body), body)
    )
    await client.read_head()
    exchange = await until(gate.house.gate.live)
    sizes: list[int] = []

    def settled() -> bool:
        sizes.append(exchange[0].bytes_out)
        return len(sizes) > 20 and sizes[-1] == sizes[-20]

    await until(settled)
    assert exchange[0].bytes_out < 16 * 1024 * 1024, "the gate read on though its client did not"
    client.reset()
    await until(lambda: not gate.house.gate.live())


async def test_a_running_answer_is_set_down_as_it_grows(gate: Gatehouse) -> None:
    """A9: what a client was sent lies in the store, and is shown, before the end; then it is there as a whole."""
    pace = asyncio.Semaphore(2)
    words = ["x" * 70_000, "y" * 70_000, "end"]

    async def paced(turn: Turn) -> None:
        await turn.head()
        for piece in turn.pieces(words):
            await pace.acquire()
            await turn.send(piece)
        await turn.finish()

    gate.upstream.next(paced)
    async with gate.streaming() as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        request_id = answer.headers["x-request-id"]
        shown = await until_shown(gate, request_id)
        assert shown.state is None
        for _ in range(3):
            pace.release()
        rest = [line async for line in lines]
    assert json.loads(rest[-1])["done"] is True
    assert (await gate.audit(request_id)).response == "".join(words)


async def until_shown(gate: Gatehouse, request_id: str) -> AuditExchange:
    """The record of a running exchange, once some of its answer is in the store."""

    async def set_down() -> AuditExchange | None:
        record = await gate.audit(request_id)
        return record if record.response else None

    record = await until(set_down)
    assert isinstance(record, AuditExchange)
    return record
