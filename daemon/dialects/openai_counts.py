"""What a server of OpenAI's dialect tells of an answer's tokens, as one count of all its choices.

Rule: usage is a total, and a later one replaces the one before it (OpenAI, Ollama; vLLM and Gemini with every chunk).
llama.cpp tells it once for each choice, beside `timings`, which nobody else has: those are added up, the tokens of a
prompt once for all the choices that it has.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon.exchange import Usage


class UsageTold(msgspec.Struct, gc=False):
    """The usage of an event."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def choices_of(document: dict[str, Any]) -> tuple[int, int]:
    """How many prompts a request has, and how many choices it wants of each."""
    prompt, wanted = document.get("prompt"), document.get("n")
    # A list of numbers is one prompt in tokens.
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts, wanted if isinstance(wanted, int) and wanted > 0 else 1


class Counts:
    """The counts of one answer; `several` where they were added up, so that no single event tells them."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.several = False
        self._of_each_prompt = choices_of(document)[1]
        self._prompts: dict[int, int] = {}
        self._told_out: int | None = None

    def taken(self, told: UsageTold, *, of_a_choice: bool, choice: int) -> Usage:
        """The counts with what one event told."""
        if not of_a_choice:
            return Usage(told.prompt_tokens, told.completion_tokens)
        self.several = self._told_out is not None
        self._told_out = (self._told_out or 0) + (told.completion_tokens or 0)
        self._prompts[choice // self._of_each_prompt] = told.prompt_tokens or 0
        return Usage(sum(self._prompts.values()), self._told_out)


def with_counts(chunk: dict[str, Any], usage: Usage) -> dict[str, Any]:
    """A chunk, or a whole answer, whose usage tells these counts."""
    total = (usage.tokens_in or 0) + (usage.tokens_out or 0)
    counts = {"prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out, "total_tokens": total}
    return chunk | {"usage": (chunk.get("usage") or {}) | counts}
