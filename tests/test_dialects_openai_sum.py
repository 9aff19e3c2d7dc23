"""Whole answers from a stream of OpenAI's dialect: only what is told in deltas is joined, the rest stands as it is."""

from __future__ import annotations

import json
from typing import Any

from daemon.clock import SystemClock
from daemon.dialects.openai_asks import read_completion
from daemon.dialects.pairs import translator_for
from tests.rigs.spoken import asked_by

CLOCK = SystemClock.continued(None)


def whole(*choices: dict[str, Any], ask: Any = None) -> dict[str, Any]:
    """The first choice of the answer that such chunks add up to."""
    translator = translator_for(ask or asked_by("openai", stream=False), "openai", CLOCK)
    chunks = [{"id": "x", "choices": [{"index": 0} | choice]} for choice in choices]
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    translator.feed(text.encode())
    (choice,) = json.loads(translator.terminator())["choices"]
    return dict(choice)


def test_texts_that_repeat_with_every_chunk_are_not_joined() -> None:
    """The format of OpenRouter's reasoning, the verdicts of Azure's filters, names and ids that come again."""

    def thought(text: str, **more: Any) -> dict[str, Any]:
        said = {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", "index": 0}
        return {"delta": {"reasoning": text, "reasoning_details": [said | more]}}

    safe = {"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    sealed = {"type": "reasoning.encrypted", "data": "e30=", "format": "anthropic-claude-v1", "index": 0}
    choice = whole(
        thought("Let me "),
        thought("see.", signature="sig"),
        {"delta": {"reasoning_details": [sealed]}},
        {"delta": {"role": "assistant", "content": "Why "}, "native_finish_reason": "", **safe},
        {"delta": {"role": "assistant", "content": "not?"}, "native_finish_reason": "end_turn", **safe},
        {"delta": {}, "finish_reason": "stop", "native_finish_reason": "end_turn", **safe},
    )
    said = {"type": "reasoning.text", "text": "Let me see.", "format": "anthropic-claude-v1", "index": 0}
    assert choice["message"] == {
        "role": "assistant",
        "content": "Why not?",
        "reasoning": "Let me see.",
        "reasoning_details": [said | {"signature": "sig"}, sealed],
    }
    assert (choice["content_filter_results"], choice["native_finish_reason"]) == (
        safe["content_filter_results"],
        "end_turn",
    )


def test_everything_that_the_dialect_tells_in_deltas_is_joined() -> None:
    """Texts, refusals, thoughts, arguments, audio; log probabilities are lists that go on."""

    def called(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": function.pop("id", ""), "type": "function", "function": function}]}

    half: dict[str, Any] = {"content": "a", "refusal": "b", "reasoning_content": "c"}
    half |= {"audio": {"id": "audio_1", "data": "AA", "transcript": "d"}}
    logprobs: dict[str, Any] = {
        "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
        "refusal": None,
    }
    first = half | called(id="c1", name="look", arguments='{"city":')
    choice = whole(
        {"delta": first, "logprobs": logprobs},
        {"delta": half | called(name="", arguments='"Oslo"}'), "logprobs": logprobs},
        {"delta": {}, "finish_reason": "tool_calls"},
    )
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"city":"Oslo"}'}}
    assert choice["message"] == {
        "role": "assistant",
        "content": "aa",
        "refusal": "bb",
        "reasoning_content": "cc",
        "audio": {"id": "audio_1", "data": "AAAA", "transcript": "dd"},
        "tool_calls": [call],
    }
    assert choice["logprobs"] == {"content": logprobs["content"] * 2, "refusal": None}
    ask = read_completion(json.dumps({"model": "m", "prompt": "x", "stream": False}).encode())
    completed = whole({"text": "One, ", "stop_reason": None}, {"text": "two"}, ask=ask)
    assert completed["text"] == "One, two"
