"""What administrators did and looked at, newest first: a text to read, of which more comes at its end."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from textual.binding import Binding, BindingType

from common import protocol
from common.protocol import AdminRecord, AuditAdmin
from common.untrusted import clean
from console.cells import fit
from console.client import Refused, Unreachable
from console.moments import day_and_time
from console.palette import BOLD, DIM
from console.screens.overlay import Overlay
from console.screens.page import why
from console.widgets.lines import Part

AT_ONCE = 200


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
        lines: list[Part] = [(f"{'WHEN':<21}{'WHO':<12} {'VERB':<22} TARGET", BOLD)]
        for each in self._records:
            lines.append(line_of(each))
            if each.detail:
                lines.append((f"    {clean(msgspec.json.encode(each.detail).decode())}", DIM))
        lines.append(("That is all." if self._complete else "m: older ones", DIM))
        self.view.show(lines)


def line_of(record: AdminRecord) -> str:
    """One record in one line; its detail stands below it."""
    who, verb = fit(clean(record.actor), 12), fit(clean(record.verb), 22)
    return clean(f"{day_and_time(record.timestamp)} {who} {verb} {record.target}").rstrip()
