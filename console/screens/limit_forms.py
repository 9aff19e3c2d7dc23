"""Editing limits: whose, the six numbers with old -> new beside each, the trial, and only then the change.

Rule: what was typed survives a refusal, a lost daemon and a second thought; what is sent carries what was seen.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from rich.style import Style

from common import protocol, times
from common.protocol import LIMIT_FIELDS, LimitRow, LimitsSet, LimitsShow, LimitsTried, LimitsTry, LimitValues
from console import entries
from console.client import Refused, Unreachable
from console.palette import DIM, WARNING
from console.screens.page import CHANGED_MEANWHILE
from console.widgets.form import Field
from console.widgets.gauges import TITLES
from console.widgets.trial import DAY, Trial, change_paragraphs

if TYPE_CHECKING:
    from console.screens.limits import LimitLine, LimitsPage


async def ask_target(page: LimitsPage) -> LimitRow | None:
    """Whom to limit, as the daemon knows it; None where it was given up."""
    mirror = page.lodge.link.mirror
    choices = sorted(f"user:{row['email']}" for row in mirror.rows["user"].values())
    choices += [f"key:{key_id}" for key_id, key in mirror.rows["key"].items() if key["state"] == "active"]
    choices += ["model:", "address:"]
    fields = [Field("target", "Limit", hint="→ completes", check=entries.target, choices=choices)]
    paragraphs = [
        "user:EMAIL replaces the default for this user, limit by limit.",
        "key:ID, model:NAME and address:CIDR hold in addition; the last two are one window shared by all.",
    ]

    async def find(typed: dict[str, str]) -> list[LimitRow]:
        return await page.attempt(protocol.LIMITS_SHOW, LimitsShow(typed["target"]))

    found = await page.fill_until_done("Limit whom?", fields, paragraphs, find)
    return found[0] if found else None


def limit_fields(line: LimitLine, values: LimitValues) -> list[Field]:
    """The six fields with what was typed before, or is; a hint says what it was and what it will be."""
    shown = {name: line.own.get(name) if (new := getattr(values, name)) is None else new for name in LIMIT_FIELDS}
    return [
        Field(
            name,
            TITLES[name],
            "" if shown[name] is None else entries.short_amount(shown[name]),
            hint=partial(_hint, line, name),
            check=partial(_check, line, name),
            below=partial(_below, line, name),
        )
        for name in LIMIT_FIELDS
    ]


def _check(line: LimitLine, name: str, text: str) -> str:
    if not text and line.own.get(name) is not None:
        return "a number, or unlimited"
    return entries.an_amount(name, text)


def _below(line: LimitLine, name: str, text: str) -> str:
    """How the default comes back, where somebody empties a field for that."""
    if text or line.own.get(name) is None or not line.inherits:
        return ""
    return "For the default again: Esc, then x, which takes back all of its own limits."


def _hint(line: LimitLine, name: str, text: str) -> str:
    own = line.own.get(name)
    default = entries.short_amount(line.in_force.get(name) or "unlimited")
    if not text:
        return f"default: {default}" if line.inherits else "unlimited"
    value = entries.amount(text)
    was = entries.short_amount(own) if own is not None else f"{default} (default)" if line.inherits else "unlimited"
    if value == own:
        return "as it is"
    return f"{was} → {entries.short_amount(value)}" + (" (nothing!)" if value == 0 else "")


async def edit_limits(page: LimitsPage, line: LimitLine) -> bool:
    """The form, the trial, the change; whether it was made."""
    from console.screens.limits import limit_lines, seen

    values, trouble = LimitValues(), None
    while True:
        empty = "the default holds" if line.inherits else "unlimited"
        said: list[str | tuple[str, Style]] = [(f"A number (also 50k, 2m), or unlimited. Empty: {empty}.", DIM)]
        title = f"Limits of {line.target}"
        typed = await page.lodge.fill(title, limit_fields(line, values), said, done="try them", trouble=trouble)
        if typed is None:
            return False
        values = entries.changed_limits(line.own, typed)
        if values == LimitValues():
            page.say("nothing is changed")
            return False
        answer = await page.app.push_screen_wait(_trial(page, line, values))
        if answer == "no":
            return False
        trouble = None
        if answer == "apply":
            try:
                await page.attempt(protocol.LIMITS_SET, LimitsSet(line.target, values, seen=seen(line)))
            except (Refused, Unreachable) as error:
                trouble = page.trouble(error, "what you did not type is as it is now")
                if isinstance(error, Refused) and error.code == CHANGED_MEANWHILE:
                    # The second look: what was typed stays, what was not shows what somebody else made of it.
                    found = await page.ask(protocol.LIMITS_SHOW, LimitsShow(line.target))
                    if found:
                        line = limit_lines(msgspec.to_builtins(found), [])[line.target]
            else:
                return True


def _trial(page: LimitsPage, line: LimitLine, values: LimitValues) -> Trial:
    changes = change_paragraphs(line.own, values, line.in_force if line.inherits else {})
    if any(getattr(values, name) == 0 for name in LIMIT_FIELDS):
        changes.append(("With a limit of 0 nothing is let through.", WARNING))
    windows = windows_of(values)

    async def attempt(seconds: int) -> LimitsTried:
        # The daemon's own day where that is meant: its clock and ours may differ.
        since = None if seconds == DAY else times.iso(time.time_ns() // 1000 - seconds * times.SECOND)
        return await page.attempt(protocol.LIMITS_TRY, LimitsTry(line.target, windows, since))

    return Trial(f"Change the limits of {line.target}?", changes, attempt if windows != LimitValues() else None)


def windows_of(values: LimitValues) -> LimitValues:
    """Without what runs at once: that never refuses, so there is nothing to try."""
    return LimitValues(**{name: getattr(values, name) for name in LIMIT_FIELDS if name != "concurrency"})
