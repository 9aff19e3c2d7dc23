"""What a translated request does not carry on: a hint is named to the client, a wish is refused by its field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.errors import BadRequest
from daemon.config import Queue, UpstreamConfig
from daemon.dialects import unknown
from daemon.dialects.anthropic_asks import with_betas
from daemon.dialects.asks import Ask, read_generate
from daemon.dialects.pairs import translator_for
from daemon.providers.openai import OpenAiUpstream
from tests.rigs.feeding import SetClock, carried
from tests.rigs.spoken import SERVERS, Call, Spoken, asked_by, streamed_by

OPENAI = "api.openai.com"
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]


def carried_on(ask: Ask, server: str, host: str = "", model: str = "served") -> tuple[dict[str, Any], str]:
    """The request that such a server gets, and what the client is told of the rest."""
    translator = translator_for(ask, server, SetClock(), host=host)
    request = json.loads(translator.body(model))
    return request, unknown.told(ask, translator.left_out)


def refusal(ask: Ask, server: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        translator_for(ask, server, SetClock())
    return caught.value


# --- Anthropic's clients ---

CLAUDE_CODE: dict[str, Any] = {
    "max_tokens": 32000,
    "system": [{"type": "text", "text": "You are a tool.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "List it.", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me look.", "signature": "s"},
                {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a b"}]},
    ],
    "tools": [{"name": "Bash", "description": "d", "input_schema": {"type": "object"}, "eager_input_streaming": True}],
    "metadata": {"user_id": "u"},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high", "task_budget": {"type": "tokens", "total": 50000}},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}


@pytest.mark.parametrize("server", ["ollama", "openai"])
def test_what_manages_anthropics_own_context_is_named_and_no_reason_to_refuse(server: str):
    """Claude Code sends it unasked; the tools, the thinking and the system prompt go on as ever."""
    request, told = carried_on(asked_by("anthropic", stream=True, **CLAUDE_CODE), server)
    assert told == "context_management, output_config.task_budget"
    assert [message["role"] for message in request["messages"]] == ["system", "user", "assistant", "tool"]
    assert request["tools"][0]["function"]["name"] == "Bash"


def test_betas_go_to_an_upstream_of_the_same_dialect_alone():
    """Their fields are in the body as they came, and Anthropic refuses those without the header."""
    ask = with_betas(asked_by("anthropic", stream=True, **CLAUDE_CODE), "a-2025-06-27, b.1", "beta=true")
    same = translator_for(ask, "anthropic", SetClock())
    assert same.upstream_headers == (("anthropic-beta", "a-2025-06-27,b.1"),)
    assert same.upstream_path == "/v1/messages?beta=true"
    assert json.loads(same.body("served"))["context_management"] == CLAUDE_CODE["context_management"]
    for server in ("ollama", "openai"):
        other = translator_for(ask, server, SetClock())
        assert (other.upstream_headers, "?" in other.upstream_path) == ((), False)


@pytest.mark.parametrize("betas", ["a\r\nX-Other: 1", "a b", "a,,b", "ä", "x" * 129, ",".join(["abcdefgh"] * 300)])
def test_betas_are_names_and_nothing_else(betas: str):
    """What goes into a header of ours is looked at first; a query other than `beta=true` goes nowhere."""
    ask = asked_by("anthropic", stream=False)
    with pytest.raises(BadRequest):
        with_betas(ask, betas, "")
    assert with_betas(ask, "", "x=1") is ask
    assert with_betas(ask, "b", "x=1").query == ""


# --- OpenAI's ---


@pytest.mark.parametrize("server", ["ollama", "anthropic"])
def test_fields_of_ollamas_are_named_before_openais_routes_as_ollama_itself_reads_over_them(server: str):
    """So are fields that belong to the chat alone, at responses."""
    fields = {"think": True, "format": "json", "options": {"num_ctx": 5}, "truncate": False}
    assert carried_on(asked_by("openai", stream=False, **fields), server)[1] == "think, format, options, truncate"
    alien = {"stop": ["x"], "seed": 5, "n": 2, "presence_penalty": 1, "modalities": ["text"], "truncation": "auto"}
    told = carried_on(asked_by("responses", stream=False, **alien), server)[1]
    assert told == "truncation, stop, seed, n, presence_penalty, modalities"


@pytest.mark.parametrize(
    ("reasoning", "think"),
    [({"enabled": True}, True), ({"enabled": False}, False), ({"effort": "low"}, "low"), ({}, None),
     ({"enabled": True, "effort": "high"}, "high"), ({"max_tokens": 2000}, True)],
)  # fmt: skip
def test_openrouters_switch_for_thinking_is_taken(reasoning: dict[str, Any], think: Any):
    """Beside the effort; what it says besides is named."""
    request, told = carried_on(asked_by("openai", stream=False, reasoning=reasoning | {"exclude": True}), "ollama")
    assert (request.get("think"), told) == (think, "reasoning.exclude")


def test_a_response_says_that_nothing_was_truncated():
    """It repeats what it was asked but for what nobody does."""
    ask = asked_by("responses", stream=False, truncation="auto")
    counts = {"prompt_tokens": 1, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 15}}
    chunk = {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": counts}
    answer = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
    _, end = carried(translator_for(ask, "openai", SetClock()), [answer])
    response = json.loads(end)
    assert response["truncation"] == "disabled"
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 15}


def test_how_much_to_say_reaches_a_server_of_openais_dialect_and_is_refused_by_others():
    """`verbosity` of a chat, `text.verbosity` of a response."""
    ask = asked_by("responses", stream=False, text={"verbosity": "low"})
    assert carried_on(ask, "openai")[0]["verbosity"] == "low"
    for server in ("ollama", "anthropic"):
        assert refusal(ask, server).detail["param"] == "text.verbosity"
        assert refusal(asked_by("openai", stream=False, verbosity="high"), server).detail["param"] == "verbosity"
    assert "verbosity" not in carried_on(asked_by("responses", stream=False, text={"verbosity": "medium"}), "openai")[0]
    assert (
        refusal(asked_by("responses", stream=False, text={"verbosity": "x"}), "ollama").detail["param"]
        == "text.verbosity"
    )


@pytest.mark.parametrize(
    ("client", "fields", "server", "param"),
    [
        ("openai", {"n": 2}, "ollama", "n"),
        ("openai", {"n": 2}, "anthropic", "n"),
        ("openai", {"tools": TOOLS, "tool_choice": "required"}, "ollama", "tool_choice"),
        ("openai", {"tools": TOOLS, "parallel_tool_calls": False}, "ollama", "parallel_tool_calls"),
        ("openai", {"seed": 5}, "anthropic", "seed"),
        ("openai", {"logprobs": True}, "anthropic", "logprobs"),
        ("openai", {"response_format": {"type": "json_object"}}, "anthropic", "response_format"),
        ("openai", {"modalities": ["audio"]}, "ollama", "modalities"),
        ("responses", {"tools": [{"type": "web_search"}]}, "ollama", "tools[0]"),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "ollama", "input[0]"),
        ("responses", {"background": True}, "ollama", "background"),
        ("responses", {"truncation": "other"}, "ollama", "truncation"),
        ("ollama", {"_debug_render_only": True}, "openai", "_debug_render_only"),
    ],
)
def test_a_refusal_names_the_field(client: str, fields: dict[str, Any], server: str, param: str):
    """For programs, whatever the words for people are."""
    refused = refusal(asked_by(client, stream=False, **fields), server)
    assert refused.detail["param"] == param
    assert "another's" not in refused.message


def test_each_thing_that_is_not_kept_has_its_own_reason():
    """A background, a stored prompt and an earlier response are three things."""
    fields = {"background": True, "prompt": {"id": "p"}, "previous_response_id": "r"}
    asks = [asked_by("responses", stream=False, **{field: value}) for field, value in fields.items()]
    words = [refusal(ask, "ollama").message for ask in asks]
    assert len({each.partition(":")[2] for each in words}) == 3


def test_a_tools_failure_is_told_beside_a_picture():
    """As a text of its own, since the picture makes parts of the content."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    result = {"type": "tool_result", "tool_use_id": "t", "is_error": True}
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    messages = [
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result | {"content": [{"type": "text", "text": "boom"}, picture]}]},
    ]
    content = carried_on(asked_by("anthropic", stream=False, messages=messages), "openai")[0]["messages"][1]["content"]
    assert [part.get("text") for part in content] == ["Error:", "boom", None]


# --- onto Anthropic ---


@pytest.mark.parametrize(
    ("longest", "effort", "sent", "budget", "told"),
    [
        (10, "high", 10, None, "reasoning_effort"),
        (1024, "low", 1024, None, "reasoning_effort"),
        (1500, "high", 1500, 1024, ""),
        (4000, "high", 4000, 2976, ""),
        (20000, "high", 20000, 8192, ""),
        (None, "high", 9216, 8192, ""),
    ],
)
def test_the_clients_bound_holds_and_thinking_gets_less(
    longest: int | None, effort: str, sent: int, budget: int | None, told: str
):
    """An answer is never longer than it was to be; where no thinking fits into it, the client is told."""
    bound = {} if longest is None else {"max_tokens": longest}
    request, left_out = carried_on(asked_by("openai", stream=False, reasoning_effort=effort, **bound), "anthropic")
    assert request["max_tokens"] == sent
    assert request.get("thinking", {}).get("budget_tokens") == budget
    assert left_out == told


USE = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOOP = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "Looking.", "reasoning_content": "hm", "tool_calls": [USE]},
    {"role": "tool", "tool_call_id": "c", "content": "1"},
]


def test_thoughts_that_anthropic_did_not_sign_are_no_words_of_the_assistants():
    """They are left out; in the midst of a tool's use, where Anthropic refuses to think on without its own, it does not
    think. Both are named."""
    ask = asked_by("openai", stream=False, messages=LOOP, tools=TOOLS, reasoning_effort="low")
    request, told = carried_on(ask, "anthropic")
    assert [block["type"] for block in request["messages"][1]["content"]] == ["text", "tool_use"]
    assert "hm" not in json.dumps(request) and "thinking" not in request
    assert told == "messages.reasoning_content, reasoning_effort"
    more = [*LOOP, {"role": "assistant", "content": "1."}, {"role": "user", "content": "y"}]
    after = asked_by("openai", stream=False, messages=more, tools=TOOLS, reasoning_effort="low")
    assert "thinking" in carried_on(after, "anthropic")[0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_hands_out_the_signature_and_takes_it_back(stream: bool):
    """Where its client asked for sealed thoughts, as Codex does: then Anthropic thinks on after a tool's answer."""
    spoken = Spoken(thoughts=("h", "m"), calls=(Call("f", ("{}",), "c"),), reason="tool_calls")
    first = asked_by("responses", stream=stream, include=["reasoning.encrypted_content"])
    before, last = carried(translator_for(first, "anthropic", SetClock()), [streamed_by("anthropic", spoken)])
    end = before + last
    whole = json.loads(end.split(b"data: ")[-1])["response"] if stream else json.loads(end)
    items = [{"role": "user", "content": "x"}, *whole["output"],
             {"type": "function_call_output", "call_id": "c", "output": "1"}]  # fmt: skip
    tools = [{"type": "function", **FUNCTION}]
    request, told = carried_on(
        asked_by("responses", stream=False, input=items, tools=tools, reasoning={"effort": "low"}), "anthropic"
    )
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    assert request["messages"][1]["content"][0] == thought
    assert ("thinking" in request, told) == (True, "")
    # Another's seal is none, and nobody gets one who did not ask.
    items[1] = items[1] | {"encrypted_content": "gAAAAB"}
    foreign = asked_by("responses", stream=False, input=items, tools=tools, reasoning={"effort": "low"})
    assert carried_on(foreign, "anthropic")[1] == "input.reasoning, reasoning"
    plain = asked_by("responses", stream=False)
    assert b"encrypted_content" not in carried(translator_for(plain, "anthropic", SetClock()),
                                               [streamed_by("anthropic", spoken)])[1]  # fmt: skip


# --- onto a server of OpenAI's dialect ---


def test_hosts_that_check_every_field_get_openais_alone():
    """A server on the LAN gets llama.cpp's and vLLM's as well; what was left out is named as its client calls it."""
    options = {
        "top_k": 5,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "temperature": 0.5,
        "num_predict": 50,
        "num_ctx": 9,
        "x": 1,
    }
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "thinking": "hm"},
                {"role": "user", "content": "z"}]  # fmt: skip
    ask = asked_by("ollama", stream=False, think=True, options=options, messages=messages)
    request, told = carried_on(ask, "openai", host=OPENAI)
    assert set(request) == {"model", "messages", "stream", "stream_options", "temperature", "max_completion_tokens"}
    assert request["max_completion_tokens"] == 50
    assert [*request["messages"][1]] == ["role", "content"]
    assert told == "options.num_ctx, options.x, top_k, min_p, repeat_penalty, think, messages.thinking"
    mistrals, _ = carried_on(ask, "openai", host="api.mistral.ai")
    assert mistrals["max_tokens"] == 50 and "top_k" not in mistrals and "max_completion_tokens" not in mistrals
    for host in ("", "127.0.0.1", "gpu.lan", "openai.com.evil.example"):
        local, silent = carried_on(ask, "openai", host=host)
        assert (local["max_tokens"], local["top_k"], silent) == (50, 5, "options.num_ctx, options.x")
        assert local["chat_template_kwargs"] and local["messages"][1]["reasoning_content"] == "hm"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-5", "max_completion_tokens"),
        ("openai/gpt-5.1-mini", "max_completion_tokens"),
        ("o3-mini", "max_completion_tokens"),
        ("o1", "max_completion_tokens"),
        ("gpt-oss:20b", "max_tokens"),
        ("gpt-4o", "max_tokens"),
        ("orca2", "max_tokens"),
    ],
)
def test_openais_thinking_models_get_their_own_bound_wherever_they_are(model: str, name: str):
    """By the name under which the upstream knows it; a text completion has the old name everywhere."""
    assert name in carried_on(asked_by("anthropic", stream=False), "openai", model=model)[0]
    raw = read_generate(b'{"model":"m","prompt":"x","raw":true,"options":{"num_predict":5}}')
    assert carried_on(raw, "openai", host=OPENAI, model=model)[0]["max_tokens"] == 5


def test_an_upstream_is_known_by_the_host_of_its_address():
    """There is nothing to configure."""
    ask = asked_by("anthropic", stream=False, top_k=5)
    for url, name in (("https://api.openai.com/v1", "max_completion_tokens"), ("http://gpu.lan:8000/v1", "top_k")):
        config = UpstreamConfig(name="u", kind="openai", url=url)
        upstream = OpenAiUpstream(config, queue=Queue(), connect_timeout=1.0, clock=SetClock())
        request = json.loads(upstream.translator(ask).body("m"))
        assert name in request and len({"top_k", "max_completion_tokens"} & set(request)) == 1


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        (CLOSED | {"required": []}, False),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, False),
        (CLOSED | {"properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}}}, False),
    ],
)
def test_a_schema_is_strict_before_openai_only_where_openai_would_take_it(schema: dict[str, Any], strict: bool):
    """Ollama's clients say nothing of it; one of OpenAI's gets what it asked for."""
    request, told = carried_on(asked_by("ollama", stream=False, format=schema), "openai", host=OPENAI)
    wanted = request["response_format"]["json_schema"]
    assert (wanted["schema"], wanted.get("strict"), told) == (
        (schema, True, "") if strict else (schema, None, "format.strict")
    )
    local, _ = carried_on(asked_by("ollama", stream=False, format=schema), "openai")
    assert local["response_format"]["json_schema"]["strict"] is True
    named = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    own, _ = carried_on(asked_by("responses", stream=False, text=named), "openai", host=OPENAI)
    assert own["response_format"]["json_schema"]["strict"] is True


def test_how_to_use_tools_is_not_said_without_tools():
    """OpenAI refuses that; Anthropic's clients may say it."""
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    request, _ = carried_on(asked_by("anthropic", stream=False, tool_choice=choice), "openai")
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(request)


@pytest.mark.parametrize("server", SERVERS)
def test_nothing_is_named_where_nothing_was_left_out(server: str):
    """The header is for what is missing."""
    for client in ("ollama", "openai", "responses", "anthropic"):
        assert carried_on(asked_by(client, stream=False), server)[1] == ""
