"""Names and values below each other, as the detail panes and the boxes show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.style import Style

from console.cells import cut, wrap
from console.palette import BOLD, DIM, PLAIN
from console.widgets.lines import Line, Part

PANE = 30  # cells that the pane beside a table has for a value
LINES = 40  # that one value takes at most: a pane is laid out at each tick
Fact = tuple[str, Any] | tuple[str, Any, Style]


def title(text: str) -> Line:
    """A heading."""
    return [(text, BOLD)]


def facts(pairs: Iterable[Fact], *, room: int | None = None, width: int = 13) -> list[Line]:
    """A line a pair; those without a value are left out. A value longer than `room` cells goes on below, a few
    dozen lines at most."""
    lines: list[Line] = []
    for name, value, *style in pairs:
        if value not in (None, "", []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            for n, piece in enumerate([shown] if room is None else wrap(cut(shown, LINES * room), room)):
                named = name if n == 0 else ""
                lines.append([(f"{named:<{width}} ", DIM), (piece, style[0] if style else PLAIN)])
    return lines


def paragraphs(lines: Sequence[Line]) -> list[str | tuple[str, Style]]:
    """The same for a box, which has one style a line: that of the first part that is neither plain nor dim."""

    def text_of(part: Part) -> str:
        return part if isinstance(part, str) else part[0]

    def style_of(line: Line) -> Style:
        styles = [part[1] for part in line if not isinstance(part, str)]
        return next((style for style in styles if style and style != DIM), PLAIN)

    return [("".join(text_of(part) for part in line), style_of(line)) for line in lines]
