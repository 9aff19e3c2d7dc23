"""Text in columns of a terminal: how wide it is, cut to a width, padded to one. Pure.

Widths are those that Textual itself counts with (`rich.cells`), so that what we align stays aligned.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len, get_character_cell_size, split_graphemes

__all__ = ["cell_len", "cut", "fit", "wrap"]

ELLIPSIS = "…"
_JOINERS = frozenset("\u200d\ufe0f")  # with them, a character's width hangs on its neighbours


class _Cells(dict[str, int]):
    """The width of each character that was met: a look here is a third of asking Rich."""

    def __missing__(self, character: str) -> int:
        cells = self[character] = get_character_cell_size(character)
        return cells


_CELLS = _Cells()


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
    if line.isascii():
        return list(_ascii_pieces(line, width))
    if not _JOINERS.isdisjoint(line):
        return list(_joined_pieces(line, width))
    return list(_wide_pieces(line, width))


def _ascii_pieces(line: str, width: int) -> Iterator[str]:
    start = 0
    while len(line) - start > width:
        end = _break(line, start, start + width)
        yield line[start:end].rstrip(" ")
        start = end
    yield line[start:]


def _wide_pieces(line: str, width: int) -> Iterator[str]:
    """Each character is measured once: a conversation in Chinese may be a megabyte, too."""
    start = used = 0
    for place, character in enumerate(line):
        cells = _CELLS[character]
        # A mark without a width of its own stays with what it stands on.
        while cells and used + cells > width and place > start:
            end = _break(line, start, place)
            yield line[start:end].rstrip(" ")
            start, used = end, sum(_CELLS[each] for each in line[end:place])
        used += cells
    yield line[start:]


def _joined_pieces(line: str, width: int) -> Iterator[str]:
    """With joiners and variation selectors in it (nothing that was cleaned has any) the width is no sum."""
    start, window = 0, _most_characters(width)
    # Never more than a window of it is looked at: a line of a megabyte would otherwise be measured thousands of times.
    while len(ahead := line[start : start + window]) == window or cell_len(ahead) > width:
        end = _break(line, start, start + len(_beginning(ahead, width) or ahead[0]))
        yield line[start:end].rstrip(" ")
        start = end
    yield ahead


def _break(line: str, start: int, end: int) -> int:
    """Where to break a line of which `start` to `end` fits: behind the last blank, unless that is far to the left: a
    long word would leave a ragged hole."""
    blank = line.rfind(" ", start, end)
    return blank + 1 if blank - start > (end - start) // 2 and end < len(line) else end


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
