"""The child's half of an export to a file: read, write, sync, rename, read back.

Rule: the file is whole or not there (`common/files.py`), and covers the first `through_seq` records, however long the
reading takes. The daemon's event loop sees a few lines a second of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from common.files import write_whole
from daemon.audit.export import header, line_of
from daemon.audit.rows import exchange_of, texts_of
from daemon.jobs.lines import CannotWrite, Progress, Telling, Written
from daemon.store.retention import expired, rules
from daemon.store.search import Criteria, Found, Place, how_many, oldest

PAGE = 100


class Order(msgspec.Struct, frozen=True):
    """What to write, and where. `expired_before`: what retention may erase, instead of what `wanted` says."""

    path: str
    temporary: str  # name in the same folder
    format: str
    through_seq: int
    wanted: Criteria = Criteria()
    text: str = ""
    expired_before: int | None = None


def write(conn: sqlite3.Connection, order: Order, look: Callable[[], None], tell: Telling) -> None:
    """Write the file; the last line told is `Written` or `CannotWrite`. `look` may raise to stop."""
    writing = _Writing(conn, order, look, tell)
    try:
        digest, size = write_whole(Path(order.path), writing.pieces(), temporary=order.temporary)
    except OSError as error:
        tell(CannotWrite(f"cannot write {order.path}: {error.strerror or error}"))
        return
    tell(Written(digest, size, writing.records))


class _Writing:
    """One file being written."""

    def __init__(self, conn: sqlite3.Connection, order: Order, look: Callable[[], None], tell: Telling) -> None:
        self._conn = conn
        self._order = order
        self._look = look
        self._tell = tell
        self.records = 0

    def pieces(self) -> Iterator[bytes]:
        order, text = self._order, self._order.text.casefold()
        self._tell(Progress("counting", 0, None, "exchanges"))
        total = how_many(self._conn, self._criteria(), through_seq=order.through_seq)
        yield header(order.format)
        seen = size = 0
        for page in self._pages():
            self._look()
            some = [found for found in page if not text or self._has(text, found)]
            piece = b"".join(line_of(order.format, exchange_of(self._conn, found)) for found in some)
            seen += len(page)
            size += len(piece)
            self.records += len(some)
            self._tell(Progress("exporting", seen, max(seen, total), "exchanges"))
            yield piece
        self._tell(Progress("reading back", 0, size, "bytes"))

    def _criteria(self) -> Criteria:
        before = self._order.expired_before
        return self._order.wanted if before is None else Criteria(until_us=before)

    def _pages(self) -> Iterator[list[Found]]:
        order = self._order
        if order.expired_before is not None:
            yield from expired(self._conn, order.expired_before, order.through_seq, rules(self._conn))
            return
        after: Place | None = None
        while page := oldest(self._conn, order.wanted, PAGE, through_seq=order.through_seq, after=after):
            yield page
            after = page[-1].place

    def _has(self, text: str, found: Found) -> bool:
        return any(text in each.casefold() for each in texts_of(self._conn, found))
