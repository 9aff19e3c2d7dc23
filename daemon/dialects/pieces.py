"""An answer in pieces of no dialect: what a reader of an upstream's stream gives, and a writer for a client takes.

Rule: every pair of dialects that are not the same is one reader and one writer joined by these; a new dialect adds a
reader or a writer, not a pair.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon.dialects.translator import MAX_WHOLE, UpstreamGarbled

CallsEnd = Literal["", "whole", "cut"]


class ToolDelta(msgspec.Struct, gc=False):
    """A part of a tool call. The first part of a call brings its name, and its id where the upstream gives one; the
    arguments are the parts' JSON text joined. `index` tells an answer's calls apart, counted from 0."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Piece(msgspec.Struct, gc=False):
    """What one step of an answer adds; at least one part is not empty. Log probabilities are `{token, logprob,
    bytes?, top_logprobs?}`, a shape that Ollama and OpenAI share. `signature` vouches for the thinking before it
    (Anthropic). `calls_end` says that no further part of a tool call follows: they
    are whole, or the answer's length cut the last one."""

    content: str
    thinking: str = ""
    tools: list[ToolDelta] = []
    logprobs: list[dict[str, Any]] = []
    signature: str = ""
    calls_end: CallsEnd = ""


class Ending(msgspec.Struct, gc=False):
    """How an answer ended, in OpenAI's words for the reason (stop, length, tool_calls, content_filter; besides load
    and unload of Ollama's); None where the upstream told nothing. `stop` is the stop sequence that was met, if told."""

    reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None  # of tokens_in
    tokens_thinking: int | None = None  # of tokens_out
    prefill_ns: int | None = None
    generation_ns: int | None = None
    stop: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """One whole call. `id` is empty where there was none; `arguments` is JSON text, cut where the answer was cut."""

    index: int
    id: str
    name: str
    arguments: str


class ToolCalls:
    """Puts calls together from their parts. Bounded: UpstreamGarbled beyond."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolDelta] = {}
        self._arguments: dict[int, list[str]] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, delta: ToolDelta) -> None:
        """Append a part."""
        known = self._calls.get(delta.index)
        if known is None:
            self._calls[delta.index] = ToolDelta(delta.index, delta.id, delta.name)
            self._arguments[delta.index] = []
        else:
            known.id, known.name = known.id or delta.id, known.name or delta.name
        self._arguments[delta.index].append(delta.arguments)
        self._size += len(delta.arguments) + 1
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled("the upstream's tool calls are longer than anything sensible")

    def all(self) -> list[ToolCall]:
        """The calls so far, in order."""
        return [
            ToolCall(call.index, call.id, call.name, "".join(self._arguments[call.index]))
            for call in self._calls.values()
        ]

    def take(self) -> list[ToolCall]:
        """The calls so far, which are forgotten."""
        calls = self.all()
        self._calls, self._arguments, self._size = {}, {}, 0
        return calls


class InTurn:
    """Parts of tool calls, for a dialect that tells one call after the other: parts of a further call wait until the
    one before is a whole JSON object, or the calls end. Upstreams in use tell them in turn, too; then nothing waits."""

    def __init__(self) -> None:
        self._open: int | None = None
        self._arguments: list[str] = []  # of the open call
        self._told: set[int] = set()  # calls that are whole
        self._waiting: dict[int, list[ToolDelta]] = {}
        self._size = 0

    def add(self, delta: ToolDelta) -> list[ToolDelta]:
        """The parts that may be told now. UpstreamGarbled where more wait than is sensible."""
        if delta.index in self._told:
            if delta.arguments.strip():
                raise UpstreamGarbled("the upstream's tool call goes on after its end")
            return []
        if self._open is None or self._open == delta.index:
            self._open = delta.index
            self._arguments.append(delta.arguments)
            return [delta]
        self._waiting.setdefault(delta.index, []).append(delta)
        self._size += len(delta.arguments) + 1
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled("the upstream's tool calls are longer than anything sensible")
        told: list[ToolDelta] = []
        while self._waiting and self._is_whole():
            told += self._next()
        return told

    def end(self) -> list[ToolDelta]:
        """The calls so far have no further part: those that waited, a call after the other."""
        told: list[ToolDelta] = []
        while self._waiting:
            told += self._next()
        if self._open is not None:
            self._told.add(self._open)
        self._open, self._arguments = None, []
        return told

    def _next(self) -> list[ToolDelta]:
        if self._open is not None:
            self._told.add(self._open)
        self._open = next(iter(self._waiting))
        parts = self._waiting.pop(self._open)
        self._arguments = [part.arguments for part in parts]
        return parts

    def _is_whole(self) -> bool:
        try:
            msgspec.json.decode("".join(self._arguments), type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        return True


def objects_of(calls: list[ToolCall], *, cut: bool) -> list[tuple[ToolCall, dict[str, Any]]]:
    """The calls with their arguments decoded. UpstreamGarbled where they are no JSON object, but for one that the
    answer's length cut (`cut`): that one is none."""
    whole = []
    for call in calls:
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any] | None) or {}
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if cut:
                continue
            raise UpstreamGarbled(f"the arguments of the upstream's tool call are not an object: {error}") from error
        whole.append((call, arguments))
    return whole


class Gathered:
    """An answer put together from its pieces, for a client who wants it whole. Bounded: UpstreamGarbled beyond."""

    def __init__(self) -> None:
        self.calls = ToolCalls()
        self.logprobs: list[dict[str, Any]] = []
        self.signature = ""
        self.signed = 0  # how many signatures came, each for the thinking before it; the last one is kept
        self.cut = False  # the answer's length cut its last tool call
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._size = 0

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        self._content.append(piece.content)
        self._thinking.append(piece.thinking)
        self.signature = piece.signature or self.signature
        self.signed += bool(piece.signature)
        for delta in piece.tools:
            self.calls.add(delta)
        self.cut = self.cut or piece.calls_end == "cut"
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
