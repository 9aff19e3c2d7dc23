"""Anthropic's clients at the gate, before a server of another kind: they see what Anthropic would have said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rigs.gatehouse import MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.upstream_behaviours import error, error_in_stream, reset_after, without_end

MESSAGES = "/v1/messages"
QUESTION = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Why?"}]}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture(params=["ollama", "openai"])
async def gate(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gatehouse]:
    """A gate before a server of either kind."""
    async with ScriptedUpstream(kind=request.param) as upstream, gatehouse(tmp_path, upstream) as running:
        yield running


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream; each is named as its type says."""
    result = []
    for block in answer.text.split("\n\n"):
        if block:
            name, data = block.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            result.append(event)
    return result


async def test_a_message_is_answered_in_anthropics_shape(gate: Gatehouse) -> None:
    """One message of blocks, with the counts of the server; `request-id` as its SDK looks for it; recorded."""
    answer = await gate.post(MESSAGES, QUESTION)
    said = answer.json()
    assert answer.status_code == 200
    assert (said["type"], said["role"], said["model"]) == ("message", "assistant", MODEL)
    assert said["content"] == [{"type": "text", "text": "Why not?"}]
    assert (said["stop_reason"], said["stop_sequence"]) == ("end_turn", None)
    assert said["usage"] == {"input_tokens": 1, "output_tokens": 3}
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    recorded = await gate.audit(answer.headers["x-request-id"])
    assert (recorded.state, recorded.response, recorded.tokens_in, recorded.tokens_out) == ("ok", "Why not?", 1, 3)


async def test_a_stream_is_a_message_in_events(gate: Gatehouse) -> None:
    """Start, blocks, the counts and the reason, stop: in this order."""
    answer = await gate.post(MESSAGES, QUESTION | {"stream": True})
    told = events(answer)
    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event["delta"]["text"] for event in told if event["type"] == "content_block_delta") == "Why not?"
    assert told[-2]["usage"]["output_tokens"] == 3
    assert told[-2]["delta"]["stop_reason"] == "end_turn"
    assert (await gate.audit(answer.headers["x-request-id"])).response == "Why not?"


async def test_the_api_key_header_of_its_sdk_counts(gate: Gatehouse) -> None:
    """`X-Api-Key`, as the older SDK sends it."""
    answer = await gate.http.post(gate.url + MESSAGES, json=QUESTION, headers={"x-api-key": gate.key} | VERSION)
    assert answer.status_code == 200


async def test_errors_are_objects_as_anthropic_words_them(gate: Gatehouse) -> None:
    """`type: error`, with a kind for each status, and the request id."""
    for body, status, kind in (
        ({"model": MODEL, "messages": QUESTION["messages"]}, 400, "invalid_request_error"),
        (QUESTION | {"messages": []}, 400, "invalid_request_error"),
        (QUESTION | {"model": "nobody"}, 404, "not_found_error"),
        (b"{", 400, "invalid_request_error"),
    ):
        answer = await gate.post(MESSAGES, body)
        said = answer.json()
        assert answer.status_code == status
        assert (said["type"], said["error"]["type"]) == ("error", kind)
        assert said["request_id"] == answer.headers["request-id"]
    refused = await gate.http.post(gate.url + MESSAGES, json=QUESTION)
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    assert gate.upstream.inference == []


@pytest.mark.parametrize("fails", [reset_after(2), without_end(2), error_in_stream(2)], ids=["reset", "cut", "error"])
async def test_a_stream_that_fails_is_an_explicit_error_and_no_end(gate: Gatehouse, fails: Any) -> None:
    """An `error` event last, never `message_stop`: the SDK raises it."""
    gate.upstream.next(fails)
    answer = await gate.post(MESSAGES, QUESTION | {"stream": True})
    told = events(answer)
    assert told[-1]["type"] == "error"
    assert "message_stop" not in [event["type"] for event in told]
    assert (await gate.records())[0].state == "upstream_error"


async def test_an_upstreams_own_error_keeps_its_words(gate: Gatehouse) -> None:
    """In Anthropic's shape, whatever the upstream's was."""
    gate.upstream.next(error(400, {"error": {"message": "prompt too long"}}))
    answer = await gate.post(MESSAGES, QUESTION)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "prompt too long")


async def test_models_are_listed_for_its_clients(gate: Gatehouse) -> None:
    """Told apart by the version header, at the path that OpenAI's clients use too."""
    listed = (await gate.get("/v1/models", headers=VERSION)).json()
    assert [(each["type"], each["id"]) for each in listed["data"]] == [("model", MODEL)]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, MODEL, MODEL)
    assert (await gate.get(f"/v1/models/{MODEL}", headers=VERSION)).json()["display_name"] == MODEL
    missing = await gate.get("/v1/models/nobody", headers=VERSION)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")


async def test_tokens_are_counted_or_estimated_aloud(gate: Gatehouse) -> None:
    """Costs nothing of the windows; an estimate says that it is one."""
    body = {key: value for key, value in QUESTION.items() if key != "max_tokens"}
    answer = await gate.post(f"{MESSAGES}/count_tokens", body)
    assert answer.status_code == 200
    assert answer.json()["input_tokens"] >= 1
    assert answer.headers["x-gatelodge-estimate"] == "true"
    assert gate.upstream.inference == []


async def test_betas_reach_a_server_of_the_same_dialect_and_no_other(gate: Gatehouse, tmp_path: Path) -> None:
    """The header, `?beta=true` and the fields, as Claude Code sends them; elsewhere the fields are named and left."""
    asked = QUESTION | {"context_management": {"edits": []}}
    betas = VERSION | {"anthropic-beta": "claude-code-20250219, context-management-2025-06-27"}
    answer = await gate.post(f"{MESSAGES}?beta=true", asked, headers=betas)
    assert (answer.status_code, answer.headers["x-gatelodge-ignored"]) == (200, "context_management")
    async with ScriptedUpstream(kind="anthropic") as upstream, gatehouse(tmp_path / "same", upstream) as same:
        answer = await same.post(f"{MESSAGES}?beta=true", asked, headers=betas)
        seen = upstream.inference[-1]
        assert answer.status_code == 200 and "x-gatelodge-ignored" not in answer.headers
        assert (seen.query, seen.headers["anthropic-version"]) == ("beta=true", VERSION["anthropic-version"])
        assert seen.headers["anthropic-beta"] == "claude-code-20250219,context-management-2025-06-27"
        assert seen.body["context_management"] == {"edits": []}
        refused = await same.post(MESSAGES, QUESTION, headers={"anthropic-beta": "a b"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_header")
