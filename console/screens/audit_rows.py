"""The rows of the Audit page: their columns, and the pane beside them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from common import times
from console import states
from console.cells import cut, wrap
from console.columns import Cell, Column
from console.figures import count
from console.mirror import Row
from console.moments import day_and_time
from console.palette import BOLD, DIM
from console.widgets.lines import Line, Part

WIDTH = 44  # cells of the pane
ERASED = "(erased)"
LINES = 8  # of one value in it: it is drawn four times a second


def _state(row: Row) -> Cell:
    return states.word(row["state"]), states.style(row["state"])


def _words(row: Row) -> Cell:
    """What was refused has no prompt in the audit: why it was refused is what one looks for."""
    if row["erased"]:
        return ERASED, DIM
    return (row["error"], DIM) if row["state"] == "refused" and row["error"] else row["prompt"]


def took(row: Row) -> str:
    """From received to ended."""
    if row["ended"] is None:
        return "-"
    seconds = (times.from_iso(row["ended"]) - times.from_iso(row["received"])) / 1e6
    return f"{seconds:.1f}s" if seconds < 10 else times.short(seconds)


def detail_lines(row: Row) -> Sequence[Line]:
    """One exchange in the pane beside the list."""
    pairs = [
        ("state", states.full(row["state"])),
        ("error", row["error"]),
        ("user", row["user"]),
        ("model", row["model"]),
        ("received", day_and_time(row["received"])),
        ("took", took(row)),
        ("tokens", f"{count(row['tokens_in'])} in, {count(row['tokens_out'])} out"),
        ("client", row["client_label"]),
        ("key", row["key"]),
        ("address", row["address"]),
        ("route", row["route"]),
        ("upstream", row["upstream"]),
        ("request", row["request_id"]),
        ("log id", str(row["log_id"])),
    ]
    lines: list[list[Part]] = [[("EXCHANGE", BOLD)]]
    for name, value in pairs:
        if value:
            for n, piece in enumerate(wrap(cut(str(value), LINES * (WIDTH - 10)), WIDTH - 10)):
                lines.append([(f"{name if n == 0 else '':<10}", DIM), piece])
    if row["erased"]:
        lines += [[], [("PROMPT ", BOLD), (ERASED, DIM)]]
    elif row["prompt"]:
        lines += [[], [("PROMPT, its beginning", BOLD)]]
        lines += [[piece] for piece in wrap(cut(row["prompt"], 4 * LINES * WIDTH), WIDTH)]
    return lines


COLUMNS: tuple[Column, ...] = (
    Column("RECEIVED (UTC)", lambda row: f"{row['received'][5:10]} {row['received'][11:19]}", 14),
    Column("STATE", _state, 9),
    Column("USER", lambda row: row["user"], 15, most=28),
    Column("MODEL", lambda row: row["model"], 12, most=24, rank=1),
    Column("OUT", lambda row: count(row["tokens_out"]), 5, right=True, rank=2),
    Column("PROMPT", _words, 22, most=90),
    Column("IN", lambda row: count(row["tokens_in"]), 5, right=True, rank=5),
    Column("TOOK", took, 6, right=True, rank=3),
    Column("CLIENT", lambda row: row["client_label"] or "-", 8, most=14, rank=4),
    Column("ADDRESS", lambda row: row["address"], 11, most=15, rank=6),
    Column("LOG ID", lambda row: str(row["log_id"]), 7, right=True, rank=7),
)
