"""Ollama on both sides: streams go through as they are, whole answers are assembled from a stream.

Rule: the upstream is always asked for a stream, since only a stream stops when its reader leaves; a client that wants
one answer gets what Ollama itself would have assembled, in the upstream's own fields and order (server/routes.go).
Embeddings have no stream and go through whole.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Literal

import msgspec

from common.errors import UpstreamFailed
from daemon.dialects import translator
from daemon.dialects.asks import Ask, Shape, expect
from daemon.dialects.lines import LineReader
from daemon.dialects.translator import MAX_WHOLE, UpstreamGarbled, UpstreamTruncated, is_list, said
from daemon.dialects.vectors import shortened
from daemon.exchange import Usage

# A line that ends so closes its object right after `done`, so `done` is the object's own and not a deeper one's:
# certainly not the stream's end, without looking at the rest.
_MORE = b'"done":false}'
_MORE_LINE = _MORE + b"\n"


class _Line(msgspec.Struct, gc=False):
    """What the gate must know of a streamed line; durations and unknown fields are read over."""

    done: bool = False
    error: Any = None
    status: Any = None
    debug: Any = msgspec.field(default=None, name="_debug_info")
    prompt_eval_count: int | None = None
    eval_count: int | None = None

    @property
    def ends(self) -> bool:
        """`_debug_render_only` is answered by one object that is never `done`."""
        return self.done or self.debug is not None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Piece(_Line, gc=False):
    """A line whose parts are gathered."""

    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    logprobs: list[msgspec.Raw] | None = None


_read_line = msgspec.json.Decoder(_Line).decode
_read_piece = msgspec.json.Decoder(_Piece).decode


class _Ollama:
    """What the three translators below share: the request, and the reading of errors and counts."""

    upstream_method: Literal["POST", "GET"] = "POST"
    upstream_headers: translator.Headers = ()
    left_out: tuple[str, ...] = ()

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.upstream_path = ask.route
        self.content_type = translator.NDJSON if ask.stream and not ask.empty else translator.JSON
        self.usage = Usage()
        self.pieces = 0
        self.finished = False
        self._failure: Exception | None = None

    def error_status(self, status: int, body: bytes) -> tuple[int, str]:
        return translator.error_answer(status, body)

    def gained(self) -> bytes:
        return b""

    def _count(self, line: _Line) -> None:
        # Ollama leaves out a count of zero.
        self.usage = Usage(line.prompt_eval_count or 0, line.eval_count or 0)

    def _raise_kept_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class _OllamaStream(_Ollama):
    """Reads the upstream's NDJSON line by line; what becomes of a line is the heirs' matter."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._lines = LineReader()

    def body(self, model: str) -> bytes:
        return msgspec.json.encode({**self._ask.document, "model": model, "stream": True})

    def _take_rest(self, take: Callable[[bytes], None]) -> None:
        """At the upstream's end: what lacks a line feed may be the last line (Ollama answers empty requests so)."""
        try:
            take(self._lines.rest())
        except UpstreamGarbled as error:
            raise UpstreamTruncated("the upstream's answer ended within a line") from error
        if not self.finished:
            raise UpstreamTruncated("the upstream's answer ended before its last line")

    def _decode(self, line: bytes, read: Any) -> Any:
        """The line decoded; UpstreamSaid where it is an error, UpstreamGarbled where it is nothing Ollama says."""
        if self.finished:
            raise UpstreamGarbled("the upstream's answer goes on after its end")
        try:
            decoded = read(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent a line that is not Ollama's: {error}") from error
        if decoded.error is not None:
            raise said({"error": decoded.error}, decoded.status)
        return decoded


class OllamaStream(_OllamaStream):
    """A streamed answer to a client who wants a stream: lines leave as they came, whole, all but the last."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._last = b""

    def feed(self, data: bytes) -> bytes:
        if self._failure is None and not self.finished and self._lines.empty and data.endswith(_MORE_LINE):
            count = data.count(b"\n")
            if count == data.count(_MORE_LINE):
                self.pieces += count
                return data
        self._raise_kept_failure()
        out: list[bytes] = []
        try:
            for line in self._lines.feed(data):
                self._take(line, b"\n", out)
        except UpstreamFailed as failure:
            self._failure = failure
            if not out:
                raise
        return b"".join(out)

    def terminator(self) -> bytes:
        self._raise_kept_failure()
        self._take_rest(lambda rest: self._take(rest, b"", []))
        return self._last

    def so_far(self) -> bytes:
        return b""

    def _take(self, line: bytes, end: bytes, out: list[bytes]) -> None:
        if not line.strip():
            return
        if not line.endswith(_MORE) or self.finished:
            decoded = self._decode(line, _read_line)
            if decoded.ends:
                self.finished = True
                self._last = line + end
                self._count(decoded)
                return
        self.pieces += 1
        out.append(line + end)


class OllamaWhole(_OllamaStream):
    """A streamed answer to a client who wants one answer: gathered, then handed out as Ollama would have."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._last = b""
        self._size = 0
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._tool_calls: list[msgspec.Raw] = []
        self._logprobs: list[msgspec.Raw] = []
        self._gained: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        for line in self._lines.feed(data):
            self._gather(line)
        return b""

    def terminator(self) -> bytes:
        self._take_rest(self._gather)
        try:
            # What is of no interest to us in a line was skipped, not read: it may still be nonsense.
            return self._assembled(msgspec.json.decode(self._last))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream sent a line that is not Ollama's: {error}") from error

    def so_far(self) -> bytes:
        if not self._last:
            return b""
        try:
            return self._assembled(msgspec.json.decode(self._last))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._assembled({"model": self._ask.model})  # for the record: what was said counts, not how it broke

    def _assembled(self, last: dict[str, Any]) -> bytes:
        """Ollama answers with its last line and puts into it what the lines before brought."""
        if self._ask.shape is Shape.CHAT:
            last["message"] = self._message(last.get("message") or {})
            if self._logprobs:
                last = _with(last, "logprobs", self._logprobs, before=_METRICS)
        else:
            last["response"] = "".join(self._content)
            if self._thinking:
                last = _with(last, "thinking", "".join(self._thinking), after="response")
            if self._logprobs:
                last["logprobs"] = self._logprobs
        return msgspec.json.encode(last)

    def _gather(self, line: bytes) -> None:
        if not line.strip():
            return
        piece = self._decode(line, _read_piece)
        self._size += len(line)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")
        self._last = line
        if message := piece.message:
            self._content.append(message.content or "")
            if message.thinking:
                self._thinking.append(message.thinking)
            self._tool_calls += message.tool_calls or ()
        elif piece.response is not None:
            self._content.append(piece.response)
            if piece.thinking:
                self._thinking.append(piece.thinking)
        self._logprobs += piece.logprobs or ()
        if piece.ends:
            self.finished = True
            self._count(piece)
        else:
            self.pieces += 1
            self._gained.append(line)

    def gained(self) -> bytes:
        gained, self._gained = self._gained, []
        return b"".join([line + b"\n" for line in gained])

    def _message(self, last: dict[str, Any]) -> dict[str, Any]:
        message = {"role": last.get("role", "assistant"), "content": "".join(self._content)}
        if self._thinking:
            message["thinking"] = "".join(self._thinking)
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls
        return {**message, **{key: value for key, value in last.items() if key not in message}}


class OllamaVectors(_Ollama):
    """Embeddings: one JSON answer, through as it is unless it is longer than it was to be."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._dimensions = expect(ask.document, "dimensions", int, "int", of="EmbedRequest") or 0
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
            vectors = _read_vectors(whole)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream's answer is not Ollama's: {error}") from error
        if vectors.error is not None:
            raise said({"error": vectors.error})
        if not (is_list(vectors.embeddings) or is_list(vectors.embedding)):
            raise UpstreamGarbled("the upstream's answer has no embedding")
        self.finished = True
        if self._ask.shape is Shape.EMBED:  # the older route tells no count
            self.usage = Usage(vectors.prompt_eval_count or 0, 0)
            if self._dimensions > 0:
                return self._shortened(whole, vectors.embeddings)
        return whole

    def _shortened(self, whole: bytes, embeddings: msgspec.Raw) -> bytes:
        """The answer with its vectors cut, where the server read over that wish; else its very bytes."""
        try:
            known = msgspec.json.decode(embeddings, type=list[list[float]])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled("the upstream's embeddings are not lists of numbers") from error
        if all(len(vector) <= self._dimensions for vector in known):
            return whole
        cut = {"embeddings": [shortened(vector, self._dimensions) for vector in known]}
        return msgspec.json.encode(msgspec.json.decode(whole, type=dict[str, msgspec.Raw]) | cut)

    def so_far(self) -> bytes:
        return b""


class _Vectors(msgspec.Struct, gc=False):
    embeddings: msgspec.Raw = msgspec.Raw()
    embedding: msgspec.Raw = msgspec.Raw()
    prompt_eval_count: int | None = None
    error: Any = None


_read_vectors = msgspec.json.Decoder(_Vectors).decode

# Ollama writes logprobs of a chat before these, those of a generate after all.
_METRICS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


def _with(
    document: dict[str, Any], key: str, value: Any, *, after: str = "", before: Container[str] = ()
) -> dict[str, Any]:
    """`document` with `key` in its place: right after one key, or before the first of several."""
    if key in document:
        return {**document, key: value}
    result: dict[str, Any] = {}
    for name, old in document.items():
        if name in before and key not in result:
            result[key] = value
        result[name] = old
        if name == after:
            result[key] = value
    result.setdefault(key, value)
    return result


def only_response(whole: bytes) -> bytes:
    """An unstreamed generate's answer as one of the seeds had it: its text, and nothing else."""
    return msgspec.json.encode({"response": msgspec.json.decode(whole).get("response", "")})


def with_response(whole: bytes) -> bytes:
    """An unstreamed chat's answer with its text once more as `response`, as one of the seeds promised for `/chat`."""
    answer = msgspec.json.decode(whole)
    return msgspec.json.encode({**answer, "response": answer["message"].get("content", "")})
