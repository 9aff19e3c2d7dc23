"""OpenAI's clients at the gate, before a server of either kind: they see what OpenAI would have said."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rigs.gatehouse import ADMIN, MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import (
    error,
    error_in_stream,
    garbled_line_after,
    reset_after,
    saying,
    stall_after,
    without_end,
)

CHAT = "/v1/chat/completions"
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}]}


@pytest.fixture(params=["ollama", "openai"])
async def gate(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gatehouse]:
    """A gate before a server of either kind."""
    async with ScriptedUpstream(kind=request.param) as upstream, gatehouse(tmp_path, upstream) as running:
        yield running


def events(answer: httpx.Response | bytes) -> list[Any]:
    """The events of a stream; `[DONE]` as it is."""
    raw = answer if isinstance(answer, bytes) else answer.content
    texts = [line.removeprefix("data: ") for line in raw.decode().split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def text_of(chunks: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        if chunk != "[DONE]"
        for choice in chunk.get("choices", ())
    )


async def test_a_chat_completion_is_answered_in_openais_shape(gate: Gatehouse) -> None:
    """One object, with the usage that the server counted; recorded with its text."""
    answer = await gate.post(CHAT, QUESTION)
    said = answer.json()
    assert answer.status_code == 200
    assert said["object"] == "chat.completion"
    assert said["model"] == MODEL
    assert said["choices"][0]["message"]["content"] == "Why not?"
    assert said["choices"][0]["finish_reason"] == "stop"
    assert said["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    recorded = await gate.audit(answer.headers["x-request-id"])
    assert (recorded.state, recorded.response, recorded.tokens_in, recorded.tokens_out) == ("ok", "Why not?", 1, 3)
    assert recorded.route == CHAT


async def test_a_stream_ends_with_done_and_tells_its_usage_only_when_asked(gate: Gatehouse) -> None:
    """`stream_options.include_usage`: one more chunk without a choice before `[DONE]`; recorded either way."""
    plain = await gate.post(CHAT, QUESTION | {"stream": True})
    assert plain.headers["content-type"].startswith("text/event-stream")
    chunks = events(plain)
    assert (text_of(chunks), chunks[-1]) == ("Why not?", "[DONE]")
    assert not any(chunk.get("usage") for chunk in chunks[:-1])
    assert [choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"]][-1] == "stop"
    asked = events(await gate.post(CHAT, QUESTION | {"stream": True, "stream_options": {"include_usage": True}}))
    assert asked[-2]["choices"] == []
    assert asked[-2]["usage"]["total_tokens"] == 4
    for row in await gate.records():
        assert (row.state, row.tokens_in, row.tokens_out) == ("ok", 1, 3)


async def test_nothing_that_is_not_understood_is_dropped_in_silence(gate: Gatehouse) -> None:
    """Relayed as it is, or else: what would have changed the answer is refused by name, the rest is named."""
    odd = QUESTION | {"min_tokens": 0, "chat_id": "7", "cross\r\nX-Other: 1": 1, "background": None}
    answer = await gate.post(CHAT, odd)
    assert answer.status_code == 200
    refused = await gate.post(CHAT, QUESTION | {"guided_choice": ["yes", "no"]})
    if gate.upstream.kind == "openai":
        assert gate.upstream.requests[-2].body.items() >= odd.items()
        assert "x-gatelodge-ignored" not in answer.headers and refused.status_code == 200
    else:
        assert answer.headers["x-gatelodge-ignored"] == "min_tokens, chat_id, +1"
        assert "x-other" not in answer.headers
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "guided_choice")


async def test_completions_are_served(gate: Gatehouse) -> None:
    """The older route, streamed and not."""
    asked = {"model": MODEL, "prompt": "Why?"}
    whole = (await gate.post("/v1/completions", asked)).json()
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "Why not?")
    chunks = events(await gate.post("/v1/completions", asked | {"stream": True}))
    assert "".join(choice["text"] for chunk in chunks[:-1] for choice in chunk["choices"]) == "Why not?"
    assert chunks[-1] == "[DONE]"


async def test_embeddings_come_as_numbers_or_as_base64(gate: Gatehouse) -> None:
    """The JavaScript SDK asks for base64 by itself."""
    plain = (await gate.post("/v1/embeddings", {"model": MODEL, "input": ["a", "b c"]})).json()
    assert [each["index"] for each in plain["data"]] == [0, 1]
    assert plain["usage"]["prompt_tokens"] == 3
    packed = (await gate.post("/v1/embeddings", {"model": MODEL, "input": "a", "encoding_format": "base64"})).json()
    vector = packed["data"][0]["embedding"]
    if isinstance(vector, str):
        numbers = struct.unpack(f"<{len(plain['data'][0]['embedding'])}f", base64.b64decode(vector))
        assert list(numbers) == pytest.approx(plain["data"][0]["embedding"], rel=1e-6)


async def test_models_are_listed_and_looked_up(gate: Gatehouse) -> None:
    """What the caller may use, in OpenAI's form; a name that a key is not for is not there."""
    listed = (await gate.get("/v1/models")).json()
    assert [(each["id"], each["object"]) for each in listed["data"]] == [(MODEL, "model")]
    assert (await gate.get(f"/v1/models/{MODEL}")).json()["id"] == MODEL
    missing = await gate.get("/v1/models/nobody")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
    _, other = await gate.member("ben@example.org", models=("llama*",))
    assert (await gate.get("/v1/models", key=other)).json()["data"] == []
    assert (await gate.get(f"/v1/models/{MODEL}", key=other)).status_code in (403, 404)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "invalid_request_error"),
        (b'{"model":"m","model":"n"}', 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": "x"}]}, 400, "invalid_request_error"),
        (QUESTION | {"messages": [{"role": "user", "content": 5}]}, 400, "invalid_request_error"),
        (QUESTION | {"model": "nobody"}, 404, "invalid_request_error"),
    ],
)
async def test_errors_are_objects_as_openai_words_them(gate: Gatehouse, body: Any, status: int, kind: str) -> None:
    """`error.message`, `type`, `param`, `code`; nothing reaches the upstream."""
    answer = await gate.post(CHAT, body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == kind
    assert gate.upstream.inference == []


async def test_without_a_credential_the_refusal_is_openais_too(gate: Gatehouse) -> None:
    """And carries the challenge."""
    answer = await gate.http.post(gate.url + CHAT, json=QUESTION)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_full_window_is_a_429_with_its_retry_after(gate: Gatehouse) -> None:
    """The SDKs wait by `Retry-After`; the error says which limit it was."""
    await gate.house.limits.set(ADMIN, "default", {"requests_per_minute": 1})
    assert (await gate.post(CHAT, QUESTION)).status_code == 200
    refused = await gate.post(CHAT, QUESTION)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("fails", [reset_after(2), without_end(2), error_in_stream(2)], ids=["reset", "cut", "error"])
async def test_a_stream_that_fails_is_an_explicit_error_and_no_end(gate: Gatehouse, fails: Any) -> None:
    """An `error` event last, never `[DONE]`: the SDKs raise it."""
    gate.upstream.next(fails)
    answer = await gate.post(CHAT, QUESTION | {"stream": True})
    last = events(answer)[-1]
    assert last["error"]["message"]
    assert b"[DONE]" not in answer.content
    assert (await gate.records())[0].state == "upstream_error"


async def test_an_upstreams_own_error_keeps_its_words(gate: Gatehouse) -> None:
    """In OpenAI's shape, whatever the upstream's was."""
    body = {"error": "prompt too long"} if gate.upstream.kind == "ollama" else {"error": {"message": "prompt too long"}}
    gate.upstream.next(error(400, body))
    answer = await gate.post(CHAT, QUESTION)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "prompt too long"


@pytest.mark.parametrize("route", [CHAT, "/v1/responses"])
async def test_an_upstreams_own_error_keeps_what_it_is(gate: Gatehouse, route: str) -> None:
    """The type, code and param of a server whose errors are of the same dialect; our own words else. The status is
    ours in either case, and a key that the gate showed and the server refused is not the client's matter."""
    told = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
    alike = gate.upstream.kind == "openai"
    asked = QUESTION if route == CHAT else {"model": MODEL, "input": "Why?"}
    gate.upstream.next(error(400, {"error": told | {"param": "messages"}}))
    answer = await gate.post(route, asked)
    said = answer.json()["error"]
    assert (answer.status_code, said["type"]) == (400, "invalid_request_error")
    expected = ("context_length_exceeded", "messages") if alike else ("upstream_error", None)
    assert (said["code"], said["param"]) == expected
    gate.upstream.next(error(429, {"error": {"message": "x", "type": "insufficient_quota", "code": 429}}))
    answer = await gate.post(route, asked)
    said = answer.json()["error"]
    assert (answer.status_code, said["code"]) == (503, "upstream_error")
    assert said["type"] == ("insufficient_quota" if alike else "server_error")
    gate.upstream.next(
        error(401, {"error": {"message": "x", "type": "authentication_error", "code": "invalid_api_key"}})
    )
    answer = await gate.post(route, asked)
    said = answer.json()["error"]
    assert (answer.status_code, said["type"], said["code"]) == (502, "server_error", "upstream_error")
    if alike and route == CHAT:
        failing = {"message": "x", "type": "overloaded", "code": "engine_overloaded", "param": "model"}
        gate.upstream.next(garbled_line_after(2, b"data: " + json.dumps({"error": failing}).encode() + b"\n\n"))
        answer = await gate.post(CHAT, QUESTION | {"stream": True})
        assert events(answer)[-1]["error"] == failing


async def test_a_client_that_leaves_stops_the_upstream(gate: Gatehouse) -> None:
    """In mid-stream, as in Ollama's dialect."""
    gate.upstream.next(stall_after(1, asyncio.Event()))
    async with gate.streaming(CHAT, QUESTION | {"stream": True}) as response:
        async for _ in response.aiter_raw():
            break
    await asyncio.wait_for(gate.upstream.inference[-1].client_left.wait(), 5)
    await until(lambda: not gate.house.gate.live())
    assert (await gate.records())[0].state == "client_left"


async def test_a_conversation_stores_each_message_once(gate: Gatehouse) -> None:
    """The answer's message, sent back with the next turn, is the one that is stored already."""
    gate.upstream.next(saying("Because."))
    await gate.post(CHAT, QUESTION)
    turns = [
        *QUESTION["messages"],
        {"role": "assistant", "content": "Because."},
        {"role": "user", "content": "Really?"},
    ]
    await gate.post(CHAT, QUESTION | {"messages": turns})
    parts = await gate.house.database.read(
        lambda conn: conn.execute("SELECT COUNT(*) FROM parts WHERE size > 20").fetchone()[0]
    )
    assert parts <= 8
