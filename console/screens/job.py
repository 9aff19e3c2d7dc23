"""One job, whole: how far it is while it runs, what came of it, its file and checksum; the path can be copied.

Rule: it is the row of the watch stream, so it goes on while one looks.
"""

from __future__ import annotations

from typing import Any, ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType

from common import times
from console import copying
from console.figures import amount, job_rate, progress, share
from console.mirror import Row
from console.moments import age, day_and_time
from console.palette import BAD, GOOD, PLAIN, WAITING, WARNING
from console.screens.overlay import Overlay, Paragraph
from console.screens.reading import brief
from console.tables import size

BAR = 30  # cells
STYLES = {"queued": WAITING, "running": GOOD, "done": PLAIN, "failed": BAD, "cancelled": WARNING}


class JobScreen(Overlay):
    """The job of this id; `row` as it was when it was opened."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy the path")]

    def __init__(self, job_id: str, row: Row) -> None:
        super().__init__(f"Job {job_id}: {row['kind']} of {brief(row['target'])}")
        self.job_id = job_id
        self.row = row
        self._drawn = (0, 0)

    def tick_body(self) -> None:
        self.row = self.lodge.link.mirror.rows["job"].get(self.job_id, self.row)
        now = self.lodge.as_of()
        if (drawn := (id(self.row), int(now))) != self._drawn:
            self._drawn = drawn
            self.read(paragraphs(self.row, now))
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.row["path"] is not None if action == "copy" else True

    def action_copy(self) -> None:
        self.run_worker(self._copy(self.row["path"]), group="copy", exclusive=True)

    async def _copy(self, path: str) -> None:
        self.lodge.say(f"{path}: {await copying.copy(self.lodge, path)}")


def paragraphs(row: Row, now: float) -> list[Paragraph]:
    """All that is known, a line each."""
    return [(f"{name:<10}{value}", style) for name, value, style in facts(row, now)]


def facts(row: Row, now: float) -> list[tuple[str, str, Style]]:
    """Everything that is known of a job: name, value, style; `now` is Unix seconds."""
    found: list[tuple[str, Any, Style]] = [
        ("state", row["state"], STYLES.get(row["state"], PLAIN)),
        ("error", brief(row["error"] or ""), BAD),
        ("result", brief(row["result"]), PLAIN),
        ("file", row["path"], PLAIN),
        ("size", size(row["bytes"]) if row["bytes"] is not None else None, PLAIN),
        ("sha256", row["sha256"], PLAIN),
        ("records", f"{row['records']:,}" if row["records"] is not None else None, PLAIN),
        ("kind", row["kind"] + (f", {row['format']}" if row["format"] else ""), PLAIN),
        ("target", brief(row["target"]), PLAIN),
        ("asked by", row["actor"], PLAIN),
        ("asked", f"{day_and_time(row['created'])}, {age(row['created'], now)} ago", PLAIN),
        ("took", took(row, now), PLAIN),
    ]
    if row["state"] == "running":
        whole = amount(row["done"], row["unit"])
        if row["total"] is not None:
            whole = f"{whole.removesuffix(' ' + row['unit'])} of {amount(row['total'], row['unit'])}"
        left = "" if row["eta_seconds"] is None else f"{times.short(row['eta_seconds'])}, for this step"
        how_far: list[tuple[str, Any, Style]] = [
            ("progress", progress(share(row["done"], row["total"]), BAR), GOOD),
            ("step", row["step"], PLAIN),
            ("done", whole, PLAIN),
            ("rate", job_rate(row), PLAIN),
            ("left", left, PLAIN),
        ]
        found[1:1] = how_far
    return [(name, str(value), style) for name, value, style in found if value not in (None, "")]


def took(row: Row, now: float) -> str:
    """How long it ran, or runs; empty where it waits."""
    if row["started"] is None:
        return ""
    end = now if row["ended"] is None else times.from_iso(row["ended"]) / 1e6
    return times.short(max(0.0, end - times.from_iso(row["started"]) / 1e6))
