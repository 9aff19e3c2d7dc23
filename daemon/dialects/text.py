"""Plain text, the oldest of the seeds: `{"model", "request"}` in, the answer's text out and nothing else.

Rule: the answer is what the model said, byte for byte; thinking and tool calls are no part of it. There is no mark for
an end: the end of the body is the end, so it leaves last (`ClientStream.finish`), and an answer that fails in the
middle has no other sign than a connection that is cut.
"""

from __future__ import annotations

import msgspec

from common.errors import BadRequest
from daemon.clock import Clock
from daemon.dialects.asks import Ask, Shape, names
from daemon.dialects.conversation import Conversation, Text, Turn
from daemon.dialects.pieces import Ending, Gathered, Piece
from daemon.dialects.strict_json import canonicalise, kind_of, parse


class TextRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A text to answer."""

    model: str
    request: str


_KNOWN = names(TextRequest)


def read_request(body: bytes, default_model: str | None = None) -> Ask:
    """The body of POST /request; its answer is always streamed. BadRequest where it is not one."""
    value = parse(body)
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be an object with model and request, not {kind_of(value)}")
    document = canonicalise(value, _KNOWN)
    unknown = sorted(document.keys() - _KNOWN)
    if unknown:
        raise BadRequest(f"this route takes model and request, not {unknown[0][:60]!r}")
    for name in ("model", "request"):
        if not isinstance(document.get(name), str | None):
            raise BadRequest(f"{name} must be a text, not {kind_of(document[name])}")
    model = document.get("model") or default_model
    if not model:
        raise BadRequest("model is required")
    if not document.get("request"):
        raise BadRequest("request is required: the text that the model is to answer")
    return Ask("/request", Shape.TEXT, document, model, stream=True)


def conversation(ask: Ask) -> Conversation:
    """What it asks, as one turn of a user."""
    return Conversation(ask.model, turns=[Turn("user", [Text(ask.document["request"])])])


class TextWriter:
    """Writes the text of an answer."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        del ask, clock

    def line(self, piece: Piece) -> bytes:
        """The text of one piece; none where it brings something else."""
        return piece.content.encode()

    def last(self, ending: Ending, total_ns: int) -> bytes:
        """Nothing: what ends the answer is the end of its body."""
        del ending, total_ns
        return b""

    def whole(self, answer: Gathered, ending: Ending, total_ns: int) -> bytes:
        """All of it."""
        del ending, total_ns
        return answer.content.encode()

    def unfinished(self, answer: Gathered) -> bytes:
        """What came of it."""
        return answer.content.encode()
