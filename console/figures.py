"""Figures as a narrow column shows them: counts, spans of GPU time, how far a job or a pull is. Pure."""

from __future__ import annotations

from typing import Any

from common import times
from console.tables import size
from console.widgets.plots import bar


def count(number: int | None) -> str:
    """`1204`, `99999`, `1.2M`: exact as long as it fits into six cells."""
    if number is None:
        return "-"
    for unit, name in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.1f}{name}" if number < 100 * unit else f"{number / unit:.0f}{name}"
    return f"{number / 1000:.0f}k" if number >= 100_000 else str(number)


def thousands(number: int) -> str:
    """`1,204,512`: exact, for a sentence."""
    return f"{number:,}"


def span(seconds: float) -> str:
    """GPU time: `0.4s`, `41s`, `1m12s`, `3h05m`."""
    return f"{seconds:.1f}s" if 0 < seconds < 10 else times.short(seconds)


def bytes_of(number: float | None) -> str:
    """`98MB`, `2.6GB`: without a blank, for a column."""
    return "-" if number is None else size(round(number)).replace(" ", "")


def share(done: float, total: float | None) -> float | None:
    """How far, 0 to 1; None where nobody knows."""
    return None if not total else min(1.0, max(0.0, done / total))


def progress(part: float | None, width: int) -> str:
    """A bar with its percentage in exactly `width` cells; dots where nobody knows how far it is."""
    if part is None:
        return "·" * (width - 5) + "   ? "
    return f"{bar(part, width - 5)} {int(100 * part):3d}%"


def amount(number: float, unit: str) -> str:
    """An amount of a job: `1204 records`, `98.4 MB`."""
    return size(round(number)) if unit == "bytes" else f"{round(number):,} {unit}"


def job_rate(row: dict[str, Any]) -> str:
    """`12.3 MB/s`, `4,100 records/s`; empty where it is not known."""
    return f"{amount(row['rate'], row['unit'])}/s" if row["rate"] else ""
