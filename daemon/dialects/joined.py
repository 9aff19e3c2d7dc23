"""A translator between two dialects: a request, a reader of the upstream's answer, a writer for the client.

Rule: counts are the upstream's, never guessed; durations are the upstream's where it tells them, else measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from common.errors import UpstreamFailed
from daemon.clock import Clock
from daemon.dialects import translator
from daemon.dialects.pieces import Ending, Gathered, Piece
from daemon.dialects.translator import Headers
from daemon.exchange import Usage


class Reader(Protocol):
    """What an upstream streams, as pieces."""

    ending: Ending
    finished: bool

    def feed(self, data: bytes) -> list[Piece]: ...
    def end(self) -> list[Piece]: ...


class Writer(Protocol):
    """Pieces, as a client is to have them."""

    def line(self, piece: Piece) -> bytes: ...
    def last(self, ending: Ending, total_ns: int) -> bytes: ...
    def whole(self, answer: Gathered, ending: Ending, total_ns: int) -> bytes: ...
    def unfinished(self, answer: Gathered) -> bytes: ...


class Joined:
    """See `translator.Translator`."""

    upstream_method: Literal["POST", "GET"] = "POST"
    upstream_headers: Headers = ()

    def __init__(
        self,
        path: str,
        request: dict[str, Any],
        reader: Reader,
        writer: Writer,
        clock: Clock,
        *,
        streamed_as: str | None,
        whole_as: str = translator.JSON,
        error_answer: Callable[[int, bytes], tuple[int, str]] = translator.error_answer,
        fit: Callable[[dict[str, Any], str], dict[str, Any]] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        """`streamed_as` is the content type of a streamed answer; None where the client wants it whole. `fit` makes of
        the request what the upstream takes for a model; `left_out` may grow by that."""
        self.upstream_path = path
        self.content_type = streamed_as or whole_as
        self.pieces = 0
        self.finished = False
        self.error_status = error_answer
        self.left_out = left_out
        self._fit = fit
        self._request = request
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._whole = None if streamed_as else Gathered()
        self._gained: list[Piece] = []
        self._failure: UpstreamFailed | None = None
        self._sent = 0
        self._first = 0

    @property
    def usage(self) -> Usage:
        """As far as the upstream told it: some tell the prompt's tokens first, before any answer."""
        return Usage(self._reader.ending.tokens_in, self._reader.ending.tokens_out)

    def body(self, model: str) -> bytes:
        self._sent = self._clock.now()
        request = self._request if self._fit is None else self._fit(self._request, model)
        return msgspec.json.encode({"model": model} | request)

    def feed(self, data: bytes) -> bytes:
        if self._failure is not None:
            raise self._failure
        return self._write(self._reader.feed(data))

    def terminator(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        rest = self._write(self._reader.end())
        if self._failure is not None:
            raise self._failure
        ending = self._reader.ending
        self.finished = True
        if ending.prefill_ns is None and self._first:
            ending.prefill_ns = (self._first - self._sent) * 1000
            ending.generation_ns = self._elapsed_ns(self._first)
        total = self._elapsed_ns(self._sent)
        if self._whole is not None:
            return self._writer.whole(self._whole, ending, total)
        return rest + self._writer.last(ending, total)

    def so_far(self) -> bytes:
        return b"" if self._whole is None or self._whole.empty else self._writer.unfinished(self._whole)

    def gained(self) -> bytes:
        gained, self._gained = self._gained, []
        return self._lines(gained)

    def _write(self, pieces: list[Piece]) -> bytes:
        self.finished = self._reader.finished
        if not pieces:
            return b""
        self._first = self._first or self._clock.now()
        self.pieces += len(pieces)
        if self._whole is None:
            return self._writer.line(pieces[0]) if len(pieces) == 1 else self._lines(pieces)
        for piece in pieces:
            self._whole.add(piece)
        self._gained += pieces
        return b""

    def _lines(self, pieces: list[Piece]) -> bytes:
        """What the writer makes of them; what it can make nothing of is raised by the next call, after good ones."""
        lines: list[bytes] = []
        try:
            for piece in pieces:
                lines.append(self._writer.line(piece))  # noqa: PERF401 - those before a failure are kept
        except UpstreamFailed as failure:
            self._failure = failure
        return b"".join(lines)

    def _elapsed_ns(self, since: int) -> int:
        return max(0, self._clock.now() - since) * 1000
