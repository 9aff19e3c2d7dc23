"""Foreign text made safe for a terminal, and for a spreadsheet cell.

A prompt, a model name, a user agent comes from anybody; on its way to the administrator it may neither move a cursor,
hide, reverse nor execute. Rule: whoever decodes such text for a person passes it through `clean` at that place, once.
What is stored, exported as JSONL or printed as JSON stays byte for byte what it was: this page only shows.

The escapes are plain ASCII (`\\x1b`, `\\u202e`, as Python writes them): they survive a terminal in any encoding.
"""

from __future__ import annotations

import re

# Control characters that a terminal obeys, and everything a font does not draw: C0, DEL and C1; the line and paragraph
# separators; bidirectional marks, embeddings and isolates; zero-width and other characters that Unicode calls
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt, Unicode 16), among them the variation selectors and the tags;
# interlinear annotations; lone surrogates, which no encoding can print; and the noncharacters.
_UNSAFE_RANGES = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)


def _pattern(keep: str = "") -> re.Pattern[str]:
    ranges = "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in _UNSAFE_RANGES)
    refused = f"(?![{re.escape(keep)}])" if keep else ""
    return re.compile(f"{refused}[{ranges}]")


_UNSAFE = _pattern()
_UNSAFE_IN_BLOCK = _pattern(keep="\n\t")


def is_unsafe(character: str) -> bool:
    """Whether a terminal might obey this one character, or not show it at all."""
    return _UNSAFE.match(character) is not None


def clean(text: str) -> str:
    """`text` for one line of a terminal: every character that steers, hides or reverses becomes a visible escape.

    The result holds no line break; cleaning it again changes nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_visible, text)


def clean_block(text: str) -> str:
    """As `clean`, for text of several lines: line feeds stay, a CR before one goes, a tab becomes spaces."""
    return _UNSAFE_IN_BLOCK.sub(_visible, text.replace("\r\n", "\n")).expandtabs(4)


def clean_json(document: str) -> str:
    """A JSON document as it may be shown: what a terminal obeys becomes a `\\u` escape, so that it reads the same.

    Line feeds and tabs between its values stay; inside strings JSON has escaped them already.
    """
    return _UNSAFE_IN_BLOCK.sub(_json_escape, document)


def _json_escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _visible(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")


# What makes a spreadsheet read a cell as a formula, and the apostrophe itself, so that the way back is exact.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def csv_cell(text: str) -> str:
    """`text` as a spreadsheet cell that is text and never a formula: a dangerous start gets a leading apostrophe.

    `csv_uncell` is the exact inverse. Quoting the cell for CSV is the CSV writer's work.
    """
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def csv_uncell(cell: str) -> str:
    """What `csv_cell` was given: one leading apostrophe stripped, if there is one."""
    return cell.removeprefix("'")
