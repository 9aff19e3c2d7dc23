"""Reads what an OpenAI upstream streams (chat completions and completions) into pieces of no dialect.

Rule: parts of tool calls come out as they come; usage and timings are taken wherever they stand (OpenAI: a
chunk of their own; llama.cpp: the last one). The stream ends with `[DONE]` and with nothing else.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects import translator
from daemon.dialects.lines import SseReader
from daemon.dialects.pieces import CallsEnd, Ending, Piece, ToolDelta
from daemon.dialects.translator import UpstreamGarbled, UpstreamTruncated, said


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolDelta(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None  # a list of parts where a model of Mistral's thinks
    refusal: str | None = None
    reasoning_content: str | None = None  # llama.cpp, vLLM, DeepSeek
    reasoning: str | None = None  # others, and vLLM of late
    tool_calls: list[_ToolDelta] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None  # completions
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM: the stop sequence that was met, or a token's number
    matched_stop: Any = None  # SGLang's name of the same
    logprobs: dict[str, Any] | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Timings(msgspec.Struct, gc=False):
    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAiStream:
    """Bytes of server-sent events in, pieces out. `ending` is filled as the stream tells it."""

    def __init__(self) -> None:
        self.ending = Ending()
        self.finished = False
        self._events = SseReader()
        self._calls = _Calls()
        self._failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that `data` completes. UpstreamSaid, UpstreamGarbled; after good pieces by the next call."""
        if self._failure is not None:
            raise self._failure
        pieces: list[Piece] = []
        try:
            for _, event in self._events.feed(data):
                self._take(event, pieces)
        except UpstreamFailed as failure:
            self._failure = failure
            if not pieces:
                raise
        return pieces

    def end(self) -> list[Piece]:
        """At the upstream's end: what its last bytes bring. UpstreamTruncated where `[DONE]` never came."""
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

    def _take(self, event: bytes, pieces: list[Piece]) -> None:
        if event == b"[DONE]":
            if not self.finished and self._calls.open:
                pieces.append(Piece("", calls_end="whole"))  # of a server that named no reason to finish
            self.finished = True
            return
        if self.finished:
            raise UpstreamGarbled("the upstream's answer goes on after its end")
        try:
            chunk = _read_chunk(event)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent an event that is not OpenAI's: {error}") from error
        if chunk.error is not None:
            code = chunk.error.get("code") if isinstance(chunk.error, dict) else None
            raise said({"error": chunk.error}, code)
        self._note(chunk)
        for choice in chunk.choices or ():
            if choice.index == 0:
                piece = self._piece(choice)
                if piece is not None:
                    pieces.append(piece)

    def _note(self, chunk: _Chunk) -> None:
        if chunk.usage is not None:
            self.ending.tokens_in = chunk.usage.prompt_tokens
            self.ending.tokens_out = chunk.usage.completion_tokens
            if chunk.usage.prompt_tokens_details is not None:
                self.ending.tokens_cached = chunk.usage.prompt_tokens_details.cached_tokens
            if chunk.usage.completion_tokens_details is not None:
                self.ending.tokens_thinking = chunk.usage.completion_tokens_details.reasoning_tokens
        if chunk.timings is not None:
            self.ending.prefill_ns = _nanoseconds(chunk.timings.prompt_ms)
            self.ending.generation_ns = _nanoseconds(chunk.timings.predicted_ms)

    def _piece(self, choice: _Choice) -> Piece | None:
        """What a choice brings; None where it brings nothing, as the first chunk, which names the role."""
        content, thinking = choice.text or "", ""
        tools: list[ToolDelta] = []
        if (delta := choice.delta) is not None:
            if isinstance(delta.content, list):
                content, thinking = in_parts(delta.content)
            else:
                content = delta.content or delta.refusal or content
            thinking = delta.reasoning_content or delta.reasoning or thinking
            if delta.tool_calls:
                tools = [self._calls.named(call) for call in delta.tool_calls]
        calls_end: CallsEnd = ""
        if choice.finish_reason is not None:
            self.ending.reason = choice.finish_reason
            met = choice.stop_reason or choice.matched_stop
            self.ending.stop = met if isinstance(met, str) and choice.finish_reason == "stop" else None
            calls_end = self._calls.close(choice.finish_reason)
        logprobs = _logprobs(choice.logprobs) if choice.logprobs else []
        if not (content or thinking or tools or logprobs or calls_end):
            return None
        return Piece(content, thinking, tools, logprobs, calls_end=calls_end)


def in_parts(parts: list[Any]) -> tuple[str, str]:
    """The text and the thinking of content that comes in parts, as Mistral tells it: `{"type": "text", "text"}`,
    `{"type": "thinking", "thinking": [texts]}`."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "thinking", "thinking": list(told)}:
                thoughts.append(in_parts(told)[0])
    return "".join(texts), "".join(thoughts)


_CANNOT_TAKE = re.compile(r"(image|audio|video) input is not supported\b")


def error_answer(status: int, body: bytes) -> tuple[int, str]:
    """Status and words for the client of an error answer of such an upstream."""
    answer, words = translator.error_answer(status, body)
    # llama.cpp answers 500 to an image or audio that its model cannot take; it is the client's to leave it out.
    return (400 if status == 500 and _CANNOT_TAKE.match(words) else answer), words


class _Calls:
    """Tells an answer's tool calls apart: some servers leave the index out, or give each call the same."""

    def __init__(self) -> None:
        self._slots: list[_ToolDelta] = []
        self.open = False  # a part came after the calls were last said to be whole

    def named(self, delta: _ToolDelta) -> ToolDelta:
        """The part, under its call's own index."""
        self.open = True
        function = delta.function or _Function()
        slot = self._slot(delta)
        if slot is None:
            slot = len(self._slots)
            self._slots.append(delta)
            return ToolDelta(slot, delta.id or "", function.name or "", function.arguments or "")
        return ToolDelta(slot, arguments=function.arguments or "")

    def close(self, reason: str) -> CallsEnd:
        """No further part follows; empty where there was none."""
        was_open, self.open = self.open, False
        return "" if not was_open else "cut" if reason == "length" else "whole"

    def _slot(self, delta: _ToolDelta) -> int | None:
        """The call that a part goes on with."""
        for number in range(len(self._slots) - 1, -1, -1):
            known = self._slots[number]
            if delta.id and known.id and delta.id != known.id:
                continue
            if delta.index is None or delta.index == known.index:
                return number
        return None


def _nanoseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1_000_000)


def _logprobs(logprobs: dict[str, Any]) -> list[dict[str, Any]]:
    """Log probabilities in Ollama's shape, which is OpenAI's of chat completions; completions have an older one."""
    try:
        if isinstance(logprobs.get("content"), list):
            return [_token(each) for each in logprobs["content"]]
        tokens, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
        tops = logprobs.get("top_logprobs") or [None] * len(tokens)
        return [
            {"token": token, "logprob": value}
            | ({"top_logprobs": [{"token": other, "logprob": p} for other, p in top.items()]} if top else {})
            for token, value, top in zip(tokens, values, tops, strict=True)
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UpstreamGarbled("the upstream's log probabilities are not OpenAI's") from error


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    token = {name: entry[name] for name in ("token", "logprob", "bytes") if entry.get(name) is not None}
    top = entry.get("top_logprobs")
    return token | ({"top_logprobs": [_token(each) for each in top]} if top else {})
