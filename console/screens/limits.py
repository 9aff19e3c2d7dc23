"""Limits: who may do how much, and what of it is used right now; edited, tried against recorded traffic, applied.

Rule: what is shown is what the daemon said last; it is asked every two seconds while somebody looks, as limits and
their use are not on the watch stream. An edit carries the values that were seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from textual.binding import Binding, BindingType

from common import protocol
from common.protocol import LIMIT_FIELDS, LimitsShow, LimitsUse, LimitTarget, LimitValues
from common.untrusted import clean
from console.cells import wrap
from console.client import Refused, Unreachable
from console.columns import Cell, Column
from console.mirror import Row
from console.palette import BAD, BOLD, DIM
from console.screens.limit_forms import ask_target, edit_limits
from console.screens.page import why
from console.screens.table_page import TablePage
from console.widgets.facts import paragraphs, title
from console.widgets.gauges import colour, frees_in, gauge, gauges, in_short, share, spent
from console.widgets.lines import Line
from console.widgets.trial import Paragraph, return_paragraphs

EVERY = 2.0  # seconds between two questions
MOST = 500  # uses that are asked for
WIDTH = 44  # cells of the pane


@dataclass(frozen=True)
class LimitLine:
    """One target: what it says itself, what is in force for it, and what of that is used.

    `target` is as the daemon knows it, as it is sent back: cleaned where it is shown.
    """

    target: str
    own: Mapping[str, int | str]
    in_force: Mapping[str, int | str | None]
    uses: tuple[Row, ...]
    configured: Mapping[str, int | str | None] | None = None  # of `default`

    @property
    def fullest(self) -> Row | None:
        """The limit that is nearest to refusing."""
        return max(self.uses, key=share, default=None)

    @property
    def inherits(self) -> bool:
        """Whether the default holds where it says nothing itself."""
        return self.target.startswith("user:")


class LimitsPage(TablePage):
    """Every target that says something or uses something."""

    NOUN = "targets"
    SORT = "IN USE"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Details"),
        Binding("e", "edit", "Edit"),
        Binding("n", "new", "New"),
        Binding("x", "clear", "Clear"),
        Binding("u", "user", "User"),
    ]

    def __init__(self) -> None:
        self.COLUMNS = (
            Column("IN USE", self._gauge, 11, sort=_fullness, descending=True),
            Column("OF", lambda line: spent(line.fullest) if line.fullest else "", 15, most=18),
            Column("FREES", self._frees, 7, right=True, rank=3),
            Column("TARGET", self._target, 20, most=60, sort=lambda line: line.target),
            Column("WHOSE", self._whose, 12, most=30, rank=4),
            Column("LIMITS", _limits, 20, most=60, rank=2),
        )
        super().__init__()
        self._lines: dict[str, LimitLine] = {}
        self._answers = 0
        self._wrong = ""
        self._pinned = ""  # somebody wants to see this target, whatever it says or uses
        self._wanted = False  # and the cursor on it, once it is there
        self._poll: asyncio.Task[None] | None = None
        self._again = asyncio.Event()

    # -- cells ---------------------------------------------------------------------------------------------------------

    def _gauge(self, line: LimitLine) -> Cell:
        return ("", DIM) if line.target == "default" else gauge(line.fullest)

    def _frees(self, line: LimitLine) -> Cell:
        use = line.fullest
        if use is None or use["frees_at"] is None:
            return ""
        return frees_in(use, self.lodge.now()), colour(share(use))

    def _target(self, line: LimitLine) -> Cell:
        return (clean(line.target), BOLD) if line.own else clean(line.target)

    def _whose(self, line: LimitLine) -> Cell:
        if line.target == "default":
            return "every user"
        if line.target.startswith("key:"):
            key = self.lodge.link.mirror.rows["key"].get(line.target.removeprefix("key:"))
            return f"{key['label']} · {key['user']}" if key else ""
        return "shared" if line.target.startswith(("model:", "address:")) else ""

    # -- rows ----------------------------------------------------------------------------------------------------------

    def rows(self) -> Mapping[str, LimitLine]:
        return self._lines

    def version(self) -> Any:
        return self._answers

    def group(self, row: LimitLine) -> Any:
        return 0 if row.target == "default" else 1

    def nothing(self) -> Sequence[str]:
        return (self._wrong or "Asking the daemon for its limits …",)

    def status(self) -> Line:
        parts = list(super().status())
        if self._wrong:
            parts.append((f" · {self._wrong}", BAD))
        return parts

    def detail(self, row: LimitLine) -> Sequence[Line]:
        return self._details(row)

    def _details(self, line: LimitLine) -> list[Line]:
        kind = line.target.partition(":")[0]
        means = {
            "default": "each user's, unless they have their own",
            "user": "its own; where it has none, the default",
            "key": "in addition to those of its user",
            "model": "one window shared by all who ask this model",
            "address": "one window shared by all who come from there",
        }[kind]
        own = line.own if line.inherits else None
        lines = [
            *(title(each) for each in wrap(clean(line.target), WIDTH)),
            *([(each, DIM)] for each in wrap(means, WIDTH)),
            [],
            *gauges(line.in_force, line.uses, self.lodge.now(), own=own),
        ]
        if line.target == "default":
            lines += [[], [("Used is what each user uses: see their rows.", DIM)]]
        return lines

    # -- asking --------------------------------------------------------------------------------------------------------

    def shown(self) -> None:
        self.hidden()
        self._poll = asyncio.create_task(self._keep_asking())

    def hidden(self) -> None:
        self._pinned = ""
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None

    def on_unmount(self) -> None:
        self.hidden()

    async def _keep_asking(self) -> None:
        while True:
            self._again.clear()
            if self.lodge.link.is_live and self.screen.is_current and not self.is_paused:
                await self._look()
            try:
                async with asyncio.timeout(EVERY * (2 if self.lodge.slow else 1)):
                    await self._again.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        try:
            limits = await self.lodge.channel.ask(protocol.LIMITS_SHOW, LimitsShow())
            uses = await self.lodge.channel.ask(protocol.LIMITS_USE, LimitsUse(most=MOST))
            pinned = self._pinned
            if pinned and not any(row.target == pinned for row in limits):
                limits = [*limits, *await self.lodge.channel.ask(protocol.LIMITS_SHOW, LimitsShow(pinned))]
        except (Refused, Unreachable) as error:
            self._wrong, self._pinned = why(error), ""
            return
        self._wrong = ""
        self._lines = limit_lines(msgspec.to_builtins(limits), msgspec.to_builtins(uses))
        self._answers += 1
        if self._wanted:
            self.tick()
            self._wanted = not self.table.select(self._pinned)

    def look_at(self, target: str) -> None:
        """Put the cursor on this target, which may have no limits of its own yet."""
        self.apply_filter("")
        self._pinned, self._wanted = target, True
        self._again.set()

    def _keep(self, target: str) -> None:
        """It stays in the list, whatever it says and uses from now on: the cursor stays on what was acted on."""
        self._pinned, self._wanted = target, False

    # -- keys ----------------------------------------------------------------------------------------------------------

    def offers(self) -> Sequence[str]:
        row = self.chosen[1] if self.chosen else None
        if row is None:
            return ("new",)
        clear = ("clear",) if row.own else ()
        return ("open", "edit", "new", *clear, *(("user",) if row.inherits else ()))

    def action_open(self) -> None:
        if self.chosen and self.is_meant():
            target, line = self.chosen
            self.begin(self.lodge.show_text(f"limits of {target}", paragraphs(self._details(line))))

    def action_user(self) -> None:
        if self.chosen and self.chosen[1].inherits and self.is_meant():
            self.begin(self._to_user(self.chosen[0].removeprefix("user:")))

    async def _to_user(self, email: str) -> None:
        await self.lodge.go_to("users", find=email)

    def action_edit(self) -> None:
        if self.chosen and self.may_act():
            self.begin(self._edit(self.chosen[1]))

    async def _edit(self, line: LimitLine) -> None:
        self._keep(line.target)
        if await edit_limits(self, line):
            self.say(f"the limits of {line.target} are changed: the next request is under them", "good")
            self._again.set()

    def action_new(self) -> None:
        if self.may_change():
            self.begin(self._new())

    async def _new(self) -> None:
        row = await ask_target(self)
        if row is not None:
            found = limit_lines([msgspec.to_builtins(row)], [])
            line = next(iter(found.values()))
            self.apply_filter("")
            self._lines = {line.target: line} | self._lines
            self._answers += 1
            self.tick()
            self.table.select(line.target)
            await self._edit(line)

    def action_clear(self) -> None:
        if self.chosen and self.may_act():
            target, line = self.chosen
            if line.own:
                self.begin(self._clear(target, line))
            else:
                self.say(f"{target} has no limits of its own: the default holds")

    async def _clear(self, target: str, line: LimitLine) -> None:
        if not await self.lodge.confirm(f"Clear the limits of {target}?", self._cleared(line)):
            return
        self._keep(target)
        if await self.ask(protocol.LIMITS_CLEAR, LimitTarget(target, seen=seen(line))) is not None:
            self.say(f"the limits of {target} are cleared: the next request is under what holds now", "good")
            self._again.set()

    def _cleared(self, line: LimitLine) -> list[Paragraph]:
        """What comes back, limit by limit."""
        if line.target == "default":
            return [
                "The values of the configuration come back, for every user who has none of their own:",
                "",
                *return_paragraphs(line.own, line.configured or {}, "configuration"),
            ]
        default = self._lines.get("default")
        if line.inherits:
            after, whose, then = "the default holds for this user", "default", default.in_force if default else {}
        else:
            after, whose, then = "nothing limits it by itself", "", {}
        return [
            f"Its own limits go; from the next request on {after}:",
            "",
            *return_paragraphs(line.own, then, whose),
        ]


def seen(line: LimitLine) -> LimitValues:
    """What the target said itself when one looked."""
    return msgspec.convert(dict(line.own), LimitValues)


def limit_lines(limits: Sequence[Row], uses: Sequence[Row]) -> dict[str, LimitLine]:
    """A line for each target with limits of its own, and for each that uses something."""
    used: dict[str, list[Row]] = {}
    for use in uses:
        used.setdefault(use["target"], []).append(use)
    lines: dict[str, LimitLine] = {}
    default: Mapping[str, int | str | None] = {}
    for row in limits:
        own = {name: row[name] for name in LIMIT_FIELDS if row.get(name) is not None}
        in_force = row.get("effective") or own
        if row["target"] == "default":
            default = in_force
        found = used.pop(row["target"], None) or row.get("use") or ()
        lines[row["target"]] = LimitLine(row["target"], own, in_force, tuple(found), row.get("configured"))
    for target, its in used.items():  # users under the default
        lines[target] = LimitLine(target, {}, default if target.startswith("user:") else {}, tuple(its))
    return lines


def _fullness(line: LimitLine) -> float:
    return share(line.fullest) if line.fullest else 0.0


def _limits(line: LimitLine) -> Cell:
    if not line.own:
        return ("default", DIM)
    unlimited = [name for name, value in line.own.items() if value == "unlimited"]
    said = in_short(line.own) or "unlimited"
    if line.inherits and len(unlimited) < len(line.own) < len(LIMIT_FIELDS):
        return said + " · else default"
    return said
