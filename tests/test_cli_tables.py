"""What commands print: cut to the terminal, clean of everything a terminal obeys; and the files they write."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import times
from common.files import write_whole
from common.protocol import AuditFilter
from common.untrusted import is_unsafe
from console.filters import WORDS, read_filter
from console.tables import INDENT, WIDTH, Column, block, cell_width, cut, fields, moment, size, table, table_lines

COLUMNS = [Column("ID"), Column("N", right=True), Column("NAME", flexible=True)]
ANY_TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=()))


def test_a_table_is_aligned_with_a_header() -> None:
    """Numbers to the right, None as a dash, no trailing blanks."""
    text = table(COLUMNS, [["a", 5, "ana"], ["bcd", 1234, None]])
    assert text == "ID      N  NAME\na       5  ana\nbcd  1234  -\n"


def test_wide_characters_keep_the_columns_aligned() -> None:
    """East Asian wide characters take two columns, combining marks none."""
    text = table([Column("A"), Column("B")], [["日本", "x"], ["e\u0301", "x"], ["abcd", "x"]])
    starts = {cell_width(line[: line.rindex("x")]) for line in text.splitlines()[1:]}
    assert starts == {6}


def test_a_narrow_terminal_cuts_only_what_may_be_cut() -> None:
    """Flexible columns give way, with an ellipsis; ids stay whole."""
    rows = [["id-of-some-length", 7, "a very long name that does not fit here"]]
    lines = table(COLUMNS, rows, width=50).splitlines()
    assert all(cell_width(line) <= 50 for line in lines)
    assert "id-of-some-length" in lines[1]
    assert lines[1].endswith("…")
    assert rows[0][2] in table(COLUMNS, rows), "into a pipe nothing is cut"


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT), max_size=5), st.none() | st.integers(20, 120))
def test_no_cell_can_drive_a_terminal_or_break_a_line(rows: list[tuple[str, str, str]], width: int | None) -> None:
    """T1: whatever is in the cells, each row has as many lines as the header, and nothing that a terminal obeys."""
    text = table(COLUMNS, rows, width=width)
    header, body = table_lines(COLUMNS, rows, width=width)
    assert text.count("\n") == len(header) * (len(rows) + 1)
    assert all(line.startswith(" " * INDENT) or not line.strip() for n, line in enumerate(body) if n % len(header))
    assert not any(is_unsafe(character) and character != "\n" for character in text)
    if width is not None:
        assert all(cell_width(line) <= width for line in text.splitlines())


def test_what_is_too_wide_goes_on_below() -> None:
    """At 80 columns nothing is broken in the middle: whole columns stand in a second line, those of dashes nowhere."""
    columns = [Column("STATE"), Column("TARGET", flexible=True), *(Column(f"LIMIT {n}", right=True) for n in range(7))]
    rows = [
        ["full", "user:priya.ramanathan@physics.example.org", 10, "unlimited", "unlimited", None, *["unlimited"] * 3]
    ]
    header, body = table_lines(columns, rows, width=78)
    assert [line.split() for line in body] == [
        ["full", "user:priya.ramanathan@physics.example.org", "10", "unlimited"],
        ["unlimited"] * 4,
    ]
    assert "LIMIT 3" not in "".join(header), "nobody says anything there"
    assert header[1].index("LIMIT 2") + 7 == body[1].index("unlimited") + 9
    assert len(table_lines(columns, rows, width=200)[0]) == 1
    name_over_figures = table_lines(columns[1:7], [rows[0][1:7]], width=60)[1]
    assert [len(line.split()) for line in name_over_figures] == [1, 4]


def test_a_long_value_goes_on_below_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, or in the console's box: broken at words; a word that is too long anywhere."""
    monkeypatch.setenv(WIDTH, "40")
    assert fields([("disk", "5.0 GB free of 16.1 GB; database 0.2 GB"), ("hash", "f" * 40)]).splitlines() == [
        "disk  5.0 GB free of 16.1 GB; database",
        "      0.2 GB",
        "hash  " + "f" * 34,
        "      " + "f" * 6,
    ]


@given(ANY_TEXT)
def test_a_block_of_foreign_text_cannot_pass_for_ours(text: str) -> None:
    """Each of its lines is indented, so that no prompt can print what looks like a field of the record."""
    lines = block("[prompt]", text).splitlines()
    assert lines[0] == "[prompt]"
    assert all(line.startswith("  ") for line in lines[1:])
    assert not any(is_unsafe(character) for line in lines for character in line)


def test_fields_leave_out_what_is_not_there() -> None:
    """Names aligned; None, empty text and empty lists are not shown; zero and False are."""
    assert fields([("user", "ana"), ("code", None), ("models", []), ("keys", 0), ("stream", False)]) == (
        "user    ana\nkeys    0\nstream  no\n"
    )


def test_small_words_for_moments_and_sizes() -> None:
    """To the second, in UTC; bytes in decimal units."""
    assert moment("2026-01-31T09:05:07.000123Z") == "2026-01-31 09:05:07Z"
    assert moment(None) == "-"
    assert [size(number) for number in (None, 0, 999, 1000, 98_362_432, 5 * 10**12)] == [
        "-",
        "0 B",
        "999 B",
        "1.0 kB",
        "98.4 MB",
        "5.0 TB",
    ]
    assert cut("abcdef", 4) == "abc…"
    assert cut("日本語", 4) == "日…"


NOW = times.from_iso("2026-03-01T12:00:00Z")


def test_a_filter_is_read_as_it_is_typed() -> None:
    """The words of the contract; what has no name is searched for."""
    wanted = read_filter(["user:ana@example.org", "state:ok", "since:1h", "text:three words", "and more"], now=NOW)
    assert wanted == AuditFilter(
        user="ana@example.org", state="ok", since="2026-03-01T11:00:00.000000Z", text="three words and more"
    )
    assert read_filter(["http://x"], now=NOW) == AuditFilter(text="http://x")
    assert read_filter(["model:qwen3:4b"], now=NOW) == AuditFilter(model="qwen3:4b")
    assert read_filter([], now=NOW) == AuditFilter()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["usr:ana"], "usr.*address"),
        (["user:"], "lacks its value"),
        (["user:a", "USER:b"], "twice"),
        (["since:yesterday"], "neither a duration"),
    ],
)
def test_a_wrong_filter_says_which_word(words: list[str], complaint: str) -> None:
    """A misspelt filter would otherwise silently search for something else."""
    with pytest.raises(ValueError, match=complaint):
        read_filter(words, now=NOW)


def test_every_word_of_a_filter_is_a_field_of_the_protocol() -> None:
    """The table of words and the message cannot part."""
    assert set(WORDS.values()) == set(AuditFilter.__struct_fields__)


def test_a_file_is_written_whole_and_read_back(tmp_path: Path) -> None:
    """T4: 0600, synced, under its name only when whole; digest and size are those of what lies on the disk."""
    path = tmp_path / "export.csv"
    assert write_whole(path, [b"one", b"two"]) == (hashlib.sha256(b"onetwo").hexdigest(), 6)
    assert path.read_bytes() == b"onetwo"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["export.csv"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T4: data synced, then renamed, then the folder synced: after a power cut the file is whole or not there."""
    steps: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(file: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "sync file")
        sync(file)

    def renamed(*arguments: object, **more: int) -> None:
        steps.append("rename")
        rename(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    write_whole(tmp_path / "export.csv", [b"rows"])
    assert steps == ["sync file", "rename", "sync folder"]


def test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    """T4: no half file ever has the name, no temporary one stays."""
    path = tmp_path / "export.csv"
    path.write_bytes(b"old")

    def pieces() -> Iterator[bytes]:
        yield b"new"
        assert path.read_bytes() == b"old"
        raise RuntimeError("the daemon went away")

    with pytest.raises(RuntimeError):
        write_whole(path, pieces())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["export.csv"]


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    """T4: an export never writes through somebody's symbolic link."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "export.csv"
    path.symlink_to(victim)
    write_whole(path, [b"rows"])
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_commands_start_without_heavy_imports() -> None:
    """A command starts in a tenth of a second: neither the daemon nor a screen toolkit is imported for it."""
    import subprocess

    code = "import sys, console.__main__; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"daemon", "tornado", "textual", "rich", "aiosqlite", "argon2", "jwt", "cryptography"} & set(loaded)
