"""The console's pure parts: widths, columns, order, filter, plots, and what a link to the daemon makes of messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from common.protocol import AdminRecord, Batch, Goodbye, Hello, Named, Snapshot, Totals
from common.untrusted import clean
from console import states
from console.blocks import side_by_side
from console.cells import cut, fit, wrap
from console.columns import Column, choose, text_of
from console.filters import read_filter
from console.link import Link
from console.mirror import Gap
from console.ordering import Matcher, held, sorted_ids
from console.palette import BOLD, PLAIN
from console.screens.administrators import heading, record_lines, told
from console.screens.audit_rows import COLUMNS as OF_AUDIT
from console.screens.live import LivePage, ended_line, live_line
from console.widgets.lines import strip_of
from console.widgets.plots import bar, plot, spark
from console.widgets.prompt import question_lines
from tests.rigs.console import ROOT, prepare_environment
from tests.rigs.until import until

prepare_environment()
TOTALS = Totals(running=0, seats=2, queued=0, oldest_queued=None)


# -- text in columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["plain", "", "模型模型模型模型", "e\u0301" * 20, "🙂🙂🙂🙂🙂🙂🙂", "a模b🙂c" * 5, "x" + "\u0301" * 5000]
)
@pytest.mark.parametrize("width", [1, 2, 5, 12])
def test_a_cell_is_exactly_as_wide_as_its_column(text: str, width: int) -> None:
    """Wide characters, combining marks and emoji included: otherwise every column to the right is crooked."""
    assert cell_len(fit(text, width)) == width
    assert cell_len(fit(text, width, right=True)) == width


@given(st.text(max_size=200), st.integers(0, 40))
def test_a_cut_text_never_takes_more_than_its_width(text: str, width: int) -> None:
    """Whatever it holds; and what fits is left alone."""
    assert cell_len(cut(text, width)) <= width
    if len(text) <= width and text.isascii():
        assert cut(text, width) == text


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=200), st.integers(2, 40))
def test_a_wrapped_text_is_whole_and_fits(text: str, width: int) -> None:
    """No line is wider than the view, and nothing but blanks at the breaks is lost."""
    lines = wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_strip_is_as_wide_as_it_says_and_merges_neighbours() -> None:
    """Segments of one style are one: fewer bytes to the terminal."""
    bold = Style(bold=True)
    strip = strip_of(["ab", ("模", bold), ("x", bold), "y"], 10)
    assert strip.cell_length == 10 == sum(cell_len(segment.text) for segment in strip)
    assert [segment.text for segment in strip] == ["ab", "模x", "y    "]


# -- columns ----------------------------------------------------------------------------------------------------------

COLUMNS = [
    Column("A", str, 5),
    Column("B", str, 5, most=15),
    Column("C", str, 5, rank=1),
    Column("D", str, 5, most=10, rank=2),
]


def test_columns_of_the_highest_rank_go_first_and_the_rest_grows() -> None:
    """At every width what is chosen fits, and the columns that matter are there."""
    assert [index for index, _ in choose(COLUMNS, 23)] == [0, 1, 2, 3]
    assert [index for index, _ in choose(COLUMNS, 22)] == [0, 1, 2]
    assert [index for index, _ in choose(COLUMNS, 16)] == [0, 1]
    assert choose(COLUMNS, 3) == [(0, 5), (1, 5)]
    assert choose(COLUMNS, 200) == [(0, 5), (1, 15), (2, 5), (3, 10)]
    for width in range(11, 60):
        chosen = choose(COLUMNS, width)
        assert sum(size for _, size in chosen) + len(chosen) - 1 <= width


# -- order and filter -------------------------------------------------------------------------------------------------


def test_rows_without_a_value_stand_last_either_way() -> None:
    """An unknown speed is neither the fastest nor the slowest."""
    rows = {"a": 2.0, "b": None, "c": 3.0}
    assert sorted_ids(rows, lambda value: value, descending=False) == ["a", "c", "b"]
    assert sorted_ids(rows, lambda value: value, descending=True) == ["c", "a", "b"]


def test_a_held_order_keeps_places_and_adds_at_the_end() -> None:
    """What went is gone, what came stands last, nothing jumps."""
    assert held(["a", "b", "c"], ["d", "c", "a"]) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("ana", True),
        ("ANA llama", True),
        ("joe", False),
        ("!joe", True),
        ("ana !llama", False),
        ("!", True),
    ],
)
def test_a_filter_wants_every_word(text: str, matches: bool) -> None:
    """Upper or lower case, in any column; a word with ! must not be there."""
    assert Matcher(text)(["run", "ana@example.org", "llama-3.3-70b"]) is matches


# -- plots ------------------------------------------------------------------------------------------------------------


def test_plots_have_the_size_they_were_asked_for() -> None:
    """The highest value is a full block, zero none, and the newest stands on the right."""
    assert spark([0, 1, 2], 3) == "▁▄█"
    assert plot([0, 1, 2], 4, 2) == ["   █", "  ██"]
    assert all(len(line) == 7 for line in plot([], 7, 3))
    assert bar(0.5, 4) == "██··"
    assert bar(2.0, 4) == "████"
    assert bar(-1, 4) == "····"
    assert bar(1 / 16, 2) == "▏·"


# -- what a row says --------------------------------------------------------------------------------------------------

LIVE = {
    "request_id": "8f2c0000",
    "state": "run",
    "position": None,
    "received": "2026-01-31T09:00:00.000000Z",
    "chunks_out": 7,
    "tokens_out": 7,
    "tokens_per_second": 12.5,
    "piece_age": 0.2,
    "estimated_wait": None,
}
NOW = 1769850012.0  # 12 s later


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "run"),
        ({"piece_age": 6.0}, "STALL"),
        ({"state": "prefill", "piece_age": None}, "prefill"),
        ({"state": "queued", "position": 3, "estimated_wait": 41.0}, "q#3 ~41s"),
        ({"state": "queued", "position": 3, "estimated_wait": 700.0}, "q#3 ~12m"),
        ({"state": "queued", "position": 1, "estimated_wait": 0.2}, "q#1 ~1s"),
        ({"state": "queued", "position": None}, "queued"),
    ],
)
def test_the_state_is_a_word(changed: dict[str, object], word: str) -> None:
    """A running exchange whose upstream is silent is called STALL; a waiting one tells place and estimate."""
    line = live_line(LIVE | changed, NOW)
    assert line.state == word
    assert line.elapsed == 12.0


@pytest.mark.parametrize(
    ("state", "count", "word"),
    [("ok", 1, "ok"), ("cancelled_by_admin", 1, "cancelled"), ("refused", 1, "refused"), ("refused", 12, "refused")],
)
def test_an_ended_exchange_says_how(state: str, count: int, word: str) -> None:
    """In a word that fits the column."""
    row = {"state": state, "count": count, "tokens_per_second": None, "tokens_out": None, "elapsed": 1.0}
    assert ended_line(row).state == word


@pytest.mark.parametrize("name", states.NAMES)
def test_every_state_has_one_word_that_fits_and_may_be_searched_for(name: str) -> None:
    """Live and Audit say the same, docs/console.md says what it means, and a search takes it."""
    word = states.word(name)
    row = {"state": name, "count": 1, "tokens_per_second": None, "tokens_out": None, "elapsed": 1.0}
    assert ended_line(row).state == word
    columns = [next(column for column in page if column.title == "STATE") for page in (LivePage.COLUMNS, OF_AUDIT)]
    assert text_of(columns[1].cell(row)) == word
    assert all(len(word) <= column.width for column in columns)
    documented = (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
    assert re.search(rf"\| `{word}` \|.*`{name}`", documented)
    if word == "timeout":
        with pytest.raises(ValueError, match=name):
            read_filter(["state:timeout"])
        assert states.full(name) == f"timeout ({name})"
    else:
        assert read_filter([f"state:{word.upper()}"]).state == name
    assert read_filter([f"state:{name}"]).state == name


# -- the link ---------------------------------------------------------------------------------------------------------


def waits() -> Iterator[float]:
    """No pauses."""
    while True:
        yield 0.0


def test_a_link_is_live_from_the_snapshot_until_a_goodbye() -> None:
    """Not from the hello: until the snapshot nothing is known. What was known stays while the daemon is away."""
    clock = [100.0]
    link = Link(Path("/nowhere"), clock=lambda: clock[0], waits=waits)
    link._take(Hello(1, "0.1.0", "first"))
    assert not link.is_live
    link._take(Snapshot(1, [], TOTALS))
    assert link.is_live
    link.started = 5
    link._take(Goodbye("the daemon is stopping"))
    assert link.state == "lost"
    assert "the daemon is stopping" in link.cause
    clock[0] += 12
    assert link.stale_for() == 12
    assert link.mirror.totals.seats == 2
    link._take(Hello(1, "0.1.0", "second"))
    assert link.started == 0, "another daemon: when it started is to be asked anew"


def test_a_gap_is_not_papered_over() -> None:
    """A batch that does not follow the last message asks for a new snapshot."""
    link = Link(Path("/nowhere"), waits=waits)
    link._take(Hello(1, "0.1.0", "first"))
    link._take(Snapshot(5, [], TOTALS))
    with pytest.raises(Gap):
        link._take(Batch(after=7, seq=8, changed=[], gone=[Named("live", "x")], totals=TOTALS))


async def test_without_a_daemon_a_link_says_why_and_tries_on(tmp_path: Path) -> None:
    """`never`: nothing was ever there; the cause names the socket, and the next attempt has a time."""
    link = Link(tmp_path / "none.sock")
    task = asyncio.create_task(link.run())
    await until(lambda: link.state != "connecting")
    task.cancel()
    assert link.state == "never"
    assert "none.sock" in link.cause
    assert link.retry_at > 0


# -- the second layer -------------------------------------------------------------------------------------------------


def test_the_output_guard_lets_nothing_unsafe_pass() -> None:
    """Even where nobody cleaned: no character that a terminal obeys reaches the strips; widths stay."""
    from textual.color import Color

    from console.guard import OutputGuard

    evil = "a\x1b[31mb\x9b2J\x00\u202ec\u200dd"
    (segment,) = OutputGuard().apply([Segment(evil)], Color(0, 0, 0))
    assert "\x1b" not in segment.text
    assert not set(segment.text) & set("\x9b\x00\u202e\u200d")
    assert cell_len(segment.text) == cell_len(evil)
    plain = Segment("[/] [@click=app.quit] 模型 ▁▂▃")
    assert OutputGuard().apply([plain], Color(0, 0, 0)) == [plain]


def test_blocks_stand_beside_each_other_where_there_is_room() -> None:
    """As many columns as fit, in their order, none torn; nothing is lost at any width."""
    blocks = [
        ("Users", [f"  {n}  key" for n in range(9)]),
        ("Everywhere", ["  1  Live", "  q  Quit"]),
        ("Rows", ["  j"]),
    ]
    narrow = [text for text, _ in side_by_side(blocks, 20)]
    assert narrow[:3] == ["", "Users", "  0  key"] and len(narrow) == 10 + 3 + 2 + 3
    wide = side_by_side(blocks, 120)
    assert wide[1][0].split() == ["Users", "Everywhere"] and wide[1][1] == BOLD
    assert wide[2][0].split() == ["0", "key", "1", "Live"] and wide[2][1] == PLAIN
    for width in range(20, 120):
        lines = [text for text, _ in side_by_side(blocks, width)]
        assert sorted(" ".join(lines).split()) == sorted(" ".join(narrow).split())
        assert max(map(len, lines)) <= width


@given(st.text(max_size=400), st.integers(60, 200))
def test_a_question_stands_whole_with_its_answers(question: str, width: int) -> None:
    """In up to three lines: no word is cut that there is room for, and how to answer is in sight however long it is."""
    lines = ["".join(text_of(part) for part in line) for line in question_lines(clean(question), width)]
    assert 1 <= len(lines) <= 3 and all(cell_len(line) <= width for line in lines)
    assert lines[-1].endswith("  [y] yes  [N] no")
    told = f"Drain gpu1? It takes nothing new; 4 run on, 3 wait. {'a' * 40}?"
    assert " ".join("".join(text_of(part) for part in line) for line in question_lines(told, 80)).startswith(told)


def test_what_an_administrator_did_is_read_at_80_columns() -> None:
    """Nothing is broken in the middle: a long target and the detail stand below, indented."""
    record = AdminRecord(
        log_id=1,
        timestamp="2027-01-15T08:00:00.000000Z",
        actor="root",
        uid=0,
        via="socket",
        verb="users add",
        target="user:priya.ramanathan@physics.example.org",
        detail={"role": "user", "notes": "a\x1b[2J " * 12},
    )
    lines = [text_of(part) for part in record_lines(record, 78)]
    assert lines[0] == "01-15 08:00:00 root       users add"
    assert lines[1] == f"    {record.target} · role: user"
    assert all(len(line) <= 78 and line.startswith("    ") and "\x1b" not in line for line in lines[1:])
    wide = [text_of(part) for part in record_lines(record, 160)]
    assert wide[0] == f"2027-01-15 08:00:00Z root         users add              {record.target}"
    assert wide[1].startswith("    role: user · notes: ")
    record.target, record.detail = "upstream:gpu1", {"old": 2, "new": 4}
    assert [text_of(part) for part in record_lines(record, 78)] == [
        "01-15 08:00:00 root       users add      upstream:gpu1",
        "    2 → 4",
    ]
    assert heading(78).index("TARGET") == text_of(record_lines(record, 78)[0]).index("upstream:")
    assert heading(160).index("TARGET") == text_of(record_lines(record, 160)[0]).index("upstream:")
    record.detail = {"export": "6a42ff8d78b599fa", "sha256": "5f" * 32}
    assert f"    sha256: {'5f' * 32}" in [text_of(part) for part in record_lines(record, 78)]  # whole
    record.verb, record.detail = "users reset-password", {}
    assert text_of(record_lines(record, 78)[0]).endswith("users reset-password upstream:gpu1")


def test_what_a_record_tells_is_words_that_no_note_can_forge() -> None:
    """No JSON to read; a text that looks like another fact is quoted."""
    assert told({"role": "user", "code": None, "weak": True}) == ["role: user", "code: none", "weak: yes"]
    edit = {"old": {"label": "ci", "seats": 2}, "new": {"label": "ci", "seats": 4}, "key": "k1"}
    assert told(edit) == ["label: ci", "seats: 2 → 4", "key: k1"]
    assert told({"models": ["a", "b"], "n": [], "filter": {"user": "x"}}) == ["models: a, b", "n: -", "filter.user: x"]
    assert told({"limits": {"old": None, "new": 4}}) == ["limits: none → 4"]
    assert told({"expires_us": 1_800_000_000_000_000}) == ["expires: 2027-01-15 08:00:00Z"]
    assert told({"notes": "x · role: admin"}) == ['notes: "x · role: admin"']
    assert told({"notes": "", "label": " a"}) == ['notes: ""', 'label: " a"']
    assert told({"n\x1b": "\x1b[2J", "m": {"o\x1b": 1}}) == ["n\\x1b: \\x1b[2J", "m.o\\x1b: 1"]
