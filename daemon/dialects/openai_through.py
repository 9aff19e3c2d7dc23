"""OpenAI's dialect on both sides: streams go through as they are, whole answers are assembled from a stream.

Rule: the upstream is always asked for a stream, with its usage; a client that had not asked for the usage does not get
that chunk, and one that wants one answer gets what the deltas add up to, in the upstream's own fields. Events that
cannot be the end, an error or the usage leave unparsed. Embeddings have no stream and go through whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects import translator
from daemon.dialects.asks import Ask, Shape
from daemon.dialects.lines import SseReader
from daemon.dialects.openai_counts import Counts, UsageTold, choices_of, with_counts
from daemon.dialects.openai_stream import error_answer
from daemon.dialects.openai_sum import add_choice
from daemon.dialects.openai_writer import DONE
from daemon.dialects.translator import (
    MAX_WHOLE,
    UpstreamGarbled,
    UpstreamTruncated,
    is_list,
    said,
)
from daemon.dialects.vectors import from_base64, in_base64, shortened
from daemon.exchange import Usage


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: UsageTold | None = None
    timings: Any = None
    error: Any = None


# llama.cpp's first event where there are several prompts.
_NOTHING = b"null"
_read_event = msgspec.json.Decoder(_Event).decode


class _Delta(msgspec.Struct, gc=False):
    tool_calls: list[dict[str, Any]] | None = None


class _WholeChoice(_Choice, gc=False):
    delta: _Delta | None = None
    text: str | None = None


class _WholeEvent(_Event, gc=False):
    choices: list[_WholeChoice] | None = None  # type: ignore[assignment]


# What an answer is put together from must be of the right kinds; the rest is added up as it is.
_read_whole = msgspec.json.Decoder(_WholeEvent).decode


class _Through:
    """What the translators below share."""

    upstream_method: Literal["POST", "GET"] = "POST"
    upstream_headers: translator.Headers = ()
    left_out: tuple[str, ...] = ()

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.upstream_path = ask.route
        self.content_type = translator.SSE if ask.stream else translator.JSON
        self.usage = Usage()
        self.pieces = 0
        self.finished = False

    def gained(self) -> bytes:
        return b""

    def error_status(self, status: int, body: bytes) -> tuple[int, str]:
        return error_answer(status, body)


class _Streamed(_Through):
    """Reads the upstream's events; what becomes of one is the heirs' matter."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._events = SseReader()
        self._failure: UpstreamFailed | None = None
        self._counts = Counts(ask.document)

    def body(self, model: str) -> bytes:
        options = (self._ask.document.get("stream_options") or {}) | {"include_usage": True}
        return msgspec.json.encode({**self._ask.document, "model": model, "stream": True, "stream_options": options})

    def _take_rest(self, take: Callable[[bytes], None]) -> None:
        """At the upstream's end: the event that lacks its empty line. UpstreamTruncated where there was no end."""
        try:
            for event in self._events.end():
                take(event.data)
        except UpstreamGarbled as error:
            raise UpstreamTruncated("the upstream's answer ended within an event") from error
        if not self.finished:
            raise UpstreamTruncated("the upstream's answer ended before its last event")

    def _read(self, event: bytes, read: Any) -> Any:
        """The event decoded; UpstreamSaid where it is an error, UpstreamGarbled where it is nothing of OpenAI's."""
        if self.finished:
            raise UpstreamGarbled("the upstream's answer goes on after its end")
        try:
            decoded = read(event)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent an event that is not OpenAI's: {error}") from error
        if decoded.error is not None:
            code = decoded.error.get("code") if isinstance(decoded.error, dict) else None
            raise said({"error": decoded.error}, code)
        if decoded.usage is not None:
            choice = decoded.choices[0].index if decoded.choices else 0
            self.usage = self._counts.taken(decoded.usage, of_a_choice=decoded.timings is not None, choice=choice)
        return decoded


class OpenAiThrough(_Streamed):
    """A streamed answer to a client who wants a stream."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._wants_usage = (ask.document.get("stream_options") or {}).get("include_usage") is True
        # From the chunk that names a reason to finish on, everything is the end and waits for it; but for the chunks of
        # other choices, where several were asked for.
        self._last: list[bytes] = []
        self._held = 0
        self._several = choices_of(ask.document) != (1, 1)
        self._told = b""  # the chunk of the usage alone, which leaves after all of them

    def feed(self, data: bytes) -> bytes:
        if self._failure is not None:
            raise self._failure
        out: list[bytes] = []
        try:
            for event in self._events.feed(data):
                self._take(event.data, out)
        except UpstreamFailed as failure:
            self._failure = failure
            if not out:
                raise
        return b"".join(out)

    def terminator(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        out: list[bytes] = []
        self._take_rest(lambda event: self._take(event, out))
        return b"".join((*out, *self._last, self._told, DONE))

    def so_far(self) -> bytes:
        return b""

    def _take(self, event: bytes, out: list[bytes]) -> None:
        if event == b"[DONE]":
            self.finished = True
            return
        if (self._several or not self._last) and not self.finished and _is_plain(event):
            self.pieces += 1
            out.append(b"data: " + event + b"\n\n")
            return
        if event == _NOTHING and not self.finished:
            return
        decoded = self._read(event, _read_event)
        ends = any(choice.finish_reason for choice in decoded.choices or ())
        # Usage may stand in every chunk (Gemini, vLLM when told so): only what has no choice is the end.
        if _only_counts(decoded):
            if self._wants_usage:  # else it was only for us
                self._tell(event)
            return
        if ends or (self._last and not (self._several and decoded.choices)):
            self._hold(b"data: " + event + b"\n\n")
            return
        self.pieces += 1
        out.append(b"data: " + event + b"\n\n")

    def _tell(self, event: bytes) -> None:
        """One chunk tells the usage, of all choices: clients take the last one, or add up what they get."""
        if self._counts.several:
            event = msgspec.json.encode(with_counts(msgspec.json.decode(event), self.usage))
        self._told = b"data: " + event + b"\n\n"

    def _hold(self, event: bytes) -> None:
        self._held += len(event)
        if self._held > MAX_WHOLE:
            raise UpstreamGarbled("the upstream's answer does not end after its end")
        self._last.append(event)


def _only_counts(event: _Event) -> bool:
    """Whether it is the chunk that tells the usage and nothing else."""
    return not event.choices and event.usage is not None


def _is_plain(event: bytes) -> bool:
    """Whether an event is certainly neither the end, an error nor the usage, without looking at the rest.

    Within a JSON string these marks cannot stand: their quotes would be escaped.
    """
    return (
        b'"finish_reason":null' in event
        and event.count(b'"finish_reason"') == 1
        and b'"error"' not in event
        and (b'"usage"' not in event or b'"usage":null' in event)
    )


class OpenAiWhole(_Streamed):
    """A streamed answer to a client who wants one answer: the deltas added up."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._gained: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        for event in self._events.feed(data):
            self._gather(event.data)
        return b""

    def terminator(self) -> bytes:
        self._take_rest(self._gather)
        whole = self.so_far()
        if not whole:
            raise UpstreamGarbled("the upstream's answer has an end and nothing before it")
        return whole

    def so_far(self) -> bytes:
        if not self._head and not self._choices:
            return b""
        chat = self._ask.shape is Shape.OPENAI_CHAT
        choices = [_choice(number, self._choices[number], chat=chat) for number in sorted(self._choices)]
        head = with_counts(self._head, self.usage) if self._counts.several else self._head
        head = head | {"object": "chat.completion" if chat else "text_completion", "choices": choices}
        return msgspec.json.encode({name: head[name] for name in _ordered(head)})

    def gained(self) -> bytes:
        gained, self._gained = self._gained, []
        return b"".join([b"data: " + event + b"\n\n" for event in gained])

    def _gather(self, event: bytes) -> None:
        if event == b"[DONE]":
            self.finished = True
            return
        if event == _NOTHING and not self.finished:
            return
        self._read(event, _read_whole)
        self._size += len(event)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")
        self._gained.append(event)
        chunk = msgspec.json.decode(event)
        choices = chunk.pop("choices", None) or ()
        self._head |= {name: value for name, value in chunk.items() if value is not None or name not in self._head}
        for choice in choices:
            self.pieces += 1
            add_choice(self._choices.setdefault(choice.get("index", 0), {}), choice)


def _choice(number: int, gathered: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    choice = {name: value for name, value in gathered.items() if name not in ("index", "delta", "text")}
    choice.setdefault("logprobs", None)
    choice.setdefault("finish_reason", None)
    if not chat:
        return {"index": number, "text": gathered.get("text") or ""} | choice
    message = {"role": "assistant", "content": None} | (gathered.get("delta") or {})
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    return {"index": number, "message": message} | choice


def _ordered(head: dict[str, Any]) -> list[str]:
    """As OpenAI orders an answer: what it is, then the choices, then the counts and the rest."""
    first = [name for name in ("id", "object", "created", "model", "choices", "usage") if name in head]
    return first + [name for name in head if name not in first]


class _VectorUsage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None


class _Vectors(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()
    usage: _VectorUsage | None = None
    error: Any = None


class OpenAiVectors(_Through):
    """Embeddings: one JSON answer, through as it is where that is what was asked for."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._parts: list[bytes] = []
        self._size = 0

    def body(self, model: str) -> bytes:
        return msgspec.json.encode({**self._ask.document, "model": model})

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")
        return b""

    def terminator(self) -> bytes:
        whole = b"".join(self._parts)
        try:
            vectors = msgspec.json.decode(whole, type=_Vectors)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream's answer is not OpenAI's: {error}") from error
        if vectors.error is not None:
            raise said({"error": vectors.error})
        if not is_list(vectors.data):
            raise UpstreamGarbled("the upstream's answer has no embeddings")
        self.finished = True
        self.usage = Usage(vectors.usage.prompt_tokens if vectors.usage else None, 0)
        document = self._ask.document
        packed, dimensions = document.get("encoding_format") == "base64", document.get("dimensions") or 0
        return _as_asked(whole, packed=packed, dimensions=dimensions) if packed or dimensions else whole

    def so_far(self) -> bytes:
        return b""


def _as_asked(whole: bytes, *, packed: bool, dimensions: int) -> bytes:
    """The answer with its vectors in base64 or shortened, where a server read over that wish: OpenAI's JavaScript SDK
    asks for the one by itself and makes an empty vector of a plain list."""
    answer = msgspec.json.decode(whole)
    try:
        for entry in answer["data"]:
            told = entry["embedding"]
            known = from_base64(told) if isinstance(told, str) else told
            vector = shortened(known, dimensions)
            if vector is not known or (packed and told is known):
                entry["embedding"] = in_base64(vector) if packed else vector
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamGarbled("the upstream's embeddings are not OpenAI's") from error
    return msgspec.json.encode(answer)
