"""Reads what an Ollama upstream streams (chat and generate) into pieces of no dialect.

Rule: Ollama tells a tool call whole, so it is one part here; counts and durations stand in the last line, where a zero
is absent. The stream ends with `done: true` and with nothing else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects.lines import LineReader
from daemon.dialects.pieces import CallsEnd, Ending, Piece, ToolDelta
from daemon.dialects.translator import UpstreamGarbled, UpstreamTruncated, said


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    done: bool = False
    done_reason: str | None = None
    error: Any = None
    status: Any = None
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


_read_line = msgspec.json.Decoder(_Line).decode


class OllamaPieces:
    """Bytes of NDJSON in, pieces out. `ending` is filled by the last line."""

    def __init__(self) -> None:
        self.ending = Ending()
        self.finished = False
        self._lines = LineReader()
        self._calls = 0
        self._failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that `data` completes. UpstreamSaid, UpstreamGarbled; after good pieces by the next call."""
        if self._failure is not None:
            raise self._failure
        pieces: list[Piece] = []
        try:
            for line in self._lines.feed(data):
                self._take(line, pieces)
        except UpstreamFailed as failure:
            self._failure = failure
            if not pieces:
                raise
        return pieces

    def end(self) -> list[Piece]:
        """At the upstream's end: what its last bytes bring. UpstreamTruncated where `done` never came."""
        if self._failure is not None:
            raise self._failure
        pieces: list[Piece] = []
        try:
            self._take(self._lines.rest(), pieces)
        except UpstreamGarbled as error:
            raise UpstreamTruncated("the upstream's answer ended within a line") from error
        if not self.finished:
            raise UpstreamTruncated("the upstream's answer ended before its last line")
        return pieces

    def _take(self, line: bytes, pieces: list[Piece]) -> None:
        if not line.strip():
            return
        if self.finished:
            raise UpstreamGarbled("the upstream's answer goes on after its end")
        try:
            read = _read_line(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent a line that is not Ollama's: {error}") from error
        if read.error is not None:
            raise said({"error": read.error}, read.status)
        piece = self._piece(read)
        if piece is not None:
            pieces.append(piece)
        if read.done:
            self.finished = True
            self.ending = Ending(
                read.done_reason,
                read.prompt_eval_count or 0,
                read.eval_count or 0,
                prefill_ns=read.prompt_eval_duration,
                generation_ns=read.eval_duration,
            )

    def _piece(self, read: _Line) -> Piece | None:
        message = read.message or _Message(read.response, read.thinking)
        tools = [self._part(call) for call in message.tool_calls or ()]
        calls_end: CallsEnd = "whole" if read.done and self._calls else ""
        content, thinking = message.content or "", message.thinking or ""
        logprobs = read.logprobs or []
        if not (content or thinking or tools or logprobs or calls_end):
            return None
        return Piece(content, thinking, tools, logprobs, calls_end=calls_end)

    def _part(self, call: _Call) -> ToolDelta:
        index, self._calls = self._calls, self._calls + 1
        arguments = msgspec.json.encode(call.function.arguments or {}).decode()
        return ToolDelta(index, call.id or "", call.function.name, arguments)
