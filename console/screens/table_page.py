"""A tab that is mostly a table: rows, order, filter, cursor, detail pane and plots; a page says what is in them.

Rule: the cursor stays on its row wherever that sorts, and no act begins on a row that has only just slid under it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from common.protocol import Kind
from common.untrusted import clean
from console.cells import wrap
from console.columns import Cell, Column, text_of
from console.ordering import HOLD, Matcher, held, sorted_ids
from console.palette import DIM, WARNING
from console.screens.page import Page
from console.widgets.lines import Line, Lines, Part
from console.widgets.vtable import VTable

SLID = 0.7  # seconds for which no act begins on a row that has slid under the cursor
AROUND = 10  # lines that stand around the rows: head, titles, status, prompt, keys, and some air
WIDE = 140  # columns of the terminal from which the detail pane is shown
TALL = 45  # lines of the terminal from which plots are shown


class TablePage(Page):
    """A tab with a table: rows, order, filter, cursor, detail pane and plots; pages say what is in them."""

    DEFAULT_CSS = """
    TablePage #beside { height: 1fr; }
    TablePage #detail { width: 46; height: 1fr; padding: 0 0 0 2; display: none; }
    TablePage #plots { height: 9; display: none; }
    TablePage #empty { height: 1fr; padding: 1 2; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("S", "reverse", "Reverse the order", show=False),
        Binding("p", "pause", "Pause"),
    ]

    COLUMNS: Sequence[Column] = ()  # of the class, or set before `super().__init__()`
    SORT: ClassVar[str] = ""  # the title of the column that it is ordered by at first
    KINDS: ClassVar[Sequence[Kind]] = ()  # the rows of the mirror that it is made of
    HAS_PLOTS: ClassVar[bool] = False
    NOUN: ClassVar[str] = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.table = VTable(self.COLUMNS)
        self._detail = Lines(id="detail")
        self._plots = Lines(id="plots")
        self._empty = Lines(id="empty")
        self._rows: Mapping[str, Any] = {}
        self._matcher = Matcher("")
        self._filter_text = ""
        self._column = next((i for i, column in enumerate(self.COLUMNS) if column.title == self.SORT), None)
        self._descending = self._column is not None and self.COLUMNS[self._column].descending
        self._touched = -HOLD  # when a key or the mouse moved the cursor
        self._slid = -SLID  # when the row under the cursor went, and another one came to stand there
        self._followed: Callable[[str, Any], bool] | None = None
        self._made = False
        self._table_height = 0  # where something is said below the rows
        self._drawn: tuple[Any, ...] = ()
        self._offered: Collection[str] | None = None
        self.is_paused = False

    # -- what a page must or may say -----------------------------------------------------------------------------------

    def rows(self) -> Mapping[str, Any]:
        """Every row by its id, in the order they have without sorting. Of clean text only."""
        raise NotImplementedError

    def version(self) -> Any:
        """What `rows` depends on: while it stays equal, they are not asked for again."""
        return [self.lodge.link.mirror.changes[kind] for kind in self.KINDS]

    def detail(self, row: Any) -> Sequence[Line]:
        """The pane beside the table, on wide terminals: about the row under the cursor."""
        return ()

    def plots(self, width: int, height: int) -> Sequence[Line]:
        """The plots below the table, on tall terminals (HAS_PLOTS)."""
        return ()

    def nothing(self) -> Sequence[str]:
        """What is said where there is no row at all."""
        return (f"There are no {self.NOUN}.",)

    def advice(self) -> Sequence[str]:
        """What is said below the rows, as long as they are few."""
        return ()

    def group(self, row: Any) -> Any:
        """Rows of a lower group stand above those of a higher one, whatever they are ordered by."""
        return 0

    @property
    def sorted_by(self) -> str:
        """The title of the column that the rows are ordered by."""
        return "" if self._column is None else self.COLUMNS[self._column].title

    # -- the rows ------------------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> tuple[str, Any] | None:
        """Id and row under the cursor, as they are at this key press; None where there is none."""
        row_id = self.table.cursor_id
        row = self._rows.get(row_id) if row_id is not None else None
        return None if row_id is None or row is None else (row_id, row)

    @property
    def filter_text(self) -> str:
        return self._filter_text

    def tick(self) -> None:
        if self.is_paused:
            return
        stale, before = self.lodge.link.state == "lost", self.table.cursor_id
        holds = self.lodge.monotonic() - self._touched < HOLD
        depends = (self.version(), int(self.lodge.now()) if self.MOVES else 0, stale, holds)
        if depends != self._drawn:
            self._drawn = depends
            self.table.is_stale = stale
            self._rows = self.rows()
            self.rearrange()
        else:
            self.table.paint()  # what was a minute ago is now two
        if not self._went_after() and before not in (None, self.table.cursor_id):
            self._slid = self.lodge.monotonic()
        self._draw_beside()
        self._offer()

    def follow(self, wanted: Callable[[str, Any], bool] | None, *, made: bool = False) -> None:
        """Of an act: the cursor goes to the row (id, row) that is `wanted` as soon as it is there.

        For what an act makes, or brings back under another id; said before the act, so that no other row stands under
        the cursor meanwhile, and taken back with None where the act was refused. Moving the cursor ends it, too. What
        was `made` is seen, even where a filter would hide it.
        """
        self._followed, self._made = wanted, made

    def _went_after(self) -> bool:
        """Whether the cursor went to the row that it follows."""
        wanted = self._followed
        row_id = next((row_id for row_id, row in self._rows.items() if wanted(row_id, row)), None) if wanted else None
        if row_id is None:
            return False
        self._followed = None
        if self._made and self._matcher and not self._matcher(self._texts(self._rows[row_id])):
            self._filter_text, self._matcher = "", Matcher("")
        self.rearrange(hold=False)
        return self.table.select(row_id)

    def may_act(self) -> bool:
        """Whether a key may begin a change of the row under the cursor: `may_change` and `is_meant`."""
        return self.may_change() and self.is_meant()

    def is_meant(self) -> bool:
        """Whether a key is for the row under the cursor: not where that has only just slid there (it is said then), as
        the key was meant for another. Asked also where nothing changes: what is opened may be on record as seen."""
        if self.lodge.monotonic() - self._slid < SLID:
            self.say("the row under the cursor has just gone: look, then press again")
            return False
        return True

    def _offer(self) -> None:
        """The keys in the footer follow the row under the cursor."""
        offers = self.offers()
        if offers != self._offered:
            self._offered = offers
            self.refresh_bindings()

    def rearrange(self, *, hold: bool = True) -> None:
        """Filter and order what `rows` gave, and draw it."""
        if self._matcher:
            shown = {row_id: row for row_id, row in self._rows.items() if self._matcher(self._texts(row))}
        else:
            shown = dict(self._rows)
        key = None if self._column is None else self.COLUMNS[self._column].sort
        ids = sorted_ids(shown, key, descending=self._descending)
        ids.sort(key=lambda row_id: self.group(shown[row_id]))
        if hold and self.lodge.monotonic() - self._touched < HOLD:
            ids = held(self.table.ids, ids)
        self.table.sorted_by = None if self._column is None else (self._column, self._descending)
        self.table.show(ids, self._cells)
        self._say_if_empty(ids)

    def _cells(self, row_id: str) -> Sequence[Cell] | None:
        row = self._rows.get(row_id)
        return None if row is None else [column.cell(row) for column in self.COLUMNS]

    def _texts(self, row: Any) -> list[str]:
        return [text_of(column.cell(row)) for column in self.COLUMNS]

    def _say_if_empty(self, ids: Sequence[str]) -> None:
        """Where there is no row, or are few: what that means, and what to do."""
        if ids:
            sentences = self.advice()
            if len(ids) + len(sentences) + AROUND > self.app.size.height:
                sentences = ()
        elif self._rows:
            sentences = (
                f"None of {len(self._rows)} {self.NOUN} matches {self._filter_text!r}.",
                "Press / to change the filter, Esc to drop it.",
            )
        else:
            sentences = self.nothing()
        height = 1 + len(ids) if sentences else 0
        if height != self._table_height:
            self._table_height = height
            self._empty.display = bool(sentences)
            self.table.styles.height = height or "1fr"
        room = max(20, self.app.size.width - 4)
        self._empty.show([[line] for sentence in sentences for line in wrap(clean(sentence), room)])

    def status(self) -> Line:
        parts: list[Part] = [f"{len(self.table.ids)} of {len(self._rows)}"]
        if self._filter_text:
            parts.append((f" · filter {clean(self._filter_text)!r}", WARNING))
        if self._column is not None:
            parts.append(f" · sort {self.COLUMNS[self._column].title}{'▼' if self._descending else '▲'}")
        if self.is_paused:
            parts.append((" · PAUSED: p goes on", WARNING))
        elif self.lodge.monotonic() - self._touched < HOLD:
            parts.append((" · order held", DIM))
        return parts

    # -- beside and below ----------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        with Vertical():
            with Horizontal(id="beside"):
                with Vertical():
                    yield self.table
                    yield self._empty
                yield self._detail
            yield self._plots

    def _draw_beside(self) -> None:
        width, height = self.app.size
        wide, tall = width >= WIDE, height >= TALL and self.HAS_PLOTS
        if self._detail.display != wide:
            self._detail.display = wide
        if self._plots.display != tall:
            self._plots.display = tall
        if wide:
            chosen = self.chosen
            self._detail.show(self.detail(chosen[1]) if chosen else ())
        if tall and self._plots.size.width:
            self._plots.show(self.plots(self._plots.size.width, self._plots.size.height))

    # -- keys ----------------------------------------------------------------------------------------------------------

    def focus_body(self) -> None:
        self.table.focus()

    def on_vtable_moved(self, event: VTable.Moved) -> None:
        if event.by_hand:
            self._touched = self.lodge.monotonic()
            self._followed = None
        if not self.is_paused:
            self._draw_beside()
        self._offer()

    def on_vtable_opened(self) -> None:
        if hasattr(self, "action_open"):
            self.action_open()

    def on_vtable_title_clicked(self, event: VTable.TitleClicked) -> None:
        if self.COLUMNS[event.column].sort is not None:
            self._order_by(event.column)

    def action_sort(self) -> None:
        """Order by the next column that can be ordered by."""
        sortable = [i for i, column in enumerate(self.COLUMNS) if column.sort is not None]
        if sortable:
            later = [i for i in sortable if self._column is None or i > self._column]
            self._order_by((later or sortable)[0])

    def action_reverse(self) -> None:
        if self._column is not None:
            self._order_by(self._column)

    def _order_by(self, column: int) -> None:
        self._descending = not self._descending if column == self._column else self.COLUMNS[column].descending
        self._column = column
        self.rearrange(hold=False)

    def action_pause(self) -> None:
        self.is_paused = not self.is_paused
        self._drawn = ()
        self.tick()

    def action_filter(self) -> None:
        self.begin(self._type_filter())

    async def _type_filter(self) -> None:
        before = self._filter_text
        typed = await self.lodge.prompt.ask_line("/", before, on_change=self.apply_filter)
        self.apply_filter(before if typed is None else typed)

    def apply_filter(self, text: str) -> None:
        if text != self._filter_text:
            self._filter_text, self._matcher = text, Matcher(text)
            self.rearrange(hold=False)
