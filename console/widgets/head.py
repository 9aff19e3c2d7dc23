"""The three lines at the top: who and what is watched, the totals, the tabs.

Rule: what needs an administrator's eye comes with a word or a mark, never with a colour alone.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections import deque
from collections.abc import Callable

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
        self._next_point = 0.0

    def note(self) -> None:
        """Take a point for the curves, when one is due."""
        now = self._monotonic()
        if self._link.is_live and now >= self._next_point:
            self._next_point = now + POINT
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
        upstreams = mirror.rows["upstream"].values()
        well = sum(row["state"] == "ok" for row in upstreams)
        parts += ["   ", self._seat]
        if self._link.started:
            parts += ["   up ", times.short(max(0.0, self._now() - self._link.started / 1e6))]
        if upstreams:
            parts += ["   upstreams ", f"{well}/{len(upstreams)}", (" !" if well < len(upstreams) else "", BAD)]
        clock = time.strftime("%H:%M:%S", time.localtime(self._now()))
        used = sum(cell_len(part if isinstance(part, str) else part[0]) for part in parts)
        return [*parts, " " * max(1, width - used - len(clock)), clock]

    def _totals(self) -> Line:
        totals = self._link.mirror.totals
        style = PLAIN if self._link.is_live else DIM
        parts: list[Part] = [("run ", style), (f"{totals.running}/{totals.seats}", BOLD if totals.running else style)]
        oldest = ""
        if totals.oldest_queued is not None:
            waited = self._now() - times.from_iso(totals.oldest_queued) / 1e6
            oldest = f" (oldest {times.short(max(0.0, waited))})"
        parts += [("   queue ", style), (f"{totals.queued}{oldest}", WARNING if totals.queued else style)]
        behind: list[Part] = [
            ("   429 ", style),
            (f"{totals.refused_last_minute}/m", WARNING if totals.refused_last_minute else style),
        ]
        if totals.ended_lately:
            share = 100.0 * totals.errors_lately / totals.ended_lately
            behind += [("   err ", style), (f"{share:.1f}%", BAD if totals.errors_lately else style)]
        parts.append((f"   {rate(totals.tokens_per_second)} tok/s ", style))
        # The curve gives way first: a figure that is cut off would be read as another one.
        used = sum(cell_len(part if isinstance(part, str) else part[0]) for part in (*parts, *behind))
        width = min(SPARK, max(0, self.size.width - used))
        return [*parts, (spark(list(self.speeds)[-width:], width) if width else "", GOOD), *behind]

    def _tabs(self) -> Line:
        parts: list[Part] = []
        for tab in TABS:
            badge = tab.badge(self._link.mirror)
            if tab.name == self.active:
                parts.append((f"[{tab.digit} {tab.title}{badge}]", TAB))
            else:
                parts += [f" {tab.digit} {tab.title}", (badge, WARNING), " "]
        return parts

    def tab_at(self, x: int) -> str | None:
        """The name of the tab drawn at this column."""
        end = 0
        for tab in TABS:
            end += cell_len(f"[{tab.digit} {tab.title}{tab.badge(self._link.mirror)}]")
            if x < end:
                return tab.name
        return None


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
        return [("○ OTHER RELEASE" if link.mismatch else "○ NO DAEMON", BAD)]
    return [("○ connecting", WARNING)]
