"""The box before limits change: old -> new, and what recorded traffic would have met; then apply, edit again, or not.

Rule: the trial is asked for by the box itself and ends with it; the limits can be applied before it is through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

from rich.style import Style
from textual import events

from common.protocol import LIMIT_FIELDS, LimitsTried, LimitValues
from console.cells import cut, fit
from console.client import Refused, Unreachable
from console.entries import short_amount
from console.moments import day_and_time
from console.palette import BAD, BOLD, DIM, GOOD, KEY, PLAIN, WARNING
from console.widgets.dialogs import Dialog
from console.widgets.gauges import SHORT, TITLES
from console.widgets.lines import Line

Paragraph = str | tuple[str, Style]
Answer = Literal["apply", "edit", "no"]
Try = Callable[[int], Awaitable[LimitsTried]]  # seconds back from now -> what would have been

DAY = 86400  # seconds
PERIODS = (("24 h", DAY), ("7 d", 7 * DAY), ("30 d", 30 * DAY), ("1 h", 3600))
MOST_USERS = 5


class Trial(Dialog[Answer]):
    """`y` applies, `e` edits again, `w` tries a longer time; anything else that answers is No."""

    def __init__(self, title: str, changes: Sequence[Paragraph], attempt: Try | None) -> None:
        """`attempt` None: there is nothing to try, as what changes never refuses."""
        super().__init__(title, changes)
        self._changes = list(changes)
        self._attempt = attempt
        self._period = 0
        self._has_failed = False
        self._tell([] if attempt else [("What runs at once never refuses: further requests wait.", DIM)])

    def _tell(self, paragraphs: Sequence[Paragraph]) -> None:
        self.read([*self._changes, "", *paragraphs])

    def keys(self) -> Line:
        keys: list[str | tuple[str, Style]] = [("[y]", KEY), " apply   "]
        if self._attempt is not None:
            keys += [("w", KEY), f" try {PERIODS[(self._period + 1) % len(PERIODS)][0]}   "]
        return [*keys, ("e", KEY), " edit again   ", ("[N]", KEY), " no"]

    def on_mount(self) -> None:
        self._try()

    def came_back(self) -> None:
        if self._has_failed:
            self._try()

    def _try(self) -> None:
        if self._attempt is not None:
            self.run_worker(self._tried(self._attempt, *PERIODS[self._period]), exclusive=True)

    async def _tried(self, attempt: Try, period: str, seconds: int) -> None:
        self._tell([(f"Trying them against the traffic of the last {period} …", DIM)])
        self.draw()
        try:
            said = trial_paragraphs(await attempt(seconds), period)
            self._has_failed = False
        except (Refused, Unreachable) as error:
            self._has_failed = True
            said = [(f"They could not be tried: {error}.", BAD)]
        self._tell(said)
        self.draw()

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if event.key == "y":
            if self.may_send():
                self.dismiss("apply")
        elif event.key == "e":
            self.dismiss("edit")
        elif event.key == "w" and self._attempt is not None:
            self._period = (self._period + 1) % len(PERIODS)
            self._try()
        elif event.key in ("n", "N", "escape", "enter", "q"):
            self.dismiss("no")


def change_paragraphs(
    before: Mapping[str, int | str | None], after: LimitValues, inherited: Mapping[str, int | str | None]
) -> list[Paragraph]:
    """A line a limit that changes: `requests/minute   10 -> 5`."""
    lines: list[Paragraph] = []
    for name in LIMIT_FIELDS:
        value = getattr(after, name)
        if value is not None:
            old = before.get(name)
            default = short_amount(inherited.get(name) or "unlimited") + (" (default)" if inherited else "")
            was = default if old is None else short_amount(old)
            lines.append((f"{fit(TITLES[name], 17)} {was} → {short_amount(value)}", BOLD))
    return lines


def return_paragraphs(
    own: Mapping[str, int | str | None], then: Mapping[str, int | str | None], whose: str
) -> list[Paragraph]:
    """A line a limit that is cleared: `requests/minute   99 → 8 (default)`; `whose` the value is that comes back."""
    lines: list[Paragraph] = []
    for name in LIMIT_FIELDS:
        if (value := own.get(name)) is not None:
            back = "unlimited" if (after := then.get(name)) is None else short_amount(after)
            of = f" ({whose})" if whose else ""
            changes = short_amount(value) != back
            text = f"{short_amount(value)} → {back}{of}" if changes else f"{back}, as it is now{of}"
            lines.append((f"{fit(TITLES[name], 17)} {text}", BOLD if changes else DIM))
    return lines


def trial_paragraphs(tried: LimitsTried, period: str) -> list[Paragraph]:
    """`Last 24 h: 37 of 1,204 requests refused (as it is: 3), of these users: …`."""
    span = f"Last {period}"
    if not tried.complete:
        span = f"From {day_and_time(tried.since)} to {day_and_time(tried.until)} (the replay ran out of time)"
    if not tried.requests:
        return [(f"{span}: no request is recorded that they would have met.", DIM)]
    if tried.concerned == 0:
        none = f"{span}: none of the {tried.requests:,} recorded requests comes under {tried.target}."
        return [(none, WARNING), ("So these limits were not tested.", WARNING)]
    refused = f"{span}: {tried.refused:,} of {tried.requests:,} requests refused"
    if tried.refused == 0:
        sentence: Paragraph = (f"{refused}{_now(tried)}.", GOOD)
    else:
        sentence = (f"{refused}{_now(tried)}" + (", of these users:" if tried.users else "."), WARNING)
    lines: list[Paragraph] = [sentence]
    shown = [user for user in tried.users if user.refused][:MOST_USERS]
    for user in shown:
        now = f"   as it is: {user.refused_now:,}" if user.refused_now else ""
        lines.append((f"  {fit(user.user, 30)} {user.refused:>7,} of {user.requests:,}{now}", PLAIN))
    more = sum(1 for user in tried.users if user.refused) - len(shown)
    if more > 0:
        lines.append((f"  and {more} more", DIM))
    if tried.concerned not in (None, tried.requests):
        lines.append((f"  {tried.concerned:,} of the {tried.requests:,} come under {tried.target}", DIM))
    by = [f"{each.refused:,} by {SHORT.get(each.limit, each.limit)} of {each.target}" for each in tried.limits[:3]]
    return [*lines, *((f"  {cut(sentence, 70)}", DIM) for sentence in by)]


def _now(tried: LimitsTried) -> str:
    return f" (as it is: {tried.refused_now:,})"
