"""A client of Ollama before an upstream of OpenAI's dialect gets Ollama's answers to Ollama's questions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest
from daemon.dialects.asks import Ask, read_chat, read_embed, read_embeddings, read_generate
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import (
    JSON,
    NDJSON,
    Translator,
    UpstreamGarbled,
    UpstreamSaid,
    UpstreamTruncated,
)
from daemon.exchange import Usage
from tests.rigs.feeding import SetClock, carried, cuts

CAPTURES = Path(__file__).parent / "captures"
HELLO = [{"role": "user", "content": "hello"}]
NOW = "2026-01-02T03:04:05.678901Z"  # where SetClock stands
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def chat(stream: bool = True, **fields: Any) -> Ask:
    return read_chat(json.dumps({"model": "m", "messages": HELLO, "stream": stream, **fields}).encode())


def generate(stream: bool = True, **fields: Any) -> Ask:
    return read_generate(json.dumps({"model": "m", "prompt": "hello", "stream": stream, **fields}).encode())


def over_openai(ask: Ask, clock: SetClock | None = None) -> Translator:
    return translator_for(ask, "openai", clock or SetClock())


def sent(ask: Ask) -> dict[str, Any]:
    """What goes upstream, but for what every streamed request has."""
    document = json.loads(over_openai(ask).body("served"))
    assert document.pop("model") == "served"
    assert (document.pop("stream"), document.pop("stream_options")) == (True, {"include_usage": True})
    return document


def events(*payloads: dict[str, Any] | str) -> bytes:
    texts = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def delta(finish: str | None = None, logprobs: Any = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish, "logprobs": logprobs}]}


def objects(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.splitlines()]


# --- requests ---


def test_a_chat_becomes_a_chat_completion():
    """Messages as they are, streamed and with usage; how Ollama should run the model is nobody else's business."""
    ask = chat(
        stream=False,
        messages=[{"role": "system", "content": "Be short."}, *HELLO, {"role": "assistant", "content": "Hi."}],
        options={"num_ctx": 4096, "num_gpu": 1, "num_thread": 8, "use_mmap": True, "unheard_of": 1},
        keep_alive="5m", tools=[], format="", think=None, novel=True, truncate=True,
    )  # fmt: skip
    assert over_openai(ask).upstream_path == "/v1/chat/completions"
    assert sent(ask) == {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "Hi."},
        ]
    }


def test_sampling_options_keep_their_meaning():
    """OpenAI's under OpenAI's names, the others under those that llama.cpp shares with Ollama."""
    options = {
        "temperature": 0.5, "top_p": 0.9, "seed": 7, "num_predict": 20.0, "stop": ["a", "b"], "presence_penalty": 1,
        "frequency_penalty": 0.5, "top_k": 5, "min_p": 0.1, "typical_p": 0.9, "repeat_penalty": 1.1,
        "repeat_last_n": 32, "mirostat": 1, "mirostat_tau": 4, "mirostat_eta": 0.2,
    }  # fmt: skip
    expected = {**options, "max_tokens": 20, "messages": HELLO}
    del expected["num_predict"]
    assert sent(chat(options=options)) == expected


@pytest.mark.parametrize("unbounded", [-1, -2, 0])
def test_no_bound_on_the_answer_is_no_bound(unbounded: int):
    """Ollama's -1, -2 and (as tried with 0.9.3) 0; OpenAI says it by silence. null and [] are as good as absent."""
    options = {"num_predict": unbounded, "temperature": None, "stop": []}
    assert sent(chat(options=options)) == {"messages": HELLO}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": "x"}, 'option "temperature" must be of type float32'),
        ({"temperature": True}, 'option "temperature" must be of type float32'),
        ({"top_k": "x"}, 'option "top_k" must be of type integer'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_options_of_a_wrong_type_are_refused_in_ollamas_words(options: dict[str, Any], words: str):
    """Before anything is admitted, recorded or sent."""
    with pytest.raises(BadRequest) as caught:
        over_openai(chat(options=options))
    assert caught.value.message == words


def test_images_become_parts_of_a_message():
    """As data URIs, their kind told by their first bytes."""
    images = ["iVBORw0KGgo=", "/9j/4AAQ", "R0lGODlh", "UklGRg==", "AAAA"]
    kinds = ["png", "jpeg", "gif", "webp", "jpeg"]
    uris = [
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}}
        for kind, image in zip(kinds, images, strict=True)
    ]
    asked = [{"role": "user", "content": "what?", "images": images}, {"role": "user", "images": images[:1]}]
    assert sent(chat(messages=asked))["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "what?"}, *uris]},
        {"role": "user", "content": uris[:1]},
    ]
    assert sent(generate(images=images[:1]))["messages"][0]["content"] == [{"type": "text", "text": "hello"}, uris[0]]


def test_tools_and_their_calls_are_translated():
    """Arguments become text, each call has an id, and each tool's answer names the call it answers."""
    calls = [
        {"function": {"name": "weather", "arguments": {"city": "Zürich"}}},
        {"id": "call_own", "function": {"name": "time", "arguments": {}}},
        {"function": {"name": "weather", "arguments": {"city": "Ulm"}}},
    ]
    asked = [
        *HELLO,
        {"role": "assistant", "content": "", "thinking": "I look.", "tool_calls": calls},
        {"role": "tool", "content": "?", "tool_call_id": "call_elsewhere"},
        {"role": "tool", "content": "12:00", "tool_name": "time"},
        {"role": "tool", "content": "rain", "tool_name": "weather"},
        {"role": "tool", "content": "snow"},
        {"role": "tool", "content": "??"},
    ]
    document = sent(chat(messages=asked, tools=[TOOL, {"function": {"name": "f"}}]))
    assert document["tools"] == [TOOL, {"type": "function", "function": {"name": "f"}}]
    assistant = document["messages"][1]
    assert assistant["reasoning_content"] == "I look."
    assert [(call["id"], call["type"], call["function"]) for call in assistant["tool_calls"]] == [
        ("call_0", "function", {"name": "weather", "arguments": '{"city":"Zürich"}'}),
        ("call_own", "function", {"name": "time", "arguments": "{}"}),
        ("call_2", "function", {"name": "weather", "arguments": '{"city":"Ulm"}'}),
    ]
    assert [message["tool_call_id"] for message in document["messages"][2:]] == [
        "call_elsewhere", "call_own", "call_0", "call_2", "call_unknown"
    ]  # fmt: skip


def test_a_format_becomes_a_response_format():
    """`json`, or a schema that the answer must keep to."""
    schema = {"type": "object", "properties": {"A": {}, "a": {}}}
    assert sent(chat(format="json"))["response_format"] == {"type": "json_object"}
    assert sent(generate(format=schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }


def test_think_and_logprobs_are_translated():
    """A level is an effort, a switch goes to the model's template."""
    assert sent(chat(think="low"))["reasoning_effort"] == "low"
    assert sent(chat(think=False))["chat_template_kwargs"] == {"enable_thinking": False}
    wanted = sent(chat(logprobs=True, top_logprobs=3))
    assert (wanted["logprobs"], wanted["top_logprobs"]) == (True, 3)
    assert sent(chat(logprobs=False, top_logprobs=3)) == {"messages": HELLO}


def test_a_generate_becomes_a_conversation_of_one_question():
    """With its system prompt before it; raw, it is a completion of exactly that prompt."""
    assert sent(generate(system="Be short.", context=[], template="", suffix="")) == {
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hello"}]
    }
    raw = generate(raw=True, options={"num_predict": 3}, logprobs=True, top_logprobs=2)
    assert over_openai(raw).upstream_path == "/v1/completions"
    assert sent(raw) == {"prompt": "hello", "max_tokens": 3, "logprobs": 2}
    assert sent(generate(raw=True, logprobs=True)) == {"prompt": "hello", "logprobs": 1}


UNTRANSLATABLE = [
    (generate(suffix="end"), "suffix is not possible"),
    (generate(template="{{ .Prompt }}"), "template is not possible"),
    (generate(context=[1, 2]), "context is not possible"),
    (generate(_debug_render_only=True), "_debug_render_only is not possible"),
    (chat(_debug_render_only=True), "_debug_render_only is not possible"),
    (generate(raw=True, system="x"), "raw mode does not support template, system, or context"),
    (generate(raw=True, images=["iVBORw=="]), "images is not possible"),
    (generate(raw=True, format="json"), "format is not possible"),
    (chat(format="xml"), 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    (chat(format=5), 'invalid format: "5"; expected "json" or a valid JSON Schema object'),
    (chat(think="deep"), "invalid think value"),
    (chat(think=1), "invalid think value"),
    (chat(top_logprobs=21), "top_logprobs must be between 0 and 20"),
    (chat(tools={}), "json: cannot unmarshal object into Go struct field ChatRequest.tools of type api.Tools"),
    (chat(tools=["x"]), "json: cannot unmarshal string"),
    (chat(messages=[{"role": "user", "images": "x"}]), "json: cannot unmarshal string"),
    (chat(messages=[{"role": "user", "images": [1]}]), "json: cannot unmarshal number"),
    (chat(messages=[{"role": "assistant", "tool_calls": ["x"]}]), "a tool call must be an object"),
    (
        chat(messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
        "json: cannot unmarshal string",
    ),
    (read_embed(b'{"model":"m","input":5}'), "invalid input type"),
    (read_embed(b'{"model":"m","input":["x",5]}'), "invalid input type"),
    (read_embed(b'{"model":"m","input":"x","dimensions":"3"}'), "json: cannot unmarshal string"),
]


@pytest.mark.parametrize(("ask", "words"), UNTRANSLATABLE)
def test_what_would_change_the_answer_is_refused_and_not_dropped(ask: Ask, words: str):
    """A clear 400 before anything is admitted, in Ollama's words where it has them."""
    with pytest.raises(BadRequest) as caught:
        over_openai(ask)
    assert caught.value.message.startswith(words)


# --- streams ---


def test_a_real_stream_comes_out_as_ollamas():
    """What llama.cpp sent, in every cut: a line a piece, and the end, with its counts and times, at the very end."""
    raw = (CAPTURES / "llama_cpp_chat.sse").read_bytes()
    chunks_of_upstream = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: {")]
    words = [
        choice["delta"]["content"]
        for chunk in chunks_of_upstream
        for choice in chunk["choices"]
        if choice["delta"].get("content")
    ]
    last = chunks_of_upstream[-1]
    assert len(words) > 3
    for chunks in cuts(raw):
        translator = over_openai(chat())
        before, end = carried(translator, chunks)
        assert objects(before) == [
            {"model": "m", "created_at": NOW, "message": {"role": "assistant", "content": word}, "done": False}
            for word in words
        ]
        assert objects(end) == [
            {
                "model": "m",
                "created_at": NOW,
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "length" if len(words) == 12 else "stop",
                "prompt_eval_count": last["usage"]["prompt_tokens"],
                "prompt_eval_duration": round(last["timings"]["prompt_ms"] * 1e6),
                "eval_count": last["usage"]["completion_tokens"],
                "eval_duration": round(last["timings"]["predicted_ms"] * 1e6),
            }
        ]
        assert translator.usage == Usage(last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"])
        assert (translator.finished, translator.pieces, translator.content_type) == (True, len(words), NDJSON)


def test_a_line_has_ollamas_order_of_fields():
    """And ends with its `done`, by which pass-through readers tell a line from an end."""
    before, end = carried(over_openai(chat()), [events(delta(content="<é>"), delta("stop"), "[DONE]")])
    message = '"message":{"role":"assistant","content":"<é>"}'
    assert before.decode() == f'{{"model":"m","created_at":"{NOW}",{message},"done":false}}\n'
    assert list(json.loads(end)) == ["model", "created_at", "message", "done", "done_reason"]
    before, end = carried(over_openai(generate()), [events(delta(content="x"), delta("stop"), "[DONE]")])
    assert before.decode() == f'{{"model":"m","created_at":"{NOW}","response":"x","done":false}}\n'
    assert list(json.loads(end)) == ["model", "created_at", "response", "done", "done_reason"]


def test_an_unstreamed_answer_is_one_object():
    """Put together of the same stream."""
    raw = (CAPTURES / "llama_cpp_chat.sse").read_bytes()
    before, end = carried(over_openai(chat()), [raw])
    expected = objects(end)[0]
    expected["message"]["content"] = "".join(line["message"]["content"] for line in objects(before))
    for chunks in cuts(raw):
        translator = over_openai(chat(stream=False))
        nothing, whole = carried(translator, chunks)
        assert (nothing, list(json.loads(whole).items())) == (b"", list(expected.items()))
        assert translator.content_type == JSON


def test_a_raw_completion_comes_out_as_a_generate():
    """llama.cpp tells text, and the usage within its last choice."""
    raw = (CAPTURES / "llama_cpp_completion.sse").read_bytes()
    for chunks in cuts(raw):
        translator = over_openai(generate(stream=False, raw=True))
        _, end = carried(translator, chunks)
        answer = json.loads(end)
        assert (answer["response"], answer["done_reason"], answer["eval_count"]) == (", the city of New", "length", 5)
        assert translator.usage == Usage(4, 5)


def test_log_probabilities_are_ollamas():
    """From llama.cpp's chat completions, and from the older shape of other servers' completions."""
    raw = (CAPTURES / "llama_cpp_logprobs.sse").read_bytes()
    _, end = carried(over_openai(chat(stream=False, logprobs=True)), [raw])
    logprobs = json.loads(end)["logprobs"]
    assert [list(entry) for entry in logprobs] == [["token", "logprob", "bytes", "top_logprobs"]] * 3
    assert [list(top) for top in logprobs[0]["top_logprobs"]] == [["token", "logprob", "bytes"]] * 2
    before, _ = carried(over_openai(chat(logprobs=True)), [raw])
    assert [entry for line in objects(before) for entry in line["logprobs"]] == logprobs
    older = {"tokens": ["a", "b"], "token_logprobs": [-1, -2], "top_logprobs": [{"a": -1, "c": -3}, None]}
    stream = events({"choices": [{"text": "ab", "logprobs": older}]}, "[DONE]")
    _, end = carried(over_openai(generate(stream=False, raw=True, logprobs=True)), [stream])
    assert json.loads(end)["logprobs"] == [
        {"token": "a", "logprob": -1, "top_logprobs": [{"token": "a", "logprob": -1}, {"token": "c", "logprob": -3}]},
        {"token": "b", "logprob": -2},
    ]


def call(index: int | None = 0, identifier: str | None = None, name: str | None = None, arguments: str = "") -> Any:
    fields = {"index": index, "id": identifier, "function": {"name": name, "arguments": arguments}}
    return delta(tool_calls=[{key: value for key, value in fields.items() if value is not None}])


WHOLE_CALLS = [
    {"id": "a", "function": {"index": 0, "name": "weather", "arguments": {"city": 'Z"ü"rich', "days": [1, 2]}}},
    {"id": "b", "function": {"index": 1, "name": "time", "arguments": {}}},
]
CALL_STREAMS = {
    "in parts": [
        call(0, "a", "weather", ""), call(0, None, None, '{"city":"Z\\"'), call(0, None, None, 'ü\\"rich","da'),
        call(0, None, None, 'ys":[1,2]}'), call(1, "b", "time", "{}"),
    ],
    "interleaved": [
        call(0, "a", "weather", '{"city":"Z\\"ü\\"rich",'), call(1, "b", "time", "{"),
        call(0, None, None, '"days":[1,2]}'), call(1, None, None, "}"),
    ],
    "whole, without indices": [
        call(None, "a", "weather", '{"city":"Z\\"ü\\"rich","days":[1,2]}'), call(None, "b", "time", ""),
    ],
    "only the first delta with an index": [
        call(0, "a", "weather", '{"city":"Z\\"ü\\"rich",'), call(None, None, None, '"days":[1,2]}'),
        call(1, "b", "time", "{"), call(None, None, None, "}"),
    ],
    "all with the same index": [
        call(0, "a", "weather", '{"city":"Z\\"ü\\"rich",'), call(0, "a", None, '"days":[1,2]}'),
        call(0, "b", "time", "null"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("deltas", CALL_STREAMS.values(), ids=CALL_STREAMS)
def test_tool_calls_come_out_whole_with_objects_for_arguments(deltas: list[dict[str, Any]]):
    """However the upstream cuts its arguments; the reason is Ollama's `stop`."""
    raw = events(delta(role="assistant", content=None), *deltas, delta("tool_calls"), "[DONE]")
    for chunks in cuts(raw):
        before, end = carried(over_openai(chat(tools=[TOOL])), chunks)
        (line,) = objects(before)
        assert line["message"] == {"role": "assistant", "content": "", "tool_calls": WHOLE_CALLS}
        assert (line["done"], json.loads(end)["done_reason"]) == (False, "stop")
    _, end = carried(over_openai(chat(stream=False, tools=[TOOL])), [raw])
    assert json.loads(end)["message"] == {"role": "assistant", "content": "", "tool_calls": WHOLE_CALLS}


def test_a_tool_call_that_is_cut_off_is_none():
    """The answer's length ended within its arguments: the reason says so. Otherwise broken arguments are an error."""
    start = [call(0, "a", "weather", "{}"), call(1, "b", "weather", '{"city":"Zü')]
    before, end = carried(over_openai(chat()), [events(*start, delta("length"), "[DONE]")])
    assert [each["id"] for each in objects(before)[0]["message"]["tool_calls"]] == ["a"]
    assert json.loads(end)["done_reason"] == "length"
    for arguments in ('{"city":"Zü', "[1]", '"x"', "nonsense"):
        with pytest.raises(UpstreamGarbled, match="arguments"):
            carried(over_openai(chat()), [events(call(0, "a", "f", arguments), delta("tool_calls"), "[DONE]")])


def test_calls_of_a_server_that_names_no_reason_are_not_lost():
    """Its `[DONE]` is the end, whatever else is missing."""
    for end_of_stream in (events("[DONE]"), b"data: [DONE]"):
        before, end = carried(over_openai(chat()), [events(call(0, "a", "time")) + end_of_stream])
        assert objects(before + end)[0]["message"]["tool_calls"][0]["function"]["name"] == "time"
        assert objects(end)[-1]["done_reason"] == "stop"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_thinking(field: str):
    """Under either of the names that servers give it."""
    raw = events(delta(**{field: "h"}), delta(**{field: "m"}), delta(content="a"), delta("stop"), "[DONE]")
    before, _ = carried(over_openai(chat(think=True)), [raw])
    assert [line["message"] for line in objects(before)] == [
        {"role": "assistant", "content": "", "thinking": "h"},
        {"role": "assistant", "content": "", "thinking": "m"},
        {"role": "assistant", "content": "a"},
    ]
    _, end = carried(over_openai(generate(stream=False)), [raw])
    assert list(json.loads(end))[2:5] == ["response", "thinking", "done"]
    assert (json.loads(end)["response"], json.loads(end)["thinking"]) == ("a", "hm")


@pytest.mark.parametrize(
    ("reason", "done_reason"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter", "content_filter")],
)
def test_the_reason_is_ollamas_where_it_has_one(reason: str, done_reason: str):
    """What it has no word for is not hidden."""
    _, end = carried(over_openai(chat()), [events(delta(content="x"), delta(reason), "[DONE]")])
    assert json.loads(end)["done_reason"] == done_reason


def test_durations_are_measured_where_the_upstream_tells_none():
    """From the moment the request leaves: to the first piece, from there to the end; counts are never guessed."""
    translator = over_openai(chat(), SetClock(step=1000))
    translator.body("m")
    translator.feed(events(delta(role="assistant", content="")))
    translator.feed(events(delta(content="a")))
    translator.feed(events(delta(content="b"), delta("stop"), "[DONE]"))
    last = json.loads(translator.terminator())
    assert {key: last[key] for key in last if key.endswith(("duration", "count"))} == {
        "prompt_eval_duration": 1_000_000, "eval_duration": 1_000_000, "total_duration": 3_000_000
    }  # fmt: skip
    assert translator.usage == Usage(None, None)


# --- what can go wrong ---


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("end", ["", "data: [DON", 'data: {"choices":[', "data: [DONE] \n\n"])
def test_a_stream_without_its_end_is_a_failure(stream: bool, end: str):
    """A finish reason, or half an event, is no `[DONE]`."""
    raw = events(delta(content="a"), delta("stop")) + end.encode()
    for chunks in cuts(raw):
        translator, before = over_openai(chat(stream=stream)), b""
        with pytest.raises((UpstreamTruncated, UpstreamGarbled)):
            for chunk in chunks:
                before += translator.feed(chunk)
            translator.terminator()
        assert len(objects(before)) == (1 if stream else 0)
        assert not translator.finished


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ({"message": "the slot broke", "code": 500, "type": "server_error"}, 502, "the slot broke"),
        ({"message": "too long", "code": 400}, 400, "too long"),
        ({"message": "no quota", "code": "insufficient_quota"}, 502, "no quota"),
        ("plain words", 502, "plain words"),
        ({}, 502, "the upstream reported an error and gave no reason"),
    ],
)
def test_an_error_in_the_stream_is_raised_after_what_was_good(error: Any, status: int, words: str):
    """In OpenAI's shape, llama.cpp's, or as mere words."""
    raw = events(delta(content="a"), {"error": error})
    for chunks in cuts(raw):
        translator, before = over_openai(chat()), b""
        with pytest.raises(UpstreamSaid) as caught:
            for chunk in chunks:
                before += translator.feed(chunk)
            translator.terminator()
        assert (caught.value.status, caught.value.message) == (status, words)
        assert [line["message"]["content"] for line in objects(before)] == ["a"]


@pytest.mark.parametrize(
    "junk", ["<html>", "{}x", "[1]", '{"choices":1}', '{"choices":[{"delta":{"content":5}}]}', '{"a":' * 2000]
)
def test_garbage_is_an_error(junk: str):
    """What OpenAI's dialect never says is not translated into anything."""
    with pytest.raises(UpstreamGarbled):
        over_openai(chat()).feed(events(junk))


@pytest.mark.parametrize("logprobs", [{"content": [5]}, {"content": [{"top_logprobs": 1}]}, {"tokens": ["a"]}])
def test_log_probabilities_that_are_none_are_an_error(logprobs: Any):
    """Whatever shape they have."""
    with pytest.raises(UpstreamGarbled, match="log probabilities"):
        over_openai(chat(logprobs=True)).feed(events(delta(content="a", logprobs=logprobs)))


def test_an_answer_does_not_go_on_after_its_end():
    """A second `[DONE]` is only stammered; anything else belongs to no answer of ours."""
    whole = events(delta(content="a"), "[DONE]", "[DONE]")
    assert carried(over_openai(chat()), [whole])
    with pytest.raises(UpstreamGarbled, match="goes on after its end"):
        carried(over_openai(chat()), [whole + events(delta(content="b"))])


def test_other_choices_and_empty_chunks_bring_nothing():
    """The first choice is the answer; roles, comments and usage are no pieces of it."""
    noise = {"choices": [{"index": 1, "delta": {"content": "other"}}]}
    raw = b": ping\n\n" + events(delta(role="assistant"), noise, {"choices": None, "usage": None}, delta(content="a"))
    translator = over_openai(chat())
    assert [line["message"]["content"] for line in objects(translator.feed(raw))] == ["a"]
    assert translator.pieces == 1


def test_what_is_gathered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Unstreamed answers, tool calls and embeddings that never end fill no memory."""
    monkeypatch.setattr("daemon.dialects.pieces.MAX_WHOLE", 1000)
    monkeypatch.setattr("daemon.dialects.ollama_to_openai.MAX_WHOLE", 1000)
    embed = read_embed(b'{"model":"m","input":"x"}')
    endless = [
        (chat(stream=False), delta(content="x" * 200)),
        (chat(), call(0, "a", "f", "x" * 200)),
        (embed, delta(content="x" * 200)),
    ]
    for ask, chunk in endless:
        translator = over_openai(ask)
        with pytest.raises(UpstreamGarbled, match="longer than"):
            for _ in range(10):
                translator.feed(events(chunk))


def test_what_was_gathered_of_an_answer_cut_off_is_kept_for_the_record():
    """As one object in the client's dialect that is not done."""
    whole, streamed = over_openai(chat(stream=False)), over_openai(chat())
    assert whole.so_far() == b""
    for translator in (whole, streamed):
        translator.feed(events(delta(content="a"), delta(content="b")))
    message = {"role": "assistant", "content": "ab"}
    assert json.loads(whole.so_far()) == {"model": "m", "created_at": NOW, "message": message, "done": False}
    assert streamed.so_far() == b""


def test_an_error_answer_keeps_its_words():
    """llama.cpp's: what the client can mend stays a 400, the server's own failures are our 502."""
    translator = over_openai(chat())
    too_long = b'{"error":{"code":400,"message":"request (5031 tokens) exceeds","type":"exceed_context_size_error"}}'
    assert translator.error_status(400, too_long) == (400, "request (5031 tokens) exceeds")
    assert translator.error_status(500, b'{"error":{"code":500,"message":"no images"}}') == (502, "no images")


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_input_that_the_model_cannot_take_is_the_clients_mistake(kind: str):
    """llama.cpp answers 500 to an image for a model that only reads text: a 400 with its words, no 502."""
    words = f"{kind} input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    answer = json.dumps({"error": {"code": 500, "message": words, "type": "server_error"}}).encode()
    assert over_openai(chat()).error_status(500, answer) == (400, words)


# --- nothing to infer, and embeddings ---


@pytest.mark.parametrize(
    ("fields", "reason"), [({}, "load"), ({"keep_alive": "5m"}, "load"), ({"keep_alive": 0}, "unload")]
)
def test_loading_and_unloading_are_answered_as_ollama_does(fields: dict[str, Any], reason: str):
    """The upstream is only asked whether it is there; it loads when it likes."""
    for read, body in (
        (read_chat, {"message": {"role": "assistant", "content": ""}}),
        (read_generate, {"response": ""}),
    ):
        translator = over_openai(read(json.dumps({"model": "m", **fields}).encode()))
        assert (translator.upstream_method, translator.upstream_path) == ("GET", "/v1/models")
        assert (translator.body("m"), translator.content_type) == (b"", JSON)
        before, end = carried(translator, [(CAPTURES / "llama_cpp_models.json").read_bytes()])
        expected = {"model": "m", "created_at": NOW, **body, "done": True, "done_reason": reason}
        assert (before, list(json.loads(end).items())) == (b"", list(expected.items()))
        assert (translator.finished, translator.usage) == (True, Usage(0, 0))


def test_no_input_has_no_embedding():
    """As Ollama answers it."""
    assert carried(over_openai(read_embed(b'{"model":"m","input":[]}')), [])[1] == b'{"model":"m","embeddings":[]}'
    assert carried(over_openai(read_embeddings(b'{"model":"m"}')), [])[1] == b'{"embedding":[]}'


def test_embeddings_come_out_as_ollamas():
    """llama.cpp's real answer: the same numbers, in the order of the inputs, with the count."""
    raw = (CAPTURES / "llama_cpp_embeddings.json").read_bytes()
    vectors = [entry["embedding"] for entry in json.loads(raw)["data"]]
    translator = over_openai(read_embed(b'{"model":"m","input":["hello","world"]}'), SetClock(step=1))
    assert json.loads(translator.body("served")) == {
        "model": "served", "input": ["hello", "world"], "encoding_format": "float"
    }  # fmt: skip
    assert translator.feed(raw[:1000]) + translator.feed(raw[1000:]) == b""
    answer = json.loads(translator.terminator())
    assert answer == {"model": "m", "embeddings": vectors, "total_duration": 1000, "prompt_eval_count": 2}
    assert (translator.usage, translator.upstream_path) == (Usage(2, 0), "/v1/embeddings")
    shuffled = json.loads(raw)
    shuffled["data"].reverse()
    _, end = carried(
        over_openai(read_embed(b'{"model":"m","input":["hello","world"]}')), [json.dumps(shuffled).encode()]
    )
    assert json.loads(end)["embeddings"] == vectors


def test_one_embedding_is_the_older_routes_answer():
    """A prompt in, a vector out."""
    translator = over_openai(read_embeddings(b'{"model":"m","prompt":"x"}'))
    assert json.loads(translator.body("m"))["input"] == "x"
    assert carried(translator, [b'{"data":[{"embedding":[1,2.5],"index":0}]}'])[1] == b'{"embedding":[1,2.5]}'


def test_dimensions_shorten_an_embedding_as_ollama_does():
    """Cut and normalised here, since some servers ignore the field without a word."""
    ask = read_embed(b'{"model":"m","input":"x","dimensions":2}')
    assert "dimensions" not in json.loads(over_openai(ask).body("m"))
    _, end = carried(over_openai(ask), [b'{"data":[{"embedding":[0.3,0.4,0.5]}]}'])
    (vector,) = json.loads(end)["embeddings"]
    assert vector == pytest.approx([0.6, 0.8])
    assert math.hypot(*vector) == pytest.approx(1)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b'{"data":[]}', b'{"data":[{"embedding":"AAAA"}]}', b'{"data":[{"embedding":[1]},{"embedding":[2]}]}'],
)
def test_embeddings_that_do_not_fit_the_inputs_are_an_error(raw: bytes):
    """One list of numbers for each input, or none is handed out."""
    with pytest.raises(UpstreamGarbled):
        carried(over_openai(read_embed(b'{"model":"m","input":"x"}')), [raw])
    with pytest.raises(UpstreamSaid, match="not today"):
        carried(over_openai(read_embed(b'{"model":"m","input":"x"}')), [b'{"error":{"message":"not today"}}'])


def test_a_kind_of_upstream_nobody_translates_for_is_a_clear_refusal():
    """Not a traceback."""
    with pytest.raises(BadRequest, match="does not speak it"):
        translator_for(chat(), "unheard_of", SetClock())
