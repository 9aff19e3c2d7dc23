"""Every client's dialect over every kind of upstream: the same answer, however it is cut, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UpstreamFailed
from daemon.dialects.answers import assemble
from daemon.dialects.asks import Ask
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import Translator, UpstreamSaid, UpstreamTruncated, in_stream_error
from daemon.exchange import Usage
from tests.rigs.feeding import SetClock, carried, cuts, split_at
from tests.rigs.spoken import CLIENTS, ENDS, SERVERS, Call, Spoken, asked_by, streamed_by

PAIRS = [(client, server) for client in CLIENTS for server in SERVERS]
RICH = Spoken(
    texts=("Wh", 'y "n\\ot"\n', "é😀\u2028 data: [DONE]\n\n"),
    thoughts=("h", "m"),
    calls=(Call("weather", ('{"city":', '"Zü', 'rich"}'), "id_a"), Call("time", ("{}",), "id_b")),
    reason="tool_calls",
)


def made(ask: Ask, server: str) -> Translator:
    return translator_for(ask, server, SetClock())


def outcome(translator: Translator, chunks: list[bytes]) -> tuple[bytes, bytes, str]:
    """What the client got before the end, the end, and what went wrong."""
    before, failure, end = b"", "", b""
    translator.body("m")
    try:
        for chunk in chunks:
            before += translator.feed(chunk)
        end = translator.terminator()
    except UpstreamFailed as error:
        failure = f"{type(error).__name__}: {error}"
    return before, end, failure


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_same_bytes_however_they_are_cut(client: str, server: str, stream: bool):
    """Whole, byte by byte, split in every place: thoughts, text, two calls; the end only at the end."""
    ask = asked_by(client, stream=stream)
    raw = streamed_by(server, RICH)
    expected = carried(made(ask, server), [raw])
    for chunks in cuts(raw):
        translator = made(ask, server)
        assert carried(translator, chunks) == expected
        assert translator.finished
        assert translator.usage == Usage(7, 3)
    before, end = expected
    assert ENDS[client] not in before.replace(b"data: [DONE]\\n\\n", b"")
    assert bool(before) == stream
    answer = assemble(ask.shape, [before, end])
    assert answer.content == RICH.text
    message = json.loads(answer.message)
    assert called(message) == [("id_a", "weather", {"city": "Zürich"}), ("id_b", "time", {})]
    assert "hm" in json.dumps(message)


def called(message: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """The calls of a message as the audit keeps it, of any dialect."""
    if isinstance(message["content"], list):
        uses = [block for block in message["content"] if block["type"] == "tool_use"]
        return [(use["id"], use["name"], use["input"]) for use in uses]
    calls = []
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
        calls.append((call.get("id"), call["function"]["name"], given))
    return calls


TEXTS = st.text(alphabet='ab <>&"\\\n\r{}:é\u2028😀', max_size=6)
PARTS = st.sampled_from([("{}",), ('{"a":1}',), ('{"a"', ":[", '"é\\n"]}'), ("{", '"b":{}', "}")])
CALLS = st.builds(Call, name=st.sampled_from(["f", "g"]), parts=PARTS, id=st.just(""))
SPOKEN = st.builds(
    Spoken,
    texts=st.lists(TEXTS, max_size=4).map(tuple),
    thoughts=st.lists(TEXTS, max_size=2).map(tuple),
    calls=st.lists(CALLS, max_size=2).map(tuple),
    reason=st.sampled_from(["stop", "length"]),
)


@given(
    pair=st.sampled_from(PAIRS),
    spoken=SPOKEN,
    end=st.sampled_from(["done", "error", "nothing", "junk"]),
    places=st.lists(st.integers(min_value=0), max_size=12),
    stream=st.booleans(),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_end_is_told_only_where_there_was_one(
    pair: tuple[str, str], spoken: Spoken, end: str, places: list[int], stream: bool
):
    """Any answer, any end, any cut: the same bytes, an end or a failure and never both, all of the text."""
    client, server = pair
    ask = asked_by(client, stream=stream)
    raw = streamed_by(server, spoken, end=end)
    before, last, failure = outcome(made(ask, server), split_at(raw, places))
    assert (before, last, failure) == outcome(made(ask, server), [raw])
    assert bool(failure) == (end != "done")
    assert bool(last) == (end == "done")
    if stream or last:
        assert assemble(ask.shape, [before, last]).content == spoken.text
    if not stream:
        assert before == b""


@given(pair=st.sampled_from(PAIRS), spoken=SPOKEN, cut=st.integers(min_value=0), stream=st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_stream_cut_short_anywhere_is_never_whole(pair: tuple[str, str], spoken: Spoken, cut: int, stream: bool):
    """There is an end only where the upstream gave one; what came of it is kept for the record."""
    client, server = pair
    raw = streamed_by(server, spoken)
    part = raw[: cut % len(raw)]
    translator = made(asked_by(client, stream=stream), server)
    _, last, failure = outcome(translator, [part])
    assert bool(last) != bool(failure)
    if last:
        assert len(raw) - len(part) <= 2, "only the line ends of the end may be missing"
    else:
        translator.so_far()


KINDS = ["message_start", "content_block_start", "content_block_delta", "message_delta"]
KEYS = [
    *("choices", "delta", "message", "content", "tool_calls", "function", "index", "id", "arguments", "usage", "type"),
    *("content_block", "error", "text", "done", "logprobs", *KINDS),
]


@given(
    pair=st.sampled_from(PAIRS),
    junk=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYS),
                inner
                | st.sampled_from(["message_start", "content_block_start", "content_block_delta", "message_delta"]),
                max_size=5,
            )
        ),
        max_leaves=12,
    ),
    stream=st.booleans(),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nonsense_is_an_upstreams_failure_and_no_crash(pair: tuple[str, str], junk: Any, stream: bool):
    """Whatever JSON comes in an event or a line: pieces, or UpstreamFailed."""
    client, server = pair
    text = json.dumps(junk)
    raw = f"{text}\n" if server == "ollama" else f"data: {text}\n\n"
    end = {"ollama": '{"done":true}\n', "openai": "data: [DONE]\n\n"}.get(server, 'data: {"type":"message_stop"}\n\n')
    translator = made(asked_by(client, stream=stream), server)
    outcome(translator, [raw.encode(), end.encode()])
    translator.so_far()
    translator.gained()


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_an_error_in_mid_stream_keeps_its_words(client: str, server: str):
    """Raised after what was good; the client's dialect has bytes for it that are no end."""
    ask = asked_by(client, stream=True)
    raw = streamed_by(server, Spoken(texts=("a", "b")), end="error")
    before, _, failure = outcome(made(ask, server), [raw])
    assert failure == f"{UpstreamSaid.__name__}: it broke"
    assert assemble(ask.shape, [before]).content == "ab"
    told = in_stream_error(ask.shape, "it broke")
    assert told is not None
    assert b"it broke" in told
    assert ENDS[client] not in told


REASONS = {
    "stop": {"ollama": "stop", "openai": "stop", "responses": "completed", "anthropic": "end_turn"},
    "length": {"ollama": "length", "openai": "length", "responses": "incomplete", "anthropic": "max_tokens"},
    "tool_calls": {"ollama": "stop", "openai": "tool_calls", "responses": "completed", "anthropic": "tool_use"},
    "content_filter": {
        **{"ollama": "content_filter", "openai": "content_filter"},
        **{"responses": "incomplete", "anthropic": "refusal"},
    },
}


@pytest.mark.parametrize("reason", list(REASONS))
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_reasons_to_finish_are_the_clients_own(client: str, server: str, reason: str):
    """Both ways, streamed and whole alike; Ollama has no more than stop and length of its own."""
    if server == "ollama" and reason == "content_filter":
        reason = "stop"
    calls = (Call("f", ("{}",)),) if reason == "tool_calls" else ()
    raw = streamed_by(server, Spoken(texts=("a",), calls=calls, reason=reason))
    read: dict[str, Callable[[dict[str, Any]], Any]] = {
        "ollama": lambda answer: answer["done_reason"],
        "openai": lambda answer: answer["choices"][0]["finish_reason"],
        "responses": lambda answer: answer["status"],
        "anthropic": lambda answer: answer["stop_reason"],
    }
    _, whole = carried(made(asked_by(client, stream=False), server), [raw])
    assert read[client](json.loads(whole)) == REASONS[reason][client]
    _, last = carried(made(asked_by(client, stream=True), server), [raw])
    assert REASONS[reason][client].encode() in last or (client, server) in {("ollama", "ollama")}


@pytest.mark.parametrize(
    ("told", "reason", "sequence"),
    [
        ({"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence", "END"),  # vLLM
        ({"finish_reason": "stop", "matched_stop": "END"}, "stop_sequence", "END"),  # SGLang
        ({"finish_reason": "stop", "stop_reason": 128009}, "end_turn", None),  # a token that ends a turn
        ({"finish_reason": "stop", "stop_reason": "<|eot|>"}, "end_turn", None),  # the server's own
        ({"finish_reason": "length", "stop_reason": None}, "max_tokens", None),
        ({"finish_reason": "stop"}, "end_turn", None),  # llama.cpp tells no more
    ],
)
def test_the_stop_sequence_that_was_met_is_told(told: dict[str, Any], reason: str, sequence: str | None):
    """To Anthropic's clients, where a server of OpenAI's dialect says which of theirs it was."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": "a"}}]}, {"choices": [{"index": 0, "delta": {}} | told]}]
    raw = ("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n").encode()
    stops = ["\n\n", "END"]
    _, whole = carried(made(asked_by("anthropic", stream=False, stop_sequences=stops), "openai"), [raw])
    answer = json.loads(whole)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    _, last = carried(made(asked_by("anthropic", stream=True, stop_sequences=stops), "openai"), [raw])
    assert json.dumps({"stop_reason": reason, "stop_sequence": sequence}, separators=(",", ":")).encode() in last


@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_usage_is_right_asked_for_or_not(client: str, server: str):
    """In the record always; in OpenAI's stream only where it was asked for, elsewhere in the end."""
    raw = streamed_by(server, Spoken(texts=("a",)))
    translator = made(asked_by(client, stream=True), server)
    before, last = carried(translator, [raw])
    assert translator.usage == Usage(7, 3)
    told = {
        "ollama": b'"eval_count":3',
        "openai": b"",
        "responses": b'"output_tokens":3',
        "anthropic": b'"output_tokens":3',
    }
    assert told[client] in last
    if client == "openai":
        assert b'"completion_tokens"' not in before + last
        asked = asked_by(client, stream=True, stream_options={"include_usage": True})
        _, last = carried(made(asked, server), [raw])
        assert b'"completion_tokens":3' in last


@pytest.mark.parametrize("client", ["openai", "anthropic", "responses", "ollama"])
def test_calls_told_at_once_are_put_in_order(client: str):
    """Parts of two calls that take turns: each call arrives whole, with its own arguments."""

    def part(index: int, text: str, **named: Any) -> dict[str, Any]:
        function = {"arguments": text} | ({"name": named["name"]} if named else {})
        return {"index": index, "function": function} | ({"id": named["id"]} if named else {})

    parts = [
        part(0, '{"a', id="x", name="f"), part(1, '{"b"', id="y", name="g"), part(0, '":1'), part(1, ":2"),
        part(0, "}"), part(1, "}"),
    ]  # fmt: skip
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in parts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"
    for stream in (True, False):
        ask = asked_by(client, stream=stream)
        before, last = carried(made(ask, "openai"), [raw])
        message = json.loads(assemble(ask.shape, [before, last]).message)
        assert called(message) == [("x", "f", {"a": 1}), ("y", "g", {"b": 2})]


@pytest.mark.parametrize("server", ["openai", "anthropic"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_call_that_the_length_cut_is_never_a_whole_one(client: str, server: str):
    """Its partial arguments are the client's to see where its dialect streams them; the reason says that it was cut."""
    raw = streamed_by(server, Spoken(calls=(Call("f", ('{"a":', '"b'), "x"),), reason="length"))
    for stream in (True, False):
        ask = asked_by(client, stream=stream)
        before, last = carried(made(ask, server), [raw])
        assert any(word in last for word in (b'"length"', b'"max_tokens"', b"max_output_tokens"))
        if client == "ollama":
            assert b"tool_calls" not in before + last
        elif stream:
            assert rb"{\"a\":" in before


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("client", ["ollama", "anthropic"])
def test_a_call_that_is_no_object_is_an_upstreams_failure(client: str, stream: bool):
    """However it is cut, what came before it is out already."""
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "a"}}]},
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "[1"}}]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"
    ask = asked_by(client, stream=stream)
    first = outcome(made(ask, "openai"), [raw])
    assert all(outcome(made(ask, "openai"), chunks) == first for chunks in cuts(raw))
    if client == "ollama" or not stream:
        assert "not an object" in first[2]
        assert bool(first[0]) == stream


@pytest.mark.parametrize("server", ["ollama", "anthropic"])
@pytest.mark.parametrize("client", ["ollama", "openai", "responses"])
def test_a_call_without_arguments_has_an_empty_object(client: str, server: str):
    """Anthropic sends nothing at all for it; OpenAI's clients decode what they get as JSON."""
    parts = () if server == "anthropic" else ("{}",)
    raw = streamed_by(server, Spoken(calls=(Call("f", parts, "x"), Call("g", parts, "y")), reason="tool_calls"))
    for stream in (True, False):
        ask = asked_by(client, stream=stream)
        before, last = carried(made(ask, server), [raw])
        message = json.loads(assemble(ask.shape, [before, last]).message)
        assert called(message) == [("x", "f", {}), ("y", "g", {})]


LOGPROBS = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5}]}]


@pytest.mark.parametrize("server", ["ollama", "openai"])
def test_log_probabilities_have_every_field_of_the_clients_dialect(server: str):
    """OpenAI's clients look for `bytes` and `top_logprobs` wherever there is a token."""
    raw = streamed_by(server, Spoken(texts=("a", "b"), logprobs=LOGPROBS))
    _, whole = carried(made(asked_by("openai", stream=False, logprobs=True, top_logprobs=1), server), [raw])
    (token,) = json.loads(whole)["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("a", -0.5, [97])
    assert token["top_logprobs"][0]["token"] == "a"
    _, whole = carried(made(asked_by("responses", stream=False, top_logprobs=1), server), [raw])
    assert json.loads(whole)["output"][0]["content"][0]["logprobs"][0]["top_logprobs"][0]["bytes"] is None
    _, whole = carried(made(asked_by("ollama", stream=False, logprobs=True), server), [raw])
    assert json.loads(whole)["logprobs"][0]["token"] == "a"


def test_several_choices_go_through_and_none_waits_for_the_other():
    """`n: 2` before a server of the same dialect: the first choice's end does not hold the second back."""

    def chunk(index: int, text: str | None = None, reason: str | None = None) -> bytes:
        delta = {"content": text} if text else {}
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return b"data: " + json.dumps({"choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"

    raw = chunk(0, "a") + chunk(1, "x") + chunk(0, reason="stop") + chunk(1, "y") + chunk(1, reason="length")
    raw += b"data: [DONE]\n\n"
    ask = asked_by("openai", stream=True, n=2)
    expected = carried(made(ask, "openai"), [raw])
    assert all(carried(made(ask, "openai"), chunks) == expected for chunks in cuts(raw))
    assert expected == (chunk(0, "a") + chunk(1, "x") + chunk(1, "y"),
        chunk(0, reason="stop") + chunk(1, reason="length") + b"data: [DONE]\n\n")  # fmt: skip
    _, whole = carried(made(asked_by("openai", stream=False, n=2), "openai"), [raw])
    choices = json.loads(whole)["choices"]
    assert [(each["message"]["content"], each["finish_reason"]) for each in choices] == [
        ("a", "stop"),
        ("xy", "length"),
    ]


def test_usage_in_every_chunk_holds_nothing_back():
    """As Gemini's compatible endpoint tells it: the text leaves as it comes."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    texts = [{"choices": [{"index": 0, "delta": {"content": text}}], "usage": usage} for text in "ab"]
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in texts).encode()
    translator = made(asked_by("openai", stream=True), "openai")
    translator.body("m")
    assert translator.feed(raw) == raw
    assert translator.usage == Usage(1, 2)


def test_calls_of_one_number_and_different_ids_are_two():
    """Some servers number every call 0; a client that wants one answer gets both."""
    calls = [{"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    raw = "".join(
        f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': [each]}}]})}\n\n" for each in calls
    )
    _, whole = carried(made(asked_by("openai", stream=False), "openai"), [raw.encode(), b"data: [DONE]\n\n"])
    told = json.loads(whole)["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in told] == [("f", "{}"), ("g", "{}")]


@pytest.mark.parametrize("client", CLIENTS)
def test_content_in_parts_is_text_and_thinking(client: str):
    """As a thinking model of Mistral's streams it."""
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    deltas: list[Any] = [thought, [{"type": "text", "text": "a"}], "b"]
    chunks = [{"choices": [{"index": 0, "delta": {"content": content}}]} for content in deltas]
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"
    for stream in (True, False):
        ask = asked_by(client, stream=stream)
        before, last = carried(made(ask, "openai"), [raw])
        answer = assemble(ask.shape, [before, last])
        assert answer.content == "ab"
        assert b"hm" in answer.message


@pytest.mark.parametrize(("client", "server", "end"), [
    ("openai", "openai", b"data: [DONE]\n\n"), ("anthropic", "anthropic", b'data: {"type":"message_stop"}\n\n'),
])  # fmt: skip
def test_an_end_without_an_answer_is_no_empty_answer(client: str, server: str, end: bytes):
    """An unstreamed client would get nothing at all, under 200."""
    _, last, failure = outcome(made(asked_by(client, stream=False), server), [end])
    assert (last, bool(failure)) == (b"", True)


def test_what_was_set_down_meanwhile_does_not_double_the_answer():
    """An unstreamed answer is also set down as it grows, against a crash: the answer stays itself."""
    for client in CLIENTS:
        for server in SERVERS:
            raw = streamed_by(server, RICH)
            ask = asked_by(client, stream=False)
            _, expected = carried(made(ask, server), [raw])
            translator = made(ask, server)
            translator.body("m")
            gained = b""
            for chunks in split_at(raw, range(0, len(raw), 50)):
                translator.feed(chunks)
                gained += translator.gained()
            assert translator.terminator() == expected
            assert assemble(ask.shape, [gained]).content == RICH.text


def test_a_truncated_stream_leaves_its_record():
    """What was gathered of an unstreamed answer is on record, calls included, however often it is asked for."""
    raw = streamed_by("openai", RICH)
    part = raw[: raw.rindex(b'"finish_reason":"tool_calls"')]
    for client in CLIENTS:
        ask = asked_by(client, stream=False)
        translator = made(ask, "openai")
        translator.body("m")
        translator.feed(part)
        with pytest.raises(UpstreamTruncated):
            translator.terminator()
        assert translator.so_far() == translator.so_far()
        answer = assemble(ask.shape, [translator.so_far()])
        assert answer.content == RICH.text
        assert b"weather" in answer.message
