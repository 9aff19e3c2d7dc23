"""The answer of an exchange as the audit keeps it, from the bytes its client was sent."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.dialects.answers import assemble
from daemon.dialects.asks import Shape

_SHAPES = {
    "/api/chat": Shape.CHAT,
    "/chat": Shape.CHAT,
    "/api/generate": Shape.GENERATE,
    "/generate": Shape.GENERATE,
    "/generate/{model}": Shape.GENERATE,
    "/request": Shape.TEXT,
    "/api/embed": Shape.EMBED,
    "/embed": Shape.EMBED,
    "/api/embeddings": Shape.EMBEDDINGS,
    "/v1/chat/completions": Shape.OPENAI_CHAT,
    "/v1/completions": Shape.OPENAI_COMPLETION,
    "/v1/embeddings": Shape.OPENAI_EMBEDDING,
    "/v1/responses": Shape.RESPONSES,
    "/v1/messages": Shape.ANTHROPIC,
}
# Where not every event is a piece: how one that is begins.
_MARKED = {
    Shape.ANTHROPIC: b"event: content_block_delta\n",
    Shape.RESPONSES: b".delta\ndata:",
}
_TEXT_PIECE = 4  # bytes of plain text, which shows no pieces, that count as one: about a token of English
_VECTORS = (Shape.EMBED, Shape.EMBEDDINGS, Shape.OPENAI_EMBEDDING)


def answer_texts(route: str, segments: Sequence[bytes]) -> list[bytes]:
    """The one part of the answer that `segments` are, cut anywhere; none where nothing was answered."""
    if not any(segments):
        return []
    shape = _shape(route)
    # A route of another release: its bytes are better than nothing.
    return [assemble(shape, segments).message if shape is not None else b"".join(segments)]


def pieces_in(route: str, segments: Sequence[bytes]) -> int:
    """Whole pieces of a stream that were sent, each about a token (so `daemon/underway.py` charges a cut answer)."""
    shape = _shape(route)
    if shape is None or shape in _VECTORS:
        return 0
    if shape is Shape.TEXT:
        return -(-sum(map(len, segments)) // _TEXT_PIECE)
    if shape in _MARKED:
        return sum(segment.count(_MARKED[shape]) for segment in segments)
    # A line each, or an event each, which ends with an empty line.
    lines = sum(segment.count(b"\n") for segment in segments)
    return lines if shape.family == "ollama" else lines // 2


def _shape(route: str) -> Shape | None:
    return _SHAPES.get(route)
