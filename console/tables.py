"""Answers as people read them: tables and lists of fields, cut to the terminal, every cell cleaned (T1).

Rule: no foreign text is printed but through this page. Into a pipe nothing is cut: another program reads there. Where
a table is too wide, its row goes on in further lines, indented so that none of them can pass for a row.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.untrusted import clean, clean_block

GAP = "  "
NARROWEST = 24  # columns that may be cut keep at least so many cells, where they have them
INDENT = 4  # of what goes on in a further line
NARROWEST_VALUE = 24  # cells below which the values of fields are not wrapped any more
WIDTH = "_GATELODGE_WIDTH"  # set by the console for the commands whose output it shows


@dataclass(frozen=True)
class Column:
    """A column: its title, numbers to the right, and whether it may be cut where the terminal is too narrow."""

    title: str
    right: bool = False
    flexible: bool = False


def terminal_width() -> int | None:
    """The columns of the terminal that standard output is, or that shows it; None where there is none."""
    if (shown := os.environ.get(WIDTH, "")).isdecimal():
        return int(shown)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, width: int | None = None) -> str:
    """A table with a header line; cells are cleaned text, None is a dash. At most `width` wide, where that is given."""
    return "".join(f"{line}\n" for part in table_lines(columns, rows, width=width) for line in part)


def table_lines(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, width: int | None = None
) -> tuple[list[str], list[str]]:
    """The lines of its header, and those of its rows: more than one each where `width` has no room for all columns."""
    cells = [[_text(cell) for cell in row] for row in rows]
    chosen = list(range(len(columns)))
    if width is not None and cells and _natural(columns, cells, chosen) > width:
        chosen = [i for i in chosen if any(row[i] != "-" for row in cells)] or chosen[:1]
    widths = {i: max([len(columns[i].title), *(cell_width(row[i]) for row in cells)]) for i in chosen}
    lines = [chosen] if width is None else _packed(columns, widths, width)

    def shown(row: Sequence[str]) -> list[str]:
        return [_line([(row[i], columns[i], widths[i]) for i in line], width, n > 0) for n, line in enumerate(lines)]

    return shown([column.title for column in columns]), [text for row in cells for text in shown(row)]


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
    """Name and value, one pair a line, values aligned; a pair whose value is None or empty is left out.

    On a terminal a long value goes on below itself.
    """
    shown = [(name, _text(value)) for name, value in pairs if value not in (None, "", [])]
    longest = max((len(name) for name, _ in shown), default=0)
    width = terminal_width()
    room = None if width is None else width - longest - len(GAP)
    lines: list[str] = []
    for name, value in shown:
        pieces = [value] if room is None or room < NARROWEST_VALUE else _wrapped(value, room)
        lines.append(f"{name:<{longest}}{GAP}{pieces[0]}")
        lines += [" " * (longest + len(GAP)) + piece for piece in pieces[1:]]
    return "".join(f"{line}\n" for line in lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Its words in lines of at most `width` columns; a word that is longer is broken."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and cell_width(line) + 1 + cell_width(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
        while cell_width(line) > width:
            head = _beginning(line, width)
            lines.append(head)
            line = line[len(head) :]
    return [*lines, line]


def _beginning(text: str, width: int) -> str:
    used = 0
    for place, character in enumerate(text):
        used += cell_width(character)
        if used > width:
            return text[: max(1, place)]
    return text


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


def _natural(columns: Sequence[Column], cells: Sequence[Sequence[str]], chosen: Sequence[int]) -> int:
    widest = [max([len(columns[i].title), *(cell_width(row[i]) for row in cells)]) for i in chosen]
    return sum(widest) + len(GAP) * (len(chosen) - 1)


def _packed(columns: Sequence[Column], widths: dict[int, int], width: int) -> list[list[int]]:
    """Which columns stand in which line. What may be cut gives way first, as long as it stays readable."""

    def too_wide(line: Sequence[int], room: int) -> int:
        return sum(widths[i] for i in line) + len(GAP) * (len(line) - 1) - room

    squeezed = dict(widths)
    while too_wide(list(widths), width) > 0:
        giving = [i for i in widths if columns[i].flexible and widths[i] > NARROWEST]
        if not giving:
            break
        widths[max(giving, key=lambda i: widths[i])] -= 1
    if too_wide(list(widths), width) <= 0:
        return [list(widths)]
    widths.update(squeezed)  # in lines of their own they have room again
    lines: list[list[int]] = [[]]
    for i in list(widths):
        room = width - (INDENT if len(lines) > 1 else 0)
        if lines[-1] and too_wide([*lines[-1], i], room) > 0:
            lines.append([])
            room = width - INDENT
        widths[i] = min(widths[i], room) if columns[i].flexible else widths[i]
        lines[-1].append(i)
    first, *rest = widths
    if len(lines) == 2 and columns[first].flexible and too_wide(rest, width - INDENT) <= 0:
        return [[first], rest]  # a name over its figures reads better than a figure below the others
    return lines


def _line(cells: Iterable[tuple[str, Column, int]], width: int | None, is_further: bool) -> str:
    """The line of (text, column, cells of it); `is_further`: it goes on with a row."""
    parts = []
    for cell, column, room in cells:
        text = cut(cell, room) if column.flexible else cell
        blank = " " * (room - cell_width(text))
        parts.append(blank + text if column.right else text + blank)
    line = (" " * INDENT if is_further else "") + GAP.join(parts).rstrip()
    return line if width is None else cut(line, width)
