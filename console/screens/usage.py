"""Usage: who used what, in which time: sums by user, model, key or client, and how it went over time.

Rule: the figures are the daemon's, exact up to the moment that the status line tells; saved is what is in sight.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.worker import Worker

from common import protocol, times
from common.files import write_whole
from common.protocol import Usage, UsageRequest
from common.untrusted import clean
from console.client import Refused, Unreachable
from console.columns import Cell, Column
from console.figures import count, span, thousands
from console.mirror import Row, cleaned
from console.moments import clock
from console.palette import BAD, BOLD, DIM, GOOD, TAB, WARNING
from console.screens.page import why
from console.screens.table_page import TablePage
from console.screens.usage_plots import fitting_sums, plots_of
from console.spending import GROUPS, OTHERS, PERIODS, TOPS, as_csv, curve, percent, since
from console.widgets.lines import Line, Lines, Part
from console.widgets.plots import bar, spark

FRESH = (2.0, 4.0, 15.0, 60.0)  # seconds after which the figures of each period are asked for again
SHARE_OF_TIME = 20  # times as long as an answer took, nothing is asked again: nobody adds up all the time for a look
SHARE = 10  # cells of the bar


def _sum(name: str, title: str, width: int, *, rank: int = 0, style: Any = None) -> Column:
    def cell(row: Row) -> Cell:
        text = span(row[name]) if name == "gpu_seconds" else count(row[name])
        if not row[name]:
            return ("-", DIM)
        return (text, style) if style is not None else text

    return Column(title, cell, width, right=True, rank=rank, sort=lambda row: row[name], descending=True)


def _name(row: Row) -> Cell:
    return (row["shown"], DIM) if row["id"] == OTHERS else row["shown"]


class UsagePage(TablePage):
    """Sums of a period."""

    DEFAULT_CSS = """
    UsagePage #choice { height: 3; }
    UsagePage #plots { height: 40%; min-height: 9; max-height: 26; }
    """
    NOUN = "lines"
    SORT = "OUT"
    HAS_PLOTS = True
    COLUMNS: Sequence[Column] = (
        Column("USER", _name, 16, most=44, sort=lambda row: row["shown"].casefold()),
        Column("SHARE", lambda row: (bar(row["share"], SHARE), GOOD), SHARE, rank=3),
        _sum("tokens_out", "OUT", 6),
        _sum("tokens_in", "IN", 6),
        _sum("requests", "REQ", 6),
        _sum("gpu_seconds", "GPU", 6),
        _sum("refusals", "REFUS", 6, style=WARNING),
        _sum("errors", "ERR", 5, style=BAD),
        _sum("departures", "LEFT", 5, rank=1),
        _sum("cut", "CUT", 5, rank=2),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "period(-1)", "Shorter", show=False, key_display="["),
        Binding("right_square_bracket", "period(1)", "Longer", show=False, key_display="]"),
        Binding("left", "period(-1)", "Period", key_display="←→"),
        Binding("right", "period(1)", "A longer period", show=False),
        Binding("b", "by(1)", "By"),
        Binding("B", "by(-1)", "By, backwards", show=False),
        Binding("enter", "narrow", "Only this user"),
        Binding("w", "save", "Save CSV"),
        Binding("n", "top", "How many lines", show=False),
        Binding("a", "audit", "In the audit", show=False),
        Binding("escape", "widen", "Everybody", key_display="Esc"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._choice = Lines(id="choice")
        self._period, self._by, self._top = 1, 0, 1
        self._user: str | None = None
        self._answer: Usage | None = None
        self._problem = ""
        self._lines: dict[str, Row] = {}
        self._version = 0
        self._asked_at = 0.0
        self._fetched_at = 0.0
        self._took = 0.0  # seconds for the last answer
        self._asking = False
        self._was_live = True
        self._worker: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        yield self._choice
        yield from super().compose()

    # -- the rows ------------------------------------------------------------------------------------------------------

    def rows(self) -> Mapping[str, Row]:
        return self._lines

    def version(self) -> Any:
        return self._version

    def group(self, row: Row) -> int:
        return int(row["id"] == OTHERS)

    def shown(self) -> None:
        self._asked_at = 0.0

    def tick(self) -> None:
        if self._answer is None and self._was_live != self.lodge.link.is_live:
            self._was_live = self.lodge.link.is_live
            self._version += 1
        patience = max(FRESH[self._period], SHARE_OF_TIME * self._took)
        old = not self._asked_at or self.lodge.monotonic() - self._asked_at >= patience
        if old and self.lodge.link.is_live and not self._asking and not self.is_paused:
            self._ask_anew()
        self._choice.show(self._head())
        super().tick()

    def nothing(self) -> Sequence[str]:
        if self._problem:
            return (f"No figures: {self._problem}.",)
        if self._answer is None:
            away = "The daemon is away; the figures come when it is back."
            return ("Adding up …" if self.lodge.link.is_live else away,)
        return (f"Nothing was used in the last {PERIODS[self._period][0]}.", "→ looks further back.")

    def status(self) -> Line:
        parts: list[Part] = [*super().status()]
        if self._problem:
            parts.append((f" · {clean(self._problem)}", BAD))
        elif self._fetched_at:
            parts.append((f" · top {TOPS[self._top]} by tokens out (n) · as of {clock(self._fetched_at)}", DIM))
        return parts

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _head(self) -> list[Line]:
        parts: list[Part] = [" "]
        for n, (period, _) in enumerate(PERIODS):
            parts += [(f"[{period}]", TAB) if n == self._period else f" {period} "]
        parts += [("   by ", DIM)]
        for n, (by, _) in enumerate(GROUPS):
            parts += [(f"[{by}]", TAB) if n == self._by else f" {by} "]
        if self._user is not None:
            parts += ["   ", (f"only {clean(self._user)}", WARNING), (" (Esc: everybody)", DIM)]
        if self._answer is None:
            return [parts]
        sums = fitting_sums(self._answer.total, self.app.size.width)
        width = max(10, self.app.size.width - 24)
        curve_ = spark(curve(self._answer.series, "tokens_out", width), width)
        return [parts, sums, [(" tokens out ", DIM), (curve_, GOOD), (" now", DIM)]]

    def plots(self, width: int, height: int) -> Sequence[Line]:
        return plots_of(self._answer, PERIODS[self._period][1], width, height) if self._answer is not None else ()

    def detail(self, row: Row) -> Sequence[Line]:
        total = self._answer.total if self._answer is not None else None
        lines: list[list[Part]] = [[(row["shown"], BOLD)], []]
        for name, title in (
            ("requests", "requests"),
            ("ok", "ok"),
            ("tokens_in", "tokens in"),
            ("tokens_out", "tokens out"),
            ("gpu_seconds", "GPU time"),
            ("refusals", "refused"),
            ("errors", "errors"),
            ("departures", "left"),
            ("cut", "cut"),
        ):
            value = span(row[name]) if name == "gpu_seconds" else thousands(row[name])
            part = percent(row[name], getattr(total, name)) if total is not None else ""
            lines.append([(f"{title:<12}", DIM), f"{value:>15}", (f"{part:>8}", DIM)])
        if row["requests"]:
            lines += [
                [],
                [("a request   ", DIM), f"{count(round(row['tokens_out'] / row['requests'])):>15} tokens out"],
            ]
            lines += [[("", DIM), f"{span(row['gpu_seconds'] / row['requests']):>27} GPU"]]
        return lines

    # -- asking --------------------------------------------------------------------------------------------------------

    def _ask_anew(self) -> None:
        self._asked_at = self.lodge.monotonic()
        self._asking = True
        self._worker = self.run_worker(partial(self._fetch), group="usage", exclusive=True, exit_on_error=True)

    def _choose(self) -> None:
        """Another question: the old answer stays until the new one is there, which is soon."""
        title = GROUPS[self._by][1]
        self.table.columns = [replace(self.COLUMNS[0], title=title), *self.COLUMNS[1:]]
        self.refresh_bindings()
        self._ask_anew()
        self._choice.show(self._head())

    async def _fetch(self) -> None:
        by = GROUPS[self._by][0]
        try:
            question = UsageRequest(since(self._period, self.lodge.now()), None, by, TOPS[self._top], self._user)
            answer = await self.lodge.channel.ask(protocol.USAGE, question)
        except (Refused, Unreachable) as error:
            self._problem = why(error)
        else:
            self._problem, self._answer, self._fetched_at = "", answer, self.lodge.now()
            self._lines = self._rows_of(answer)
        self._asking = False
        self._took = self.lodge.monotonic() - self._asked_at
        self._version += 1
        if self.display:
            self.tick()

    def _rows_of(self, answer: Usage) -> dict[str, Row]:
        found: dict[str, Row] = {}
        rows = [*answer.rows, *([answer.others] if answer.others is not None else [])]
        for each in rows:
            row: Row = cleaned(msgspec.to_builtins(each))
            is_others = each is answer.others
            row["id"] = OTHERS if is_others else f"{answer.by}:{each.name}"
            row["asked"] = each.name
            row["shown"] = "(others)" if is_others else self._label(answer.by, row["name"])
            row["share"] = each.tokens_out / answer.total.tokens_out if answer.total.tokens_out else 0.0
            found[row["id"]] = row
        return found

    def _label(self, by: str, name: str) -> str:
        """A key by its label and user first, as nobody knows ids by heart."""
        if not name:
            return {"key": "(login)", "client": "(no label)"}.get(by, "-")
        key = self.lodge.link.mirror.rows["key"].get(name) if by == "key" else None
        return name if key is None else f"{key['label'] or '-'}  {key['user']}  {name}"

    # -- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "widen":
            return self._user is not None
        if action == "narrow":
            return GROUPS[self._by][0] == "user"
        return True

    def action_period(self, step: int) -> None:
        self._period = min(len(PERIODS) - 1, max(0, self._period + step))
        self._choose()

    def action_by(self, step: int) -> None:
        self._by = (self._by + step) % len(GROUPS)
        self._choose()

    def action_top(self) -> None:
        self._top = (self._top + 1) % len(TOPS)
        self._choose()

    def action_narrow(self) -> None:
        """What this user used, by model."""
        if self.chosen is not None and self.chosen[0] != OTHERS:
            self._user, self._by = self.chosen[1]["asked"], 1
            self._choose()

    def action_open(self) -> None:
        if self.check_action("narrow", ()):
            self.action_narrow()

    def action_widen(self) -> None:
        self._user, self._by = None, 0
        self._choose()

    def action_audit(self) -> None:
        """The exchanges behind a line."""
        if self.chosen is None or self.chosen[0] == OTHERS or not self.chosen[1]["asked"]:
            return
        by, name = GROUPS[self._by][0], self.chosen[1]["asked"]
        words = [f"{by}:{shlex.quote(name)}", f"since:{PERIODS[self._period][0]}"]
        if self._user is not None:
            words.insert(0, f"user:{shlex.quote(self._user)}")
        self.begin(self._go(" ".join(words)))

    async def _go(self, words: str) -> None:
        await self.lodge.go_to("audit", find=words)

    def action_save(self) -> None:
        rows = [self._lines[row_id] for row_id in self.table.ids if row_id in self._lines]
        self.begin(self._save(GROUPS[self._by][0], PERIODS[self._period][0], rows))

    async def _save(self, by: str, period: str, rows: Sequence[Row]) -> None:
        """The lines as they were at the key press: filtered, in their order."""
        if not rows:
            self.say("there is nothing to save")
            return
        day = times.iso(round(self.lodge.now() * 1e6))[:16].replace(":", "")
        typed = await self.lodge.prompt.ask_line("Save as (0600): ", f"usage-{by}-{period}-{day}Z.csv")
        if not typed:
            return
        path = Path(typed).expanduser()
        if path.exists() and not await self.lodge.ask_yes(f"{path} is there already. Replace it?"):
            return
        try:
            write_whole(path, [as_csv(by, rows)])
        except OSError as error:
            self.say(f"not saved: {error.strerror or error}", "bad")
        else:
            self.say(f"{len(rows)} line{'' if len(rows) == 1 else 's'} saved to {path.absolute()}", "good")
