"""The second layer against foreign text (T1): whatever slipped through is taken out of what is about to be drawn.

Every foreign string is cleaned where it is decoded (`common/untrusted.py`), where it can still be shown as an escape.
This filter stands behind all widgets, also those of Textual's own; it knows only that nothing unsafe may pass.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from common.untrusted import clean, is_unsafe
from console.cells import fit


class OutputGuard(LineFilter):
    """Replaces each unsafe character by as many `?` as the layout counted cells for it; no width changes."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment
            if segment.control or clean(segment.text) == segment.text
            else Segment(fit(_harmless(segment.text), cell_len(segment.text)), segment.style)
            for segment in segments
        ]


def _harmless(text: str) -> str:
    return "".join("?" * max(0, cell_len(character)) if is_unsafe(character) else character for character in text)
