"""What administrators did and looked at, newest first: a text to read, of which more comes at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from textual import events
from textual.binding import Binding, BindingType

from common import protocol, times
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
WIDE = 100  # cells from which each column has all it may need
LONG = (20, 12, 22)  # cells of when, who and verb
SHORT = (14, 10, 14)
INDENT = 4
LAST = 2**56  # microseconds: two thousand years
SEPARATOR = " · "
QUOTED = '"·→,'  # what a text is quoted for


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
        lines: list[Part] = [(heading(width), BOLD)]
        for each in self._records:
            lines += record_lines(each, width)
        lines.append(("That is all." if self._complete else "m: older ones", DIM))
        self.view.show(lines)

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._draw()


def heading(width: int) -> str:
    """The titles over the records."""
    when, who, verb = _widths(width)
    return f"{'WHEN' if when == LONG[0] else 'WHEN (UTC)':<{when}} {'WHO':<{who}} {'VERB':<{verb}} TARGET"


def record_lines(record: AdminRecord, width: int) -> list[Part]:
    """One record: when, who, verb, target; below it what is too long for that line, and its detail."""
    when, who, most = _widths(width)
    moment = day_and_time(record.timestamp)
    verb, target = clean(record.verb), clean(record.target)
    short = moment if when == LONG[0] else moment[5:-1]
    said = f"{short} {fit(clean(record.actor), who)} {fit(verb, max(most, min(LONG[2], cell_len(verb))))}"
    below = told(record.detail)
    beside = f"{said} {target}".rstrip()
    if cell_len(beside) > width:
        beside, below = said.rstrip(), [target, *below]
    lines: list[Part] = [beside]
    return lines + [(INDENT * " " + line, DIM) for line in _packed(below, width - INDENT)]


def _packed(facts: Sequence[str], width: int) -> list[str]:
    """As many to a line as fit, none broken that fits into one: a digest is there to be copied."""
    lines: list[str] = []
    for fact in facts:
        if lines and cell_len(beside := lines[-1] + SEPARATOR + fact) <= width:
            lines[-1] = beside
        elif fact:
            lines += wrap(fact, width)
    return lines


def _widths(width: int) -> tuple[int, int, int]:
    return LONG if width >= WIDE else SHORT


def told(detail: Mapping[str, Any], within: str = "") -> list[str]:
    """What a record tells, as `name: value`, clean; what was changed as `old → new`."""
    said: list[str] = []
    if detail.keys() >= {"old", "new"}:
        old, new = detail["old"], detail["new"]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            said += [_change(f"{within}{name}: ", old.get(name), new.get(name)) for name in {**old, **new}]
        else:
            said.append(_change(within and f"{within[:-1]}: ", old, new))
        detail = {name: value for name, value in detail.items() if name not in ("old", "new")}
    for name, value in detail.items():
        if isinstance(value, Mapping) and value:
            said += told(value, f"{within}{name}.")
        else:
            moment = name.endswith("_us") and isinstance(value, int) and 0 < value < LAST  # as the journal keeps it
            words = day_and_time(times.iso(value)) if moment else _value(value)
            said.append(f"{clean(within + name).removesuffix('_us')}: {words}")
    return said


def _change(name: str, old: Any, new: Any) -> str:
    return clean(name) + (_value(old) if old == new else f"{_value(old)} → {_value(new)}")


def _value(value: Any) -> str:
    """Bare where it can be mistaken for nothing else: no note may read as a further fact of the record."""
    if isinstance(value, str) and value and value == value.strip() and not set(value) & set(QUOTED):
        return clean(value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if value in ([], {}):
        return "-"
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return ", ".join(_value(each) for each in value)
    return clean(msgspec.json.encode(value).decode())
