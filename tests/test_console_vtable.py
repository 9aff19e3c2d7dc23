"""The table of every list, alone: what it draws, where its cursor goes, that its columns stand straight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Region

from console.columns import Cell, Column
from console.widgets.vtable import VTable

COLUMNS = (
    Column("N", lambda row: row["n"], 6, right=True),
    Column("NAME", lambda row: row["name"], 12),
    Column("END", lambda row: row["end"], 5),
)


class Bench(App[None]):
    """A table and its rows."""

    def __init__(self, rows: dict[str, dict[str, str]]) -> None:
        super().__init__()
        self.rows = rows
        self.table = VTable(COLUMNS)

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.focus()

    def cells(self, row_id: str) -> Sequence[Cell] | None:
        row = self.rows.get(row_id)
        return None if row is None else [column.cell(row) for column in COLUMNS]

    def show(self) -> None:
        self.table.show(list(self.rows), self.cells)


def made(count: int) -> dict[str, dict[str, str]]:
    return {str(n): {"n": str(n), "name": f"name {n}", "end": "."} for n in range(count)}


async def test_only_what_changed_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell changed: one region, one line high, no wider than up to that cell. Nothing changed: nothing."""
    app = Bench(made(50))
    async with app.run_test(size=(60, 20)) as pilot:
        app.show()
        await pilot.pause()
        drawn: list[Any] = []
        monkeypatch.setattr(app.table, "refresh", lambda *regions, **_: drawn.extend(regions))
        app.show()
        assert drawn == []
        app.rows["3"]["n"] = "moved"
        app.rows["40"]["n"] = "out of sight"
        app.show()
        assert drawn == [Region(0, 4, 1 + 7, 1)]


async def test_the_cursor_follows_its_row() -> None:
    """By id, not by place; where the row went, it stays at the place."""
    app = Bench(made(30))
    async with app.run_test(size=(60, 11)) as pilot:
        app.show()
        await pilot.press("j", "j", "j")
        assert app.table.cursor_id == "3"
        app.rows = dict(reversed(app.rows.items()))
        app.show()
        assert app.table.cursor_id == "3"
        assert "3" in app.table.visible_ids
        del app.rows["3"]
        app.show()
        assert app.table.cursor_id == "2"


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        (["G"], "99"),
        (["end", "g"], "0"),
        (["pagedown"], "10"),
        (["pagedown", "pagedown", "pageup"], "10"),
        (["down", "down", "up"], "1"),
        (["k"], "0"),
        (["G", "j"], "99"),
    ],
)
async def test_the_keys_move_it(keys: list[str], row: str) -> None:
    """Those of vi and those of the keyboard; the ends are ends."""
    app = Bench(made(100))
    async with app.run_test(size=(60, 11)) as pilot:
        app.show()
        await pilot.press(*keys)
        assert app.table.cursor_id == row
        assert row in app.table.visible_ids


@pytest.mark.parametrize("name", ["模型模型", "e\u0301clair", "🙂🙂🙂", "a" * 50, "模" * 50, "x\u0301" * 60, ""])
async def test_columns_stand_straight(name: str) -> None:
    """Whatever a name is made of, the column behind it begins where its title does."""
    app = Bench({"1": {"n": "1", "name": name, "end": "#"}})
    async with app.run_test(size=(60, 5)) as pilot:
        app.show()
        await pilot.pause()
        title, row = (app.table.render_line(y).text for y in (0, 1))
        assert cell_len(row[: row.index("#")]) == cell_len(title[: title.index("END")])
        assert cell_len(row) == cell_len(title) == 60


async def test_a_hundred_thousand_rows_cost_no_more_than_a_page() -> None:
    """A row out of sight is its id: its cells are not even looked up."""
    app = Bench(made(100_000))
    looked_up: list[str] = []
    async with app.run_test(size=(60, 20)) as pilot:
        ids = list(app.rows)

        def lookup(row_id: str) -> Sequence[Cell] | None:
            looked_up.append(row_id)
            return app.cells(row_id)

        app.table.show(ids, lookup)
        await pilot.press("G")
        await pilot.pause()
        assert app.table.cursor_id == "99999"
        assert len(looked_up) <= 4 * 20


async def test_without_colours_the_cursor_is_a_mark() -> None:
    """`>` before the row: reverse video is not all there is."""
    app = Bench(made(3))
    async with app.run_test(size=(60, 6)) as pilot:
        app.show()
        await pilot.press("j")
        assert [app.table.render_line(y).text[0] for y in (1, 2, 3)] == [" ", ">", " "]
