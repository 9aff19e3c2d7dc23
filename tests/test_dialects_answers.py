"""The audit puts an answer together from the bytes the client was sent: the same answer, the same message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.dialects.answers import Answer, assemble
from daemon.dialects.pairs import translator_for
from tests.rigs.feeding import SetClock, carried, cuts
from tests.rigs.spoken import CLIENTS, Call, Spoken, asked_by, streamed_by

CAPTURES = Path(__file__).parent / "captures"


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects)


@pytest.mark.parametrize("name", ["chat", "generate"])
def test_a_stream_and_its_whole_answer_are_the_same_message(name: str):
    """Ollama's real answers to one question, streamed and not, in any segments: one and the same bytes."""
    whole = assemble(f"ollama.{name}", [(CAPTURES / f"ollama_{name}.json").read_bytes()])
    assert len(whole.content) > 10
    assert whole.message == msgspec.json.encode({"role": "assistant", "content": whole.content})
    for segments in cuts((CAPTURES / f"ollama_{name}.ndjson").read_bytes()):
        assert assemble(f"ollama.{name}", segments) == whole


def test_the_message_is_the_one_a_client_sends_back():
    """Re-serialised from the next turn's history it is the same bytes, and so is stored once."""
    calls = [{"function": {"name": "f", "arguments": {"a": "<&é"}}}]
    raw = lines(
        {"message": {"role": "assistant", "content": "", "thinking": "h"}, "done": False},
        {"message": {"role": "assistant", "content": "a\u2028", "thinking": "m"}, "done": False},
        {"message": {"role": "assistant", "content": "<&", "tool_calls": calls}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True},
    ).replace(b"<", b"\\u003c")
    answer = assemble("ollama.chat", [raw])
    message = {"role": "assistant", "content": "a\u2028<&", "thinking": "hm", "tool_calls": calls}
    assert answer == Answer("a\u2028<&", msgspec.json.encode(message))


def test_what_was_whole_of_a_cut_answer_is_kept():
    """A crash may cut the last line anywhere; the lines before it count."""
    raw = lines({"response": "a", "done": False}, {"response": "b", "done": False})
    start = raw.index(b"\n") + 1
    for cut in range(start, len(raw) - 2):
        assert assemble("ollama.generate", [raw[:cut]]).content == "a"
    assert assemble("ollama.generate", [raw[:-1]]).content == "ab"
    assert assemble("ollama.generate", []) == Answer("", b'{"role":"assistant","content":""}')


def test_an_error_at_the_end_is_no_part_of_the_answer():
    """Its words stand in the record's own field."""
    raw = lines({"message": {"role": "assistant", "content": "a"}, "done": False}, {"error": "it broke"})
    assert assemble("ollama.chat", [raw]).content == "a"


@pytest.mark.parametrize("shape", ["ollama.embed", "ollama.embeddings"])
def test_embeddings_are_kept_as_they_are(shape: str):
    """There is no text to search in them."""
    assert assemble(shape, [b'{"embedd', b'ing":[1]}']) == Answer("", b'{"embedding":[1]}')


ANSWER = Spoken(texts=("W", "hy n", "ot?"), thoughts=("h", "m"), calls=(Call("f", ('{"a"', ':"é"}'), "id_1"),))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_and_the_whole_are_one_message_in_every_dialect(client: str):
    """Said by the same upstream: text, thoughts and calls alike."""
    raw = streamed_by("openai", ANSWER)
    answers = []
    for stream in (True, False):
        ask = asked_by(client, stream=stream)
        before, last = carried(translator_for(ask, "openai", SetClock()), [raw])
        answers.append(assemble(ask.shape, [before, last]))
    assert answers[0] == answers[1]
    assert answers[0].content == "Why not?"


@pytest.mark.parametrize("client", CLIENTS)
def test_of_an_answer_cut_anywhere_what_was_whole_is_kept(client: str):
    """A crash may cut it at any byte: the text so far is a beginning of the text, and nothing is a crash."""
    ask = asked_by(client, stream=True)
    sent = b"".join(carried(translator_for(ask, "openai", SetClock()), [streamed_by("openai", ANSWER)]))
    known = ""
    for cut in range(len(sent) + 1):
        content = assemble(ask.shape, [sent[:cut]]).content
        assert content.startswith(known)
        known = content
    assert known == "Why not?"
