"""The official SDKs at the gate where a small model could not show it: tools, thinking, refusals, failures, retries.

What the upstream says is scripted (`tests/rigs/spoken.py`), in pieces of a few bytes; everything else is real. What the
SDKs do with a real engine behind: `test_sdk_engines.py`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import anyio
import ollama
import openai
import pytest

from tests.rigs.gatehouse import ADMIN, MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream, Turn
from tests.rigs.spoken import Call, Spoken, streamed_by
from tests.rigs.upstream_behaviours import error_in_stream, reset_after

WEATHER: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
QUESTION: list[Any] = [{"role": "user", "content": "Rain?"}]
TWO_CALLS = Spoken(
    thoughts=("Both ", "towns."),
    calls=(Call("weather", ('{"ci', 'ty":"Zü', 'rich"}'), "call_a"), Call("weather", ('{"city":"Ulm"}',), "call_b")),
    reason="tool_calls",
)
CITIES = ["Zürich", "Ulm"]


@pytest.fixture(params=["ollama", "openai"])
async def gate(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Gatehouse]:
    """A gate before a server of either kind."""
    async with ScriptedUpstream(kind=request.param) as upstream, gatehouse(tmp_path, upstream) as running:
        yield running


@pytest.fixture
async def of_openai(gate: Gatehouse) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client of the gate; its own way to retry is off unless a test turns it on."""
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
        yield client


@pytest.fixture
async def of_anthropic(gate: Gatehouse) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's."""
    async with anthropic.AsyncAnthropic(base_url=gate.url, auth_token=gate.key, max_retries=0) as client:
        yield client


def speaking(spoken: Spoken) -> Behaviour:
    """The answer, eleven bytes at a time."""

    async def behave(turn: Turn) -> None:
        raw = streamed_by(turn.upstream.kind, spoken)
        await turn.head()
        for start in range(0, len(raw), 11):
            await turn.send(raw[start : start + 11])
        await turn.finish()

    return behave


FUNCTION: Any = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}


async def test_openais_client_runs_tools(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """Whole and streamed, two calls at once; their answers go back tied to them, and the end is text."""
    gate.upstream.next(speaking(TWO_CALLS), speaking(TWO_CALLS), speaking(Spoken(texts=("Wet ", "and dry."))))
    asked: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "tools": [FUNCTION]}
    whole = (await of_openai.chat.completions.create(**asked)).choices[0]
    assert whole.finish_reason == "tool_calls"
    calls = whole.message.tool_calls or []
    assert [json.loads(call.function.arguments)["city"] for call in calls] == CITIES
    assert [call.id for call in calls if gate.upstream.kind == "openai"] in ([], ["call_a", "call_b"])
    async with of_openai.chat.completions.stream(**asked) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_completion()
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [json.loads(event.arguments)["city"] for event in done] == CITIES
    message = final.choices[0].message
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls or ()]
    turns = [*QUESTION, message.model_dump(exclude_none=True, exclude={"parsed"}), *answers]
    end = await of_openai.chat.completions.create(model=MODEL, messages=turns, tools=[FUNCTION])
    assert end.choices[0].message.content == "Wet and dry."
    sent = gate.upstream.inference[-1].document["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "tool"]
    assert sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"]


async def test_openais_client_runs_tools_by_responses(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """The same with items; the stream's events are the SDK's own classes."""
    gate.upstream.next(speaking(TWO_CALLS), speaking(TWO_CALLS), speaking(Spoken(texts=("Wet.",))))
    tool: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    asked: dict[str, Any] = {"model": MODEL, "input": "Rain?", "tools": [tool]}
    whole = await of_openai.responses.create(**asked)
    calls = [item for item in whole.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] for call in calls] == CITIES
    async with of_openai.responses.stream(**asked) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds.count("response.function_call_arguments.done") == 2
    assert [json.loads(item.arguments)["city"] for item in final.output if item.type == "function_call"] == CITIES
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    items: Any = [{"role": "user", "content": "Rain?"}, *whole.output, *outputs]
    end = await of_openai.responses.create(model=MODEL, input=items, tools=[tool])
    assert end.output_text == "Wet."
    assert [turn["role"] for turn in gate.upstream.inference[-1].document["messages"]][-2:] == ["tool", "tool"]


async def test_anthropics_client_runs_tools(gate: Gatehouse, of_anthropic: anthropic.AsyncAnthropic) -> None:
    """Blocks with ids, whole and by the stream helper; the tools' answers are blocks of the user's next message."""
    gate.upstream.next(speaking(TWO_CALLS), speaking(TWO_CALLS), speaking(Spoken(texts=("Wet.",))))
    tool: Any = {"name": "weather", "input_schema": WEATHER}
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 99, "messages": QUESTION, "tools": [tool]}
    whole = await of_anthropic.messages.create(**asked)
    assert whole.stop_reason == "tool_use"
    uses = [block for block in whole.content if block.type == "tool_use"]
    assert [use.input["city"] for use in uses] == CITIES
    async with of_anthropic.messages.stream(**asked) as stream:
        parts = [event.partial_json async for event in stream if event.type == "input_json"]
        final = await stream.get_final_message()
    assert "".join(parts).replace(" ", "") == '{"city":"Zürich"}{"city":"Ulm"}'
    assert [block.input["city"] for block in final.content if block.type == "tool_use"] == CITIES
    assert [block.thinking for block in final.content if block.type == "thinking"] == ["Both towns."]
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"} for use in uses]
    turns: Any = [*QUESTION, {"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
    end = await of_anthropic.messages.create(model=MODEL, max_tokens=99, messages=turns, tools=[tool])
    assert (end.stop_reason, end.content[0].text) == ("end_turn", "Wet.")  # type: ignore[union-attr]
    sent = gate.upstream.inference[-1].document["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "tool"]
    assert sent[3]["tool_call_id"] == uses[1].id


async def test_ollamas_client_runs_tools_and_shows_thinking(gate: Gatehouse) -> None:
    """Calls come whole, their arguments as an object."""
    gate.upstream.next(speaking(TWO_CALLS), speaking(TWO_CALLS))
    async with ollama.AsyncClient(host=gate.url, headers=gate.bearer()) as client:
        whole = await client.chat(MODEL, messages=QUESTION, tools=[FUNCTION], think=True)
        parts = [part async for part in await client.chat(MODEL, messages=QUESTION, tools=[FUNCTION], stream=True)]
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    for told in (whole.message.tool_calls or [], calls):
        assert [call.function.arguments["city"] for call in told] == CITIES
    assert whole.message.thinking == "Both towns."
    assert "".join(part.message.thinking or "" for part in parts) == "Both towns."


async def test_openais_errors_are_its_classes(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """By status; with the field that is wrong and the request's id, by which it is found in the audit."""
    chat = of_openai.chat.completions
    with pytest.raises(openai.NotFoundError) as missing:
        await chat.create(model="nobody", messages=QUESTION)
    assert (missing.value.code, missing.value.request_id is not None) == ("model_not_found", True)
    with pytest.raises(openai.BadRequestError) as wrong:
        await chat.create(model=MODEL, messages=[{"role": "user", "content": 5}])  # type: ignore[typeddict-item]
    assert wrong.value.param == "messages[0].content"
    with pytest.raises(openai.AuthenticationError):
        await of_openai.with_options(api_key="glk_no_body").models.list()
    gate.upstream.next(reset_after(0))
    with pytest.raises(openai.InternalServerError):
        await chat.create(model=MODEL, messages=QUESTION)


@pytest.mark.parametrize("fails", [reset_after(2), error_in_stream(2)], ids=["reset", "error"])
async def test_a_stream_that_fails_is_raised_by_every_client(gate: Gatehouse, fails: Behaviour) -> None:
    """None of them takes it for an answer."""
    gate.upstream.next(fails, fails, fails, fails)
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0) as client:
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
                pass
        told = [event async for event in await client.responses.create(model=MODEL, input="x", stream=True)]
        assert told[-1].type == "error", "the SDK hands this event on"
    async with anthropic.AsyncAnthropic(base_url=gate.url, auth_token=gate.key, max_retries=0) as other:
        with pytest.raises(anthropic.APIError):
            async with other.messages.stream(model=MODEL, max_tokens=9, messages=QUESTION) as stream:
                await stream.get_final_message()
    async with ollama.AsyncClient(host=gate.url, headers=gate.bearer()) as third:
        with pytest.raises(ollama.ResponseError):
            async for _ in await third.chat(MODEL, messages=QUESTION, stream=True):
                pass


async def test_anthropics_errors_are_its_classes(gate: Gatehouse, of_anthropic: anthropic.AsyncAnthropic) -> None:
    """By status; the body is Anthropic's."""
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 9, "messages": QUESTION}
    with pytest.raises(anthropic.NotFoundError) as missing:
        await of_anthropic.messages.create(**asked | {"model": "nobody"})
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index,call-overload]
    assert missing.value.request_id
    with pytest.raises(anthropic.BadRequestError):
        await of_anthropic.messages.create(**asked | {"messages": []})
    with pytest.raises(anthropic.AuthenticationError):
        await of_anthropic.with_options(auth_token="glk_no_body").models.list()
    await gate.house.limits.set(ADMIN, "default", {"requests_per_minute": 1})
    await of_anthropic.messages.create(**asked)
    with pytest.raises(anthropic.RateLimitError) as full:
        await of_anthropic.messages.create(**asked)
    assert int(full.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_a_429_is_retried_after_the_time_that_it_says(
    gate: Gatehouse, sdk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK waits what `Retry-After` says, asks again, and gets its answer."""
    await gate.house.limits.set(ADMIN, "default", {"requests_per_minute": 1})
    assert (await gate.chat()).status_code == 200
    refused = await gate.chat()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await gate.house.limits.set(ADMIN, "default", {"requests_per_minute": None})

    monkeypatch.setattr(anyio, "sleep", sleep)
    if sdk == "openai":
        async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key) as client:
            answer = await client.chat.completions.create(model=MODEL, messages=QUESTION)
            assert answer.choices[0].message.content == "Why not?"
    else:
        async with anthropic.AsyncAnthropic(base_url=gate.url, auth_token=gate.key) as other:
            said = await other.messages.create(model=MODEL, max_tokens=9, messages=QUESTION)
            assert said.content[0].text == "Why not?"  # type: ignore[union-attr]
    assert len(slept) == 1
    assert 0 <= int(refused.headers["retry-after"]) - slept[0] <= 1


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


async def test_images_reach_the_server_in_its_own_form(
    gate: Gatehouse, of_openai: openai.AsyncOpenAI, of_anthropic: anthropic.AsyncAnthropic
) -> None:
    """From each client's own form; what only an address is, Ollama cannot take and the client is told."""
    url = f"data:image/png;base64,{PIXEL}"
    parts: Any = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    await of_openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    items: Any = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": url, "detail": "auto"}]
    await of_openai.responses.create(model=MODEL, input=[{"role": "user", "content": items}])
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    blocks: Any = [{"type": "text", "text": "What?"}, {"type": "image", "source": source}]
    await of_anthropic.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": blocks}])
    async with ollama.AsyncClient(host=gate.url, headers=gate.bearer()) as client:
        await client.chat(MODEL, messages=[{"role": "user", "content": "What?", "images": [PIXEL]}])
    for seen in gate.upstream.inference:
        message = seen.document["messages"][0]
        if gate.upstream.kind == "ollama":
            assert (message["content"], message["images"]) == ("What?", [PIXEL])
        else:
            assert [part["type"] for part in message["content"]] == ["text", "image_url"]
            assert message["content"][1]["image_url"]["url"] == url
    if gate.upstream.kind == "ollama":
        far: Any = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]
        with pytest.raises(openai.BadRequestError, match="an image by its address"):
            await of_openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": far}])
