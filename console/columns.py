"""The columns of a table: what each shows, and which of them a width has room for. Pure.

Rule: what moves all the time stands on the left (Textual crops a partial update on the right only), and a column gives
way whole before another one becomes unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.style import Style

Cell = str | tuple[str, Style]


@dataclass(frozen=True)
class Column:
    """One column.

    `cell` gives a row's text, or text and style. `width` is the least it takes and `most` what it may grow to, in cells
    (0: it does not grow). `rank` 0 is always shown; of the others the highest goes first. `sort` gives what rows are
    ordered by (None: not sortable); `descending` is the order that people mean when they choose the column.
    """

    title: str
    cell: Callable[[Any], Cell]
    width: int
    most: int = 0
    right: bool = False
    rank: int = 0
    sort: Callable[[Any], Any] | None = None
    descending: bool = False


def choose(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """(index, width) of the columns that fit into `width` cells a blank between two; what is left is shared out."""
    chosen = list(range(len(columns)))
    while _least(columns, chosen) > width:
        candidates = [i for i in chosen if columns[i].rank]
        if not candidates:
            break
        chosen.remove(max(candidates, key=lambda i: (columns[i].rank, i)))
    widths = {i: columns[i].width for i in chosen}
    spare = width - _least(columns, chosen)
    # One cell at a time to whoever is furthest from what it would like: no column starves another.
    while spare > 0:
        growing = [i for i in chosen if widths[i] < columns[i].most]
        if not growing:
            break
        widths[min(growing, key=lambda i: widths[i] / columns[i].most)] += 1
        spare -= 1
    return [(i, widths[i]) for i in chosen]


def _least(columns: Sequence[Column], chosen: Sequence[int]) -> int:
    return sum(columns[i].width for i in chosen) + max(0, len(chosen) - 1)


def text_of(cell: Cell) -> str:
    """The words of a cell."""
    return cell if isinstance(cell, str) else cell[0]
