"""The answer of an exchange as the audit keeps it, from the bytes its client was sent."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.dialects.answers import assemble
from daemon.dialects.asks import Shape

# By the route's last word, so that an alias without /api means what it stands for.
_SHAPES = {
    "chat": Shape.CHAT,
    "generate": Shape.GENERATE,
    "embed": Shape.EMBED,
    "embeddings": Shape.EMBEDDINGS,
}


def answer_texts(route: str, segments: Sequence[bytes]) -> list[bytes]:
    """The one part of the answer that `segments` are, cut anywhere; none where nothing was answered."""
    if not any(segments):
        return []
    shape = _shape(route)
    # A route of another release: its bytes are better than nothing.
    return [assemble(shape, segments).message if shape is not None else b"".join(segments)]


def pieces_in(route: str, segments: Sequence[bytes]) -> int:
    """How many whole pieces of a stream were sent, each about a token (`daemon/relay.py` charges a cut answer so)."""
    streams = _shape(route) in (Shape.CHAT, Shape.GENERATE)
    return sum(segment.count(b"\n") for segment in segments) if streams else 0


def _shape(route: str) -> Shape | None:
    return _SHAPES.get(route.rpartition("/")[2])
