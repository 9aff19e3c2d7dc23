"""An answer in pieces of no dialect: what a reader of an upstream's stream gives, and a writer for a client takes.

Rule: every pair of dialects that are not the same is one reader and one writer joined by these; a new dialect adds a
reader or a writer, not a pair.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon.dialects.translator import MAX_WHOLE, UpstreamGarbled


class ToolCall(msgspec.Struct, gc=False):
    """One whole call. `id` is empty where the upstream gave none."""

    index: int
    id: str
    name: str
    arguments: dict[str, Any]


class Piece(msgspec.Struct, gc=False):
    """What one step of an answer adds; at least one part is not empty. Log probabilities are `{token, logprob,
    bytes?, top_logprobs?}`, a shape that Ollama and OpenAI share."""

    content: str
    thinking: str = ""
    tool_calls: list[ToolCall] = []
    logprobs: list[dict[str, Any]] = []


class Ending(msgspec.Struct, gc=False):
    """How an answer ended, in OpenAI's words for the reason; None where the upstream told nothing."""

    reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    prefill_ns: int | None = None
    generation_ns: int | None = None


class Gathered:
    """An answer put together from its pieces, for a client who wants it whole. Bounded: UpstreamGarbled beyond."""

    def __init__(self) -> None:
        self.tool_calls: list[ToolCall] = []
        self.logprobs: list[dict[str, Any]] = []
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._size = 0

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        self._content.append(piece.content)
        self._thinking.append(piece.thinking)
        self.tool_calls += piece.tool_calls
        self.logprobs += piece.logprobs
        # A log probability is some 100 bytes, with its alternatives more; the bound need not be exact.
        self._size += len(piece.content) + len(piece.thinking) + 100 * len(piece.logprobs)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")

    @property
    def empty(self) -> bool:
        return not self._content

    @property
    def content(self) -> str:
        return "".join(self._content)

    @property
    def thinking(self) -> str:
        return "".join(self._thinking)
