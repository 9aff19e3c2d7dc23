"""The Usage page under a pilot, against a real daemon: periods, groupings, one user, CSV; and its pure parts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.protocol import UsageRow
from common.untrusted import clean, csv_uncell
from console.screens.usage import UsagePage
from console.screens.usage_plots import fitting_sums
from console.spending import as_csv, curve, percent, since
from tests.rigs.console import Seat, open_seat
from tests.rigs.gatehouse import QUESTION
from tests.rigs.until import until


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick of a fortieth of a second: what is tested is what comes, not how often it is drawn."""
    monkeypatch.setattr("console.screens.framed.TICK", 0.025)


@asynccontextmanager
async def usage_page(tmp_path: Path, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Seat]:
    """Ana asked twice, Ben once, with a label of his own that a spreadsheet would run; and the console looks."""
    async with open_seat(tmp_path, size=size) as seat:
        gate = seat.office.gate
        _, key = await gate.member("ben@example.org", label="=cmd|x")
        await gate.chat()
        await gate.chat()
        await gate.post("/api/chat", {"model": "qwen3:4b", "stream": False, "messages": []}, key=key)
        await seat.press("5")
        await seat.sees("[5 Usage]", "ana@example.org")
        yield seat


async def test_who_used_what_in_the_last_day(tmp_path: Path) -> None:
    """Sums, shares, the curve; the most first; everything fits."""
    async with usage_page(tmp_path) as seat:
        frame = await seat.sees("[24h]", "[user]", "3 req", "0 refused", "tokens out", "2 of 2", "as of")
        lines = [line for line in frame.split("\n") if "@example.org" in line]
        assert "ana" in lines[0]
        assert "ben" in lines[1]
        assert all(len(line) <= 80 for line in frame.split("\n"))
        # It agrees with the head: a refusal is counted at once, not when its minute is over.
        await seat.office.done("limits", "set", "ana@example.org", "--requests-per-minute", "2")
        assert (await seat.office.gate.post("/api/chat", QUESTION)).status_code == 429
        await seat.sees("429 1/m", "1 refused")


async def test_other_periods_and_groupings(tmp_path: Path) -> None:
    """Arrows and `b`; keys are told by label and user."""
    async with usage_page(tmp_path) as seat:
        await seat.press("left", "left")
        await seat.sees("[1h]", "ana@example.org")
        await seat.press("right", "right", "right")
        await seat.sees("[30d]")
        await seat.press("b")
        await seat.sees("[model]", " MODEL", "smollm2:135m", "qwen3:4b")
        await seat.press("b")
        await seat.sees("[key]", "test")
        await seat.press("b")
        await seat.sees("[client]", "=cmd|x")
        await seat.press("b")
        await seat.sees("[user]", "ben@example.org")


async def test_one_user_by_model_and_on_to_the_audit(tmp_path: Path) -> None:
    """Enter narrows, Esc widens, `a` shows the exchanges behind a line."""
    async with usage_page(tmp_path) as seat:
        await seat.press("g", "enter")
        frame = await seat.sees("only ana@example.org", "[model]", "smollm2:135m", "2 req")
        assert "qwen3" not in frame.partition("MODEL")[2]
        await seat.press("a")
        await seat.sees("[6 Audit]", "2 found", "user:ana@example.org model:smollm2:135m")
        await seat.press("5", "escape")
        await seat.sees("[user]", "ben@example.org", "3 req")


async def test_what_is_in_sight_is_saved_as_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filtered and in its order, 0600, nothing a formula; a file that is there is not replaced unasked."""
    monkeypatch.chdir(tmp_path)
    async with usage_page(tmp_path) as seat:
        await seat.press("B")
        await seat.sees("[client]", "=cmd|x")
        await seat.press("slash")
        await seat.type("cmd")
        await seat.press("enter")
        await seat.sees("1 of 2")
        await seat.press("w")
        await until(lambda: seat.app.main.prompt.is_asking)
        seat.app.main.prompt.entry.value = "out.csv"
        await seat.press("enter")
        await seat.sees("1 line saved to")
        rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_bytes().decode(), newline="")))
        assert rows[0][:2] == ["client", "requests"]
        assert rows[1][:2] == ["'=cmd|x", "1"]
        assert len(rows) == 2
        assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600
        await seat.press("w")
        await until(lambda: seat.app.main.prompt.is_asking)
        seat.app.main.prompt.entry.value = "out.csv"
        await seat.press("enter")
        await seat.sees("out.csv is there already. Replace it?")
        await seat.press("n")
        await seat.loses("Replace it?")


def test_the_sums_fit_whatever_they_are() -> None:
    """Whole words at every width: first with less between them, then shorter, then without the last."""

    def line(width: int, requests: int) -> str:
        row = UsageRow("", requests, 10**9, 10**9, 63_120.0, 5, 31, 216, 15, 212)
        return "".join(part if isinstance(part, str) else part[0] for part in fitting_sums(row, width))

    assert line(80, 6160).endswith("  212 refused  31 err  216 left  15 cut")
    assert line(80, 123_456_789).startswith(" 123,456,789 req ") and line(80, 123_456_789).endswith(" 15 cut")
    assert line(60, 6160).startswith(" 6160 req 1.0G in ")
    for width in range(20, 90):
        assert len(line(width, 123_456_789)) <= width
        assert re.fullmatch(r"( +\S+ (req|in|out|GPU|refused|err|left|cut))+", line(width, 123_456_789))


async def test_figures_stay_while_the_daemon_is_away(tmp_path: Path) -> None:
    """And what it refuses is said below them."""
    async with usage_page(tmp_path, size=(200, 60)) as seat:
        page = seat.app.main.page
        assert isinstance(page, UsagePage)
        await seat.sees("tokens out per 1h, highest", "requests per 1h, highest", "24h ago", "now")
        await seat.sees("GPU time per 1h, highest", "refused per 1h, highest")  # there is room for four
        seat.app.channel.path = tmp_path / "nowhere"
        await seat.press("b")
        await seat.sees("no daemon", "ana@example.org")
        seat.app.channel.path = seat.office.socket
        await seat.press("b", "B")
        await seat.sees("smollm2:135m", "as of")


# -- pure -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1000), max_size=50), st.integers(1, 80))
def test_a_curve_has_its_width_and_loses_nothing(values: list[int], width: int) -> None:
    """Several buckets become one point with their sum; fewer are stretched."""
    points = curve([SimpleNamespace(x=value) for value in values], "x", width)
    assert len(points) == (width if values else 0)
    if len(values) >= width:
        assert sum(points) == sum(values)
    else:
        assert set(points) <= set(values)


@given(st.text(max_size=30))
def test_a_name_in_the_csv_is_text_and_comes_back(name: str) -> None:
    """Never a formula, whatever it begins with; the apostrophe strips exactly."""
    row = dict.fromkeys(UsageRow.__struct_fields__, 0) | {"name": name}
    header, line = csv.reader(io.StringIO(as_csv("user", [row]).decode(), newline=""))
    assert header[0] == "user"
    assert not line[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert csv_uncell(line[0]) == clean(name)


def test_percentages_and_moments() -> None:
    """Small shares are told as small, none as none."""
    assert [percent(each, 1000) for each in (0, 0.5, 4, 99, 430)] == ["-", "<0.1%", "0.4%", "9.9%", "43%"]
    assert percent(1, 0) == "-"
    assert since(0, 1769850000.0) == "2026-01-31T08:00:00.000000Z"
