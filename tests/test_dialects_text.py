"""Plain text from every kind of upstream: the same bytes however the upstream's were cut, and nothing but the text."""

from __future__ import annotations

import json

import pytest

from common.errors import BadRequest
from daemon.audit.answers import answer_texts, pieces_in
from daemon.audit.documents import prompt_of
from daemon.dialects.answers import assemble
from daemon.dialects.asks import Shape
from daemon.dialects.pairs import translator_for
from daemon.dialects.text import read_request
from daemon.dialects.translator import UpstreamFailed, in_stream_error
from tests.rigs.feeding import SetClock, carried, cuts

ASK = read_request(b'{"model":"phi","request":"Why?"}')
WORDS = ["Nö", "ch \U0001f600", "\n", "— ende"]


def ndjson() -> bytes:
    """Ollama's chat, with thinking before it and a tool call in it, which are no part of the text."""
    parts = [{"content": "", "thinking": "hm"}, *({"content": word} for word in WORDS)]
    parts.append({"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]})
    lines = [{"message": {"role": "assistant", **part}, "done": False} for part in parts]
    lines.append(
        {"message": {"role": "assistant", "content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 4}
    )
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def sse() -> bytes:
    """OpenAI's chat."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    data = b"".join(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks)
    return data + b"data: [DONE]\n\n"


@pytest.mark.parametrize(("kind", "stream"), [("ollama", ndjson()), ("openai", sse())])
def test_the_text_is_the_same_however_it_was_cut(kind: str, stream: bytes) -> None:
    """Whole characters only, all text before the end, which is empty: the end of the body is the end."""
    for chunks in cuts(stream):
        translator = translator_for(ASK, kind, SetClock())
        before, end = carried(translator, chunks)
        assert (before.decode(), end) == ("".join(WORDS), b"")
        assert (translator.usage.tokens_in, translator.usage.tokens_out) == (3, 4)
        assert translator.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(("kind", "stream"), [("ollama", ndjson()), ("openai", sse())])
def test_a_stream_without_its_end_is_no_answer(kind: str, stream: bytes) -> None:
    """Cut anywhere before its terminator: a failure, for which text has no words."""
    last = stream.rindex(b'{"message"' if kind == "ollama" else b"data: [DONE]")
    for at in range(0, last, 7):
        translator = translator_for(ASK, kind, SetClock())
        with pytest.raises(UpstreamFailed):
            carried(translator, [stream[:at]])
    assert in_stream_error(Shape.TEXT, "words") is None


def test_the_audit_keeps_it_as_any_answer() -> None:
    """Prompt and answer, also of one that was cut within a character; about four bytes are a token."""
    assert prompt_of(ASK.document) == "Why?"
    text = "".join(WORDS).encode()
    assert json.loads(answer_texts("/request", [text])[0]) == {"role": "assistant", "content": "".join(WORDS)}
    assert assemble(Shape.TEXT, [text[:2]]).content == "N\ufffd"
    assert answer_texts("/request", [b""]) == []
    assert pieces_in("/request", [b"12345", b"678"]) == 2
    assert pieces_in("/request", [b"1"]) == 1


def test_what_is_asked_is_read_strictly() -> None:
    """Another case of a key is the key; two of one are none."""
    assert read_request(b'\xef\xbb\xbf{"MODEL":"phi","Request":"x"}').document == {"model": "phi", "request": "x"}
    for body in (b'{"model":"a","MODEL":"b","request":"x"}', b'{"model":1,"request":"x"}', b'"x"'):
        with pytest.raises(BadRequest):
            read_request(body)
