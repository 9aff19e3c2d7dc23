"""Requests of every client over every kind of upstream: all of what was asked, or a clear 400, and never a crash."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import BadRequest
from daemon.dialects.anthropic_asks import KEYS, read_count, read_messages
from daemon.dialects.asks import CHAT_KEYS, GENERATE_KEYS, Ask, Shape, read_chat, read_generate
from daemon.dialects.openai_asks import (
    CHAT_KEYS as OPENAI_KEYS,
)
from daemon.dialects.openai_asks import (
    COMPLETION_KEYS,
    RESPONSE_KEYS,
    read_chat_completion,
    read_completion,
    read_response,
)
from daemon.dialects.pairs import translator_for
from tests.rigs.feeding import SetClock, carried
from tests.rigs.spoken import CLIENTS, SERVERS, asked_by

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}}
NESTED: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats(-1, 2) | st.text(max_size=4)
    | st.sampled_from(["user", "assistant", "tool", "function", "text", "image_url", "image", "tool_use", "tool_result",
                       "thinking", "json_schema", "enabled", "auto", "data:image/png;base64,AA=="]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "type", "text", "name", "function", "arguments", "parameters", "tool_calls",
                         "id", "tool_use_id", "input", "source", "data", "url", "image_url", "budget_tokens", "schema",
                         "json_schema", "effort", "output", "call_id", "summary", "input_schema", "format", "images"]),
        inner, max_size=5),
    max_leaves=10,
)  # fmt: skip
READERS: dict[str, tuple[Any, frozenset[str], dict[str, Any]]] = {
    "ollama chat": (read_chat, CHAT_KEYS, {"messages": [{"role": "user", "content": "x"}]}),
    "ollama generate": (read_generate, GENERATE_KEYS, {"prompt": "x"}),
    "openai chat": (read_chat_completion, OPENAI_KEYS, {"messages": [{"role": "user", "content": "x"}]}),
    "openai completion": (read_completion, COMPLETION_KEYS, {"prompt": "x"}),
    "openai response": (read_response, RESPONSE_KEYS, {"input": "x"}),
    "anthropic": (read_messages, KEYS, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
    "anthropic count": (read_count, KEYS, {"messages": [{"role": "user", "content": "x"}]}),
}


@given(data=st.data(), reader=st.sampled_from(list(READERS)), server=st.sampled_from(SERVERS))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_request_is_a_crash(data: st.DataObject, reader: str, server: str):
    """Any JSON in any field: a request for the upstream, or BadRequest."""
    read, known, least = READERS[reader]
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(known - {"model"})), NESTED, max_size=3))
    document = {"model": "m"} | least | changed
    try:
        ask = read(json.dumps(document).encode())
        translator = translator_for(ask, server, SetClock())
    except BadRequest as refused:
        assert refused.message
        return
    body = translator.body("served")
    assert not body or json.loads(body)["model"] == "served"


@given(junk=NESTED | st.binary(max_size=20), reader=st.sampled_from(list(READERS)))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_is_a_crash(junk: Any, reader: str):
    """Nor what is no request at all."""
    read, _, _ = READERS[reader]
    try:
        read(junk if isinstance(junk, bytes) else json.dumps(junk).encode())
    except BadRequest as refused:
        assert refused.message


def sent(ask: Ask, server: str) -> Any:
    return json.loads(translator_for(ask, server, SetClock()).body("served"))


TOOL = {"name": "f", "description": "d", "parameters": SCHEMA}
WISHES: dict[str, dict[str, dict[str, Any]]] = {
    "tools": {
        "ollama": {"tools": [{"type": "function", "function": TOOL}]},
        "openai": {"tools": [{"type": "function", "function": TOOL}]},
        "responses": {"tools": [{"type": "function", **TOOL}]},
        "anthropic": {"tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}]},
    },
    "format": {
        "ollama": {"format": SCHEMA},
        "openai": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        "responses": {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
        "anthropic": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    },
    "image": {
        "ollama": {"messages": [{"role": "user", "content": "x", "images": [PNG]}]},
        "openai": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    ],
                }
            ]
        },
        "responses": {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "x"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                    ],
                }
            ]
        },
        "anthropic": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                }
            ]
        },
    },
    "think": {
        "ollama": {"think": True},
        "openai": {"chat_template_kwargs": {"enable_thinking": True}},
        "responses": {"reasoning": {"effort": "medium"}},
        "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    },
}


def granted(wish: str, server: str, request: dict[str, Any]) -> bool:
    """Whether the upstream is asked for it, in its own dialect."""
    match wish, server:
        case "tools", "anthropic":
            return bool(request["tools"] == [{"name": "f", "description": "d", "input_schema": SCHEMA}])
        case "tools", _:
            return bool(request["tools"][0]["function"] == TOOL)
        case "format", "ollama":
            return bool(request["format"] == SCHEMA)
        case "format", "openai":
            return bool(request["response_format"]["json_schema"]["schema"] == SCHEMA)
        case "format", _:
            return bool(request["output_config"]["format"]["schema"] == SCHEMA)
        case "image", "ollama":
            return bool(request["messages"][0] == {"role": "user", "content": "x", "images": [PNG]})
        case "image", "openai":
            url = f"data:image/png;base64,{PNG}"
            return bool(request["messages"][0]["content"][1]["image_url"]["url"] == url)
        case "image", _:
            return bool(request["messages"][0]["content"][1]["source"]["data"] == PNG)
        case "think", "ollama":
            return request["think"] in (True, "medium")
        case "think", "openai":
            switch = request.get("chat_template_kwargs") == {"enable_thinking": True}
            return switch or request.get("reasoning_effort") == "medium"
        case _:
            return bool(request["thinking"]["budget_tokens"] >= 1024 and request["max_tokens"] > 2000)


@pytest.mark.parametrize("wish", list(WISHES))
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_was_asked_reaches_every_kind_of_upstream(client: str, server: str, wish: str):
    """Tools, a schema, an image, thinking: from each client's form into each upstream's."""
    longest = {"max_tokens": 4000} if (client, wish) == ("anthropic", "think") else {}
    ask = asked_by(client, stream=False, **WISHES[wish][client], **longest)
    request = sent(ask, server)
    assert granted(wish, server, request)
    if client != server:
        assert request["stream"] is True


def openai_of(**fields: Any) -> Ask:
    return asked_by("openai", stream=False, **fields)


def completion_of(**fields: Any) -> Ask:
    return read_completion(json.dumps({"model": "m", "prompt": "x"} | fields).encode())


ADDRESS = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://h.example/x.png"}}]}]
FORCED: dict[str, Any] = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}
# ask, kind of upstream, words of the refusal
REFUSED: list[tuple[Any, str, str]] = [
    (lambda: openai_of(n=2), "ollama", "more than one choice"),
    (lambda: openai_of(n=2), "anthropic", "more than one choice"),
    (lambda: openai_of(n=0), "ollama", "n must be at least 1"),
    (lambda: openai_of(logit_bias={"5": 1}), "ollama", "logit_bias"),
    (lambda: openai_of(audio={"voice": "x"}), "ollama", "audio"),
    (lambda: openai_of(modalities=["audio"]), "ollama", "modalities"),
    (lambda: openai_of(verbosity="low"), "ollama", "verbosity"),
    (lambda: openai_of(functions=[TOOL]), "ollama", "functions"),
    (lambda: openai_of(max_tokens=0), "ollama", "max_tokens must be at least 1"),
    (lambda: openai_of(top_logprobs=2), "ollama", "top_logprobs wants logprobs"),
    (lambda: openai_of(reasoning_effort="deep"), "ollama", "reasoning_effort"),
    (lambda: openai_of(**FORCED), "ollama", "a tool_choice other than auto"),
    (lambda: openai_of(tools=FORCED["tools"], parallel_tool_calls=False), "ollama", "parallel_tool_calls"),
    (lambda: openai_of(messages=ADDRESS), "ollama", "an image by its address"),
    (lambda: openai_of(seed=5), "anthropic", "seed"),
    (lambda: openai_of(logprobs=True), "anthropic", "logprobs"),
    (lambda: openai_of(frequency_penalty=0.5), "anthropic", "frequency_penalty"),
    (lambda: openai_of(response_format={"type": "json_object"}), "anthropic", "JSON without a schema"),
    (completion_of, "anthropic", "the continuation of a text"),
    (lambda: completion_of(echo=True), "ollama", "echo"),
    (lambda: completion_of(best_of=2), "ollama", "best_of"),
    (lambda: completion_of(prompt=["a", "b"]), "ollama", "a prompt that is not one text"),
    (lambda: completion_of(logprobs=-1), "ollama", "logprobs must be between"),
    (lambda: asked_by("responses", stream=False, max_output_tokens=0), "ollama", "max_output_tokens must be"),
    (lambda: asked_by("responses", stream=False, previous_response_id="r"), "openai", "previous_response_id"),
    (lambda: asked_by("responses", stream=False, tools=[{"type": "web_search"}]), "openai", "the tool web_search"),
    (lambda: asked_by("anthropic", stream=False, mcp_servers=[{}]), "ollama", "mcp_servers"),
    (lambda: asked_by("anthropic", stream=False, thinking={"type": "enabled"}), "ollama", "thinking"),
    (lambda: asked_by("anthropic", stream=False, tools=[{"type": "web_search_1"}]), "openai", "web_search_1 as a tool"),
    (lambda: asked_by("anthropic", stream=False, tool_choice={"type": "any"}), "ollama", "tool_choice wants a tool"),
    (lambda: openai_of(tool_choice="required"), "anthropic", "tool_choice wants a tool"),
    (lambda: openai_of(tools=FORCED["tools"], tool_choice={"type": "function", "function": {"name": "g"}}), "anthropic",
     "tool_choice wants 'g'"),
    (lambda: asked_by("responses", stream=False, tool_choice="required"), "openai", "tool_choice wants a tool"),
    (lambda: asked_by("ollama", stream=False, options={"seed": 5}), "anthropic", "seed"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "server", "words"), REFUSED)
def test_what_the_upstream_cannot_is_a_clear_400(ask: Any, server: str, words: str):
    """By name, before anything is admitted or sent: never dropped."""
    with pytest.raises(BadRequest) as caught:
        translator_for(ask(), server, SetClock())
    assert caught.value.message.startswith(words) or words in caught.value.message


def test_neutral_settings_are_no_reason_to_refuse():
    """Many clients send what changes nothing."""
    ask = openai_of(n=1, presence_penalty=0, frequency_penalty=0, logprobs=False, verbosity="medium", user="u")
    request = sent(ask, "anthropic")
    assert "presence_penalty" not in request
    assert request["metadata"] == {"user_id": "u"}
    assert sent(ask, "ollama")["options"] == {"presence_penalty": 0, "frequency_penalty": 0}


def test_the_older_form_of_a_call_is_tied_to_its_answer():
    """`function_call` and role `function`, by the function's name."""
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
        {"role": "function", "name": "weather", "content": "rain"},
    ]
    ask = read_chat_completion(json.dumps({"model": "m", "messages": messages}).encode())
    assert sent(ask, "ollama")["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_0", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_0", "tool_name": "weather"},
    ]


def test_texts_of_one_message_stay_apart_and_a_tools_failure_is_told():
    """Blocks of a person's message are lines; an Anthropic tool's error says so where there is no field for it."""
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": "no such city", "is_error": True}
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [*content, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [result]},
    ]
    ask = read_messages(json.dumps({"model": "m", "max_tokens": 5, "messages": messages}).encode())
    for server in ("ollama", "openai"):
        turns = sent(ask, server)["messages"]
        assert [turn["content"] for turn in turns] == ["a\nb", "ab", "Error: no such city"]
    assert sent(ask, "anthropic")["messages"] == messages


@pytest.mark.parametrize("ask", [
    read_chat(b'{"model":"m","messages":[],"keep_alive":0,"stream":false}'), read_generate(b'{"model":"m"}'),
])  # fmt: skip
@pytest.mark.parametrize("server", ["openai", "anthropic"])
def test_nothing_to_infer_is_answered_over_every_upstream(ask: Ask, server: str):
    """Such an upstream loads when it likes: the client is told what Ollama tells."""
    _, end = carried(translator_for(ask, server, SetClock()), [b'{"data":[]}'])
    assert json.loads(end)["done_reason"] in ("load", "unload")


def test_embeddings_are_packed_where_the_server_reads_over_it():
    """`encoding_format: base64` of OpenAI's JavaScript SDK, before a server that answers with numbers all the same."""
    ask = Ask("/v1/embeddings", Shape.OPENAI_EMBEDDING, {"input": "x", "encoding_format": "base64"}, "m", stream=False)
    answer = {"object": "list", "data": [{"index": 0, "embedding": [1.0, -2.5]}], "usage": {"prompt_tokens": 1}}
    _, end = carried(translator_for(ask, "openai", SetClock()), [json.dumps(answer).encode()])
    assert msgspec.json.decode(end)["data"][0]["embedding"] == "AACAPwAAIMA="
