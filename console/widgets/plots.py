"""Small plots in block glyphs: a sparkline in one line, a filled curve in several, a bar. Pure.

Eighths of a block exist in every font that draws boxes at all; Braille does not.
"""

from __future__ import annotations

from collections.abc import Sequence

_HEIGHTS = " ▁▂▃▄▅▆▇█"
_WIDTHS = " ▏▎▍▌▋▊▉█"


def spark(values: Sequence[float], width: int, *, top: float | None = None) -> str:
    """The last `width` values as one line of blocks; the highest (or `top`) is a full one, zero the lowest."""
    return plot(values, width, 1, top=top)[0].replace(" ", "▁") if values else ""


def plot(values: Sequence[float], width: int, height: int, *, top: float | None = None) -> list[str]:
    """The last `width` values as a filled curve of `height` lines, the top line first; the newest is on the right."""
    shown = list(values[-width:])
    shown = [0.0] * (width - len(shown)) + shown
    highest = max(top if top is not None else max(shown, default=0.0), 1e-9)
    eighths = [min(height * 8, max(0, round(value / highest * height * 8))) for value in shown]
    return [
        "".join(_HEIGHTS[min(8, max(0, level - 8 * line))] for level in eighths) for line in range(height - 1, -1, -1)
    ]


def bar(share: float, width: int) -> str:
    """A bar of `width` cells, filled to `share` (0 to 1) in eighths of a cell; what is empty is a dot."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    filled = "█" * full + (_WIDTHS[rest] if rest else "")
    return filled + "·" * (width - len(filled))
