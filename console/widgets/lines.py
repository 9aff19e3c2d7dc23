"""A widget of a few lines that repaints only those that changed: the head, the footer, the detail pane.

Rule: what stands in a part is one line of clean text; nothing is ever read as markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from console.cells import cell_len, cut
from console.palette import PLAIN

Part = str | tuple[str, Style]  # a piece of a line, plain or in a style
Line = Sequence[Part]


def strip_of(parts: Line, width: int, *, base: Style = PLAIN) -> Strip:
    """The parts side by side in exactly `width` cells, neighbours of one style merged."""
    segments: list[Segment] = []
    left = width
    for part in parts:
        text, style = (part, PLAIN) if isinstance(part, str) else part
        text = cut(text, left)
        if not text:
            continue
        left -= cell_len(text)
        style = style + base if base else style
        if segments and segments[-1].style == style:
            segments[-1] = Segment(segments[-1].text + text, style)
        else:
            segments.append(Segment(text, style))
    if left > 0:
        if segments and segments[-1].style == base:
            segments[-1] = Segment(segments[-1].text + " " * left, base)
        else:
            segments.append(Segment(" " * left, base))
    return Strip(segments, width)


class Lines(Widget, can_focus=False):
    """Shows `lines`, one below the other; what is missing is blank."""

    DEFAULT_CSS = "Lines { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes, markup=False)
        self.lines: list[list[Part]] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines; only those that differ are drawn."""
        new = [list(line) for line in lines]
        old, self.lines = self.lines, new
        for y in range(max(len(old), len(new))):
            if (old[y] if y < len(old) else None) != (new[y] if y < len(new) else None):
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        return strip_of(self.lines[y] if y < len(self.lines) else (), self.size.width)
