"""Reads what an Anthropic upstream streams (messages) into pieces of no dialect.

Rule: what came from a cache counts among the prompt's tokens. The stream ends with `message_stop`, with nothing else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects import translator
from daemon.dialects.lines import SseReader
from daemon.dialects.pieces import CallsEnd, Ending, Piece, ToolDelta
from daemon.dialects.translator import UpstreamGarbled, UpstreamSaid, UpstreamTruncated, said


class Usage(msgspec.Struct, gc=False):
    """The counts of a message so far."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    @property
    def tokens_in(self) -> int | None:
        """The prompt's tokens, with those of a cache."""
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)


class _Message(msgspec.Struct, gc=False):
    usage: Usage | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    input: dict[str, Any] = {}  # whole already, of servers that do not tell it in parts


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Event(msgspec.Struct, gc=False):
    """One event of the stream; which fields there are depends on `type`."""

    type: str = ""
    message: _Message | None = None
    index: int = 0
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Usage | None = None
    error: Any = None


read_event = msgspec.json.Decoder(Event).decode


def failure(error: Any) -> UpstreamSaid:
    """The error of an `error` event."""
    kind = error.get("type") if isinstance(error, dict) else None
    return said({"error": error}, _STATUSES.get(str(kind), 500))


_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 503,
}


def error_answer(status: int, body: bytes) -> tuple[int, str]:
    """Status and words for the client of an error answer of such an upstream; 529 says that it is overloaded."""
    return translator.error_answer(503 if status == 529 else status, body)


_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicStream:
    """Bytes of server-sent events in, pieces out. `ending` is filled as the stream tells it."""

    def __init__(self) -> None:
        self.ending = Ending()
        self.finished = False
        self._events = SseReader()
        self._calls: dict[int, int] = {}  # the index of a tool call's block -> the call's own
        self._bare: set[int] = set()  # blocks of calls of which no arguments came yet
        self._failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that `data` completes. UpstreamSaid, UpstreamGarbled; after good pieces by the next call."""
        if self._failure is not None:
            raise self._failure
        pieces: list[Piece] = []
        try:
            for _, event in self._events.feed(data):
                self._take(event, pieces)
        except UpstreamFailed as error:
            self._failure = error
            if not pieces:
                raise
        return pieces

    def end(self) -> list[Piece]:
        """At the upstream's end: what its last bytes bring. UpstreamTruncated where `message_stop` never came."""
        if self._failure is not None:
            raise self._failure
        pieces: list[Piece] = []
        try:
            for _, event in self._events.end():
                self._take(event, pieces)
        except UpstreamGarbled as error:
            raise UpstreamTruncated("the upstream's answer ended within an event") from error
        if not self.finished:
            raise UpstreamTruncated("the upstream's answer ended before its last event")
        return pieces

    def _take(self, data: bytes, pieces: list[Piece]) -> None:
        if self.finished:
            raise UpstreamGarbled("the upstream's answer goes on after its end")
        try:
            event = read_event(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent an event that is not Anthropic's: {error}") from error
        piece: Piece | None = None
        match event.type:
            case "message_start" if event.message is not None:
                self._count(event.message.usage)
            case "content_block_start" if event.content_block is not None:
                piece = self._begin(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                piece = self._delta(event.index, event.delta)
            case "content_block_stop" if event.index in self._bare:
                self._bare.discard(event.index)  # a call without arguments: an empty object, and no empty text
                piece = Piece("", tools=[ToolDelta(self._calls[event.index], arguments="{}")])
            case "message_delta":
                self._count(event.usage)
                piece = self._end(event.delta or _Delta())
            case "message_stop":
                self.finished = True
            case "error":
                raise failure(event.error)
        if piece is not None:
            pieces.append(piece)

    def _begin(self, index: int, block: _Block) -> Piece | None:
        if block.type == "tool_use":
            number = self._calls[index] = len(self._calls)
            arguments = msgspec.json.encode(block.input).decode() if block.input else ""
            if not arguments:
                self._bare.add(index)
            return Piece("", tools=[ToolDelta(number, block.id, block.name, arguments)])
        return Piece(block.text, block.thinking) if block.text or block.thinking else None

    def _delta(self, index: int, delta: _Delta) -> Piece | None:
        if delta.partial_json and index in self._calls:
            self._bare.discard(index)
            return Piece("", tools=[ToolDelta(self._calls[index], arguments=delta.partial_json)])
        if delta.text or delta.thinking or delta.signature:
            return Piece(delta.text, delta.thinking, signature=delta.signature)
        return None

    def _end(self, delta: _Delta) -> Piece | None:
        if delta.stop_reason is None:
            return None
        self.ending.reason = _REASONS.get(delta.stop_reason, "stop")
        self.ending.stop = delta.stop_sequence if delta.stop_reason == "stop_sequence" else None
        calls_end: CallsEnd = "cut" if self.ending.reason == "length" else "whole"
        return Piece("", calls_end=calls_end) if self._calls else None

    def _count(self, usage: Usage | None) -> None:
        if usage is None:
            return
        if usage.tokens_in is not None:
            self.ending.tokens_in = usage.tokens_in
            self.ending.tokens_cached = usage.cache_read_input_tokens or self.ending.tokens_cached
        if usage.output_tokens is not None:
            self.ending.tokens_out = usage.output_tokens
