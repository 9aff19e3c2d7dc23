"""Foreign text: nothing a terminal obeys gets through, nothing a spreadsheet executes, and nothing is lost in a CSV."""

import csv
import io
import json
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.untrusted import clean, clean_block, clean_json, csv_cell, csv_uncell, is_unsafe

ANY_TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=()))

HOSTILE = {
    "clear screen": ("\x1b[2J", "\\x1b[2J"),
    "title": ("\x1b]0;pwned\x07", "\\x1b]0;pwned\\x07"),
    "clipboard": ("\x1b]52;c;cm0=\x1b\\", "\\x1b]52;c;cm0=\\x1b\\"),
    "C1 CSI": ("\x9b31m", "\\x9b31m"),
    "C1 next line": ("a\x85b", "a\\x85b"),
    "DEL and backspace": ("a\x7f\x08", "a\\x7f\\x08"),
    "NUL": ("\x00", "\\x00"),
    "carriage return": ("real\rfake", "real\\rfake"),
    "line feed": ("one\ntwo", "one\\ntwo"),
    "bidi override": ("user\u202egnp.exe", "user\\u202egnp.exe"),
    "bidi isolate": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "zero width": ("ad\u200bmin", "ad\\u200bmin"),
    "byte order mark": ("\ufeffadmin", "\\ufeffadmin"),
    "soft hyphen": ("ad\u00admin", "ad\\xadmin"),
    "tags": ("hi\U000e0041\U000e007f", "hi\\U000e0041\\U000e007f"),
    "variation selectors carrying bytes": ("a\ufe01\U000e0101", "a\\ufe01\\U000e0101"),
    "line separator": ("a\u2028b", "a\\u2028b"),
    "Hangul filler": ("\u3164", "\\u3164"),
    "lone surrogate": ("\ud83d", "\\ud83d"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_becomes_visible(name: str) -> None:
    """Each known way to steer, hide or reverse is shown as an escape, and the text around it stays."""
    text, shown = HOSTILE[name]
    assert clean(text) == shown


def test_everyday_text_of_many_scripts_stays_as_it_is() -> None:
    """Letters, accents, CJK, Arabic, Hebrew, emoji, box drawing and markup characters are not touched."""
    for text in (
        "Zoë",
        "naïve café",
        "日本語",
        "مرحبا",
        "שלום",
        "हिन्दी",
        "🙂👍🏽",
        "│█▒",
        "[/] [@click=app.quit]",
        "a\\x1b",
    ):
        assert clean(text) == text


@given(ANY_TEXT)
def test_nothing_unsafe_is_left_and_cleaning_again_changes_nothing(text: str) -> None:
    """The result can be printed in UTF-8, holds no control, format, surrogate or separator character, and is stable."""
    shown = clean(text)
    shown.encode("utf-8")
    assert not any(is_unsafe(character) for character in shown)
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert clean(shown) == shown


def test_every_control_bidi_zero_width_and_tag_character_is_unsafe() -> None:
    """Unicode's own classes are the oracle: all of Cc, Cs, Zl, Zp, and every Cf that has no glyph of its own."""
    glyphs = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    for number in range(0x110000):
        category = unicodedata.category(chr(number))
        if category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and number not in glyphs):
            assert is_unsafe(chr(number)), f"U+{number:04X}"
        bidirectional = unicodedata.bidirectional(chr(number))
        if bidirectional in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN", "B"}:
            # The separators 0x1C-0x1E and the noncharacters are in these classes, too.
            assert is_unsafe(chr(number)) or number & 0xFFFE == 0xFFFE or category == "Cn", f"U+{number:04X}"


@given(ANY_TEXT)
def test_a_block_keeps_its_lines_and_nothing_else_that_moves(text: str) -> None:
    """Several lines stay several lines; every other control character is shown."""
    shown = clean_block(text)
    assert not any(is_unsafe(character) and character != "\n" for character in shown)
    assert shown.count("\n") == text.count("\n")


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_json_for_a_terminal_means_the_same(document: dict[str, str]) -> None:
    """Escaped where a terminal might obey, it is still JSON of the same value."""
    text = msgspec.json.format(msgspec.json.encode(document)).decode()
    shown = clean_json(text)
    assert json.loads(shown) == document
    assert not any(is_unsafe(character) and character not in "\n\t" for character in shown)


@given(ANY_TEXT)
def test_a_csv_cell_is_never_a_formula_and_comes_back_exactly(text: str) -> None:
    """T3: stripping one apostrophe is the exact inverse, for every text."""
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert csv_uncell(cell) == text


@pytest.mark.parametrize("start", list("=+-@\t\r\n'"))
def test_each_dangerous_start_gets_one_apostrophe(start: str) -> None:
    """T3: exactly these starts are marked, with exactly one apostrophe."""
    assert csv_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"
    assert csv_cell(f"x{start}") == f"x{start}"


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
def test_cells_survive_a_csv_file(texts: list[str]) -> None:
    """Through a CSV writer and a reader, what was put in comes out."""
    file = io.StringIO(newline="")
    csv.writer(file).writerow([csv_cell(text) for text in texts])
    file.seek(0)
    assert [csv_uncell(cell) for cell in next(csv.reader(file))] == texts
