"""OpenAI's responses at the gate: items in, items out, over a server of either kind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.gatehouse import MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.upstream_behaviours import error_in_stream, reset_after, without_end

RESPONSES = "/v1/responses"
QUESTION = {"model": MODEL, "input": "Why?"}


@pytest.fixture(params=["ollama", "openai"])
async def gate(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gatehouse]:
    """A gate before a server of either kind."""
    async with ScriptedUpstream(kind=request.param) as upstream, gatehouse(tmp_path, upstream) as running:
        yield running


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream; each is named as its type says."""
    result = []
    for block in text.split("\n\n"):
        if block:
            name, data = block.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            result.append(event)
    return result


async def test_a_response_is_answered_and_recorded(gate: Gatehouse) -> None:
    """One message item with its text, the usage of the server."""
    answer = await gate.post(RESPONSES, QUESTION)
    said = answer.json()
    assert (answer.status_code, said["object"], said["status"]) == (200, "response", "completed")
    assert [(item["type"], item["content"][0]["text"]) for item in said["output"]] == [("message", "Why not?")]
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"]) == (1, 3)
    recorded = await gate.audit(answer.headers["x-request-id"])
    assert (recorded.response, recorded.prompt) == ("Why not?", "Why?")


async def test_a_stream_tells_each_step_and_numbers_it(gate: Gatehouse) -> None:
    """From `response.created` to `response.completed`, which carries the whole."""
    answer = await gate.post(RESPONSES, QUESTION | {"stream": True})
    told = events(answer.text)
    kinds = [event["type"] for event in told]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta") == "Why not?"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Why not?"
    assert (await gate.audit(answer.headers["x-request-id"])).response == "Why not?"


async def test_a_conversation_of_items_reaches_the_server(gate: Gatehouse) -> None:
    """Instructions, messages, a call and its output, in order and tied by their id."""
    call = {"type": "function_call", "call_id": "c1", "name": "time", "arguments": '{"zone":"UTC"}'}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Time?"}]},
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "12:00"},
    ]
    tools = [{"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}}]
    answer = await gate.post(RESPONSES, {"model": MODEL, "instructions": "Short.", "input": items, "tools": tools})
    assert answer.status_code == 200, answer.text
    messages = gate.upstream.inference[-1].document["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[2]["tool_calls"][0]["function"]["name"] == "time"
    assert messages[3]["tool_call_id"] == "c1"
    recorded = await gate.audit(answer.headers["x-request-id"])
    assert recorded.prompt == "Time?"
    assert recorded.messages["input"] == items


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": []},
    ],
)
async def test_what_the_gate_cannot_keep_is_refused_by_name(gate: Gatehouse, fields: dict[str, Any]) -> None:
    """A clear 400, never dropped; nothing reaches the server."""
    answer = await gate.post(RESPONSES, QUESTION | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"]
    assert gate.upstream.inference == []


@pytest.mark.parametrize("fails", [reset_after(2), without_end(2), error_in_stream(2)], ids=["reset", "cut", "error"])
async def test_a_stream_that_fails_is_an_explicit_error_and_not_completed(gate: Gatehouse, fails: Any) -> None:
    """An `error` event last: the SDK raises it."""
    gate.upstream.next(fails)
    told = events((await gate.post(RESPONSES, QUESTION | {"stream": True})).text)
    assert told[-1]["type"] == "error"
    assert "response.completed" not in [event["type"] for event in told]
