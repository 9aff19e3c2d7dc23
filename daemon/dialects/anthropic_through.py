"""Anthropic's dialect on both sides: streams go through as they are, whole answers are assembled from a stream.

Rule: the upstream is always asked for a stream; a client that wants one answer gets what its events add up to, in the
upstream's own fields, as Anthropic's SDKs add them up. Events that cannot be the end, an error or a count leave
unparsed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects import translator
from daemon.dialects.anthropic_stream import Event, error_answer, failure, read_event
from daemon.dialects.asks import Ask
from daemon.dialects.lines import SseReader
from daemon.dialects.translator import MAX_WHOLE, UpstreamGarbled, UpstreamTruncated
from daemon.exchange import Usage

_PLAIN = b'{"type":"content_block_delta"'


class _Through:
    """What the two translators below share."""

    upstream_method: Literal["POST", "GET"] = "POST"
    left_out: tuple[str, ...] = ()

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.upstream_path = ask.route + (f"?{ask.query}" if ask.query else "")
        self.upstream_headers = ask.headers
        self.content_type = translator.SSE if ask.stream else translator.JSON
        self.usage = Usage()
        self.pieces = 0
        self.finished = False
        self._events = SseReader()

    def body(self, model: str) -> bytes:
        return msgspec.json.encode({**self._ask.document, "model": model, "stream": True})

    def error_status(self, status: int, body: bytes) -> tuple[int, str]:
        return error_answer(status, body)

    def _read(self, data: bytes) -> Event:
        """The event decoded and counted; UpstreamSaid where it is an error, UpstreamGarbled where it is nonsense."""
        if self.finished:
            raise UpstreamGarbled("the upstream's answer goes on after its end")
        try:
            event = read_event(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent an event that is not Anthropic's: {error}") from error
        if event.type == "error":
            raise failure(event.error)
        counted = event.usage or (event.message.usage if event.message is not None else None)
        if counted is not None:
            tokens_in = self.usage.tokens_in if counted.tokens_in is None else counted.tokens_in
            tokens_out = self.usage.tokens_out if counted.output_tokens is None else counted.output_tokens
            self.usage = Usage(tokens_in, tokens_out)
        self.finished = event.type == "message_stop"
        return event

    def _take_rest(self, take: Callable[[bytes, bytes], None]) -> None:
        """At the upstream's end: the event that lacks its empty line. UpstreamTruncated where there was no end."""
        try:
            for event in self._events.end():
                take(event.name, event.data)
        except UpstreamGarbled as error:
            raise UpstreamTruncated("the upstream's answer ended within an event") from error
        if not self.finished:
            raise UpstreamTruncated("the upstream's answer ended before its last event")


class AnthropicThrough(_Through):
    """A streamed answer to a client who wants a stream."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._held = 0
        self._last: list[bytes] = []  # from `message_delta`, which names the reason to stop, on
        self._failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> bytes:
        if self._failure is not None:
            raise self._failure
        out: list[bytes] = []
        try:
            for name, event in self._events.feed(data):
                self._take(name, event, out)
        except UpstreamFailed as error:
            self._failure = error
            if not out:
                raise
        return b"".join(out)

    def terminator(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        out: list[bytes] = []
        self._take_rest(lambda name, event: self._take(name, event, out))
        return b"".join((*out, *self._last))

    def so_far(self) -> bytes:
        return b""

    def gained(self) -> bytes:
        return b""

    def _take(self, name: bytes, data: bytes, out: list[bytes]) -> None:
        whole = _whole(name, data)
        if not self._last and not self.finished and data.startswith(_PLAIN):
            self.pieces += 1
            out.append(whole)
            return
        event = self._read(data)
        if self._last or event.type in ("message_delta", "message_stop"):
            self._last.append(whole)
            self._held += len(whole)
            if self._held > MAX_WHOLE:
                raise UpstreamGarbled("the upstream's answer does not end after its end")
        else:
            self.pieces += event.type == "content_block_delta"
            out.append(whole)


def _whole(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data) if name else b"data: %b\n\n" % data


class AnthropicWhole(_Through):
    """A streamed answer to a client who wants one answer."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._gained: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        for name, event in self._events.feed(data):
            self._gather(name, event)
        return b""

    def terminator(self) -> bytes:
        self._take_rest(self._gather)
        if not self._message:
            raise UpstreamGarbled("the upstream's answer has an end and no beginning")
        return self.so_far()

    def so_far(self) -> bytes:
        if not self._message:
            return b""
        blocks = [self._block(index) for index in sorted(self._blocks)]
        return msgspec.json.encode(self._message | {"content": blocks})

    def gained(self) -> bytes:
        gained, self._gained = self._gained, []
        return b"".join(gained)

    def _gather(self, name: bytes, data: bytes) -> None:
        self._read(data)
        self._size += len(data)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")
        self._gained.append(_whole(name, data))
        event = msgspec.json.decode(data)
        match event:
            case {"type": "message_start", "message": dict(message)}:
                self._message = message
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                self._blocks[index] = block
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)} if index in self._blocks:
                self.pieces += 1
                self._add(index, delta)
            case {"type": "message_delta", "delta": dict(delta)}:
                usage = (self._message.get("usage") or {}) | (event.get("usage") or {})
                self._message |= delta | {"usage": usage}

    def _add(self, index: int, delta: dict[str, Any]) -> None:
        match delta:
            case {"type": "citations_delta", "citation": citation}:
                known = self._blocks[index].get("citations") or []
                self._blocks[index]["citations"] = [*known, citation]
            case {"type": _}:
                for name, value in delta.items():
                    if name != "type" and isinstance(value, str):
                        self._texts.setdefault((index, name), []).append(value)

    def _block(self, index: int) -> dict[str, Any]:
        block = dict(self._blocks[index])
        for name in ("text", "thinking", "signature"):
            if (index, name) in self._texts:
                block[name] = str(block.get(name) or "") + "".join(self._texts[index, name])
        if (index, "partial_json") in self._texts:
            text = "".join(self._texts[index, "partial_json"])
            try:
                block["input"] = msgspec.json.decode(text) if text else {}
            except (msgspec.MsgspecError, ValueError, RecursionError):
                block["input"] = {"partial_json": text}  # the answer's length cut it
        return block
