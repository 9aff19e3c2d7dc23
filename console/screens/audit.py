"""Audit: exchanges found by a search line on the daemon, newest first, page by page; each can be opened.

Rule: nothing waits. The next page is asked for before the cursor gets there; `text:` is a scan whose hits come one by
one and which Esc stops; a page that was let go comes back when it is looked at. The list is as of the search: it does
not move while one reads, but says how many are newer (`r` searches again); an empty one is nobody's place to read, and
searches again by itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, ClassVar

import msgspec
from textual.binding import Binding, BindingType
from textual.worker import Worker

from common import protocol
from common.protocol import AuditFilter, AuditSearch
from common.untrusted import clean
from console.client import Refused, Unreachable
from console.columns import Cell
from console.found import Found, log_id_of
from console.mirror import Row, cleaned
from console.moments import clock, day_and_time
from console.palette import BAD, DIM, WARNING
from console.screens import job_forms
from console.screens.audit_rows import COLUMNS, detail_lines
from console.screens.page import why
from console.screens.table_page import TablePage
from console.searching import completions, is_scan, problem_of, read_search
from console.widgets.lines import Line, Part
from console.widgets.prompt import Entry
from console.widgets.vtable import VTable

AWAY = "nothing can be searched while the daemon is away; what was found stays"
AHEAD = 2  # pages of the screen that stand ready below the cursor
NEWER = 100  # newer ones that are counted
APART = 5.0  # seconds between two counts of them
HERE = ("sort", "reverse", "pause")  # of every table, but not of one that the daemon orders


class AuditPage(TablePage):
    """A search of the journal."""

    NOUN = "exchanges"
    COLUMNS = COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Read"),
        Binding("slash", "search", "Search", key_display="/"),
        Binding("e", "export", "Export these"),
        Binding("V", "verify", "Verify the chain"),
        Binding("r", "again", "Refresh"),
        Binding("u", "user", "Only this user", show=False),
        Binding("L", "administrators", "What administrators did", show=False),
        Binding("escape", "stop", "Stop the scan", key_display="Esc"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._found = Found()
        self._wanted = AuditFilter()
        self._worker: Worker[None] | None = None
        self._fetching: int | None = None  # the page that is asked for; None: none
        self._problem = ""
        self._lost = False  # the daemon went while it was asked
        self._stopped = False  # Esc ended the scan
        self._began = 0.0
        self._searched_at = 0.0
        self._version = 0
        self._typing: str | None = None  # what is wrong with the line that is typed
        self._to_top = False  # the next rows are those of a new search
        self._return_to: int | None = None  # the record that the cursor goes back to
        self._newer = 0  # how many a new search would find above the first
        self._counted: tuple[Any, float] = (None, -APART)  # what had changed when they were counted, and when

    # -- the rows ------------------------------------------------------------------------------------------------------

    def rows(self) -> Mapping[str, Row]:
        return self._found

    def version(self) -> Any:
        return self._version

    def rearrange(self, *, hold: bool = True) -> None:
        """The order is the daemon's."""
        if self._to_top:
            self._to_top = False
            self.table.show((), self._cells)  # of another search: the cursor does not follow its row into this one
        self.table.show(self._found.ids, self._cells)
        self._say_if_empty(self._found.ids)

    def _cells(self, row_id: str) -> Sequence[Cell] | None:
        row = self._found.get(row_id)
        if row is None:  # on its way again
            return [("…", DIM)] * len(self.COLUMNS)
        return [column.cell(row) for column in self.COLUMNS]

    def tick(self) -> None:
        if self._lost and self.lodge.link.is_live:
            self._lost, self._problem = False, ""
            self._fetch(self._next())
        self._look_ahead()
        self._count_newer()
        super().tick()

    def nothing(self) -> Sequence[str]:
        if self._problem:
            return (f"Not searched: {self._problem}.", "Press / to change the search.")
        if self._fetching is not None:
            return ("Searching …",)
        if self._wanted == AuditFilter():
            return ("Nothing was recorded yet.",)
        where = "" if self._wanted.since is None else f" since {day_and_time(self._wanted.since)}"
        said = "The scan was stopped before it found anything." if self._stopped else f"Nothing found{where}."
        return (said, "Press / to change the search, Esc to drop it.")

    def status(self) -> Line:
        if self._typing is not None:
            examples = "user: model: key: state: since: until: client: text:   Tab completes, Enter searches"
            return [(clean(self._typing), BAD) if self._typing else (examples, DIM)]
        found = self._found
        parts: list[Part] = [f"{len(found):,}{'' if found.complete else '+'} found"]
        if self._newer:
            parts.append((f" · {self._newer}{'+' if self._newer == NEWER else ''} newer: r", WARNING))
        if self._filter_text:
            parts.append((f" · {clean(self._filter_text)}", WARNING))
        else:
            parts.append(" · everything, newest first")
        if self._scans:
            parts.append((f" · scanning {self.lodge.monotonic() - self._began:.0f}s, Esc stops", WARNING))
        elif self._stopped:
            parts.append((" · scan stopped", WARNING))
        if self._problem and found:
            parts.append((f" · {clean(self._problem)}", BAD))
        elif self._searched_at:
            parts.append((f" · as of {clock(self._searched_at)}", DIM))
        return parts

    def detail(self, row: Row) -> Sequence[Line]:
        return detail_lines(row)

    # -- searching -----------------------------------------------------------------------------------------------------

    @property
    def _scans(self) -> bool:
        return self._fetching is not None and is_scan(self._wanted)

    def shown(self) -> None:
        """What was read half way down is still there; at the top, and where nothing is, one wants the newest."""
        found = self._found
        wants_newest = self.table.cursor_id == found.ids[0] if found else not is_scan(self._wanted)
        if not self._searched_at or (wants_newest and not self._scans and self.lodge.link.is_live):
            self.search()
        else:
            self._counted = (None, -APART)

    def apply_filter(self, text: str) -> None:
        """Search for what `text` means."""
        text = text.strip()
        if problem := problem_of(text):
            self.say(problem, "bad")
            return
        if text != self._filter_text or not self._searched_at:
            if self._found and not self.lodge.link.is_live:
                self.say(AWAY, "bad")  # what is there is better than nothing
                return
            self._filter_text = text
            self._return_to = None
            self.search()

    def search(self) -> None:
        """From the newest record on."""
        self._wanted = read_search(self._filter_text, now=round(self.lodge.now() * 1e6))
        self._found, self._to_top = Found(), True
        self._problem, self._lost, self._stopped = "", False, False
        self._searched_at = self.lodge.now()
        self._newer, self._counted = 0, (self._changes(), self.lodge.monotonic())
        self._fetch(0)

    def _next(self) -> int:
        return len(self._found.ids) // self._found.page

    def _look_ahead(self) -> None:
        """Ask for what will be in sight soon."""
        found, table = self._found, self.table
        if self._fetching is not None or self._problem or not found:
            return
        for row_id in table.visible_ids[:: max(1, table.page - 1)]:
            found.touch(row_id)
        gone = found.missing(table.visible_ids)
        if gone is not None:
            self._fetch(gone)
        elif not found.complete and not self._stopped:
            # A scan is not begun before somebody wants more of it than is in sight.
            ready = 0 if is_scan(self._wanted) else AHEAD * table.page + found.page
            if len(found) - (table.top + table.page) <= ready:
                self._fetch(self._next())

    def _fetch(self, number: int) -> None:
        if self._worker is not None:
            self._worker.cancel()
        self._fetching = number
        self._began = self.lodge.monotonic()
        self._version += 1
        self._worker = self.run_worker(partial(self._ask, self._found, number), group="search", exit_on_error=True)
        self.refresh_bindings()

    async def _ask(self, found: Found, number: int) -> None:
        """The rows of a page: a new one is shown as its rows come, one that was let go when it is whole."""
        again = number * found.page < len(found.ids) and (number + 1) * found.page <= len(found.ids)
        before = found.before(number) if again else found.last()
        limit = found.page if again else found.page - len(found.ids) % found.page
        question = AuditSearch(filter=self._wanted, limit=limit, before=before)
        rows: list[Row] = []
        try:
            async with aclosing(self.lodge.channel.items(protocol.AUDIT_SEARCH, question)) as answer:
                async for each in answer:
                    row: Row = cleaned(msgspec.to_builtins(each))
                    rows.append(row)
                    if not again:
                        self._take(found, row)
            if again:
                found.put(number, rows)
            else:
                found.complete = len(rows) < limit
        except Refused as error:
            self._problem = why(error)
        except Unreachable as error:
            self._problem, self._lost = why(error), True
        if found is self._found:
            self._fetching = None
            self._version += 1
            self.refresh_bindings()
            if self.display:
                self.tick()  # at once, not a quarter of a second later
                if self.table.wants_end and not again:
                    self.table.go(len(found.ids) - 1)

    def _changes(self) -> Any:
        """What tells that there may be another record."""
        return [self.lodge.link.mirror.changes[kind] for kind in ("live", "ended")]

    def _count_newer(self) -> None:
        """Ask how many are newer, where there may be some. A scan is too dear for that."""
        changes, now = self._changes(), self.lodge.monotonic()
        asks_nobody = self._fetching is not None or self._problem or not self.lodge.link.is_live
        if asks_nobody or is_scan(self._wanted) or changes == self._counted[0] or now - self._counted[1] < APART:
            return
        self._counted = (changes, now)
        self.run_worker(self._ask_newer(self._found), group="newer", exclusive=True)

    async def _ask_newer(self, found: Found) -> None:
        question = AuditSearch(filter=self._wanted, limit=NEWER)
        newest = log_id_of(found.ids[0]) if found else None
        count = 0
        try:
            async with aclosing(self.lodge.channel.items(protocol.AUDIT_SEARCH, question)) as answer:
                async for row in answer:
                    if row.log_id == newest:
                        break
                    count += 1
        except (Refused, Unreachable):
            return  # the next page will say it
        if found is not self._found:
            return
        if count and not found and found.complete:
            self.search()
        else:
            self._newer = count

    def _take(self, found: Found, row: Row) -> None:
        row_id = found.add(row)
        self._version += 1
        if self._return_to == row["log_id"]:
            self._return_to = None
            self._rows = found
            self.rearrange()
            self.table.select(row_id)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What the daemon orders is not sorted here, and Esc stops a scan only while one runs."""
        if action in HERE:
            return False
        return self._scans if action == "stop" else True

    def offers(self) -> Sequence[str]:
        return ("stop", "search", "open", "again", "export", "verify")

    def on_vtable_moved(self, event: VTable.Moved) -> None:
        super().on_vtable_moved(event)
        self._look_ahead()

    def action_stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
        self._fetching, self._stopped = None, True
        self._version += 1
        self.refresh_bindings()

    def action_again(self) -> None:
        if not self.lodge.link.is_live:
            self.lodge.link.retry_now()
            return
        chosen = self.chosen
        self._return_to = chosen[1]["log_id"] if chosen and self.table.cursor_id != self._found.ids[0] else None
        self.search()

    def action_search(self) -> None:
        self.begin(self._type_search())

    async def _type_search(self) -> None:
        def check(line: str) -> None:
            self._typing = problem_of(line)
            self.lodge.main.tick()

        self._typing = ""
        try:
            typed = await self.lodge.prompt.ask_line("/", self._filter_text, completer=self._complete, on_change=check)
        finally:
            self._typing = None
            self.lodge.main.on_entry_candidates(Entry.Candidates([]))
        if typed is not None:
            self.apply_filter(typed)

    async def _complete(self, line: str) -> list[str]:
        mirror = self.lodge.link.mirror
        known = {
            "user": [row["email"] for row in mirror.rows["user"].values()],
            "key": list(mirror.rows["key"]),
            "upstream": list(mirror.rows["upstream"]),
            "model": sorted({row["model"] for row in list(self._found.values_kept())[:2000]}),
            "client_label": [row["label"] for row in mirror.rows["key"].values()],
        }
        return completions(line, known)

    def action_user(self) -> None:
        if self.chosen is not None:
            self.apply_filter(f"user:{shlex.quote(self.chosen[1]['user'])}")

    def action_open(self) -> None:
        if self.chosen is None:
            return
        from console.screens.audited import AuditedScreen

        self.app.push_screen(AuditedScreen(self.chosen[1]["log_id"]))

    def action_export(self) -> None:
        if self.may_change():
            self.begin(job_forms.export(self, self._filter_text))

    def action_verify(self) -> None:
        if self.may_change():
            self.begin(job_forms.verify(self))

    def action_administrators(self) -> None:
        from console.screens.administrators import AdministratorsScreen

        self.app.push_screen(AdministratorsScreen())
