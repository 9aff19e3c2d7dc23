"""Answers as people read them: tables and lists of fields, cut to the terminal, every cell cleaned (T1).

Rule: no foreign text is printed but through this page. Into a pipe nothing is cut: another program reads there.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.untrusted import clean, clean_block

GAP = "  "
NARROWEST = 8  # columns that may be cut keep at least so many cells


@dataclass(frozen=True)
class Column:
    """A column: its title, numbers to the right, and whether it may be cut where the terminal is too narrow."""

    title: str
    right: bool = False
    flexible: bool = False


def terminal_width() -> int | None:
    """The columns of the terminal that standard output is, or None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, width: int | None = None) -> str:
    """A table with a header line; cells are cleaned text, None is a dash. At most `width` wide, where that is given."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max([len(column.title), *(cell_width(row[i]) for row in cells)]) if cells else len(column.title)
        for i, column in enumerate(columns)
    ]
    if width is not None:
        _squeeze(widths, columns, width)
    lines = [[column.title for column in columns], *cells]
    return "".join(_line(line, columns, widths, width) for line in lines)


@dataclass(frozen=True)
class FixedColumns:
    """A table whose rows come one by one: (title, width) of each column; the last one takes what is left.

    Without a `width` nothing is cut.
    """

    columns: Sequence[tuple[str, int]]
    width: int | None
    is_narrow: bool = False

    def header(self) -> str:
        """The titles."""
        return self.line([title for title, _ in self.columns])

    def line(self, cells: Sequence[Any]) -> str:
        """One row, its cells cleaned."""
        parts = []
        for (_, width), cell in zip(self.columns, cells, strict=True):
            text = _text(cell)
            if width and self.width is not None:
                text = cut(text, width)
            parts.append(text + " " * (width - cell_width(text)))
        line = GAP.join(parts).rstrip()
        return (line if self.width is None else cut(line, self.width)) + "\n"


def fields(pairs: Iterable[tuple[str, Any]]) -> str:
    """Name and value, one pair a line, values aligned; a pair whose value is None or empty is left out."""
    shown = [(name, _text(value)) for name, value in pairs if value not in (None, "", [])]
    longest = max((len(name) for name, _ in shown), default=0)
    return "".join(f"{name:<{longest}}{GAP}{value}\n" for name, value in shown)


def block(title: str, text: str) -> str:
    """A longer foreign text under a title, its lines indented so that none can pass for ours."""
    body = "".join(f"  {line}\n" for line in clean_block(text).split("\n"))
    return f"{title}\n{body}"


def moment(text: str | None) -> str:
    """An ISO 8601 moment of the protocol, to the second, still UTC: `2026-01-31 09:05:07Z`."""
    return f"{text[:10]} {text[11:19]}Z" if text else "-"


def size(number: int | None) -> str:
    """Bytes in words: `512 B`, `98.4 MB`."""
    if number is None:
        return "-"
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def cell_width(text: str) -> int:
    """How many columns of a terminal `text` takes: East Asian wide characters and emoji two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, with an ellipsis where something is missing."""
    if cell_width(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += cell_width(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return clean(", ".join(str(entry) for entry in value)) or "-"
    return clean(str(value)) or "-"


def _squeeze(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Take from the widest flexible column until all fit, or none can give any more."""
    room = width - len(GAP) * (len(widths) - 1)
    while sum(widths) > room:
        candidates = [i for i, column in enumerate(columns) if column.flexible and widths[i] > NARROWEST]
        if not candidates:
            return
        widths[max(candidates, key=lambda i: widths[i])] -= 1


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], width: int | None) -> str:
    parts = []
    for i, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        text = cut(cell, widths[i]) if column.flexible else cell
        blank = " " * (widths[i] - cell_width(text))
        parts.append(blank + text if column.right else text + blank)
    line = GAP.join(parts).rstrip()
    return (line if width is None else cut(line, width)) + "\n"
