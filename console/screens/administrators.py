"""What administrators did and looked at, newest first: a text to read, of which more comes at its end."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from textual import events
from textual.binding import Binding, BindingType

from common import protocol
from common.protocol import AdminRecord, AuditAdmin
from common.untrusted import clean
from console.cells import cell_len, fit, wrap
from console.client import Refused, Unreachable
from console.moments import day_and_time
from console.palette import BOLD, DIM
from console.screens.overlay import Overlay
from console.screens.page import why
from console.widgets.lines import Part

AT_ONCE = 200
VERB = 22  # cells
INDENT = 4


class AdministratorsScreen(Overlay):
    """The records of changes and looks."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("m", "more", "Older ones")]

    def __init__(self) -> None:
        super().__init__("What administrators did")
        self._records: list[AdminRecord] = []
        self._complete = False
        self._problem = ""

    def on_mount(self) -> None:
        self.action_more()

    def action_more(self) -> None:
        if not self._complete:
            self.run_worker(self._fetch(), group="fetch", exclusive=True)

    async def _fetch(self) -> None:
        before = self._records[-1].log_id if self._records else None
        try:
            rows = await self.lodge.channel.ask(protocol.AUDIT_ADMIN, AuditAdmin(limit=AT_ONCE, before=before))
        except (Refused, Unreachable) as error:
            self.prompt.say(why(error), "bad")
            return
        self._records += rows
        self._complete = len(rows) < AT_ONCE
        self._draw()

    def _draw(self) -> None:
        width = self.app.size.width - 2
        lines: list[Part] = [(f"{'WHEN':<21}{'WHO':<12} {'VERB':<{VERB}} TARGET", BOLD)]
        for each in self._records:
            lines += record_lines(each, width)
        lines.append(("That is all." if self._complete else "m: older ones", DIM))
        self.view.show(lines)

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._draw()


def record_lines(record: AdminRecord, width: int) -> list[Part]:
    """One record: when, who, verb, target; below it what is too long for that line, and its detail."""
    said = f"{day_and_time(record.timestamp)} {fit(clean(record.actor), 12)} {fit(clean(record.verb), VERB)}"
    target = clean(record.target)
    beside = f"{said} {target}".rstrip()
    lines: list[Part] = [beside] if cell_len(beside) <= width else [said.rstrip(), *_below(target, width)]
    if record.detail:
        told = msgspec.json.format(msgspec.json.encode(record.detail), indent=0).decode()  # blanks to break at
        lines += [(line, DIM) for line in _below(clean(told.removeprefix("{").removesuffix("}")), width)]
    return lines


def _below(text: str, width: int) -> list[str]:
    return [" " * INDENT + line for line in wrap(text, width - INDENT)]
