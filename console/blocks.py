"""Blocks of short lines beside each other, as the help has them. Pure.

Rule: in as many columns as there is room for, in their order, the longest as short as can be; a block is never torn.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style

from console.cells import cell_len, fit
from console.palette import BOLD, PLAIN

Block = tuple[str, Sequence[str]]  # a title, and the lines below it

BETWEEN = 4  # cells between two columns


def side_by_side(blocks: Sequence[Block], width: int) -> list[tuple[str, Style]]:
    """The blocks in lines of `width` cells; titles are bold where nothing else stands in their line."""
    shown = [[title, *lines] for title, lines in blocks]
    widest = max((cell_len(line) for block in shown for line in block), default=0) + BETWEEN
    columns = _spread(shown, max(1, (width + BETWEEN) // max(1, widest))) if shown else [[]]
    lines = []
    for row in range(max(map(len, columns), default=0)):
        cells = [column[row] if row < len(column) else "" for column in columns]
        are_titles = any(cells) and all(cell == cell.lstrip() for cell in cells)
        text = "".join(fit(cell, widest) for cell in cells[:-1]) + cells[-1]
        lines.append((text.rstrip(), BOLD if are_titles else PLAIN))
    return lines


def _spread(blocks: Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """The blocks in `count` columns, in their order, the longest as short as can be."""
    longest = max(len(block) + 1 for block in blocks)
    while True:
        columns: list[list[str]] = [[]]
        for block in blocks:
            if columns[-1] and len(columns[-1]) + len(block) + 1 > longest:
                columns.append([])
            columns[-1] += ["", *block]
        if len(columns) <= count:
            return columns
        longest += 1
