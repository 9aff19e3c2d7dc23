"""Writes an answer in the shape of Anthropic's messages from pieces of no dialect.

Rule: the blocks of an answer are numbered in the order in which they begin, one open at a time. `message_start` cannot
know the prompt's tokens yet where the upstream counts them at its end: the real counts stand in `message_delta`, which
leaves with `message_stop`, last.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon.clock import Clock
from daemon.dialects.asks import Ask
from daemon.dialects.pieces import Ending, Gathered, InTurn, Piece, ToolCall, ToolDelta, objects_of

_encode = msgspec.json.encode


def event(name: str, **fields: Any) -> bytes:
    """A server-sent event as Anthropic sends them."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name} | fields))


class AnthropicWriter:
    """Writes one answer to one ask, under the model name that was asked for."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        mark = f"{clock.wall():x}"
        self._id = f"msg_{mark}"
        self._calls = f"toolu_{mark}_"
        self._model = ask.model
        self._stops = ask.document.get("stop_sequences") or ()
        self._begun = False
        self._called = False
        self._in_turn = InTurn()
        self._index = -1  # of the open block, or of the last one
        self._open = ""  # text, thinking, or the index of a tool call; "" where no block is open
        # The event of a piece that is only text, which nearly all are, is joined from bytes.
        self._before_text = b""

    def line(self, piece: Piece) -> bytes:
        """The events of one piece."""
        if self._open == "text" and not (piece.thinking or piece.tools or piece.calls_end or piece.signature):
            return b"".join((self._before_text, _encode(piece.content), b"}}\n\n")) if piece.content else b""
        out: list[bytes] = []
        if piece.thinking or piece.signature or piece.content:
            self._write_waiting(out)
        if piece.thinking or piece.signature:
            self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
            if piece.thinking:
                out.append(self._delta(type="thinking_delta", thinking=piece.thinking))
            if piece.signature:
                out.append(self._delta(type="signature_delta", signature=piece.signature))
        if piece.content:
            self._enter("text", {"type": "text", "text": ""}, out)
            out.append(self._delta(type="text_delta", text=piece.content))
        for delta in piece.tools:
            for part in self._in_turn.add(delta):
                self._write_call(part, out)
        if piece.calls_end:
            self._write_waiting(out)
        return b"".join(out)

    def last(self, ending: Ending, total_ns: int) -> bytes:
        """The events that end the stream."""
        out: list[bytes] = []
        if not self._begun:
            self._begin(out)
        self._write_waiting(out)
        self._close(out)
        delta = {"stop_reason": self._reason(ending), "stop_sequence": self._met(ending)}
        out.append(event("message_delta", delta=delta, usage=usage_of(ending)))
        out.append(event("message_stop"))
        return b"".join(out)

    def whole(self, answer: Gathered, ending: Ending, total_ns: int) -> bytes:
        """The one object of an unstreamed answer."""
        content = self._blocks(answer, cut=answer.cut)
        head = self._head(content, self._reason(ending), self._met(ending))
        return _encode(head | {"usage": usage_of(ending)})

    def unfinished(self, answer: Gathered) -> bytes:
        """An unstreamed answer that was cut off, for the record."""
        return _encode(self._head(self._blocks(answer, cut=True), None, None))

    def _blocks(self, answer: Gathered, *, cut: bool) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        if answer.thinking:
            blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": answer.signature})
        if answer.content:
            blocks.append({"type": "text", "text": answer.content})
        for call, arguments in objects_of(answer.calls.all(), cut=cut):
            self._called = True
            blocks.append({"type": "tool_use", "id": self._name(call), "name": call.name, "input": arguments})
        return blocks

    def _write_waiting(self, out: list[bytes]) -> None:
        for part in self._in_turn.end():
            self._write_call(part, out)

    def _write_call(self, part: ToolDelta, out: list[bytes]) -> None:
        block = {"type": "tool_use", "id": self._name(part), "name": part.name, "input": {}}
        self._called = True
        self._enter(f"tool {part.index}", block, out)
        if part.arguments:
            out.append(self._delta(type="input_json_delta", partial_json=part.arguments))

    def _name(self, call: ToolDelta | ToolCall) -> str:
        return call.id or f"{self._calls}{call.index}"

    def _enter(self, block: str, content: dict[str, Any], out: list[bytes]) -> None:
        """Have this block open: close another one, begin it."""
        if not self._begun:
            self._begin(out)
        if self._open == block:
            return
        self._close(out)
        self._index += 1
        self._open = block
        out.append(event("content_block_start", index=self._index, content_block=content))
        self._before_text = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":' % self._index
        )

    def _close(self, out: list[bytes]) -> None:
        if self._open:
            out.append(event("content_block_stop", index=self._index))
            self._open = ""

    def _begin(self, out: list[bytes]) -> None:
        self._begun = True
        message = self._head([], None, None) | {"usage": {"input_tokens": 0, "output_tokens": 0}}
        out.append(event("message_start", message=message))

    def _delta(self, **delta: Any) -> bytes:
        return event("content_block_delta", index=self._index, delta=delta)

    def _head(self, content: list[dict[str, Any]], reason: str | None, stop: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
        }

    def _met(self, ending: Ending) -> str | None:
        """Which of the client's stop sequences was met, if told; a server may have others of its own."""
        return ending.stop if ending.stop in self._stops else None

    def _reason(self, ending: Ending) -> str:
        if self._met(ending) is not None:
            return "stop_sequence"
        if self._called and ending.reason in (None, "stop"):
            return "tool_use"
        return _REASONS.get(ending.reason or "stop", "end_turn")


_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def usage_of(ending: Ending) -> dict[str, Any]:
    """Usage as Anthropic tells it: what came from a cache is not among `input_tokens`."""
    cached = ending.tokens_cached or 0
    usage = {"input_tokens": max(0, (ending.tokens_in or 0) - cached), "output_tokens": ending.tokens_out or 0}
    return usage | ({"cache_read_input_tokens": cached} if cached else {})
