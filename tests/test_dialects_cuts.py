"""However an upstream's bytes are cut, the client gets the same, and never the end before the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from common.errors import UpstreamFailed
from daemon.dialects.answers import assemble
from daemon.dialects.asks import Ask, read_chat, read_generate
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import Translator
from tests.rigs.feeding import SetClock, split_at

TEXTS = st.text(alphabet='ab <>&"\\\n{}:é\u2028😀', max_size=6)
PLACES = st.lists(st.integers(min_value=0), max_size=12)
ENDS = st.sampled_from(["done", "error", "nothing", "junk"])


def chat_ask(*, stream: bool) -> Ask:
    return read_chat(json.dumps({"model": "m", "messages": [{"role": "user"}], "stream": stream}).encode())


def generate_ask(*, stream: bool) -> Ask:
    return read_generate(json.dumps({"model": "m", "prompt": "x", "stream": stream}).encode())


def said(text: str, chatting: bool) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}} if chatting else {"response": text}


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


Stream = tuple[bytes, list[str], str]


@st.composite
def ollama_streams(draw: st.DrawFn, chatting: bool = True) -> Stream:
    """An Ollama chat or generate stream, its texts, how it ends."""
    texts = draw(st.lists(TEXTS, max_size=5))
    ascii_only = draw(st.booleans())
    lines: list[dict[str, Any]] = []
    for text in texts:
        extra = draw(st.sampled_from([{}, {"logprobs": [{"token": "a", "logprob": -1}]}, {"novel": {"done": True}}]))
        lines.append({**said(text, chatting), "done": False, **extra})
    end = draw(ENDS)
    last = {"done": {**said("", chatting), "done": True, "eval_count": 2}, "error": {"error": "broke"}}
    if end in last:
        lines.append(last[end])
    raw = "".join(json.dumps(line, ensure_ascii=ascii_only, separators=(",", ":")) + "\n" for line in lines)
    return (raw + ("<junk>\n" if end == "junk" else "")).encode(), texts, end


@st.composite
def openai_streams(draw: st.DrawFn) -> Stream:
    """An OpenAI chat stream, its texts, how it ends."""
    texts = draw(st.lists(TEXTS, max_size=5))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    chunks: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    calls = draw(st.booleans())
    if calls:
        parts = ['{"a":', '"é"', "}"]
        chunks += [
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": part}}]}}]}
            for part in parts
        ]
    end = draw(ENDS)
    if end == "done":
        chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"usage": {"completion_tokens": 2}}]
    elif end == "error":
        chunks.append({"error": {"message": "broke"}})
    payloads = [json.dumps(chunk) for chunk in chunks] + {"done": ["[DONE]"], "junk": ["<junk>"]}.get(end, [])
    comment = draw(st.sampled_from(["", f": ping{newline}"]))
    raw = "".join(f"{comment}data: {payload}{newline}{newline}" for payload in payloads)
    return raw.encode(), texts, end


def holds(make: Callable[[], Translator], stream: Stream, places: list[int], ask: Ask) -> None:
    """The promises that every translator keeps, for one stream and one way to cut it."""
    raw, texts, end = stream
    shape, streamed = ask.shape, ask.stream
    before, last, failure = outcome(make(), split_at(raw, places))
    assert (before, last, failure) == outcome(make(), [raw])
    assert not any(json.loads(line).get("done") for line in before.split(b"\n") if line)
    assert bool(failure) == (end != "done")
    assert bool(last) == (end == "done")
    if streamed:
        assert before == b"" or before.endswith(b"\n")
        assert assemble(shape, [before]).content == "".join(texts)
    else:
        assert before == b""
    if last:
        assert json.loads(last.splitlines()[-1])["done"] is True
        assert assemble(shape, [before, last]).content == "".join(texts)


@given(data=st.data(), places=PLACES, streamed=st.booleans(), chatting=st.booleans())
def test_ollama_to_ollama(data: st.DataObject, places: list[int], streamed: bool, chatting: bool):
    """Pass-through and assembly; a streamed answer is the upstream's own bytes."""
    stream = data.draw(ollama_streams(chatting))
    ask = chat_ask(stream=streamed) if chatting else generate_ask(stream=streamed)
    holds(lambda: translator_for(ask, "ollama", SetClock()), stream, places, ask)
    raw, _, end = stream
    if streamed and end == "done":
        before, last, _ = outcome(translator_for(ask, "ollama", SetClock()), split_at(raw, places))
        assert before + last == raw


@given(stream=openai_streams(), places=PLACES, streamed=st.booleans(), chatting=st.booleans())
def test_ollama_to_openai(stream: Stream, places: list[int], streamed: bool, chatting: bool):
    """Translation."""
    ask = chat_ask(stream=streamed) if chatting else generate_ask(stream=streamed)
    holds(lambda: translator_for(ask, "openai", SetClock()), stream, places, ask)


@given(
    stream=openai_streams() | ollama_streams(),
    cut=st.integers(min_value=0),
    kind=st.sampled_from(["ollama", "openai"]),
)
def test_a_stream_cut_short_anywhere_is_never_whole(stream: Stream, cut: int, kind: str):
    """Nor is one of the wrong dialect: there is an end only where the upstream gave one, whole."""
    raw, _, _ = stream
    part = raw[: cut % max(1, len(raw))]
    _, last, failure = outcome(translator_for(chat_ask(stream=True), kind, SetClock()), [part])
    assert bool(last) != bool(failure)
    if last:
        # Only line ends may be missing: `[DONE]`, or the line with `done`, is there.
        assert b"[DONE]" in part or b'"done":true' in part
