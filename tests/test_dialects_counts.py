"""What an answer is counted as: what servers tell of it, each in its own way, and what is charged where it was cut."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.clock import SystemClock
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
