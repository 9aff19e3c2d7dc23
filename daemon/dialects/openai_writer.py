"""Writes an answer in the shape of OpenAI's chat completions or completions from pieces of no dialect.

Rule: the chunk that names the reason to finish, the usage and `[DONE]` are the end and leave last. Thinking goes out as
`reasoning_content`, the name that llama.cpp, vLLM and DeepSeek gave it. A tool call without an id gets one.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import msgspec

from daemon.clock import Clock
from daemon.dialects.asks import Ask, Shape
from daemon.dialects.pieces import Ending, Gathered, Piece, ToolCall

_encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"


class OpenAiWriter:
    """Writes one answer to one ask, under the model name that was asked for."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._chat = ask.shape is Shape.OPENAI_CHAT
        now = clock.wall()
        mark = f"{now:x}"
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{mark}"
        self._calls = f"call_{mark}_"
        self._model = ask.model
        self._created = now // 1_000_000
        options = ask.document.get("stream_options") or {}
        self._with_usage = options.get("include_usage") is True
        self._called = False
        self._begun = False
        self._offset = 0  # characters of a completion so far
        # The chunk of a piece that is only text, which nearly all are, is joined from bytes.
        before = _encode(self._head("chat.completion.chunk" if self._chat else "text_completion"))[:-1]
        part = b'"delta":{"content":' if self._chat else b'"text":'
        self._before_text = b"data: " + before + b',"choices":[{"index":0,' + part
        self._after_text = b"".join(
            (b"}" if self._chat else b"", b',"finish_reason":null}]', self._no_usage(), b"}\n\n")
        )

    def line(self, piece: Piece) -> bytes:
        """The event of one piece."""
        if self._begun and piece.content and not (piece.thinking or piece.tools or piece.logprobs or piece.calls_end):
            return b"".join((self._before_text, _encode(piece.content), self._after_text))
        if not (piece.content or piece.thinking or piece.tools or piece.logprobs):
            return b""
        if not self._chat:
            self._begun = not piece.logprobs  # where there are some, each chunk tells where its tokens stand
            offset, self._offset = self._offset, self._offset + len(piece.content)
            return self._chunk({"text": piece.content, "logprobs": _older(piece.logprobs, offset)}, None)
        delta: dict[str, Any] = {} if self._begun else {"role": "assistant"}
        self._begun = True
        if piece.content or not (piece.thinking or piece.tools):
            delta["content"] = piece.content
        if piece.thinking:
            delta["reasoning_content"] = piece.thinking
        if piece.tools:
            self._called = True
            delta["tool_calls"] = [
                {"index": part.index}
                | ({"id": part.id or f"{self._calls}{part.index}", "type": "function"} if part.name else {})
                | {"function": ({"name": part.name} if part.name else {}) | {"arguments": part.arguments}}
                for part in piece.tools
            ]
        logprobs = {"logprobs": _newer(piece.logprobs)} if piece.logprobs else {}
        return self._chunk({"delta": delta} | logprobs, None)

    def last(self, ending: Ending, total_ns: int) -> bytes:
        """The events that end the stream."""
        content: dict[str, Any] = {"delta": {} if self._begun else {"role": "assistant", "content": ""}}
        finish = self._chunk(content if self._chat else {"text": "", "logprobs": None}, self._reason(ending))
        if not self._with_usage:
            return finish + DONE
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        usage = self._head(kind) | {"choices": [], "usage": usage_of(ending)}
        return finish + b"data: " + _encode(usage) + b"\n\n" + DONE

    def whole(self, answer: Gathered, ending: Ending, total_ns: int) -> bytes:
        """The one object of an unstreamed answer."""
        return _encode(self._object(answer, ending) | {"usage": usage_of(ending)})

    def unfinished(self, answer: Gathered) -> bytes:
        """An unstreamed answer that was cut off, for the record."""
        return _encode(self._object(answer, None))

    def _object(self, answer: Gathered, ending: Ending | None) -> dict[str, Any]:
        calls = answer.calls.all()
        self._called = self._called or bool(calls)
        reason = None if ending is None else self._reason(ending)
        if self._chat:
            message: dict[str, Any] = {"role": "assistant", "content": answer.content or (None if calls else "")}
            if answer.thinking:
                message["reasoning_content"] = answer.thinking
            if calls:
                message["tool_calls"] = [self._call(call) for call in calls]
            logprobs = _newer(answer.logprobs) if answer.logprobs else None
            choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
            return self._head("chat.completion") | {"choices": [choice]}
        logprobs = _older(answer.logprobs, 0)
        choice = {"text": answer.content, "index": 0, "logprobs": logprobs, "finish_reason": reason}
        return self._head("text_completion") | {"choices": [choice]}

    def _call(self, call: ToolCall) -> dict[str, Any]:
        identifier = call.id or f"{self._calls}{call.index}"
        return {
            "id": identifier,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments or "{}"},
        }

    def _chunk(self, content: dict[str, Any], reason: str | None) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        choice = {"index": 0} | content | {"finish_reason": reason}
        chunk = self._head(kind) | {"choices": [choice]} | ({"usage": None} if self._with_usage else {})
        return b"data: " + _encode(chunk) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _no_usage(self) -> bytes:
        return b',"usage":null' if self._with_usage else b""

    def _reason(self, ending: Ending) -> str:
        if self._called and ending.reason in (None, "stop"):
            return "tool_calls"
        return _REASONS.get(ending.reason, ending.reason or "stop")


# Reasons of others that OpenAI's clients do not know.
_REASONS: dict[str | None, str] = {None: "stop", "load": "stop", "unload": "stop"}


def usage_of(ending: Ending) -> dict[str, Any]:
    """Usage as OpenAI tells it; what the upstream did not count is 0."""
    tokens_in, tokens_out = ending.tokens_in or 0, ending.tokens_out or 0
    usage: dict[str, Any] = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    usage["total_tokens"] = tokens_in + tokens_out
    if ending.tokens_cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": ending.tokens_cached}
    return usage


def full(logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log probabilities with every field that OpenAI's clients look for."""
    return [_token(each) | {"top_logprobs": list(map(_token, each.get("top_logprobs") or ()))} for each in logprobs]


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry.get("token", ""), "logprob": entry.get("logprob"), "bytes": entry.get("bytes")}


def _newer(logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Log probabilities in the shape of chat completions."""
    return {"content": full(logprobs), "refusal": None}


def _older(logprobs: list[dict[str, Any]], offset: int) -> dict[str, Any] | None:
    """Log probabilities in the older shape of completions; the first token stands at `offset` of the text."""
    if not logprobs:
        return None
    tokens = [str(each.get("token") or "") for each in logprobs]
    return {
        "tokens": tokens,
        "token_logprobs": [each.get("logprob") for each in logprobs],
        "top_logprobs": [
            {top.get("token"): top.get("logprob") for top in each.get("top_logprobs") or ()} for each in logprobs
        ],
        "text_offset": [offset + before for before in accumulate(map(len, tokens[:-1]), initial=0)],
    }
