"""The scripted upstream is what it says: other tests lean on it, so it is tried with an independent client (httpx)."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream
from tests.rigs.until import until

CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "why is that"}]}


async def test_a_chat_streams_by_default_and_its_end_carries_usage() -> None:
    """Ollama's NDJSON: a line a word, then done with the counts."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        answer = await client.post("/api/chat", json=CHAT)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert "".join(line["message"]["content"] for line in lines) == "Why not?"
        assert (lines[-1]["done"], lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (True, 3, 3)
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert upstream.inference[0].document == CHAT


async def test_an_openai_stream_tells_usage_only_when_asked_and_ends_with_done() -> None:
    """SSE with `[DONE]`; the usage chunk has no choices."""
    async with ScriptedUpstream(kind="openai") as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        plain = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        counted = await client.post(
            "/v1/chat/completions", json={**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        )
        assert plain.text.endswith("data: [DONE]\n\n") and '"usage"' not in plain.text
        assert '"choices":[],"usage":{"prompt_tokens":3' in counted.text
        assert (await client.get("/api/tags")).status_code == 404


async def test_scripts_are_used_up_by_inference_in_order_and_by_nothing_else() -> None:
    """`next` means the next inference request; looking at the models does not use it up."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        upstream.next(behaviours.error(503, "busy"), behaviours.saying("yes"))
        assert (await client.get("/api/tags")).status_code == 200
        refused = await client.post("/api/chat", json=CHAT)
        assert (refused.status_code, refused.json()) == (503, {"error": "busy"})
        assert (await client.post("/api/generate", json={"model": "m", "prompt": "x", "stream": False})).json()[
            "response"
        ] == "yes"


async def test_it_notices_at_once_that_the_client_left() -> None:
    """A departure in mid-stream sets `client_left`, and stops the answer as a real server would."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        upstream.next(behaviours.stall_after(1, asyncio.Event()))
        async with client.stream("POST", "/api/chat", json=CHAT) as answer:
            await anext(answer.aiter_raw())
            assert upstream.running == 1
        await until(upstream.inference[0].client_left.is_set)
        await until(lambda: upstream.running == 0)


async def test_seats_bound_what_runs_at_once() -> None:
    """Like OLLAMA_NUM_PARALLEL: further requests wait with their headers withheld."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        upstream.seats = asyncio.Semaphore(2)
        answers = await asyncio.gather(*(client.post("/api/chat", json=CHAT) for _ in range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6
        assert upstream.most_running <= 2


@pytest.mark.parametrize(
    "behaviour",
    [
        behaviours.reset_before_headers,
        behaviours.close_before_headers,
        behaviours.reset_after(1),
        behaviours.half_close_after(1),
        behaviours.close_after(2),
        behaviours.garble(),
        behaviours.garble_after(1),
        behaviours.wrong_length(+10),
        behaviours.endless_headers,
    ],
)
async def test_what_is_broken_is_broken_for_any_client(behaviour: Behaviour) -> None:
    """Each of these is a transport error to a client that checks."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        upstream.next(behaviour)
        with pytest.raises(httpx.TransportError):
            await client.post("/api/chat", json=CHAT)


async def test_dripping_is_slow_but_right() -> None:
    """Byte by byte, and still the right answer."""
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        upstream.next(behaviours.drip)
        answer = await client.post("/api/chat", json=CHAT)
        assert json.loads(answer.text.splitlines()[-1])["done"] is True
