"""The official Python SDKs of OpenAI and Anthropic at the gate, before the real built-in engine and the real Ollama.

Each test runs over both, and Ollama's own client is in test_e2e_engine.py and test_gate_real_ollama.py. The model is
tiny: that answers come, whole, counted and in the SDK's own classes, is the promise, not what they say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import ollama
import openai
import pydantic
import pytest
import pytest_asyncio

from daemon.engine.install import EngineFiles
from tests.rigs.gatehouse import MODEL, Gatehouse
from tests.rigs.real_gates import BEHIND, real_engine, real_gate
from tests.rigs.real_ollama import RealOllama

# One gate and one event loop for all tests of an engine.
pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION: list[Any] = [{"role": "user", "content": "Say hello."}]
SHORT: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": 5, "temperature": 0, "seed": 7}
# Its SDK names no temperature any more; the gate, and other servers, take one.
COLD = {"temperature": 0}
MESSAGE: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": 5, "extra_body": COLD}


@pytest.fixture(scope="module", params=BEHIND)
def behind(request: pytest.FixtureRequest) -> EngineFiles | RealOllama:
    return real_engine(request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(behind: EngineFiles | RealOllama, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gatehouse]:
    async with real_gate(behind, tmp_path_factory.mktemp("gate")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_openai(gate: Gatehouse) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, timeout=60) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_anthropic(gate: Gatehouse) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=gate.url, auth_token=gate.key, timeout=60) as client:
        yield client


async def test_openais_client_chats(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """Whole, streamed, blocking: one answer, with its counts; recorded."""
    whole = await of_openai.chat.completions.create(**SHORT)
    text = whole.choices[0].message.content
    assert text
    assert (whole.model, whole.choices[0].finish_reason) == (MODEL, "length")
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens > 0, whole.usage.completion_tokens) == (True, 5)
    stream = await of_openai.chat.completions.create(**SHORT, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert len(chunks) > 4
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.key) as blocking:
        raw = await asyncio.to_thread(lambda: blocking.chat.completions.with_raw_response.create(**SHORT))
    assert raw.parse().choices[0].message.content == text
    recorded = await gate.audit(raw.headers["x-request-id"])
    assert (recorded.state, recorded.response, recorded.tokens_out) == ("ok", text, 5)


async def test_every_choice_is_counted(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """`n`, and several prompts, before a server that has them: all of their tokens are charged, streamed or whole."""
    if gate.upstream.kind == "ollama":
        with pytest.raises(openai.BadRequestError, match="more than one choice"):
            await of_openai.chat.completions.create(**SHORT, n=4)
        return
    raw = await of_openai.chat.completions.with_raw_response.create(**SHORT, n=4)
    whole = raw.parse()
    assert whole.usage is not None
    assert (len(whole.choices), whole.usage.completion_tokens) == (4, 20)
    assert (await gate.audit(raw.headers["x-request-id"])).tokens_out == 20
    stream = await of_openai.chat.completions.create(**SHORT, n=4, stream=True, stream_options={"include_usage": True})
    usages = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]
    assert usages == [20]
    recorded = await gate.audit(stream.response.headers["x-request-id"])
    assert (recorded.tokens_in, recorded.tokens_out) == (whole.usage.prompt_tokens, 20)
    prompts = ["One, two, three,", "Red, green,"]
    asked: dict[str, Any] = {"model": MODEL, "prompt": prompts, "max_tokens": 4, "temperature": 0}
    completed = await of_openai.completions.create(**asked)
    assert [bool(choice.text) for choice in completed.choices] == [True, True]
    assert completed.usage is not None
    assert completed.usage.completion_tokens == 8
    parts = await of_openai.completions.create(**asked, stream=True)
    assert {part.choices[0].index async for part in parts} == {0, 1}


async def test_openais_client_gets_what_it_described(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """Structured outputs, by `.parse`, of chat and of responses: the engine keeps to the schema."""

    class Answer(pydantic.BaseModel):
        polite: bool

    asked = SHORT | {"max_tokens": 20}
    parsed = await of_openai.chat.completions.parse(**asked, response_format=Answer)
    assert isinstance(parsed.choices[0].message.parsed, Answer)
    if gate.upstream.kind == "openai":  # slow on the other: once is enough there
        response = await of_openai.responses.parse(
            model=MODEL, input="Say hello.", text_format=Answer, temperature=0, max_output_tokens=20
        )
        assert isinstance(response.output_parsed, Answer)


async def test_openais_client_gets_responses(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """Whole, and by its stream helper, event by event."""
    asked: dict[str, Any] = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 5, "temperature": 0}
    whole = await of_openai.responses.create(**asked)
    assert whole.output_text
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")  # type: ignore[union-attr]
    assert whole.usage is not None
    assert whole.usage.output_tokens == 5
    async with of_openai.responses.stream(**asked) as stream:
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert len(deltas) > 3
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")


async def test_openais_client_completes_embeds_and_lists(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """The rest of what it is used for; embeddings in base64, as the SDK asks for by itself, and plain."""
    completed = await of_openai.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=4, temperature=0)
    assert completed.choices[0].text
    packed = await of_openai.embeddings.create(model=MODEL, input=["one", "two"])
    plain = await of_openai.embeddings.create(model=MODEL, input="one", encoding_format="float")
    assert [each.index for each in packed.data] == [0, 1]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-2)
    assert packed.usage.prompt_tokens > 0
    assert MODEL in [model.id async for model in of_openai.models.list()]
    assert (await of_openai.models.retrieve(MODEL)).id == MODEL


async def test_log_probabilities_where_the_engine_has_them(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """llama.cpp tells them; Ollama 0.9.3 reads over the wish, as it does without the gate."""
    told = await of_openai.chat.completions.create(**SHORT, logprobs=True, top_logprobs=2)
    logprobs = told.choices[0].logprobs
    if gate.upstream.kind == "openai":
        assert logprobs is not None
        assert len(logprobs.content or ()) == 5
        assert len((logprobs.content or [])[0].top_logprobs) == 2
    else:
        assert logprobs is None


async def test_anthropics_client_gets_messages(gate: Gatehouse, of_anthropic: anthropic.AsyncAnthropic) -> None:
    """Whole, by the stream helper, blocking: one answer, with its counts; recorded."""
    whole = await of_anthropic.messages.create(**MESSAGE, system="Be brief.")
    assert whole.content[0].type == "text"
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 5)
    assert whole.usage.input_tokens > 0
    async with of_anthropic.messages.stream(**MESSAGE, system="Be brief.") as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(texts) == whole.content[0].text == final.content[0].text  # type: ignore[union-attr]
    assert len(texts) > 3
    assert final.usage.output_tokens == 5
    assert final.usage.input_tokens > 0
    with anthropic.Anthropic(base_url=gate.url, auth_token=gate.key) as blocking:
        raw = await asyncio.to_thread(lambda: blocking.messages.with_raw_response.create(**MESSAGE))
    recorded = await gate.audit(raw.headers["request-id"])
    assert (recorded.state, recorded.response) == ("ok", raw.parse().content[0].text)  # type: ignore[union-attr]


async def test_anthropics_client_counts_and_lists(gate: Gatehouse, of_anthropic: anthropic.AsyncAnthropic) -> None:
    """count_tokens, and the models by `anthropic-version`."""
    counted = await of_anthropic.messages.count_tokens(model=MODEL, messages=QUESTION)
    assert counted.input_tokens > 0
    assert MODEL in [model.id async for model in await of_anthropic.models.list()]
    assert (await of_anthropic.models.retrieve(MODEL)).display_name == MODEL


async def test_one_conversation_with_three_clients(gate: Gatehouse, of_openai: openai.AsyncOpenAI) -> None:
    """At temperature 0 a model says the same whichever dialect it was asked in."""
    first = (await of_openai.chat.completions.create(**SHORT)).choices[0].message.content
    async with anthropic.AsyncAnthropic(base_url=gate.url, auth_token=gate.key) as client:
        second = (await client.messages.create(**MESSAGE)).content[0]
    async with ollama.AsyncClient(host=gate.url, headers=gate.bearer()) as third:
        options = {"temperature": 0, "num_predict": 5, "seed": 7}
        last = (await third.chat(MODEL, messages=QUESTION, options=options)).message.content
    assert first == second.text == last  # type: ignore[union-attr]
