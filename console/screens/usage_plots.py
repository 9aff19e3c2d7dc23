"""What stands around the table of the Usage page: the sums of the period, and how it went over time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.style import Style

from common.protocol import Usage, UsageRow
from console.cells import cell_len
from console.figures import count, span, thousands
from console.moments import coarse
from console.palette import BAD, BOLD, DIM, GOOD, PLAIN, WARNING
from console.spending import curve
from console.widgets.lines import Line, Part
from console.widgets.plots import plot

BETWEEN = 2  # cells between two plots
FOUR = 16  # lines from which there are four plots


class _Plot(NamedTuple):
    """One curve: of which field, how it is called, how its figures are written."""

    field: str
    title: str
    figure: Callable[[float], str]
    style: Style


def _count(value: float) -> str:
    return count(round(value))


_PLOTS = (
    _Plot("tokens_out", "tokens out", _count, GOOD),
    _Plot("requests", "requests", _count, PLAIN),
    _Plot("gpu_seconds", "GPU time", span, GOOD),
    _Plot("refusals", "refused", _count, WARNING),
)


def fitting_sums(total: UsageRow, width: int) -> Line:
    """Everything together in one line of `width` cells; where it is narrow with less between, then shorter figures,
    then without the last."""
    for figure, between in ((thousands, "  "), (thousands, " "), (count, " ")):
        sums: list[list[Part]] = [
            [(figure(total.requests), BOLD), " req"],
            [(count(total.tokens_in), BOLD), " in"],
            [(count(total.tokens_out), BOLD), " out"],
            [(span(total.gpu_seconds), BOLD), " GPU"],
            [(figure(total.refusals), WARNING if total.refusals else DIM), " refused"],
            [(figure(total.errors), BAD if total.errors else DIM), " err"],
            [(figure(total.departures), BOLD if total.departures else DIM), " left"],
            [(figure(total.cut), BOLD if total.cut else DIM), " cut"],
        ]
        if _cells(sums, between) <= width:
            break
    while len(sums) > 1 and _cells(sums, between) > width:
        sums.pop()
    line: list[Part] = []
    for n, each in enumerate(sums):
        line += [between if n else " ", *each]
    return line


def _cells(sums: Sequence[Sequence[Part]], between: str) -> int:
    words = [cell_len(part if isinstance(part, str) else part[0]) for each in sums for part in each]
    return 1 + sum(words) + len(between) * (len(sums) - 1)


def plots_of(answer: Usage, seconds: float, width: int, height: int) -> Sequence[Line]:
    """Two plots beside each other, or four where there is room, over the `seconds` of the period."""
    half = max(10, (width - BETWEEN) // 2)
    rows = 2 if height >= FOUR else 1
    lines: list[Line] = []
    for row in range(rows):
        blocks = [_plot(answer, each, seconds, half, height // rows) for each in _PLOTS[2 * row : 2 * row + 2]]
        lines += [[*left, " " * BETWEEN, *right] for left, right in zip(*blocks, strict=True)]
    return lines


def _plot(answer: Usage, of: _Plot, seconds: float, width: int, height: int) -> list[Line]:
    """A title, the curve, and how far back it goes."""
    values = curve(answer.series, of.field, width)
    each = coarse(answer.bucket_seconds) if len(answer.series) <= width else "point"
    title = f"{of.title} per {each}, highest {of.figure(max(values, default=0))}"
    lines: list[Line] = [[(f"{title:<{width}}", BOLD)]]
    lines += [[(line, of.style)] for line in plot(values, width, height - 2)]
    lines.append([(f"{f'{coarse(seconds)} ago':<{width - 3}}now", DIM)])
    return lines
