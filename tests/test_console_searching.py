"""The search line of the audit, and the figures of the pages. Pure."""

from __future__ import annotations

import pytest

from common.times import from_iso
from console import searching
from console.cells import cell_len
from console.figures import bytes_of, count, progress, share, span
from console.searching import completions, is_scan, problem_of, read_search
from daemon.audit.search import _SCANNED, STATES, TEXT_SINCE

NOW = from_iso("2026-01-31T09:00:00Z")


def test_it_reads_the_words_of_the_command_line() -> None:
    """Quoted values, durations counted back from now, bare words searched for."""
    wanted = read_search('user:ana@example.org state:ok since:1h text:"three  words" more', now=NOW)
    assert (wanted.user, wanted.state, wanted.text) == ("ana@example.org", "ok", "three  words more")
    assert wanted.since == "2026-01-31T08:00:00.000000Z"


def test_text_without_since_is_fixed_to_the_last_day() -> None:
    """So that the second page of an answer is of the same question as the first."""
    assert read_search("text:x", now=NOW).since == "2026-01-30T09:00:00.000000Z"
    assert read_search("text:x since:7d", now=NOW).since == "2026-01-24T09:00:00.000000Z"
    assert read_search("user:a", now=NOW).since is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", ""),
        ("user:ana@example.org", ""),
        ("user:", "lacks its value"),
        ("usr:x", "nothing to filter by"),
        ("state:okay", "there is no state"),
        ('text:"open', "quotation mark"),
        ("since:1h until:2h", "not before"),
        ("since:yesterday", "neither a duration"),
        ("user:a user:b", "twice"),
        ("state:left", ""),
        ("state:timeout", "timeout_connect, timeout_first_byte"),
        ("user:" + "a" * 5_000_000, "at most 4,000 characters"),
    ],
)
def test_what_is_wrong_is_said_while_one_types(line: str, problem: str) -> None:
    """In words; a good line says nothing."""
    said = problem_of(line)
    assert problem in said
    assert bool(said) == bool(problem)


def test_tab_offers_words_then_their_values() -> None:
    """Upper or lower case; values with blanks are quoted; what is there already is not offered again."""
    known = {"user": ["ana@example.org", "Al Bo@example.org"], "model": ["llama3.2:latest"], "client_label": ["nb"]}
    assert completions("us", known) == ["user:"]
    assert "user:" not in completions("user:a ", known)
    assert completions("state:ok user:A", known) == [
        "state:ok user:'Al Bo@example.org'",
        "state:ok user:ana@example.org",
    ]
    assert completions("model:ll", known) == ["model:llama3.2:latest"]
    assert completions("client:", known) == ["client:nb"]
    assert completions("state:time", known)[0] == "state:timeout_connect"
    assert completions("since:", known)[:1] == ["since:10m"]
    assert completions("nonsense:", known) == []


def test_the_console_knows_the_states_and_scans_of_the_daemon() -> None:
    """It may not import the daemon, so this test does: nothing good is refused here, no scan taken for a look-up."""
    assert set(searching.STATES) == set(STATES)
    assert searching.TEXT_SINCE == TEXT_SINCE
    for name in _SCANNED:
        word = "client" if name == "client_label" else name
        assert is_scan(read_search(f"{word}:x"))
    assert not is_scan(read_search("user:a key:b model:c state:ok since:1h"))


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (99_999, "99999"), (123_456, "123k"), (1_234_567, "1.2M"), (250_000_000, "250M")],
)
def test_counts_fit_into_six_cells(number: int | None, text: str) -> None:
    """Exact while they can be."""
    assert count(number) == text
    assert len(text) <= 6


@pytest.mark.parametrize("part", [None, 0.0, 0.013, 0.5, 0.999, 1.0])
def test_a_progress_bar_has_its_width(part: float | None) -> None:
    """Whatever it shows."""
    assert cell_len(progress(part, 14)) == 14


def test_spans_and_shares() -> None:
    """Short GPU times keep a decimal; an unknown total is no share; more than all is all."""
    assert (span(0), span(0.42), span(72), span(11100)) == ("0s", "0.4s", "1m12s", "3h05m")
    assert (share(5, 10), share(5, 0), share(5, None), share(11, 10)) == (0.5, None, None, 1.0)
    assert (bytes_of(None), bytes_of(2.6e9)) == ("-", "2.6GB")
