"""Feeds readers and translators the same bytes in many cuts; a clock that stands where a test puts it.

Rule (style.md, h11): one table of cases, each fed whole, byte by byte, and split in two everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from daemon.dialects.translator import Translator


class SetClock:
    """A `Clock` in microseconds; every look at it moves it on by `step`."""

    def __init__(self, now: int = 1_000_000, wall: int = 1_767_323_045_678_901, step: int = 0) -> None:
        self._now = now
        self._wall = wall
        self.step = step

    def now(self) -> int:
        self._now += self.step
        return self._now

    def wall(self) -> int:
        return self._wall


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """`data` whole, byte by byte, and split in two at every place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def split_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at `places` (any order, any size: taken modulo its length)."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


def carried(translator: Translator, chunks: Iterable[bytes]) -> tuple[bytes, bytes]:
    """What the client is sent before the end, and the end."""
    translator.body("served")
    before = b"".join(translator.feed(chunk) for chunk in chunks)
    return before, translator.terminator()
