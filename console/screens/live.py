"""Live: who is on the gate now: what runs, what waits and in which place, and for a moment what has just ended.

Rule: a row keeps its id from the queue to its end, so that the cursor stays on it. The state is a word: `STALL` is a
running exchange whose upstream has been silent for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType

from common import protocol, times
from common.errors import NotFound
from common.protocol import CancelRequest
from console import states
from console.client import Refused, Unreachable
from console.columns import Cell, Column
from console.mirror import Row
from console.palette import BAD, BOLD, DIM, GOOD, PLAIN, WAITING, WARNING
from console.screens.page import level_of, why
from console.screens.table_page import TablePage
from console.screens.user_details import how_to_register
from console.widgets.facts import PANE, facts, paragraphs
from console.widgets.head import POINT, rate
from console.widgets.lines import Line
from console.widgets.plots import plot

STALLED = 5.0  # seconds without a piece from which a running exchange is called STALL
KEPT = 10.0  # seconds that an ended exchange stays in the list


@dataclass(frozen=True)
class LiveLine:
    """One line of the table: a live row or an ended one of the mirror, and what is known of it at this moment."""

    row: Row
    state: str
    style: Style
    group: int  # 0 runs, 1 waits, 2 ended
    speed: float | None
    tokens: int | None
    elapsed: float

    def dimmed(self, text: str) -> Cell:
        """A cell that steps back once the exchange ended."""
        return (text, DIM) if self.group == 2 else text


def _speed(line: LiveLine) -> Cell:
    return line.dimmed("-" if line.speed is None else rate(line.speed))


def _out(line: LiveLine) -> Cell:
    if line.row.get("count", 1) > 1:
        return line.dimmed(f"×{line.row['count']}")  # refusals of one caller for one reason are one row
    return line.dimmed("-" if line.group == 1 or line.tokens is None else str(line.tokens))


def _text(name: str) -> Any:
    return lambda line: line.dimmed(line.row.get(name) or "-")


def _key(line: LiveLine) -> Cell:
    key = line.row.get("key")
    return line.dimmed("…" + key[-4:] if key else "-")


class LivePage(TablePage):
    """What runs, waits and has just ended."""

    NOUN = "requests"
    SORT = "ELAPSED"
    KINDS = ("live", "ended")
    MOVES = True
    HAS_PLOTS = True
    COLUMNS: Sequence[Column] = (
        Column("STATE", lambda line: (line.state, line.style), 9, sort=lambda line: line.state),
        Column("TOK/S", _speed, 6, right=True, sort=lambda line: line.speed, descending=True),
        Column(
            "OUT",
            _out,
            6,
            right=True,
            sort=lambda line: line.tokens,
            descending=True,
        ),
        Column(
            "ELAPSED",
            lambda line: line.dimmed(times.short(line.elapsed)),
            8,
            right=True,
            sort=lambda line: line.elapsed,
            descending=True,
        ),
        Column("USER", _text("user"), 14, most=30, sort=lambda line: line.row["user"]),
        Column("MODEL", _text("model"), 13, most=30, rank=1, sort=lambda line: line.row["model"]),
        Column("CLIENT", _text("address"), 10, most=15, rank=2, sort=lambda line: line.row["address"]),
        Column("KEY", _key, 5, rank=3),
        Column("LABEL", _text("client_label"), 7, most=16, rank=5, sort=lambda line: line.row["client_label"]),
        Column("UPSTREAM", _text("upstream"), 8, most=12, rank=6, sort=lambda line: line.row["upstream"]),
        Column("REQUEST", lambda line: line.dimmed(line.row["request_id"][:8] or "-"), 8, rank=7),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Details"),
        Binding("c", "cancel", "Cancel"),
        Binding("u", "user", "User", show=False),
        Binding("a", "audit", "Audit", show=False),
    ]

    def rows(self) -> Mapping[str, LiveLine]:
        mirror, now = self.lodge.link.mirror, self.lodge.as_of()
        lines = {row_id: live_line(row, now) for row_id, row in mirror.rows["live"].items()}
        for row_id, row in mirror.rows.get("ended", {}).items():
            if row_id not in lines and now - times.from_iso(row["ended"]) / 1e6 <= KEPT:
                lines[row_id] = ended_line(row)
        return lines

    def group(self, row: LiveLine) -> Any:
        if row.group == 1 and self.sorted_by == self.SORT:
            return 1, row.row["position"] or 0  # the line as it stands
        if row.group == 2:
            return 2, -times.from_iso(row.row["ended"])
        return row.group, 0

    def offers(self) -> Sequence[str]:
        if self.chosen is None:
            return ()
        return ("open",) if self.chosen[1].group == 2 else ("open", "cancel")

    def nothing(self) -> Sequence[str]:
        mirror = self.lodge.link.mirror
        if mirror.rows["user"]:
            return ("Nothing runs and nothing waits.", "A request appears here the moment it is admitted.")
        if mirror.rows["registration"]:
            return ("Somebody waits to be let in: press 2, and approve them.",)
        return how_to_register(self.lodge.address, "Approve them on the page Users: press 2. Or create a user there.")

    def detail(self, row: LiveLine) -> Sequence[Line]:
        return detail_lines(row)

    def plots(self, width: int, height: int) -> Sequence[Line]:
        speeds = list(self.lodge.head.speeds)
        highest = max(speeds, default=0.0)
        left = [[(line, GOOD)] for line in plot(speeds, width, height - 1)]
        now = rate(speeds[-1] if speeds else 0.0)
        span = times.short(width * POINT)
        return [[("tokens/s ", BOLD), f"now {now}, highest {rate(highest)}; the last {span}"], *left]

    # -- keys ----------------------------------------------------------------------------------------------------------

    def action_open(self) -> None:
        if self.chosen is None or not self.is_meant():
            return
        row_id, line = self.chosen
        if line.group != 2:
            from console.screens.exchange import ExchangeScreen

            self.app.push_screen(ExchangeScreen(row_id))
        elif request_id := line.row["request_id"]:
            from console.screens.audited import AuditedScreen

            self.app.push_screen(AuditedScreen(request_id))
        else:  # refusals are counted, and have no record that could be asked for by an id
            from console.screens.overlay import Overlay

            self.app.push_screen(Overlay("refused", paragraphs(detail_lines(line)[1:])))

    def action_cancel(self) -> None:
        if self.chosen is None:
            return
        row_id, line = self.chosen
        if line.group == 2:
            self.say(f"{row_id[:8]} has ended already")
        elif self.may_act():
            self.begin(self.cancel(row_id, line))

    async def cancel(self, request_id: str, line: LiveLine) -> None:
        """Ask, then end that exchange, whatever the cursor stands on by then."""
        row = line.row
        facts = ", ".join(
            each
            for each in (
                row["model"],
                times.short(line.elapsed),
                f"{line.tokens} tok" if line.group == 0 else line.state,
            )
            if each
        )
        if not await self.lodge.ask_yes(f"Cancel req {request_id[:8]} of {row['user']} ({facts})?"):
            return
        try:
            cancelled = (await self.attempt(protocol.CANCEL, CancelRequest(request_id))).cancelled
        except (Refused, Unreachable) as error:
            if not isinstance(error, Refused) or error.code != NotFound.code:
                return self.say(why(error), level_of(error))
            cancelled = False
        self.say(f"{request_id[:8]} of {row['user']} " + ("is cancelled" if cancelled else "had just ended"))

    def action_user(self) -> None:
        if self.chosen is not None and self.is_meant():
            self.begin(self._go("users", self.chosen[1].row["user"]))

    def action_audit(self) -> None:
        if self.chosen is not None and self.is_meant():
            row = self.chosen[1].row
            request = row["request_id"]
            self.begin(self._go("audit", f"request:{request}" if request else f"user:{row['user']}"))

    async def _go(self, name: str, find: str) -> None:
        if await self.lodge.go_to(name, find=find) is None:
            self.say(f"there is no page {name!r}", "bad")


def live_line(row: Row, now: float) -> LiveLine:
    """What the row of a live exchange says at the moment `now`, Unix seconds."""
    elapsed = max(0.0, now - times.from_iso(row["received"]) / 1e6)
    if row["state"] == "queued":
        return LiveLine(row, _place(row), WAITING, 1, None, None, elapsed)
    age = row.get("piece_age")
    if row["state"] == "prefill":
        state, style = "prefill", WARNING if elapsed > 60 else PLAIN
    elif age is not None and age >= STALLED:
        state, style = "STALL", BAD
    else:
        state, style = "run", GOOD
    return LiveLine(
        row, state, style, 0, row.get("tokens_per_second"), row.get("tokens_out", row["chunks_out"]), elapsed
    )


def _place(row: Row) -> str:
    """`q#3 ~41s`: the place in the line, and how long until it is seated, as far as anybody can tell."""
    wait = row.get("estimated_wait")
    about = "" if wait is None else f" ~{max(1.0, wait):.0f}s" if wait < 100 else f" ~{wait / 60:.0f}m"
    return (f"q#{row['position']}" if row["position"] else "queued") + about


def ended_line(row: Row) -> LiveLine:
    """What the row of an ended exchange, or of refusals, says."""
    name = row["state"]
    style = DIM if name == "ok" else states.style(name)  # it steps back beside what runs
    return LiveLine(row, states.word(name), style, 2, row["tokens_per_second"], row["tokens_out"], row["elapsed"])


def _clock(moment: str | None) -> str:
    return f"{moment[11:19]}Z" if moment else ""


def detail_lines(line: LiveLine) -> list[Line]:
    """One exchange in the pane beside the table."""
    row = line.row
    state = states.full(row["state"]) if line.group == 2 else line.state
    pairs: list[tuple[str, Any]] = [
        ("request", row["request_id"]),
        ("state", state),
        ("because", row.get("error")),
        ("user", row["user"]),
        ("model", row["model"]),
        ("upstream", row["upstream"]),
        ("route", row["route"]),
        ("key", row["key"]),
        ("client", row["client_label"]),
        ("address", row["address"]),
        ("received", _clock(row["received"])),
        ("seated", _clock(row.get("seated"))),
        ("first byte", _clock(row.get("first_byte"))),
        ("elapsed", times.short(line.elapsed)),
        ("tokens out", line.tokens),
        ("tokens/s", None if line.speed is None else rate(line.speed)),
    ]
    if line.group == 1 and row.get("estimated_wait") is not None:
        pairs.append(("seat in about", times.short(row["estimated_wait"])))
    return [[("DETAILS", BOLD)], *facts(pairs, room=PANE)]
