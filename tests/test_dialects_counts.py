"""What an answer is counted as: what servers tell of it, each in its own way, and what is charged where it was cut."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.clock import SystemClock
from daemon.dialects.openai_asks import read_completion
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import Translator
from daemon.exchange import EndState, Usage
from daemon.underway import charged_tokens
from tests.rigs.spoken import asked_by

CLOCK = SystemClock.continued(None)


def events(*chunks: Any) -> bytes:
    """A stream of such events, without its end."""
    return b"".join(b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode() for chunk in chunks)


def said(text: str, *, index: int = 0, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of one choice."""
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": reason}
    return {"id": "x", "choices": [choice]} | more


def counts(tokens_in: int, tokens_out: int) -> dict[str, int]:
    """OpenAI's usage."""
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def cut(translator: Translator) -> tuple[Usage, int]:
    """The counts and the charge of an exchange that was cut off here."""
    exchange: Any = SimpleNamespace(state=EndState.CLIENT_LEFT, usage=translator.usage)
    return exchange.usage, charged_tokens(exchange, translator)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_cut_answer_counts_what_was_told_or_came_whichever_is_more(client: str) -> None:
    """A server that counts with every chunk, several tokens each; and one that told less than it had sent."""
    more = translator_for(asked_by(client, stream=True), "openai", CLOCK)
    more.feed(events(said("Why not", usage=counts(7, 4)), said(" now?", usage=counts(7, 9))))
    assert cut(more) == (Usage(7, 9), 16)
    less = translator_for(asked_by(client, stream=True), "openai", CLOCK)
    less.feed(events(said("Why", usage=counts(7, 1)), said(" not"), said("?")))
    assert cut(less) == (Usage(7, 3), 10)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_an_answer_that_was_cut_after_its_end_counts_as_it_was_told(client: str) -> None:
    """All of it came, its end could not be delivered: the server's own count is the truth, pieces may be more."""
    translator = translator_for(asked_by(client, stream=True), "openai", CLOCK)
    chunks = (said("Why"), said(" "), said("not?"), said("", reason="stop"), {"choices": [], "usage": counts(7, 2)})
    translator.feed(events(*chunks) + b"data: [DONE]\n\n")
    assert cut(translator) == (Usage(7, 2), 9)


TIMINGS = {"prompt_n": 1, "prompt_ms": 17.4, "predicted_n": 5, "predicted_ms": 48.9}
DONE = b"data: [DONE]\n\n"


def of_llama_cpp(choices: int) -> bytes:
    """A chat's stream as llama.cpp tells it: each choice has an end and a usage of its own."""
    chunks = [said("x", index=index) for index in range(choices) for _ in range(5)]
    for index in range(choices):
        usage = counts(33, 5) | {"prompt_tokens_details": {"cached_tokens": 32}}
        chunks += [said("", index=index, reason="length"), {"choices": [], "usage": usage, "timings": TIMINGS}]
    return events(*chunks) + DONE


def told(raw: bytes) -> list[Any]:
    """The events of a client's stream but for its end."""
    return [json.loads(event.removeprefix(b"data: ")) for event in raw.removesuffix(DONE).split(b"\n\n") if event]


def carried(translator: Translator, raw: bytes) -> bytes:
    """What a client gets of it."""
    return translator.feed(raw) + translator.terminator()


def test_choices_that_a_server_counts_one_by_one_are_added_up() -> None:
    """llama.cpp: four choices are four times the tokens, of one prompt; the client is told the sum, and once."""
    whole = translator_for(asked_by("openai", stream=False, n=4), "openai", CLOCK)
    answer = json.loads(carried(whole, of_llama_cpp(4)))
    assert whole.usage == Usage(33, 20)
    assert answer["usage"] == counts(33, 20) | {"prompt_tokens_details": {"cached_tokens": 32}}
    for wanted in (True, False):
        asked = asked_by("openai", stream=True, n=4, stream_options={"include_usage": wanted})
        stream = translator_for(asked, "openai", CLOCK)
        usages = [chunk["usage"] for chunk in told(carried(stream, of_llama_cpp(4))) if "usage" in chunk]
        assert stream.usage == Usage(33, 20)
        assert [(each["completion_tokens"], each["total_tokens"]) for each in usages] == [(20, 53)] * wanted
    one = asked_by("openai", stream=True, stream_options={"include_usage": True})
    assert carried(translator_for(one, "openai", CLOCK), of_llama_cpp(1)) == of_llama_cpp(1)


@pytest.mark.parametrize("stream", [True, False])
def test_totals_are_not_added_up(stream: bool) -> None:
    """A sum in the last chunk (OpenAI, Ollama), or in every chunk so far (vLLM's `continuous_usage_stats`)."""
    texts = [said("x", index=index, usage=counts(7, number)) for number in (1, 2) for index in (0, 1)]
    ends = [said("", index=index, reason="stop", usage=counts(7, 2)) for index in (0, 1)]
    translator = translator_for(asked_by("openai", stream=stream, n=2), "openai", CLOCK)
    answer = carried(translator, events(*texts, *ends, {"choices": [], "usage": counts(7, 4)}) + DONE)
    assert translator.usage == Usage(7, 4)
    assert stream or json.loads(answer)["usage"] == counts(7, 4)


@pytest.mark.parametrize("stream", [True, False])
def test_each_of_several_prompts_counts_once(stream: bool) -> None:
    """Two prompts with two choices each, as llama.cpp tells them: an empty event first, a count with each end."""
    prompts = ["One, two,", "Red, green, blue and"]
    asked = read_completion(json.dumps({"model": "m", "prompt": prompts, "n": 2, "stream": stream}).encode())
    translator = translator_for(asked, "openai", CLOCK)
    chunks: list[Any] = [None]
    for index, tokens_in in ((2, 6), (0, 4), (1, 4), (3, 6)):
        choice = {"text": " or", "index": index, "logprobs": None, "finish_reason": None}
        end = choice | {"text": "", "finish_reason": "length"}
        chunks += [{"choices": [choice]}, {"choices": [end], "usage": counts(tokens_in, 2), "timings": TIMINGS}]
    answer = carried(translator, events(*chunks) + DONE)
    assert translator.usage == Usage(10, 8)
    if stream:
        assert [chunk["choices"][0]["text"] for chunk in told(answer)] == [" or"] * 4 + [""] * 4
    else:
        assert [choice["text"] for choice in json.loads(answer)["choices"]] == [" or"] * 4
        assert json.loads(answer)["usage"] == counts(10, 8)
