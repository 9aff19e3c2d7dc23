"""Usage as it is shown and saved: periods, groupings, rates over time, and the CSV of the lines in sight. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from common import times
from common.protocol import UsageBy, UsageRow
from common.untrusted import clean, csv_cell

PERIODS: tuple[tuple[str, int], ...] = (("1h", 3600), ("24h", 86400), ("7d", 7 * 86400), ("30d", 30 * 86400))
GROUPS: tuple[tuple[UsageBy, str], ...] = (("user", "USER"), ("model", "MODEL"), ("key", "KEY"), ("client", "CLIENT"))
TOPS = (10, 50, 200, 1000)
OTHERS = "others"  # the id of the line that holds what the top lines leave
_PERCENT_FROM = 0.1  # shares below are `<0.1%`


def since(period: int, now: float) -> str:
    """The beginning of the period that ends now: ISO 8601; `now` is Unix seconds."""
    return times.iso(round((now - PERIODS[period][1]) * 1e6))


def percent(part: float, whole: float) -> str:
    """`43%`, `0.4%`, `<0.1%`, a dash where there is nothing."""
    if not part or not whole:
        return "-"
    value = 100 * part / whole
    if value < _PERCENT_FROM:
        return f"<{_PERCENT_FROM}%"
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.1f}%"


def curve(series: Sequence[Any], name: str, width: int) -> list[float]:
    """The values of one field over time in exactly `width` points: several buckets are one point's sum, or one bucket
    stands for several points (and keeps its value)."""
    values = [float(getattr(bucket, name)) for bucket in series]
    if not values or width < 1:
        return []
    if len(values) <= width:
        return [values[i * len(values) // width] for i in range(width)]
    edges = [i * len(values) // width for i in range(width + 1)]
    return [sum(values[first:last]) for first, last in pairwise(edges)]


def as_csv(by: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The lines as a spreadsheet takes them: UTF-8, CRLF, a header; a name is never a formula (T3)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    names = UsageRow.__struct_fields__
    writer.writerow([by, *names[1:]])
    for row in rows:
        writer.writerow([csv_cell(clean(row["name"])), *(row[name] for name in names[1:])])
    return out.getvalue().encode()
