"""Limits and what is used of them, as bars: in a cell of a table, and a line each beside it or in a box. Pure.

Rule: a bar never stands alone: the numbers are beside it, and a full limit is also called full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.style import Style

from common.protocol import LIMIT_FIELDS
from console.cells import fit
from console.columns import Cell
from console.entries import about, short_amount
from console.mirror import Row
from console.moments import time_left
from console.palette import BAD, DIM, GOOD, PLAIN, WARNING
from console.widgets.lines import Line
from console.widgets.plots import bar

TITLES = dict(
    zip(
        LIMIT_FIELDS,
        ("requests/minute", "requests/hour", "requests/day", "tokens/minute", "tokens/day", "at once"),
        strict=True,
    )
)
SHORT = dict(zip(LIMIT_FIELDS, ("req/min", "req/h", "req/day", "tok/min", "tok/day", "at once"), strict=True))
_WORDS = dict(zip(LIMIT_FIELDS, ("/min", "/h", "/day", " tok/min", " tok/day", " at once"), strict=True))
NEARLY = 0.8  # from here on a limit is about to refuse


def share(use: Row) -> float:
    """How full the limit is; one of nothing is full."""
    return float(use["used"] / use["max"]) if use["max"] else 1.0


def colour(part: float) -> Style:
    """The colour of a bar that is filled to `part`."""
    return BAD if part >= 1.0 else WARNING if part >= NEARLY else GOOD


def gauge(use: Row | None) -> Cell:
    """`████▏·  69%`, or `██████ full`."""
    if use is None:
        return ("······   0%", DIM)
    part = share(use)
    return bar(part, 6) + (" full" if part >= 1.0 else f" {int(part * 100):3d}%"), colour(part)


def frees_in(use: Row, now: float) -> str:
    """When some of it comes back: `in 12s`; `now` where it is about to be seen."""
    left = time_left(use["frees_at"], now)
    return "now" if left == "over" else left


def spent(use: Row) -> str:
    """`8/10 req/min`."""
    return f"{about(use['used'])}/{short_amount(use['max'])} {SHORT[use['limit']]}"


def in_short(values: Mapping[str, int | str | None]) -> str:
    """`10/min · 200/h · 50k tok/min · 4 at once`; what is unlimited or not said is left out."""
    said = {name: value for name, value in values.items() if name in _WORDS and isinstance(value, int)}
    return " · ".join(short_amount(said[name]) + _WORDS[name] for name in LIMIT_FIELDS if name in said)


def gauges(
    values: Mapping[str, int | str | None], uses: Sequence[Row], now: float, *, own: Mapping[str, object] | None = None
) -> list[Line]:
    """A line each of the six limits: title, bar, used of how much, when some comes back. `own`: where it is said."""
    used = {use["limit"]: use for use in uses}
    lines: list[Line] = []
    for name in LIMIT_FIELDS:
        value = values.get(name)
        use = used.get(name) or ({"used": 0, "max": value, "limit": name, "frees_at": None} if value else None)
        title = (fit(TITLES[name], 16), DIM)
        if not isinstance(value, int) or use is None:
            if value != 0:
                lines.append([title, ("unlimited", DIM)])
                continue
            use = {"used": 0, "max": 0, "limit": name, "frees_at": None}
        part = share(use)
        frees = f"  frees {frees_in(use, now)}" if use["frees_at"] and part > 0 else ""
        whose = "" if own is None else "" if own.get(name) is not None else "  (default)"
        numbers = f" {about(use['used'])}/{short_amount(value)}"
        lines.append([title, (bar(part, 6), colour(part) if part else DIM), (numbers + frees, PLAIN), (whose, DIM)])
    return lines
