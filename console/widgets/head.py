"""The three lines at the top: who and what is watched, the totals, the tabs.

Rule: what needs an administrator's eye comes with a word or a mark, never with a colour alone.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from common import times
from console.cells import cell_len
from console.link import Link
from console.palette import BAD, BOLD, DIM, GOOD, PLAIN, TAB, TITLE, WARNING
from console.screens import TABS
from console.widgets.lines import Line, Lines, Part
from console.widgets.plots import spark

SPARK = 12  # points of the tokens-per-second curve in the head
POINT = 2.0  # seconds between two of them


class Head(Lines):
    """Drawn from the link; `tick` looks what changed."""

    DEFAULT_CSS = "Head { height: 3; }"

    def __init__(self, link: Link, now: Callable[[], float], monotonic: Callable[[], float], seat: str = "") -> None:
        super().__init__(id="head")
        self._link = link
        self._now = now
        self._monotonic = monotonic
        self._seat = seat or f"{getpass.getuser()}@{socket.gethostname().split('.')[0]}"
        self.active = TABS[0].name
        self.speeds: deque[float] = deque(maxlen=600)  # tokens per second, a point each POINT seconds: 20 minutes
        self._due = [0.0]  # when the next point is
        self._tab_ends: list[int] = []

    def another(self) -> Head:
        """One for another screen, with the same curve and the same tab marked."""
        head = Head(self._link, self._now, self._monotonic, self._seat)
        head.active, head.speeds, head._due = self.active, self.speeds, self._due
        return head

    def note(self) -> None:
        """Take a point for the curves, when one is due."""
        now = self._monotonic()
        if self._link.is_live and now >= self._due[0]:
            self._due[0] = now + POINT
            self.speeds.append(self._link.mirror.totals.tokens_per_second)

    def tick(self) -> None:
        """Redraw what changed."""
        self.note()
        self.show([self._who(), self._totals(), self._tabs()])

    def on_resize(self) -> None:
        self.tick()

    def _who(self) -> Line:
        mirror, width = self._link.mirror, self.size.width
        parts: list[Part] = [("gatelodge", TITLE), " ", *_state(self._link)]
        up: list[Part] = []
        if self._link.started:
            up = ["   up ", times.short(max(0.0, self._now() - self._link.started / 1e6))]
        upstreams: list[Part] = []
        if rows := mirror.rows["upstream"].values():
            well = sum(row["state"] == "ok" for row in rows)
            upstreams = ["   upstreams ", f"{well}/{len(rows)}", (" !" if well < len(rows) else "", BAD)]
        clock = time.strftime("%H:%M:%SZ", time.gmtime(self._now()))  # as every moment below: UTC
        room = width - len(clock) - 1
        seat: list[Part] = ["   ", self._seat]
        # What tells least goes first where there is little room; the state and the clock stay whole.
        for more in ([*seat, *up, *upstreams], [*seat, *upstreams], upstreams, []):
            if _width([*parts, *more]) <= room:
                break
        line = [*parts, *more]
        return [*line, " " * max(1, width - _width(line) - len(clock)), clock]

    def _totals(self) -> Line:
        totals, width = self._link.mirror.totals, self.size.width
        if not self._link.connections:
            return []  # nobody counted anything
        style = PLAIN if self._link.is_live else DIM
        oldest = ""
        if totals.oldest_queued is not None:
            waited = self._now() - times.from_iso(totals.oldest_queued) / 1e6
            oldest = f" (oldest {times.short(max(0.0, waited))})"
        waits = WARNING if totals.queued else style
        running: list[Part] = [("run ", style), (f"{totals.running}/{totals.seats}", BOLD if totals.running else style)]
        queue: list[Part] = [("queue ", style), (str(totals.queued), waits)]
        pace: list[Part] = [(f"{rate(totals.tokens_per_second)} tok/s", style)]
        refused: list[Part] = [
            ("429 ", style),
            (f"{totals.refused_last_minute}/m", WARNING if totals.refused_last_minute else style),
        ]
        errors: list[Part] = []
        if totals.ended_lately:
            share = 100.0 * totals.errors_lately / totals.ended_lately
            errors = [("err ", style), (f"{share:.1f}%", BAD if totals.errors_lately else style)]
        # A figure that is cut off would be read as another one: the curve gives way first, then the gaps, then the
        # oldest in the line, then the tokens.
        figures = [running, [*queue, (oldest, waits)], [*pace, " "], refused, errors]
        used = _width(_spaced(figures, "   "))
        if used <= width:
            points = min(SPARK, width - used)
            curve: Part = (spark(list(self.speeds)[-points:], points) if points else "", GOOD)
            figures[2] = [*pace, " ", curve]
            return _spaced(figures, "   ")
        for kept in (
            [running, [*queue, (oldest, waits)], pace, refused, errors],
            [running, queue, pace, refused, errors],
        ):
            if _width(_spaced(kept, "  ")) <= width:
                return _spaced(kept, "  ")
        return _spaced([running, queue, refused, errors], "  ")

    def _tabs(self) -> Line:
        badges = [tab.badge(self._link.mirror) for tab in TABS]
        titles = [tab.title for tab in TABS]
        short = [tab.short or tab.title for tab in TABS]
        # No tab is lost, however narrow it is: first they stand closer, then their titles get shorter.
        for names, gap in ((titles, " "), (titles, ""), (short, "")):
            labels = [f"{tab.digit} {name}" for tab, name in zip(TABS, names, strict=True)]
            if sum(map(cell_len, (*labels, *badges))) + (1 + len(gap)) * len(TABS) + 1 - len(gap) <= self.size.width:
                break
        parts: list[Part] = []
        self._tab_ends = []
        for tab, label, badge in zip(TABS, labels, badges, strict=True):
            if tab.name == self.active:
                parts += [(f"[{label}{badge}]", TAB)]
            else:
                parts += [f" {label}", (badge, WARNING), gap]
            self._tab_ends.append(_width(parts))
        return parts

    def tab_at(self, x: int) -> str | None:
        """The name of the tab drawn at this column."""
        return next((tab.name for tab, end in zip(TABS, self._tab_ends, strict=False) if x < end), None)


def _width(line: Line) -> int:
    return sum(cell_len(part if isinstance(part, str) else part[0]) for part in line)


def _spaced(groups: Sequence[Line], gap: str) -> list[Part]:
    """The groups in one line, those that are empty left out."""
    line: list[Part] = []
    for group in groups:
        if group:
            line += [gap if line else "", *group]
    return line


def rate(tokens_per_second: float) -> str:
    """`41.2`, `1.9k`."""
    if tokens_per_second >= 1000:
        return f"{tokens_per_second / 1000:.1f}k"
    return f"{tokens_per_second:.0f}" if tokens_per_second >= 100 else f"{tokens_per_second:.1f}"


def _state(link: Link) -> list[Part]:
    if link.state == "live":
        return [("● LIVE", GOOD)]
    if link.state == "lost":
        return [(f"○ STALE {times.short(link.stale_for())}", BAD)]
    if link.state == "never":
        return [("○ OTHER RELEASE" if link.mismatch else "○ NO ACCESS" if link.denied else "○ NO DAEMON", BAD)]
    return [("○ connecting", WARNING)]
