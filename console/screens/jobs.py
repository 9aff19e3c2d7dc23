"""Jobs: what the daemon does by itself, how far it is and what came of it; and what begins it.

Rule: a job is the daemon's: it goes on when this program ends or its line breaks. What runs stands first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from common import protocol, times
from common.protocol import JobTarget
from console import copying
from console.cells import wrap
from console.columns import Cell, Column
from console.figures import bytes_of, job_rate, progress, share
from console.mirror import Row
from console.palette import BAD, BOLD, DIM, GOOD, PLAIN
from console.screens import job_forms
from console.screens.job import STYLES, JobScreen, facts
from console.screens.table_page import TablePage
from console.widgets.lines import Line, Part

BAR = 14  # cells
ORDER = {"running": 0, "queued": 1}


def _is_over(row: Row) -> bool:
    return row["state"] not in ORDER


def _dimmed(row: Row, text: str) -> Cell:
    return (text, DIM) if _is_over(row) and row["state"] != "failed" else text


def result_of(row: Row) -> Cell:
    """The column that says most: a bar and the time left while it runs; what came of it, the file last, or why not."""
    if row["state"] == "running":
        left = "" if row["eta_seconds"] is None else f"{times.short(row['eta_seconds'])} left"
        bar = progress(share(row["done"], row["total"]), BAR)
        return f"{bar} " + ", ".join(part for part in (left, row["step"], job_rate(row)) if part), GOOD
    if row["error"]:
        return row["error"], BAD
    return " · ".join(str(part) for part in (row["result"], row["path"]) if part)


def _size(row: Row) -> Cell:
    return _dimmed(row, "" if row["bytes"] is None else bytes_of(row["bytes"]))


class JobsPage(TablePage):
    """Exports, verifications, retention."""

    NOUN = "jobs"
    KINDS = ("job",)
    SORT = "JOB"
    MOVES = True  # ages
    COLUMNS: Sequence[Column] = (
        Column("STATE", lambda row: (row["state"], STYLES.get(row["state"], PLAIN)), 9, sort=lambda row: row["state"]),
        Column("WHAT CAME OF IT", result_of, 37, most=100),
        Column(
            "JOB",
            lambda row: _dimmed(row, str(row["id"])),
            4,
            right=True,
            rank=1,
            sort=lambda row: row["id"],
            descending=True,
        ),
        Column("KIND", lambda row: _dimmed(row, row["kind"]), 9, sort=lambda row: row["kind"]),
        Column("TARGET", lambda row: _dimmed(row, row["target"]), 12, most=44, rank=2, sort=lambda row: row["target"]),
        Column("BY", lambda row: _dimmed(row, row["actor"]), 6, most=12, rank=4, sort=lambda row: row["actor"]),
        Column("SIZE", _size, 7, right=True, rank=5, sort=lambda row: row["bytes"], descending=True),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Show"),
        Binding("c", "cancel", "Cancel"),
        Binding("e", "export", "Export"),
        Binding("v", "verify", "Verify"),
        Binding("R", "retention", "Retention"),
        Binding("y", "copy", "Copy the path"),
    ]

    def rows(self) -> Mapping[str, Row]:
        return self.lodge.link.mirror.rows["job"]

    def group(self, row: Row) -> int:
        return ORDER.get(row["state"], 2)

    def nothing(self) -> Sequence[str]:
        return (
            "No jobs yet. A job belongs to the daemon: it goes on when you leave.",
            "",
            "e  export prompts and answers to a file (CSV or JSONL)",
            "v  verify the whole journal: chain, bodies, signed checkpoints",
            "R  retention: export, verify, then erase old prompts and answers",
        )

    def offers(self) -> Collection[str] | None:
        over = self.chosen is None or _is_over(self.chosen[1])
        general = ("export", "verify", "retention")
        has_file = self.chosen is not None and self.chosen[1]["path"] is not None
        of_row = (*(("open",) if self.chosen else ()), *(() if over else ("cancel",)))
        return (*of_row, *general, *(("copy",) if has_file else ()))

    def detail(self, row: Row) -> Sequence[Line]:
        lines: list[list[Part]] = [[(f"JOB {row['id']}", BOLD)], []]
        for name, value, style in facts(row, self.lodge.as_of()):
            pieces = wrap(value, 44 - 10)
            lines += [[(f"{name if n == 0 else '':<10}", DIM), (piece, style)] for n, piece in enumerate(pieces)]
        return lines

    # -- keys ----------------------------------------------------------------------------------------------------------

    def action_open(self) -> None:
        if self.chosen is not None and self.is_meant():
            self.app.push_screen(JobScreen(*self.chosen))

    def action_cancel(self) -> None:
        if self.chosen is None:
            return
        job_id, row = self.chosen
        if _is_over(row):
            self.say(f"job {job_id} is {row['state']} already")
        elif self.may_act():
            self.begin(self._cancel(job_id, row))

    async def _cancel(self, job_id: str, row: Row) -> None:
        """Ask, then end that job, whatever the cursor stands on by then."""
        loses = {"export": "Its file goes.", "retention": "What is erased stays erased: its export has it."}
        question = f"Cancel job {job_id} ({row['kind']} of {row['target']})? {loses.get(row['kind'], '')}".rstrip()
        if not await self.lodge.ask_yes(question):
            return
        answer = await self.ask(protocol.JOBS_CANCEL, JobTarget(int(job_id)))
        if answer is not None:
            self.say(f"job {job_id} is {answer.state}")

    def action_export(self) -> None:
        if self.may_change():
            self.begin(job_forms.export(self))

    def action_verify(self) -> None:
        if self.may_change():
            self.begin(job_forms.verify(self))

    def action_retention(self) -> None:
        if self.may_change():
            self.begin(job_forms.retention(self))

    def action_copy(self) -> None:
        if self.chosen is None or not self.is_meant():
            return
        path = self.chosen[1]["path"]
        if path is None:
            self.say(f"job {self.chosen[0]} has no file")
        else:
            self.begin(self._copy(path))

    async def _copy(self, path: str) -> None:
        self.say(f"{path}: {await copying.copy(self.lodge, path)}")
