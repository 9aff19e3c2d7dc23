"""Jobs: what the daemon does by itself, how far it is and what came of it; and what begins it.

Rule: a job is the daemon's: it goes on when this program ends or its line breaks. What runs stands first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType

from common import protocol, times
from common.protocol import JobTarget
from console import copying
from console.cells import wrap
from console.columns import Cell, Column
from console.figures import amount, job_rate, progress, share
from console.mirror import Row
from console.moments import age, day_and_time
from console.palette import BAD, BOLD, DIM, GOOD, PLAIN, WAITING, WARNING
from console.screens import job_forms
from console.screens.page import TablePage
from console.tables import size
from console.widgets.lines import Line, Part

BAR = 14  # cells of the progress column
STYLES = {"queued": WAITING, "running": GOOD, "done": PLAIN, "failed": BAD, "cancelled": WARNING}
ORDER = {"running": 0, "queued": 1}


def _is_over(row: Row) -> bool:
    return row["state"] not in ORDER


def _dimmed(row: Row, text: str) -> Cell:
    return (text, DIM) if _is_over(row) and row["state"] != "failed" else text


def _progress(row: Row) -> Cell:
    if row["state"] != "running":
        return ""
    return (progress(share(row["done"], row["total"]), BAR), GOOD)


def _left(row: Row) -> Cell:
    return "" if row["eta_seconds"] is None or row["state"] != "running" else times.short(row["eta_seconds"])


def result_of(row: Row) -> tuple[str, Style]:
    """The last column: what it does now, or what came of it, the file first."""
    if row["state"] == "running":
        return ", ".join(part for part in (row["step"], job_rate(row)) if part), PLAIN
    if row["error"]:
        return row["error"], BAD
    said = " · ".join(str(part) for part in (row["result"], row["path"]) if part)
    return said, PLAIN


class JobsPage(TablePage):
    """Exports, verifications, retention."""

    NOUN = "jobs"
    KINDS = ("job",)
    SORT = "JOB"
    MOVES = True  # ages
    COLUMNS: Sequence[Column] = (
        Column("STATE", lambda row: (row["state"], STYLES.get(row["state"], PLAIN)), 9, sort=lambda row: row["state"]),
        Column("PROGRESS", _progress, BAR),
        Column("LEFT", _left, 6, right=True),
        Column("JOB", lambda row: _dimmed(row, str(row["id"])), 4, right=True, sort=lambda r: r["id"], descending=True),
        Column("KIND", lambda row: _dimmed(row, row["kind"]), 9, sort=lambda row: row["kind"]),
        Column("TARGET", lambda row: _dimmed(row, row["target"]), 14, most=40, sort=lambda row: row["target"]),
        Column("WHAT CAME OF IT", result_of, 15, most=90),
        Column("BY", lambda row: _dimmed(row, row["actor"]), 6, most=12, rank=2, sort=lambda row: row["actor"]),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Show"),
        Binding("c", "cancel", "Cancel"),
        Binding("e", "export", "Export"),
        Binding("v", "verify", "Verify"),
        Binding("R", "retention", "Retention"),
        Binding("y", "copy", "Copy the path", show=False),
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
        return (*(("open",) if self.chosen else ()), *(() if over else ("cancel",)), *general)

    def detail(self, row: Row) -> Sequence[Line]:
        lines: list[list[Part]] = [[(f"JOB {row['id']}", BOLD)], []]
        for name, value, style in facts(row, self.lodge.as_of()):
            pieces = wrap(value, 44 - 10)
            lines += [[(f"{name if n == 0 else '':<10}", DIM), (piece, style)] for n, piece in enumerate(pieces)]
        return lines

    # -- keys ----------------------------------------------------------------------------------------------------------

    def action_open(self) -> None:
        if self.chosen is not None:
            self.begin(self._open(*self.chosen))

    async def _open(self, job_id: str, row: Row) -> None:
        answer = await self.ask(protocol.JOBS_SHOW, JobTarget(int(job_id)))
        if answer is not None:
            row = protocol_row(answer)
            text: list[str | tuple[str, Style]] = []
            for name, value, style in facts(row, self.lodge.as_of()):
                text.append((f"{name:<10}{value}", style))
            await self.lodge.show_text(f"Job {job_id}: {row['kind']} {row['state']}", text)

    def action_cancel(self) -> None:
        if self.chosen is None:
            return
        job_id, row = self.chosen
        if _is_over(row):
            self.say(f"job {job_id} is {row['state']} already")
        elif self.may_change():
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
        if self.chosen is None:
            return
        path = self.chosen[1]["path"]
        if path is None:
            self.say(f"job {self.chosen[0]} has no file")
        else:
            self.begin(self._copy(path))

    async def _copy(self, path: str) -> None:
        self.say(f"{path}: {await copying.copy(self.lodge, path)}")


def protocol_row(answer: protocol.JobRow) -> Row:
    """A job of an answer, as the mirror has them."""
    import msgspec

    from console.mirror import cleaned

    row: Row = cleaned(msgspec.to_builtins(answer))
    return row


def facts(row: Row, now: float) -> list[tuple[str, str, Style]]:
    """Everything that is known of a job: name, value, style."""
    found: list[tuple[str, Any, Style]] = [
        ("state", row["state"], STYLES.get(row["state"], PLAIN)),
        ("error", row["error"], BAD),
        ("result", row["result"], PLAIN),
        ("file", row["path"], PLAIN),
        ("size", size(row["bytes"]) if row["bytes"] is not None else None, PLAIN),
        ("sha256", row["sha256"], PLAIN),
        ("records", f"{row['records']:,}" if row["records"] is not None else None, PLAIN),
        ("kind", row["kind"] + (f", {row['format']}" if row["format"] else ""), PLAIN),
        ("target", row["target"], PLAIN),
        ("asked by", row["actor"], PLAIN),
        ("asked", f"{day_and_time(row['created'])}, {age(row['created'], now)} ago", PLAIN),
        ("took", _took(row, now), PLAIN),
    ]
    if row["state"] == "running":
        whole = amount(row["done"], row["unit"])
        if row["total"] is not None:
            whole = f"{whole.removesuffix(' ' + row['unit'])} of {amount(row['total'], row['unit'])}"
        left = "" if row["eta_seconds"] is None else f"{times.short(row['eta_seconds'])}, for this step"
        now_lines = [("step", row["step"], PLAIN), ("done", whole, PLAIN), ("rate", job_rate(row), PLAIN)]
        found[1:1] = [*now_lines, ("left", left, PLAIN)]
    return [(name, str(value), style) for name, value, style in found if value not in (None, "")]


def _took(row: Row, now: float) -> str:
    if row["started"] is None:
        return ""
    end = now if row["ended"] is None else times.from_iso(row["ended"]) / 1e6
    return times.short(max(0.0, end - times.from_iso(row["started"]) / 1e6))
