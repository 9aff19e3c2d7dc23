"""Readers of lines and of server-sent events give the same however their bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.dialects.lines import Event, LineReader, SseReader
from daemon.dialects.translator import UpstreamGarbled
from tests.rigs.feeding import cuts, split_at

LINES = [
    (b"", [], b""),
    (b"one", [], b"one"),
    (b"one\n", [b"one"], b""),
    (b"one\ntwo", [b"one"], b"two"),
    (b"one\r\n\ntwo\n", [b"one\r", b"", b"two"], b""),
    (b"\n\n", [b"", b""], b""),
    ("é\nü".encode(), ["é".encode()], "ü".encode()),
]


@pytest.mark.parametrize(("data", "lines", "rest"), LINES)
def test_lines_come_out_whole(data: bytes, lines: list[bytes], rest: bytes):
    """Complete lines, in order; what has no end yet stays in the reader."""
    for chunks in cuts(data):
        reader = LineReader()
        assert [line for chunk in chunks for line in reader.feed(chunk)] == lines
        assert reader.empty == (rest == b"")
        assert (reader.rest(), reader.rest()) == (rest, b"")


EVENTS = [
    (b"", []),
    (b"data: one\n\n", [(b"", b"one")]),
    (b"data: one\n\ndata: two\n\n", [(b"", b"one"), (b"", b"two")]),
    (b"data:one\n\n", [(b"", b"one")]),
    (b"data:  one\n\n", [(b"", b" one")]),
    (b"data: one\r\n\r\ndata: two\r\n\r\n", [(b"", b"one"), (b"", b"two")]),
    (b"data: one\r\rdata: two\r\r", [(b"", b"one"), (b"", b"two")]),
    (b"data: one\r\n\ndata: two\n\r\n", [(b"", b"one"), (b"", b"two")]),
    (b"data: one\ndata: two\n\n", [(b"", b"one\ntwo")]),
    (b"data\n\n", [(b"", b"")]),
    (b"data\ndata\n\n", [(b"", b"\n")]),
    (b"event: ping\ndata: {}\n\n", [(b"ping", b"{}")]),
    (b"event: lost\n\ndata: x\n\n", [(b"", b"x")]),
    (b": a comment\n\ndata: x\n\n", [(b"", b"x")]),
    (b"id: 7\nretry: 9\ndata: x\n\n", [(b"", b"x")]),
    (b"\xef\xbb\xbfdata: x\n\n", [(b"", b"x")]),
    (b"\n\n\ndata: x\n\n\n", [(b"", b"x")]),
    (b"data: x: y\n\n", [(b"", b"x: y")]),
    ('data: {"é":"ü"}\n\n'.encode(), [(b"", '{"é":"ü"}'.encode())]),
]
UNFINISHED = [
    (b"data: x", [(b"", b"x")]),
    (b"data: x\n", [(b"", b"x")]),
    (b"data: x\r", [(b"", b"x")]),
    (b"data: x\r\n", [(b"", b"x")]),
    (b"data: x\n\n", []),
    (b"data: x\r\r", []),
    (b"event: ping\n", []),
    (b": comment", []),
]


@pytest.mark.parametrize(("data", "events"), EVENTS)
def test_events_come_out_whole(data: bytes, events: list[tuple[bytes, bytes]]):
    """After WHATWG HTML 9.2.6: fields, comments, all three line ends, names, several data lines."""
    for chunks in cuts(data):
        reader = SseReader()
        assert [event for chunk in chunks for event in reader.feed(chunk)] == [Event(*event) for event in events]
        assert reader.end() == []


@pytest.mark.parametrize(("data", "events"), UNFINISHED)
def test_the_end_completes_an_event_without_its_empty_line(data: bytes, events: list[tuple[bytes, bytes]]):
    """Some servers close right behind their last event."""
    for chunks in cuts(data):
        reader = SseReader()
        for chunk in chunks:
            reader.feed(chunk)
        assert reader.end() == [Event(*event) for event in events]


@given(
    lines=st.lists(st.sampled_from([b"data: x", b"data:", b"event: e", b":c", b"id: 1", b"", b"", b"data: \xc3\xa9"])),
    ends=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=1),
    places=st.lists(st.integers(min_value=0)),
)
def test_any_cut_gives_the_same_events(lines: list[bytes], ends: list[bytes], places: list[int]):
    """Mixed line ends, any fields, cut anywhere."""
    data = b"".join(line + ends[number % len(ends)] for number, line in enumerate(lines))
    whole, cut = SseReader(), SseReader()
    expected = whole.feed(data) + whole.end()
    assert [event for chunk in split_at(data, places) for event in cut.feed(chunk)] + cut.end() == expected


@pytest.mark.parametrize("reader", [LineReader(limit=1000), SseReader(limit=1000)], ids=["lines", "events"])
def test_an_endless_line_is_an_error_and_not_a_full_memory(reader: LineReader | SseReader):
    """An upstream that never ends its line is garbled after the limit, whatever the size of its pieces."""
    with pytest.raises(UpstreamGarbled, match="more than 1,000 bytes"):
        for _ in range(2000):
            reader.feed(b"x")


def test_an_endless_event_is_an_error():
    """Nor may an event go on line by line for ever, not even in empty ones."""
    for line in (b"data: xxxx\n", b"data\n"):
        reader = SseReader(limit=1000)
        with pytest.raises(UpstreamGarbled, match="more than 1,000 bytes"):
            for _ in range(2000):
                reader.feed(line)


def test_readers_tell_their_state():
    """For a log line or a debugger."""
    reader = SseReader()
    reader.feed(b"data: x\ndata: un")
    assert repr(reader) == "<SseReader, 2 bytes of an unfinished event, <LineReader, 8 bytes of an unfinished line>>"
