"""Admission: every limit of a request and its room in the queue, decided in one synchronous step, all or nothing.

    admit -> (give_back | spend_tokens) -> settled          acquire -> release (concurrency, called by the seats)

Rules: a refused request leaves no trace. An admitted one keeps its place in every request window whatever becomes of
it, unless nothing was sent upstream (`give_back`). Token windows admit while used < max; what was really used enters
at settlement. Each admission has a moment of its own on the gateway clock, by which it is known everywhere: in the
windows, in the journal, and when the windows are restored from it (`daemon/traffic/restore.py`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from daemon.clock import Clock
from daemon.traffic.refusals import CONCURRENCY, rate_limit_headers, refusal
from daemon.traffic.rules import Rule
from daemon.traffic.seats import Seats
from daemon.traffic.tallies import Admitted, Rebuild, RuleSource, Subject, Tallies
from daemon.traffic.windows import AddressBound

__all__ = ["Admission", "LimitUse", "Subject", "Ticket"]

SWEEP_EVERY = 15.0  # seconds
SWEPT_AT_ONCE = 500  # targets: about a millisecond


class LimitSource(RuleSource, Protocol):
    """The limits in force (`daemon/traffic/limits.py`), and word of each change of them."""

    changed: list[Callable[[str], None]]

    @property
    def any_concurrency(self) -> bool: ...


class Ticket:
    """An admitted request: what it took and may have to give back. Made by `Admission.admit` alone."""

    __slots__ = ("_admission", "admitted_clock", "given_back", "held", "spent_clock", "subject", "tokens")

    def __init__(self, admission: Admission, subject: Subject, admitted_clock: int) -> None:
        self._admission = admission
        self.subject = subject
        self.admitted_clock = admitted_clock  # its moment: no other admission has the same
        self.given_back = False
        self.tokens = 0
        self.spent_clock = 0  # when its tokens entered; 0: they did not yet
        self.held: tuple[str, ...] = ()  # the targets under whose concurrency limit it runs

    @property
    def user_id(self) -> int:
        """Whose request it is."""
        return self.subject.user_id

    def acquire(self) -> bool:
        """Run under every concurrency limit from now on; or under none, and False: then it has to wait."""
        return self._admission._acquire(self)

    def release(self) -> None:
        """It runs no more."""
        self._admission._release(self)

    def __repr__(self) -> str:
        return f"<Ticket {self.subject.email} {self.subject.model} at {self.admitted_clock}>"


@dataclass(frozen=True)
class LimitUse:
    """One limit of one target, and how much of it is used now."""

    target: str
    limit: str  # "requests_per_minute"
    used: int
    max: int
    frees_at: int | None = field(default=None, compare=False)  # gateway's clock; when some of it comes back


class Admission:
    """Decides who may enter. To be used on one event loop."""

    def __init__(self, limits: LimitSource, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._tallies = Tallies(limits)
        self._rebuild: Rebuild | None = None
        self._latest = 0  # the moment of the latest admission
        self._open: dict[int, Ticket] = {}  # admitted and not settled, by moment
        self._running: set[Ticket] = set()
        self._running_in: dict[str, int] = {}  # target with a concurrency limit -> how many run
        self._lines: weakref.WeakSet[Seats] = weakref.WeakSet()
        self.address_bound = AddressBound(clock)
        limits.changed.append(self._rules_changed)

    # --- the way of one request ---

    def admit(self, subject: Subject, seats: Seats) -> Ticket:
        """Charge every request window and return the ticket to enter `seats` with, in the same tick.

        LimitExceeded (429) where a window is full, Unavailable (503) where the queue is; then nothing was charged.
        """
        # One microsecond apart at least: a moment is one admission's name.
        now = max(self._clock.now(), self._latest + 1)
        rules = self._tallies.applying(subject)
        full = self._tallies.full_window(rules, now)
        if full is not None:
            raise refusal(full, now=now, wall=self._clock.wall())
        seats.check_room(subject.user_id, may_run=self._may_run(rules))
        self._latest = now
        self._tallies.charge(rules, now, now=now)
        ticket = self._open[now] = Ticket(self, subject, now)
        if self._rebuild is not None:
            self._rebuild.present[now] = ticket
        self._lines.add(seats)
        return ticket

    def check_room(self, ticket: Ticket, seats: Seats) -> None:
        """Unavailable (503) where an admitted request could not enter `seats` instead of those it was admitted for; the
        same step may enter them."""
        seats.check_room(ticket.user_id, may_run=self._may_run(self._tallies.applying(ticket.subject)))
        self._lines.add(seats)

    def foresee(self, subject: Subject) -> None:
        """LimitExceeded where a window of `subject`, whose model nobody knows yet, is full already. Charges nothing."""
        now = max(self._clock.now(), self._latest + 1)
        full = self._tallies.full_window(self._tallies.applying(subject), now)
        if full is not None:
            raise refusal(full, now=now, wall=self._clock.wall())

    def give_back(self, ticket: Ticket) -> None:
        """Nothing was sent upstream: the request is out of every window."""
        if not ticket.given_back:
            ticket.given_back = True
            self._tallies.take_back(ticket.subject, ticket.admitted_clock)

    def spend_tokens(self, ticket: Ticket, tokens: int) -> None:
        """The exchange is over and cost so many tokens: they enter the windows now. Once a ticket."""
        if ticket.spent_clock:
            raise RuntimeError(f"{ticket!r} was charged already")
        now = ticket.spent_clock = self._clock.now()
        ticket.tokens = tokens
        self._tallies.spend(ticket.subject, tokens, now, now=now)

    def settled(self, ticket: Ticket) -> None:
        """Its end is in the journal (or could not be recorded): nothing more will happen to it."""
        self._open.pop(ticket.admitted_clock, None)

    def rate_limit_headers(self, ticket: Ticket) -> dict[str, str]:
        """The RateLimit fields for the limit that is nearest to its end; none where nothing is limited."""
        now = max(self._clock.now(), self._latest)
        nearest = self._tallies.nearest_to_its_end(self._tallies.applying(ticket.subject), now)
        return {} if nearest is None else rate_limit_headers(nearest, now=now)

    # --- concurrency: never refuses; the line passes over who may not run ---

    def _may_run(self, rules: Iterable[tuple[str, Rule]]) -> bool:
        running = self._running_in
        for target, rule in rules:
            if rule.concurrency is not None and running.get(target, 0) >= rule.concurrency:
                return False
        return True

    def _acquire(self, ticket: Ticket) -> bool:
        if self._limits.any_concurrency:
            rules = self._tallies.applying(ticket.subject)
            if not self._may_run(rules):
                return False
            self._hold(ticket, rules)
        self._running.add(ticket)
        return True

    def _release(self, ticket: Ticket) -> None:
        self._running.discard(ticket)
        held, ticket.held = ticket.held, ()
        for target in held:
            self._running_in[target] -= 1
            if not self._running_in[target]:
                del self._running_in[target]
        if held:
            self._poke()

    def _hold(self, ticket: Ticket, rules: Iterable[tuple[str, Rule]]) -> None:
        ticket.held = tuple(target for target, rule in rules if rule.concurrency is not None)
        for target in ticket.held:
            self._running_in[target] = self._running_in.get(target, 0) + 1

    def _poke(self) -> None:
        # Who waits for what was given back may stand in any line.
        for line in list(self._lines):
            line.poke()

    def _rules_changed(self, _target: str) -> None:
        """Count anew who runs: a limit that came, went or changed holds for those that run already."""
        self._running_in.clear()
        for ticket in self._running:
            self._hold(ticket, self._tallies.applying(ticket.subject))
        self._poke()

    # --- the past, from the journal ---

    def begin_rebuild(self) -> Rebuild:
        """Fresh tallies to be fed with the journal's past; admission goes on meanwhile. One at a time."""
        if self._rebuild is not None:
            raise RuntimeError("the windows are being restored already")
        self._rebuild = Rebuild(self._limits, now=self._clock.now(), present=dict[int, Admitted](self._open))
        return self._rebuild

    def finish_rebuild(self) -> None:
        """Decide by the fresh tallies from now on."""
        assert self._rebuild is not None
        self._tallies = self._rebuild.finished()
        self._latest = max(self._latest, self._rebuild.latest)
        self._rebuild = None

    def drop_rebuild(self) -> None:
        """The past could not be read: stay with what memory knows."""
        self._rebuild = None

    # --- memory, and what is shown of it ---

    def sweep(self) -> None:
        """Forget what no window looks at any more: a target that used nothing lately costs nothing."""
        self._tallies.sweep(list(self._tallies), self._clock.now())
        self.address_bound.sweep()

    async def run(self) -> None:
        """Sweep every quarter of a minute, a little at a time, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            targets = list(self._tallies)
            for start in range(0, len(targets), SWEPT_AT_ONCE):
                self._tallies.sweep(targets[start : start + SWEPT_AT_ONCE], self._clock.now())
                await asyncio.sleep(0)
            self.address_bound.sweep()

    def in_use(self, target: str | None = None) -> list[LimitUse]:
        """How much of each limit is used now: of one target, or of every target that uses something."""
        targets = [target] if target else dict.fromkeys([*self._tallies, *self._running_in])
        found = self._uses((each, self._limits.rule(each)) for each in targets)
        return found if target else [use for use in found if use.used]

    def in_use_by(self, subject: Subject) -> list[LimitUse]:
        """How much is used now of every limit that such a request is under."""
        return self._uses(self._tallies.applying(subject))

    def _uses(self, rules: Iterable[tuple[str, Rule]]) -> list[LimitUse]:
        now = max(self._clock.now(), self._latest)
        found: list[LimitUse] = []
        for target, rule in rules:
            windows = self._tallies.windows([(target, rule)], now)
            found.extend(LimitUse(target, each.field.name, each.used, each.max, each.frees_at) for each in windows)
            if rule.concurrency is not None:
                found.append(LimitUse(target, CONCURRENCY.name, self._running_in.get(target, 0), rule.concurrency))
        return found

    def __repr__(self) -> str:
        return f"<Admission {len(self._tallies)} tallies, {len(self._open)} open, {len(self._running)} running>"
