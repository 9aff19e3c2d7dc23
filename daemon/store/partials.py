"""Running answers, set down piece by piece: what a crash leaves of them. Gone once the answer is whole."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import suppress
from typing import NamedTuple

_FAST = 1  # what lies here lives for seconds


class Progress(NamedTuple):
    """How far a running exchange came. Times are Unix microseconds."""

    request_id: str
    seated_us: int
    first_byte_us: int | None


def keep_progress(conn: sqlite3.Connection, progress: Progress) -> None:
    """Note when a running exchange was seated and answered; the answer's segments alone would not tell."""
    conn.execute(
        "UPDATE unfinished SET seated_us = ?, first_byte_us = ? WHERE request_id = ?",
        (progress.seated_us, progress.first_byte_us, progress.request_id),
    )


def keep_segment(conn: sqlite3.Connection, request_id: str, data: bytes) -> None:
    """Append bytes that the client of a running exchange was sent. What is no longer running is not kept."""
    conn.execute(
        "INSERT INTO partial (request_id, n, data)"
        " SELECT u.request_id, 1 + COALESCE((SELECT MAX(n) FROM partial WHERE request_id = u.request_id), 0), ?"
        " FROM unfinished u WHERE u.request_id = ?",
        (zlib.compress(data, _FAST), request_id),
    )


def take_segments(conn: sqlite3.Connection, request_id: str) -> list[bytes]:
    """Remove and return what was kept of an answer, in order; a segment that the disk damaged is left out."""
    kept = _kept(conn, request_id)
    if kept:  # most answers are too short to have any
        conn.execute("DELETE FROM partial WHERE request_id = ?", (request_id,))
    return _read(kept)


def segments_of(conn: sqlite3.Connection, request_id: str) -> list[bytes]:
    """What was kept of an answer so far, in order."""
    return _read(_kept(conn, request_id))


def _kept(conn: sqlite3.Connection, request_id: str) -> list[tuple[bytes]]:
    return conn.execute("SELECT data FROM partial WHERE request_id = ? ORDER BY n", (request_id,)).fetchall()


def _read(kept: list[tuple[bytes]]) -> list[bytes]:
    segments = []
    for (data,) in kept:
        # Recovery must come through, whatever lies here: a start that fails on one row would fail for ever.
        with suppress(zlib.error):
            segments.append(zlib.decompress(data))
    return segments
