"""Text in columns of a terminal: how wide it is, cut to a width, padded to one. Pure.

Widths are those that Textual itself counts with (`rich.cells`), so that what we align stays aligned.
"""

from __future__ import annotations

from rich.cells import cell_len, split_graphemes

__all__ = ["cell_len", "cut", "fit", "wrap"]

ELLIPSIS = "…"


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis where something is missing."""
    if text.isascii():
        if len(text) <= width:
            return text
        return text[: width - 1] + ELLIPSIS if width > 0 else ""
    if width <= 0:
        return ""
    if len(text) <= _most_characters(width) and cell_len(text) <= width:
        return text
    return _beginning(text, width - 1) + ELLIPSIS


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells: cut, or padded on the right (on the left with `right`)."""
    text = cut(text, width)
    blank = " " * (width - (len(text) if text.isascii() else cell_len(text)))
    return blank + text if right else text + blank


def wrap(text: str, width: int) -> list[str]:
    """The lines of `text`, each broken into pieces of at most `width` cells, at blanks where there are any."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines.extend(_wrapped(line, max(1, width)))
    return lines


def _wrapped(line: str, width: int) -> list[str]:
    pieces = []
    start, window = 0, width + 1 if line.isascii() else _most_characters(width)
    # Never more than a window of it is looked at: a line of a megabyte would otherwise be measured thousands of times.
    while len(ahead := line[start : start + window]) == window or cell_len(ahead) > width:
        piece = _beginning(ahead, width) or ahead[0]
        blank = piece.rfind(" ")
        # A blank far to the left is no place to break: a long word would leave a ragged hole.
        if blank > len(piece) // 2 and start + len(piece) < len(line):
            piece = piece[: blank + 1]
        start += len(piece)
        pieces.append(piece.rstrip(" "))
    pieces.append(ahead)
    return pieces


def _beginning(text: str, width: int) -> str:
    """As many whole characters (with their combining marks) as fit into `width` cells."""
    if text.isascii():
        return text[:width]
    head = text[: 2 * width + 2]
    if len(head) < len(text) and cell_len(head) <= width:
        head = text[: _most_characters(width)]
    spans, _ = split_graphemes(head)
    used, end = 0, 0
    for _, stop, cells in spans:
        used += cells
        if used > width:
            break
        end = stop
    return head[:end]


def _most_characters(width: int) -> int:
    """Combining marks take no cell: so many characters are looked at, however many somebody piled up."""
    return 16 * width + 16
