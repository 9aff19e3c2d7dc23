"""What the relay knows of dialects: one translator an exchange, and the ways an upstream's answer can be wrong.

Rule: a translator is pure. It is given bytes as they arrive, in pieces cut anywhere, and returns the bytes that may go
to the client now; the client's bytes, concatenated, do not depend on how the upstream's were cut. The end of an answer
is never among them: it is handed out by `terminator`, which the relay calls last. What went wrong after good bytes in
the same piece is raised by the next call, so that the good bytes are not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from common.errors import UpstreamFailed
from daemon.exchange import Usage

# An answer that must be held as a whole (unstreamed, or embeddings) and a single line of a stream are bounded.
MAX_WHOLE = 64 << 20
MAX_LINE = 16 << 20

NDJSON = "application/x-ndjson"
SSE = "text/event-stream; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"


Headers = tuple[tuple[str, str], ...]


class UpstreamSaid(UpstreamFailed):
    """The upstream answered with an error of its own; its words are the message, `detail` what it told beside them.
    `upstream_status` is that answer's status, `status` what the client gets; None where it was told within a stream."""

    upstream_status: int | None = None


class UpstreamGarbled(UpstreamFailed):
    """The upstream's answer is not of its dialect, or longer than anything sensible."""


class UpstreamTruncated(UpstreamFailed):
    """The upstream's answer ended without its terminator: it may not pass for a whole one."""


class Translator(Protocol):
    """One exchange's way between a client's dialect and an upstream's.

    A constructor raises BadRequest for what the upstream could only answer differently from what was asked; nothing
    else here does. `usage` is whole once `terminator` returned, before that it is what was told so far. `pieces` counts
    the answer's pieces so far: Ollama and llama.cpp send a token a piece, so it stands for `usage.tokens_out` of an
    exchange that was cut off, where it is more.
    """

    @property
    def upstream_method(self) -> Literal["POST", "GET"]: ...
    @property
    def upstream_path(self) -> str: ...
    @property
    def upstream_headers(self) -> Headers:
        """What goes to the upstream beside the body, where both ends speak the same dialect."""
        ...

    @property
    def left_out(self) -> Sequence[str]:
        """What the client sent and the upstream does not get, in the client's words; whole once `body` was called."""
        ...

    @property
    def content_type(self) -> str:
        """Of the client's answer."""
        ...

    @property
    def usage(self) -> Usage: ...
    @property
    def pieces(self) -> int: ...
    @property
    def finished(self) -> bool:
        """Whether the upstream's terminator was seen: nothing more of its answer is needed."""
        ...

    def body(self, model: str) -> bytes:
        """The request for the upstream, which knows the model as `model`; streamed wherever the route can be.

        Durations that the upstream does not tell are measured from this call.
        """
        ...

    def feed(self, data: bytes) -> bytes:
        """Upstream bytes in, client bytes to send now out. UpstreamSaid, UpstreamGarbled."""
        ...

    def terminator(self) -> bytes:
        """The last bytes for the client: the stream's end, or the unstreamed answer as a whole.

        To be called once `finished` or at the upstream's end. UpstreamTruncated where the terminator never came, and
        what `feed` raises.
        """
        ...

    def so_far(self) -> bytes:
        """For the record of an exchange that was cut off: what was gathered and not yet handed out, in the client's
        dialect; empty where everything was handed out as it came."""
        ...

    def gained(self) -> bytes:
        """What was gathered and not yet handed out since the last call, as lines of a stream: set down while it runs,
        so that a crash leaves it. Empty for a stream, and for embeddings, which come at once."""
        ...

    def error_status(self, status: int, body: bytes) -> tuple[int, str]:
        """The status and words for the client where the upstream answered `status`, not 200."""
        ...


def in_stream_error(shape: str, message: str, detail: dict[str, Any] | None = None) -> bytes | None:
    """The last bytes of a stream of `shape` that failed after its first byte: an error nobody takes for an end.

    `detail` is what an upstream of the same dialect told of it (`own_detail`).

    None where the family has nothing but text to say it with: then the connection must be cut.
    """
    family = shape.partition(".")[0]
    return None if family == "text" else _IN_STREAM[family](message, detail or {})


def _ndjson_error(message: str, detail: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"error": message}) + b"\n"


def _openai_error(message: str, detail: dict[str, Any]) -> bytes:
    error = {"message": message, "type": "server_error", "param": None, "code": "upstream_error"} | detail
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


def _anthropic_error(message: str, detail: dict[str, Any]) -> bytes:
    error = {"type": "error", "error": {"type": detail.get("type", "api_error"), "message": message}}
    return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


def _responses_error(message: str, detail: dict[str, Any]) -> bytes:
    error = {"type": "error", "code": "upstream_error", "message": message, "param": None}
    error |= {name: detail[name] for name in ("code", "param") if name in detail}
    return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


# One entry a family of client shapes that can tell an error; the part before the dot of `Ask.shape`.
_IN_STREAM = {
    "ollama": _ndjson_error,
    "openai": _openai_error,
    "responses": _responses_error,
    "anthropic": _anthropic_error,
}

# What the client can mend by asking differently, and what passes; all else is the upstream's failure, not the client's.
_PASSED_ON = frozenset({400, 404, 413, 415, 422})
_BUSY = frozenset({429, 503})
_REFUSED = frozenset({401, 403})
# A client's dialect -> the upstream's, whose errors are the same.
_ERRORS_OF = {"openai": "openai", "responses": "openai", "anthropic": "anthropic"}


def status_for_client(status: int) -> int:
    """The gate's status for an upstream's error status. 401 and 403 are between the gate and its upstream."""
    if status in _PASSED_ON:
        return status
    return 503 if status in _BUSY else 502


def error_answer(status: int, body: bytes) -> tuple[int, str]:
    """Status and words for the client of an upstream's error answer; JSON of Ollama's or OpenAI's shape, or none."""
    try:
        words = error_words(msgspec.json.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        words = ""
    return status_for_client(status), words or f"the upstream answered {status} and gave no reason"


def detail_of(body: bytes, status: int) -> dict[str, Any]:
    """What an upstream's error answer tells beside its words, see `error_detail`."""
    try:
        return error_detail(msgspec.json.decode(body), status)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


def error_words(document: Any) -> str:
    """The words of an error: `{"error": words}`, `{"error": {"message": words}}`, `{"message": words}`; else ''."""
    for _ in range(3):
        if isinstance(document, str):
            return document[:2000]
        if not isinstance(document, dict):
            return ""
        document = document.get("error") or document.get("message")
    return ""


def said(document: Any, status: Any = None) -> UpstreamSaid:
    """The error that an upstream told inside a 200 stream; `status` is the one it named there, if any."""
    words = error_words(document) or "the upstream reported an error and gave no reason"
    named = status if isinstance(status, int) and not isinstance(status, bool) else 502
    return UpstreamSaid(words, status=status_for_client(named), detail=error_detail(document, named))


def error_detail(document: Any, status: int) -> dict[str, Any]:
    """What an error tells beside its words, in OpenAI's and Anthropic's dialects: its type, code and param, where they
    are texts. Nothing where the upstream refuses the gate: its client is not meant."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict) or status in _REFUSED:
        return {}
    told = {name: error.get(name) for name in ("type", "code", "param")}
    return {name: text[:200] for name, text in told.items() if text and isinstance(text, str)}


def own_detail(failure: BaseException | None, family: str, kind: str) -> dict[str, Any]:
    """What the client, who speaks the dialect `family`, is told of an upstream's error beside its words: what the
    upstream of that `kind` told, where its errors are of the client's dialect."""
    return failure.detail if isinstance(failure, UpstreamSaid) and _ERRORS_OF.get(family) == kind else {}


def is_list(raw: msgspec.Raw) -> bool:
    """Whether undecoded JSON is a list; looks at its first byte only, embeddings are long."""
    return bytes(memoryview(raw)[:1]) == b"["
