"""Exact sliding windows: what was used in (now - period, now], to the microsecond.

Two kinds of history (moments for requests, amounts for tokens) hold what happened in two machine words an entry at
most; a window is a rule over a history and holds nothing. Rule: pure, no clock of its own; every time is gateway-clock
microseconds (`daemon/clock.py`) and is handed in. An entry exactly one period old is out: half-open on the left.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Protocol

from daemon.clock import Clock
from daemon.traffic.refusals import REQUESTS_PER_MINUTE, FullWindow, refusal

_COMPACT_FROM = 64  # forgotten entries are kept until they are so many, and half of all: forgetting is O(1) amortised


class History(Protocol):
    """What a window looks at."""

    def used(self, after: int) -> int:
        """How much entered later than `after`."""
        ...

    def falls_below(self, limit: int) -> int:
        """The time of the entry by whose leaving, with all older ones, less than `limit` (>= 1) remains.

        Only to be asked where at least `limit` is there.
        """
        ...

    def first(self, after: int) -> int | None:
        """The time of the oldest entry later than `after`."""
        ...


class Moments:
    """When something happened, oldest first; eight bytes each."""

    __slots__ = ("_first", "_times")

    def __init__(self) -> None:
        self._times = array("q")
        self._first = 0  # entries before this index are forgotten

    def __len__(self) -> int:
        return len(self._times) - self._first

    def add(self, at: int) -> None:
        """It happened at `at`; usually the latest so far, but any order is right."""
        times = self._times
        if times and at < times[-1]:
            times.insert(bisect_right(times, at, self._first), at)
        else:
            times.append(at)

    def remove(self, at: int) -> bool:
        """Take back one entry of exactly `at`; whether there was one."""
        times = self._times
        index = bisect_left(times, at, self._first)
        if index == len(times) or times[index] != at:
            return False
        del times[index]
        return True

    def used(self, after: int) -> int:
        times, first = self._times, self._first
        if first < len(times) and times[first] > after:
            return len(times) - first  # all of it, as so often of the long windows
        return len(times) - bisect_right(times, after, first)

    def falls_below(self, limit: int) -> int:
        return self._times[len(self._times) - limit]

    def first(self, after: int) -> int | None:
        index = bisect_right(self._times, after, self._first)
        return self._times[index] if index < len(self._times) else None

    def forget(self, until: int) -> None:
        """Drop what happened at `until` or before."""
        first, times = self._first, self._times
        if first < len(times) and times[first] > until:
            return
        self._first = first = bisect_right(times, until, first)
        if first >= _COMPACT_FROM and first * 2 >= len(times):
            del times[:first]
            self._first = 0


class Amounts:
    """When how much was used, oldest first; sixteen bytes an entry: its time, and the running total up to it."""

    __slots__ = ("_base", "_first", "_times", "_totals")

    def __init__(self) -> None:
        self._times = array("q")
        self._totals = array("q")
        self._base = 0  # the total before the first entry that is not forgotten
        self._first = 0

    def __len__(self) -> int:
        return len(self._times) - self._first

    def add(self, at: int, amount: int) -> None:
        """`amount` was used at `at`; usually the latest so far, but any order is right."""
        if amount <= 0:
            return
        times, totals = self._times, self._totals
        if not times or at >= times[-1]:
            totals.append(self._total() + amount)
            times.append(at)
            return
        index = bisect_right(times, at, self._first)
        totals.insert(index, self._total_before(index))
        times.insert(index, at)
        for later in range(index, len(totals)):
            totals[later] += amount

    @property
    def total(self) -> int:
        """How much was used in all that is remembered."""
        return self._total() - self._base

    def used(self, after: int) -> int:
        times, first = self._times, self._first
        if first < len(times) and times[first] > after:
            return self._totals[-1] - self._base
        return self._total() - self._total_before(bisect_right(times, after, first))

    def falls_below(self, limit: int) -> int:
        return self._times[bisect_right(self._totals, self._total() - limit, self._first)]

    def first(self, after: int) -> int | None:
        index = bisect_right(self._times, after, self._first)
        return self._times[index] if index < len(self._times) else None

    def forget(self, until: int) -> None:
        """Drop what was used at `until` or before."""
        first, times = self._first, self._times
        if first < len(times) and times[first] > until:
            return
        first = bisect_right(times, until, first)
        self._base = self._total_before(first)
        self._first = first
        if first >= _COMPACT_FROM and first * 2 >= len(times):
            del times[:first]
            del self._totals[:first]
            self._first = 0

    def _total(self) -> int:
        return self._totals[-1] if len(self._totals) > self._first else self._base

    def _total_before(self, index: int) -> int:
        return self._totals[index - 1] if index > self._first else self._base


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """At most `max` within any `period` microseconds."""

    max: int
    period: int

    def used(self, history: History, now: int) -> int:
        """What counts at `now`."""
        return history.used(now - self.period)

    def admits(self, history: History, now: int) -> bool:
        """Whether one more may enter at `now`."""
        return history.used(now - self.period) < self.max

    def frees_at(self, history: History, now: int) -> int | None:
        """From when on it admits, if nothing else enters; `now` where it admits already, None where it never will."""
        if self.max <= 0:
            return None
        if self.admits(history, now):
            return now
        # An entry is out exactly one period after it came in, so that very moment is the first that admits.
        return history.falls_below(self.max) + self.period


class AddressBound:
    """The generous bound per address on calls that are not inference: 600 within any minute.

    Memory: a history per address that called within the last period, of at most `max_requests` moments; at most
    `most_addresses` of them, beyond which the one that has not called for longest is forgotten.
    """

    def __init__(
        self, clock: Clock, *, max_requests: int = 600, period: int = 60_000_000, most_addresses: int = 20_000
    ) -> None:
        self._clock = clock
        self._window = SlidingWindow(max_requests, period)
        self._calls: dict[str, Moments] = {}  # who called longest ago comes first
        self._most_addresses = most_addresses

    def admit(self, address: str) -> None:
        """Count one call; LimitExceeded where the address had its share (a refused call is not counted)."""
        now = self._clock.now()
        window = self._window
        calls = self._calls.pop(address, None)
        if calls is None:
            calls = Moments()
            if len(self._calls) >= self._most_addresses:
                del self._calls[next(iter(self._calls))]
        self._calls[address] = calls
        calls.forget(now - window.period)
        if not window.admits(calls, now):
            full = FullWindow(
                field=REQUESTS_PER_MINUTE,
                scope=f"address {address}",
                policy="address",
                used=len(calls),
                max=window.max,
                period=window.period,
                frees_at=window.frees_at(calls, now),
            )
            raise refusal(full, now=now, wall=self._clock.wall())
        calls.add(now)

    def sweep(self) -> None:
        """Forget the addresses that did not call within the last period."""
        horizon = self._clock.now() - self._window.period
        while self._calls:
            address, calls = next(iter(self._calls.items()))
            calls.forget(horizon)
            if calls:
                return  # whoever comes after this one called later
            del self._calls[address]

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"<AddressBound {self._window.max} per {self._window.period // 1_000_000} s, {len(self)} addresses>"
