"""Incremental readers of what streams are made of: lines (NDJSON) and server-sent events.

Rule: the same lines and events come out however the bytes are cut; what is unfinished is kept, and bounded, so that an
endless line ends the exchange and not the daemon. No JSON here.
"""

from __future__ import annotations

from typing import NamedTuple

from daemon.dialects.translator import MAX_LINE, UpstreamGarbled

_BOM = b"\xef\xbb\xbf"


class LineReader:
    """Bytes in, complete lines out, without their LF. UpstreamGarbled for a line beyond `limit` bytes."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._unfinished: list[bytes] = []
        self._size = 0

    def __repr__(self) -> str:
        return f"<LineReader, {self._size} bytes of an unfinished line>"

    @property
    def empty(self) -> bool:
        """Whether the next byte begins a line."""
        return not self._unfinished

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        end = data.rfind(b"\n")
        if end < 0:
            if data:
                self._keep(data)
            return []
        whole = data[:end]
        if self._unfinished:
            whole = b"".join((*self._unfinished, whole))
        self._unfinished, self._size = [], 0
        if end + 1 < len(data):
            self._keep(data[end + 1 :])
        return whole.split(b"\n")

    def rest(self) -> bytes:
        """The unfinished line, which is forgotten."""
        rest = b"".join(self._unfinished)
        self._unfinished, self._size = [], 0
        return rest

    def _keep(self, data: bytes) -> None:
        self._unfinished.append(data)
        self._size += len(data)
        if self._size > self._limit:
            raise UpstreamGarbled(f"the upstream sent a line of more than {self._limit:,} bytes")


class Event(NamedTuple):
    """One server-sent event: its name ('' where none was given) and its data, lines joined by LF."""

    name: bytes
    data: bytes


class SseReader:
    """Bytes in, events out, after WHATWG HTML section 9.2.6; `id` and `retry` are read over.

    UpstreamGarbled for an event beyond `limit` bytes.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._lines = LineReader(limit)
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._at_start = True

    def __repr__(self) -> str:
        return f"<SseReader, {self._size} bytes of an unfinished event, {self._lines!r}>"

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes."""
        if data.endswith(b"\n\n") and data.startswith(b"data: ") and self._between_events() and b"\r" not in data:
            # As nearly every upstream sends them: whole events of one line each, and mostly one at a time.
            if data.count(b"\n") == 2:
                self._at_start = False
                return [Event(b"", data[6:-2])]
            blocks = data[:-2].split(b"\n\n")
            if all(block.startswith(b"data: ") and b"\n" not in block for block in blocks):
                self._at_start = False
                return [Event(b"", block[6:]) for block in blocks]
        return self._feed_lines(data)

    def end(self) -> list[Event]:
        """At the upstream's end: the event that lacks its empty line. A browser drops it; some servers end so."""
        return self._feed_lines(b"\n\n") if not self._between_events() else []

    def _between_events(self) -> bool:
        return self._lines.empty and not self._data and not self._name and not self._after_cr

    def _feed_lines(self, data: bytes) -> list[Event]:
        if not data:
            return []
        # A CR ends a line at once; the LF that may follow, perhaps in the next piece, belongs to it.
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events = []
        for line in self._lines.feed(data):
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)  # noqa: PLW2901
            if line:
                self._take_field(line)
            elif self._data:
                events.append(Event(self._name, b"\n".join(self._data)))
                self._forget()
            else:
                self._forget()
        return events

    def _take_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > self._limit:
                raise UpstreamGarbled(f"the upstream sent an event of more than {self._limit:,} bytes")
        elif field == b"event":
            self._name = value

    def _forget(self) -> None:
        self._name, self._data, self._size = b"", [], 0
