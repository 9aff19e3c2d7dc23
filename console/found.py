"""What a search found, page by page, however much it is: the order of all of it, the rows of what was looked at last.

A row's id is `PAGE/LOG_ID`. Rule: only so many pages keep their rows; of the others the ids stay, and where to ask for
them again, so that a million rows cost a few dozen bytes each and none is lost on the way back. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PAGE = 200  # rows asked for at once
KEPT = 40  # pages that keep their rows

Row = dict[str, Any]


class Found(Mapping[str, Row]):
    """Rows by id; `ids` is the order in which they were found. A row that was let go is not in the mapping."""

    def __init__(self, *, page: int = PAGE, kept: int = KEPT) -> None:
        self.page = page
        self._kept = kept
        self.ids: list[str] = []
        self.complete = False  # there is nothing behind the last one
        self._pages: dict[int, dict[str, Row]] = {}  # the one that was used last stands last

    def __getitem__(self, row_id: str) -> Row:
        return self._pages[page_of(row_id)][row_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def values_kept(self) -> Iterator[Row]:
        """The rows that are there."""
        for page in self._pages.values():
            yield from page.values()

    def add(self, row: Row) -> str:
        """Put a row behind the last one; its id."""
        number = len(self.ids) // self.page
        row_id = f"{number}/{row['log_id']}"
        self._pages.setdefault(number, {})[row_id] = row
        self.ids.append(row_id)
        self._let_go(number)
        return row_id

    def last(self) -> int | None:
        """The log id to go on from; None where nothing was found yet."""
        return log_id_of(self.ids[-1]) if self.ids else None

    def missing(self, ids: Sequence[str]) -> int | None:
        """The first page of these ids whose rows were let go; None where all are there."""
        for row_id in ids:
            if page_of(row_id) not in self._pages:
                return page_of(row_id)
        return None

    def before(self, number: int) -> int | None:
        """The log id to ask from for the rows of a page."""
        return log_id_of(self.ids[number * self.page - 1]) if number else None

    def put(self, number: int, rows: Sequence[Row]) -> None:
        """Rows of a page that were asked for again. Only what was found the first time is shown: nothing shifts."""
        wanted = set(self.ids[number * self.page : (number + 1) * self.page])
        again = {f"{number}/{row['log_id']}": row for row in rows}
        self._pages[number] = {row_id: row for row_id, row in again.items() if row_id in wanted}
        self._let_go(number)

    def touch(self, row_id: str) -> None:
        """The page of this row is looked at."""
        number = page_of(row_id)
        if number in self._pages:
            self._pages[number] = self._pages.pop(number)

    def row_of(self, log_id: int) -> str | None:
        """The id of the row of a record on the first page; None where it is not there."""
        return next((row_id for row_id in self.ids[: self.page] if log_id_of(row_id) == log_id), None)

    def _let_go(self, using: int) -> None:
        while len(self._pages) > self._kept:
            self._pages.pop(next(number for number in self._pages if number != using))


def page_of(row_id: str) -> int:
    """The page that a row was found on."""
    return int(row_id.partition("/")[0])


def log_id_of(row_id: str) -> int:
    """The record that a row is about."""
    return int(row_id.partition("/")[2])
