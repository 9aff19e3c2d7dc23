"""What each target has used, as far back as its rule looks: the memory behind every decision about windows.

Rule: pure counting over rules and moments that are handed in; who may enter is decided in `admission.py`. A target
that nobody limits, or that used nothing lately, has no tally here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from daemon.traffic.refusals import Field, FullWindow
from daemon.traffic.rules import Rule, in_words, kind_of
from daemon.traffic.windows import Amounts, History, Moments, SlidingWindow

# In front of a limit's name in the RateLimit fields; a user's own limits need no word.
_POLICY = {"user": "", "default": "", "key": "key", "model": "model", "address": "address"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks for what, as far as limits look at it. `model` is the one that serves, `address` the client's."""

    user_id: int
    email: str
    key_id: str | None
    model: str
    address: str


class RuleSource(Protocol):
    """Where the rules in force are asked for (`Rules`, `Limits`)."""

    def applying(self, email: str, key_id: str | None, model: str, address: str) -> list[tuple[str, Rule]]: ...

    def rule(self, target: str) -> Rule: ...


class Admitted(Protocol):
    """An admission as it is known in memory (a ticket) or was read from the journal."""

    @property
    def subject(self) -> Subject: ...
    @property
    def admitted_clock(self) -> int: ...
    @property
    def given_back(self) -> bool: ...
    @property
    def tokens(self) -> int: ...
    @property
    def spent_clock(self) -> int:
        """When its tokens entered; 0: not yet."""
        ...


class Tally:
    """What one target has used."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests = Moments()
        self.tokens = Amounts()

    def forget(self, rule: Rule, now: int) -> bool:
        """Drop what no window of `rule` looks at any more; whether something is left."""
        self.requests.forget(now - rule.request_history)
        self.tokens.forget(now - rule.token_history)
        return len(self.requests) > 0 or len(self.tokens) > 0


_NOTHING = Tally()  # what a target without a tally has used; never written to


class Tallies:
    """The tallies of all targets. All times are gateway-clock microseconds."""

    def __init__(self, rules: RuleSource) -> None:
        self._rules = rules
        self._of: dict[str, Tally] = {}

    def charge(self, rules: Iterable[tuple[str, Rule]], at: int, *, now: int) -> None:
        """A request that is under `rules` was admitted at `at`."""
        for target, rule in rules:
            horizon = now - rule.request_history
            if at > horizon:  # never true without request windows: their history is 0
                requests = self._tally(target).requests
                requests.forget(horizon)
                requests.add(at)

    def take_back(self, subject: Subject, at: int) -> None:
        """The request of `subject` that was admitted at exactly `at` is out of every window."""
        for target, _ in self.applying(subject):
            tally = self._of.get(target)
            if tally is not None:
                tally.requests.remove(at)

    def spend(self, subject: Subject, tokens: int, at: int, *, now: int) -> None:
        """`tokens` were used at `at`."""
        for target, rule in self.applying(subject):
            horizon = now - rule.token_history
            if tokens and at > horizon:
                amounts = self._tally(target).tokens
                amounts.forget(horizon)
                amounts.add(at, tokens)

    def applying(self, subject: Subject) -> list[tuple[str, Rule]]:
        """The rules that a request of `subject` is under, each with the target that it is counted for."""
        return self._rules.applying(subject.email, subject.key_id, subject.model, subject.address)

    def full_window(self, rules: Iterable[tuple[str, Rule]], now: int) -> FullWindow | None:
        """The window of `rules` that refuses a request now; of several, the one that frees last."""
        found: FullWindow | None = None
        for target, rule in rules:
            tally = self._of.get(target, _NOTHING)
            history: History = tally.requests
            most = len(tally.requests)  # in no window of it is more used than there is
            for field, window in rule.requests:
                if most >= window.max and not window.admits(history, now):
                    found = _later(found, _described(target, field, window, history, now))
            history = tally.tokens
            most = tally.tokens.total
            for field, window in rule.tokens:
                if most >= window.max and not window.admits(history, now):
                    found = _later(found, _described(target, field, window, history, now))
        return found

    def nearest_to_its_end(self, rules: Iterable[tuple[str, Rule]], now: int) -> FullWindow | None:
        """The window of `rules` of which the smallest part remains; None where there is none."""
        found: tuple[str, Field, SlidingWindow, History] | None = None
        least, of = 1, 0  # what remains of which maximum; a fraction above every real one
        for target, rule in rules:
            tally = self._of.get(target, _NOTHING)
            for history, windows in ((tally.requests, rule.requests), (tally.tokens, rule.tokens)):
                for field, window in windows:
                    remaining = max(0, window.max - history.used(now - window.period))
                    if remaining * of < least * window.max or found is None:
                        found, least, of = (target, field, window, history), remaining, window.max
        return None if found is None else _described(*found, now)

    def windows(self, rules: Iterable[tuple[str, Rule]], now: int) -> Iterator[FullWindow]:
        """Every window of `rules` as it stands."""
        for target, rule in rules:
            tally = self._of.get(target, _NOTHING)
            for field, window in rule.requests:
                yield _described(target, field, window, tally.requests, now)
            for field, window in rule.tokens:
                yield _described(target, field, window, tally.tokens, now)

    def sweep(self, targets: Iterable[str], now: int) -> None:
        """Forget of `targets` what no window looks at any more."""
        for target in targets:
            tally = self._of.get(target)
            if tally is not None and not tally.forget(self._rules.rule(target), now):
                del self._of[target]

    def __iter__(self) -> Iterator[str]:
        """The targets that are remembered."""
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def _tally(self, target: str) -> Tally:
        tally = self._of.get(target)
        if tally is None:
            tally = self._of[target] = Tally()
        return tally


class Rebuild:
    """Fresh tallies, from the journal's past and from what memory knows of the present.

    While it is fed, the old tallies go on deciding. `present` holds the tickets that were open when it began or came
    since: of them memory knows best, and what the journal says of them is passed over.
    """

    def __init__(self, rules: RuleSource, *, now: int, present: dict[int, Admitted]) -> None:
        self._tallies = Tallies(rules)
        self._now = now
        self.present = present
        self.latest = 0  # the moment of the latest admission seen

    def remember(self, past: Iterable[Admitted]) -> None:
        """Count admissions that the journal knows."""
        for admitted in past:
            if admitted.admitted_clock not in self.present:
                self._count(admitted)

    def finished(self) -> Tallies:
        """The tallies, complete."""
        for admitted in self.present.values():
            self._count(admitted)
        self.present = {}
        return self._tallies

    def _count(self, admitted: Admitted) -> None:
        self.latest = max(self.latest, admitted.admitted_clock)
        tallies, subject = self._tallies, admitted.subject
        if not admitted.given_back:
            tallies.charge(tallies.applying(subject), admitted.admitted_clock, now=self._now)
        if admitted.spent_clock:
            tallies.spend(subject, admitted.tokens, admitted.spent_clock, now=self._now)


def _described(target: str, field: Field, window: SlidingWindow, history: History, now: int) -> FullWindow:
    used = window.used(history, now)
    if used < window.max:
        first = history.first(now - window.period)
        frees_at = None if first is None else first + window.period  # when some of it comes back
    else:
        frees_at = window.frees_at(history, now)
    return FullWindow(
        field=field,
        scope=in_words(target),
        policy=_POLICY[kind_of(target)],
        used=used,
        max=window.max,
        period=window.period,
        frees_at=frees_at,
        target=target,
    )


def _later(one: FullWindow | None, other: FullWindow) -> FullWindow:
    if one is None or (one.frees_at is not None and (other.frees_at is None or other.frees_at > one.frees_at)):
        return other
    return one
