"""Writes an answer in the shape of OpenAI's responses from pieces of no dialect.

Rule: the items of an answer (reasoning, message, function calls) are numbered in the order in which they begin, one
open at a time; every event has its sequence number. What closes the last item and `response.completed` (or
`response.incomplete`) is the end and leaves last.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon.clock import Clock
from daemon.dialects.asks import Ask
from daemon.dialects.openai_writer import full
from daemon.dialects.pieces import Ending, Gathered, InTurn, Piece, ToolDelta
from daemon.dialects.responses_conversation import SEALED_THOUGHTS, SIGNED

_encode = msgspec.json.encode
_TEXT_DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'

# What a response repeats of its request.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}


# Why a response is not complete, by the reason to finish.
_INCOMPLETE: dict[str | None, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesWriter:
    """Writes one answer to one ask, under the model name that was asked for."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        now = clock.wall()
        self._mark = f"{now:x}"
        self._head: dict[str, Any] = {
            "id": f"resp_{self._mark}",
            "object": "response",
            "created_at": now // 1_000_000,
            "error": None,
            "model": ask.model,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
        } | {name: given if (given := ask.document.get(name)) is not None else value for name, value in _ECHOED.items()}
        self._number = 0  # of the next event
        self._items: list[dict[str, Any]] = []  # closed ones; the open one is the last, growing
        self._open = ""  # reasoning, message, or "call N"; "" where none is open
        self._texts: list[str] = []  # of the open item
        self._logprobs: list[dict[str, Any]] = []
        self._signatures: list[str] = []  # of the open item's thinking
        self._wants_signature = SEALED_THOUGHTS in (ask.document.get("include") or ())
        self._in_turn = InTurn()
        self._after_number = b""  # of the open message's events
        self._begun = False

    def line(self, piece: Piece) -> bytes:
        """The events of one piece."""
        if self._open == "message" and piece.content and not (piece.thinking or piece.tools or piece.logprobs):
            # What goes on with the text, as nearly all do, is joined from bytes: 2.0 us a chunk against 3.9, measured.
            number, self._number = self._number, self._number + 1
            self._texts.append(piece.content)
            after = self._after_number
            return b"".join((_TEXT_DELTA, b"%d" % number, after, _encode(piece.content), b',"logprobs":[]}\n\n'))
        out: list[bytes] = []
        if piece.thinking or piece.content:
            self._call_waiting(out)
        if piece.thinking:
            self._think(piece.thinking, out)
        if piece.signature and self._open == "reasoning":
            self._signatures.append(piece.signature)
        if piece.content or piece.logprobs:
            self._say(piece, out)
        for delta in piece.tools:
            for part in self._in_turn.add(delta):
                self._call(part, out)
        if piece.calls_end:
            self._call_waiting(out)
        return b"".join(out)

    def last(self, ending: Ending, total_ns: int) -> bytes:
        """The events that end the stream."""
        out: list[bytes] = []
        self._begin(out)
        self._call_waiting(out)
        self._close(out, cut=ending.reason == "length")
        kind = "response.incomplete" if ending.reason in _INCOMPLETE else "response.completed"
        out.append(self._event(kind, response=self._response(ending)))
        return b"".join(out)

    def whole(self, answer: Gathered, ending: Ending, total_ns: int) -> bytes:
        """The one object of an unstreamed answer."""
        self._gather(answer, cut=ending.reason == "length")
        return _encode(self._response(ending))

    def unfinished(self, answer: Gathered) -> bytes:
        """An unstreamed answer that was cut off, for the record."""
        self._gather(answer, cut=True)
        return _encode(self._head | {"status": "in_progress", "output": self._items})

    # --- the items ---

    def _gather(self, answer: Gathered, *, cut: bool) -> None:
        nowhere: list[bytes] = []
        # What `line` wrote of it meanwhile was for the record of a crash.
        self._items, self._open, self._texts, self._logprobs, self._signatures = [], "", [], [], []
        if answer.thinking:
            self._think(answer.thinking, nowhere)
            self._signatures = [answer.signature] * answer.signed
        if answer.content or answer.logprobs:
            self._say(Piece(answer.content, logprobs=answer.logprobs), nowhere)
        for call in answer.calls.all():
            self._call(ToolDelta(call.index, call.id, call.name, call.arguments), nowhere)
        self._close(nowhere, cut=cut)

    def _think(self, text: str, out: list[bytes]) -> None:
        if self._enter("reasoning", out):
            item = {"id": self._name("rs"), "type": "reasoning", "summary": []}
            self._added(item, out)
            part = {"type": "summary_text", "text": ""}
            out.append(self._event("response.reasoning_summary_part.added", **self._at(), summary_index=0, part=part))
        self._texts.append(text)
        out.append(self._event("response.reasoning_summary_text.delta", **self._at(), summary_index=0, delta=text))

    def _say(self, piece: Piece, out: list[bytes]) -> None:
        if self._enter("message", out):
            item = {"id": self._name("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
            self._added(item | {"content": []}, out)
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            out.append(self._event("response.content_part.added", **self._at(), content_index=0, part=part))
            self._after_number = b"," + _encode(self._at() | {"content_index": 0})[1:-1] + b',"delta":'
        self._texts.append(piece.content)
        logprobs = full(piece.logprobs)
        self._logprobs += logprobs
        if piece.content:
            delta = {"content_index": 0, "delta": piece.content, "logprobs": logprobs}
            out.append(self._event("response.output_text.delta", **self._at(), **delta))

    def _call_waiting(self, out: list[bytes]) -> None:
        for part in self._in_turn.end():
            self._call(part, out)

    def _call(self, part: ToolDelta, out: list[bytes]) -> None:
        if self._enter(f"call {part.index}", out):
            item = {
                "id": self._name("fc"),
                "type": "function_call",
                "status": "in_progress",
                "arguments": "",
                "call_id": part.id or f"call_{self._mark}_{part.index}",
                "name": part.name,
            }
            self._added(item, out)
        if part.arguments:
            self._texts.append(part.arguments)
            out.append(self._event("response.function_call_arguments.delta", **self._at(), delta=part.arguments))

    def _enter(self, item: str, out: list[bytes]) -> bool:
        """Have this item open; whether it must begin."""
        self._begin(out)
        if self._open == item:
            return False
        self._close(out, cut=False)
        self._open = item
        return True

    def _added(self, item: dict[str, Any], out: list[bytes]) -> None:
        self._items.append(item)
        out.append(self._event("response.output_item.added", output_index=len(self._items) - 1, item=item))

    def _close(self, out: list[bytes], *, cut: bool) -> None:
        """Close the open item; `cut` where the answer's length ended it."""
        if not self._open:
            return
        item, text = self._items[-1], "".join(self._texts)
        status = "incomplete" if cut else "completed"
        at = self._at()
        if self._open == "reasoning":
            thought = {"type": "summary_text", "text": text}
            out.append(self._event("response.reasoning_summary_text.done", **at, summary_index=0, text=text))
            out.append(self._event("response.reasoning_summary_part.done", **at, summary_index=0, part=thought))
            item["summary"] = [thought]
            if self._wants_signature and len(self._signatures) == 1:
                item["encrypted_content"] = SIGNED + self._signatures[0]
        elif self._open == "message":
            part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
            part["logprobs"] = self._logprobs
            done = {"content_index": 0, "text": text, "logprobs": self._logprobs}
            out.append(self._event("response.output_text.done", **at, **done))
            out.append(self._event("response.content_part.done", **at, content_index=0, part=part))
            item |= {"status": status, "content": [part]}
        else:
            item |= {"status": status, "arguments": text or "{}"}
            arguments = {"name": item["name"], "arguments": item["arguments"]}
            out.append(self._event("response.function_call_arguments.done", **at, **arguments))
        out.append(self._event("response.output_item.done", output_index=at["output_index"], item=item))
        self._open, self._texts, self._logprobs, self._signatures = "", [], [], []

    # --- the response around them ---

    def _begin(self, out: list[bytes]) -> None:
        if self._begun:
            return
        self._begun = True
        response = self._head | {"status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
        out.append(self._event("response.created", response=response))
        out.append(self._event("response.in_progress", response=response))

    def _response(self, ending: Ending) -> dict[str, Any]:
        why = _INCOMPLETE.get(ending.reason)
        tokens_in, tokens_out = ending.tokens_in or 0, ending.tokens_out or 0
        return self._head | {
            "status": "incomplete" if why else "completed",
            "incomplete_details": {"reason": why} if why else None,
            "output": self._items,
            "usage": {
                "input_tokens": tokens_in,
                "input_tokens_details": {"cached_tokens": ending.tokens_cached or 0},
                "output_tokens": tokens_out,
                "output_tokens_details": {"reasoning_tokens": ending.tokens_thinking or 0},
                "total_tokens": tokens_in + tokens_out,
            },
        }

    def _at(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _name(self, kind: str) -> str:
        return f"{kind}_{self._mark}_{len(self._items)}"

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        content = _encode({"type": kind, "sequence_number": number} | fields)
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), content)
