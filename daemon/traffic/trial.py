"""Limits tried against recorded traffic: who would have been refused, had they been in force.

The real windows (`tallies.py`) are replayed over every request of a stretch of time that was admitted or that met a
full window, once under the limits in force and once under those proposed. Rules: the replay begins with empty windows
one longest window before the stretch, and what comes before the stretch is not counted; a request that is refused in
the replay uses nothing, one that gave its place back gives it back, tokens enter when they really did. Runs in the
child process that reads the journal; by pages, never one long read.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from common.protocol import LimitsTried, TriedLimit, TriedUser
from common.times import iso
from daemon.store.admissions import (
    OUT_OF_ORDER,
    Attempt,
    PastAdmission,
    RefusedAttempts,
    admissions_settled_from,
    attempts_from,
    first_since,
    refused_from,
)
from daemon.store.limits import all_limits
from daemon.traffic.refusals import FIELDS
from daemon.traffic.rules import DEFAULT, Rules, kind_of
from daemon.traffic.tallies import Subject, Tallies

PAGE = 2_000
MINUTE = 60_000_000
LONGEST = 60.0  # seconds that a replay may take
MOST_USERS = 200  # users that are named


class Question(msgspec.Struct):
    """What is to be tried. `now_us` and `now_clock` are the same moment on the wall clock and the gateway's."""

    target: str
    values: dict[str, int | None]  # None: unlimited
    since_us: int
    now_us: int
    now_clock: int
    longest: float = LONGEST


class _World:
    """The windows under one set of limits, and what was refused."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.tallies = Tallies(rules)
        self.refused = 0
        self.of_user: Counter[str] = Counter()
        self.of_limit: Counter[tuple[str, str]] = Counter()

    def admits(self, subject: Subject, at: int, *, counts: bool) -> bool:
        """Whether the request gets in at `at`; if so, it takes its place."""
        rules = self.tallies.applying(subject)
        full = self.tallies.full_window(rules, at)
        if full is None:
            self.tallies.charge(rules, at, now=at)
            return True
        if counts:
            self.refused += 1
            self.of_user[subject.email] += 1
            self.of_limit[self._said_by(full.target, full.field.name), full.field.name] += 1
        return False

    def _said_by(self, target: str, name: str) -> str:
        """A user's limit is often the default's."""
        return DEFAULT if kind_of(target) == "user" and name not in self.rules.own(target) else target


@dataclass(slots=True, eq=False)
class _Event:
    """A request that comes, or (`admitted`) its end."""

    subject: Subject
    counts: bool
    tokens: int = 0
    kept: bool = True
    settled: int | None = None
    came: int = 0  # when the request came
    admitted: tuple[bool, ...] = ()  # of an end: by which world


class Replay:
    """One run."""

    def __init__(self, conn: sqlite3.Connection, question: Question, each_page: Callable[[], None]) -> None:
        self._conn = conn
        self._question = question
        self._each_page = each_page
        rows = all_limits(conn)
        in_force, proposed = Rules(), Rules()
        in_force.load(rows)
        proposed.load(rows)
        proposed.replace(question.target, proposed.own(question.target) | question.values)
        self._worlds = (_World(in_force), _World(proposed))
        self._events: list[tuple[int, int, _Event]] = []  # by moment, then in the order in which they were found
        self._made = 0
        self._requests: Counter[str] = Counter()
        self._concerned = 0
        self._refused_then = 0
        self._offset = question.now_clock - question.now_us  # from the wall clock to the gateway's, thereabouts
        self._reached = question.since_us

    def run(self) -> LimitsTried:
        """Replay it all, or as far as time allows."""
        question, started = self._question, time.monotonic()
        history = max(world.rules.needed_history() for world in self._worlds)
        start_us = question.since_us - history
        seq = first_since(self._conn, start_us + self._offset)
        for past in admissions_settled_from(self._conn, seq):
            self._put_end(past)
        refused = self._refused(since_us=start_us)
        waiting = next(refused, None)
        complete = True
        while page := attempts_from(self._conn, seq, PAGE):
            self._each_page()
            seq = page[-1].seq + 1
            for attempt in page:
                if attempt.admitted_us >= question.now_us:
                    continue
                while waiting is not None and waiting.at_us <= attempt.admitted_us:
                    self._put_refused(waiting)
                    waiting = next(refused, None)
                self._offset = attempt.admitted_clock - attempt.admitted_us
                if attempt.admitted_us <= start_us:
                    self._put_end(attempt)
                else:
                    self._put(attempt)
            self._go_on(until=page[-1].admitted_clock - OUT_OF_ORDER)
            if time.monotonic() - started > question.longest:
                complete = False
                break
        while complete and waiting is not None:
            self._put_refused(waiting)
            waiting = next(refused, None)
        if complete:
            self._go_on(until=None)
        return self._result(complete, time.monotonic() - started)

    # --- what comes ---

    def _put(self, attempt: Attempt) -> None:
        subject = Subject(attempt.user_id, attempt.user, attempt.key_id, attempt.model, attempt.address)
        self._push(
            attempt.admitted_clock,
            subject,
            counts=attempt.admitted_us >= self._question.since_us,
            tokens=attempt.tokens,
            kept=bool(attempt.kept),
            settled=attempt.settled_clock,
        )

    def _put_end(self, past: Attempt | PastAdmission) -> None:
        """One that came before the replay begins: only its tokens enter, when it ended."""
        if past.settled_clock is not None:
            subject = Subject(past.user_id, past.user, past.key_id, past.model, past.address)
            more: dict[str, Any] = {"tokens": past.tokens, "kept": True, "admitted": (True, True)}
            self._push(past.settled_clock, subject, counts=False, **more)

    def _refused(self, since_us: int) -> Iterator[RefusedAttempts]:
        """What met a full window, by its first moment."""
        place = (since_us, 0)
        while page := refused_from(self._conn, place, self._question.now_us, PAGE):
            place = (page[-1].at_us, page[-1].seq + 1)
            yield from (each for each in page if each.reason in FIELDS)

    def _put_refused(self, some: RefusedAttempts) -> None:
        """So many within one minute, from their first moment: when each came is not known."""
        subject = Subject(some.user_id or 0, some.user, some.key_id, some.model, some.address)
        left = (some.at_us // MINUTE + 1) * MINUTE - some.at_us
        for number in range(some.times):
            at_us = some.at_us + number * left // some.times
            counts = self._question.since_us <= at_us < self._question.now_us
            self._refused_then += counts
            self._push(at_us + self._offset, subject, counts=counts)

    def _push(self, at: int, subject: Subject, **more: Any) -> None:
        self._made += 1
        heapq.heappush(self._events, (at, self._made, _Event(subject, **more)))

    # --- what happens ---

    def _go_on(self, *, until: int | None) -> None:
        events = self._events
        while events and (until is None or events[0][0] <= until):
            at, _, event = heapq.heappop(events)
            if event.admitted:
                self._end(at, event)
            else:
                self._come(at, event)

    def _come(self, at: int, event: _Event) -> None:
        subject, counts = event.subject, event.counts
        if counts:
            self._requests[subject.email] += 1
            self._concerned += self._concerns(subject)
            self._reached = at - self._offset
        now, proposed = self._worlds
        admitted = (now.admits(subject, at, counts=counts), proposed.admits(subject, at, counts=counts))
        if event.settled is not None and (admitted[0] or admitted[1]):
            event.came, event.admitted = at, admitted
            self._made += 1
            heapq.heappush(self._events, (max(event.settled, at), self._made, event))

    def _concerns(self, subject: Subject) -> bool:
        """Whether any of the proposed values is for such a request: without one that is, nothing is tested."""
        target, proposed = self._question.target, self._worlds[1]
        if target == DEFAULT:
            return not self._question.values.keys() <= proposed.rules.own("user:" + subject.email).keys()
        return any(target == each for each, _ in proposed.tallies.applying(subject))

    def _end(self, at: int, event: _Event) -> None:
        for world, admitted in zip(self._worlds, event.admitted, strict=True):
            if not admitted:
                continue
            if event.kept:
                world.tallies.spend(event.subject, event.tokens, at, now=at)
            else:
                world.tallies.take_back(event.subject, event.came)

    def _result(self, complete: bool, seconds: float) -> LimitsTried:
        now, proposed = self._worlds
        names = sorted(proposed.of_user.keys() | now.of_user.keys(), key=lambda name: (-proposed.of_user[name], name))
        return LimitsTried(
            target=self._question.target,
            since=iso(self._question.since_us),
            until=iso(self._question.now_us if complete else self._reached),
            requests=self._requests.total(),
            refused=proposed.refused,
            refused_now=now.refused,
            refused_then=self._refused_then,
            users=[
                TriedUser(name, self._requests[name], proposed.of_user[name], now.of_user[name])
                for name in names[:MOST_USERS]
            ],
            limits=[
                TriedLimit(target, limit, count) for (target, limit), count in proposed.of_limit.most_common(MOST_USERS)
            ],
            complete=complete,
            seconds=round(seconds, 3),
            concerned=self._concerned,
        )


def replay(
    conn: sqlite3.Connection, question: Question | Mapping[str, Any], *, each_page: Callable[[], None] = lambda: None
) -> LimitsTried:
    """Try it. `each_page` is called now and then and may raise to stop."""
    return Replay(conn, msgspec.convert(question, Question), each_page).run()
