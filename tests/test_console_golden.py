"""Every screen, word for word, at 80x24 and 200x60; and the pictures that README.md shows are the program's own.

Where one differs on purpose: `python -m tests.golden`, look at the difference, commit it.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from console.cells import cell_len
from console.screens import TABS
from console.widgets.vtable import VTable
from daemon.access.directory import new_code
from daemon.access.keys import new_key_id
from daemon.exchange import new_request_id
from tests import golden
from tests.rigs import showcase_records as records
from tests.rigs.console import frame_of
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.showcase import ago, furnish, showcase
from tests.rigs.until import until

AGAIN = "if that is meant: python -m tests.golden, and look at what changed"


def differences(path: Path, drawn: str) -> list[str]:
    """Line by line, what is no longer as it was recorded."""
    recorded = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(recorded.splitlines(), drawn.splitlines(), "recorded", "drawn", lineterm="", n=0)
    return [f"{path.name}: {line}" for line in lines]


@pytest.mark.parametrize("size", golden.SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_looks_as_it_was_recorded(tmp_path: Path, size: tuple[int, int]) -> None:
    """Columns, truncation, wording, order: nothing moves without somebody having looked at it."""
    frames = await golden.draw(tmp_path, size)
    assert {tab.name for tab in TABS} <= set(frames)
    found = [line for name, frame in frames.items() for line in differences(golden.frame_file(name, size), frame)]
    assert not found, "\n".join([AGAIN, *found[:60]])
    for name, frame in frames.items():
        lines = frame.rstrip("\n").split("\n")
        assert len(lines) <= size[1], name
        assert max(map(cell_len, lines)) <= size[0], name


async def test_the_pictures_are_the_programs_own(tmp_path: Path) -> None:
    """docs/screens, as README.md shows them, and some more in tests/golden: drawn again, they are the same bytes."""
    pictures = await golden.draw(tmp_path, golden.OF_A_PICTURE, pictures=True)
    assert set(pictures) == set(golden.SHOWN)
    changed = [name for name, svg in pictures.items() if differences(golden.picture_file(name), svg)]
    assert not changed, f"{changed}: {AGAIN}"
    assert not any("http" in svg.replace("http://www.w3.org/", "") for svg in pictures.values()), "nothing is fetched"


async def test_no_figure_of_the_head_is_cut(tmp_path: Path) -> None:
    """However long somebody has waited: at 80 columns the curve gives way, and `err 0.4%` does not become `err 0`."""
    async with showcase(tmp_path, size=(80, 24)) as (app, _, daemon):
        daemon.totals.oldest_queued = ago(7523)
        daemon.send()
        await until(lambda: "oldest 2h05m" in frame_of(app) or app.main.tick(), timeout=30)
        totals = frame_of(app).split("\n")[1]
        assert totals.endswith("429 3/m   err 0.4%"), totals


async def test_a_page_that_was_not_told_its_size_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual loses a Resize now and then where a page comes into sight while it is busy: the next tick mends it."""
    monkeypatch.setattr(VTable, "on_resize", lambda table, event: None)
    async with showcase(tmp_path, size=(80, 24)) as (app, _, _):
        for tab in TABS:
            await app.go_to(tab.name)
            await until(lambda words=golden.PAGES[tab.name]: words in frame_of(app) or app.main.tick(), timeout=30)


def test_what_is_shown_is_what_the_daemon_says(tmp_path: Path) -> None:
    """Ids and codes in the daemon's own forms; a minute's refusals with no more than a record of them holds."""
    daemon = ScriptedDaemon(tmp_path)
    furnish(daemon)
    rows: dict[str, list[Any]] = {}
    for (kind, _), row in daemon._rows.items():
        rows.setdefault(kind, []).append(SimpleNamespace(**msgspec.json.decode(row)))
    audit: list[Any] = [*records.audit(), records.exchange()]
    key_ids = {row.id for row in rows["key"]} | {row.key for row in (*rows["live"], *rows["ended"], *audit) if row.key}
    assert {shape(key_id) for key_id in key_ids} == {shape(new_key_id())}
    assert {shape(row.code) for row in rows["registration"]} == {shape(new_code())}
    request_ids = {row.request_id for row in (*rows["live"], *rows["ended"], *audit)} - {""}
    assert {shape(request_id) for request_id in request_ids} == {shape(new_request_id())}
    for row in audit:
        happened = {row.request_id, row.route, row.upstream, row.ended, row.seated, row.tokens_out}
        assert (row.state == "refused") == (happened <= {"", None})
        assert row.state != "refused" or row.error == "requests_per_minute, 3 times"
    (refused,) = [row for row in rows["ended"] if row.state == "refused"]
    assert (refused.request_id, refused.upstream, refused.tokens_out, refused.count) == ("", "", None, 3)
    running = {name: sum(row.upstream == name for row in rows["live"] if row.state != "queued") for name in ("gpu1",)}
    assert all(row.running == running[row.name] for row in rows["upstream"] if row.name in running)
    assert daemon.totals.running == sum(row.running for row in rows["upstream"])


def shape(text: str) -> str:
    """What letters a text is made of, and how long it is: ids of one kind have one."""
    return re.sub(r"[0-9A-Za-z]", "x", text)


def test_readme_shows_them() -> None:
    """Live, Users, Limits, Usage and Audit."""
    text = (golden.ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in golden.OF_README if f"docs/screens/{name}.svg" not in text] == []
