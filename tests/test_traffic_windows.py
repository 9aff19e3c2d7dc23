"""Sliding windows are exact to the microsecond, for requests and for tokens, and cost what is in them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.errors import LimitExceeded
from daemon.traffic.windows import AddressBound, Amounts, Moments, SlidingWindow
from tests.rigs.traffic import MINUTE, SECOND, START, MovedClock

PERIOD = 10  # short, so that equality with the boundary is met all the time


class WindowsAgainstOracle(RuleBasedStateMachine):
    """R1: whatever happens in whatever order, windows say what a list of everything that ever happened says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000
        self.requests = Moments()
        self.tokens = Amounts()
        self.all_requests: list[int] = []
        self.all_tokens: list[tuple[int, int]] = []
        self.horizon = -(10**9)

    @rule(step=st.integers(0, PERIOD + 2))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule()
    def request(self) -> None:
        self.requests.add(self.now)
        self.all_requests.append(self.now)

    @rule(amount=st.integers(0, 7))
    def spend(self, amount: int) -> None:
        self.tokens.add(self.now, amount)
        self.all_tokens.append((self.now, amount))

    @rule(age=st.integers(0, PERIOD), amount=st.integers(1, 7))
    def something_older_becomes_known(self, age: int, amount: int) -> None:
        at = self.now - age
        if at > self.horizon:
            self.requests.add(at)
            self.all_requests.append(at)
            self.tokens.add(at, amount)
            self.all_tokens.append((at, amount))

    @precondition(lambda self: self.all_requests)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(self.all_requests))
        there = self.requests.remove(at)
        assert there == (at > self.horizon)
        if there:
            self.all_requests.remove(at)

    @rule(age=st.integers(PERIOD, PERIOD + 3))
    def forget(self, age: int) -> None:
        self.horizon = max(self.horizon, self.now - age)
        self.requests.forget(self.now - age)
        self.tokens.forget(self.now - age)
        self.all_requests = [at for at in self.all_requests if at > self.horizon]

    @invariant()
    def windows_agree(self) -> None:
        for period in (1, PERIOD - 1, PERIOD):
            counted = [at for at in self.all_requests if self.now - period < at <= self.now]
            spent = [(at, n) for at, n in self.all_tokens if self.now - period < at <= self.now and n]
            for limit in (0, 1, 2, 5):
                window = SlidingWindow(limit, period)
                assert window.used(self.requests, self.now) == len(counted)
                assert window.admits(self.requests, self.now) == (len(counted) < limit)
                assert window.used(self.tokens, self.now) == sum(n for _, n in spent)
                assert window.frees_at(self.requests, self.now) == first_moment_below(
                    [(at, 1) for at in counted], limit, self.now, period
                )
                assert window.frees_at(self.tokens, self.now) == first_moment_below(spent, limit, self.now, period)

    @invariant()
    def what_is_forgotten_is_not_kept(self) -> None:
        assert len(self.requests) == len(self.all_requests)
        assert len(self.tokens) == len([at for at, n in self.all_tokens if n and at > self.horizon])


def first_moment_below(entries: list[tuple[int, int]], limit: int, now: int, period: int) -> int | None:
    """By trying every moment from now on."""
    if limit == 0:
        return None
    for moment in range(now, now + period + 1):
        if sum(amount for at, amount in entries if at > moment - period) < limit:
            return moment
    raise AssertionError("after a whole period everything has left")


TestWindowsAgainstOracle = WindowsAgainstOracle.TestCase
TestWindowsAgainstOracle.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_entry_is_out_exactly_one_period_later() -> None:
    """Half-open: (t - period, t]."""
    window, history = SlidingWindow(1, MINUTE), Moments()
    history.add(START)
    assert not window.admits(history, START + MINUTE - 1)
    assert window.admits(history, START + MINUTE)
    assert window.frees_at(history, START + 5) == START + MINUTE


@given(st.lists(st.integers(0, 400), max_size=300), st.integers(1, 20))
def test_no_window_anywhere_holds_more_than_its_maximum(steps: list[int], limit: int) -> None:
    """R1, the other way round: of what was let in, no stretch of one period holds more than the limit."""
    window, history, let_in, now = SlidingWindow(limit, 1_000), Moments(), [], 0
    for step in steps:
        now += step
        if window.admits(history, now):
            history.add(now)
            let_in.append(now)
    for index in range(len(let_in) - limit):
        assert let_in[index + limit] - let_in[index] >= 1_000


def test_a_hundred_thousand_a_day_cost_less_than_a_megabyte() -> None:
    """Compact: eight bytes a request, and what is forgotten is given back."""
    history = Moments()
    for index in range(100_000):
        history.add(START + index * 1_000)
    assert sys.getsizeof(history._times) < 1_000_000
    history.forget(START + 99_990 * 1_000)
    assert len(history) == 9
    assert sys.getsizeof(history._times) < 2_000


def test_forgetting_little_by_little_stays_compact_and_right() -> None:
    """A busy target over hours: the arrays hold about what the window looks at."""
    moments, amounts = Moments(), Amounts()
    for index in range(20_000):
        now = START + index
        moments.add(now)
        amounts.add(now, 3)
        moments.forget(now - 100)
        amounts.forget(now - 100)
        assert (moments.used(now - 100), amounts.used(now - 100)) == (min(index + 1, 100), 3 * min(index + 1, 100))
    assert len(moments._times) <= 300
    assert len(amounts._times) <= 300


def test_an_address_has_six_hundred_calls_a_minute() -> None:
    """Contract, "What is counted": then 429 with a true Retry-After; a refused call does not count."""
    clock = MovedClock()
    bound = AddressBound(clock)
    for _ in range(600):
        bound.admit("192.0.2.1")
        clock.advance(1_000)
    for _ in range(3):
        with pytest.raises(LimitExceeded) as refused:
            bound.admit("192.0.2.1")
    assert refused.value.retry_after == 60
    assert "address 192.0.2.1: 600 requests per minute" in refused.value.message
    assert refused.value.headers["RateLimit"] == '"address-rpm";r=0;t=60'
    bound.admit("192.0.2.2")
    clock.advance(refused.value.retry_after * SECOND)
    bound.admit("192.0.2.1")


def test_addresses_that_went_away_cost_nothing() -> None:
    """Memory is bounded by who called within the last minute, and by a number in any case."""
    clock = MovedClock()
    bound = AddressBound(clock, most_addresses=100)
    for index in range(500):
        bound.admit(f"192.0.2.{index}")
        bound.admit("198.51.100.1")
    assert len(bound) == 100
    assert len(bound._calls["198.51.100.1"]) == 500, "who calls all the time is not forgotten for others"
    clock.advance(MINUTE - 1)
    bound.admit("192.0.2.1")
    clock.advance(1)
    bound.sweep()
    assert list(bound._calls) == ["192.0.2.1"]


def test_an_address_that_calls_all_day_costs_no_more_than_its_minute() -> None:
    """Also between two sweeps."""
    clock = MovedClock()
    bound = AddressBound(clock)
    for _ in range(20_000):
        clock.advance(SECOND // 8)
        bound.admit("192.0.2.1")
    assert len(bound._calls["192.0.2.1"]) <= 480
