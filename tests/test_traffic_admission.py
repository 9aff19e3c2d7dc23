"""Admission: every limit in one step, exact over any history, free for the refused, true in what it promises."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from common.errors import LimitExceeded, Unavailable
from daemon.traffic.admission import Admission, LimitUse, Subject, Ticket
from daemon.traffic.seats import Seats
from tests.rigs.traffic import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    LimitsInMemory,
    MovedClock,
    admitted,
    many_seats,
    subject,
)
from tests.rigs.until import until

SEATS = many_seats()


def opened(**default: int | None) -> tuple[Admission, LimitsInMemory, MovedClock]:
    limits, clock = LimitsInMemory(**default), MovedClock()
    return Admission(limits, clock), limits, clock


def refused(admission: Admission, who: Subject, seats: Seats = SEATS) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as error:
        admission.admit(who, seats)
    return error.value


# --- R1: against everything that ever happened ---


@dataclass
class Remembered:
    """An admission as the journal knows it."""

    subject: Subject
    admitted_clock: int
    given_back: bool = False
    tokens: int = 0
    spent_clock: int = 0


class AdmissionAgainstOracle(RuleBasedStateMachine):
    """Users, keys, models, networks, requests and tokens, give-backs, changes of rules, sweeps: the oracle is a list of
    all admissions and a sum over it. Rules look back at least as far as memory is kept here (a longer look back is the
    journal's business)."""

    tickets = Bundle("tickets")

    who = st.builds(
        subject,
        email=st.sampled_from(["ana@x.org", "bob@x.org"]),
        key=st.sampled_from([None, "k1", "k2"]),
        model=st.sampled_from(["a:latest", "b:7b"]),
        address=st.sampled_from(["10.0.0.1", "192.0.2.1"]),
    )
    targets = st.sampled_from(["default", "ana@x.org", "key:k1", "model:a", "address:10.0.0.0/8"])
    numbers = st.one_of(st.none(), st.integers(0, 4))

    def __init__(self) -> None:
        super().__init__()
        # A day's window that never refuses keeps everything in memory, so that changes need no journal.
        self.kept = {"requests_per_day": 10**9, "tokens_per_day": 10**9}
        self.admission, self.limits, self.clock = opened(**self.kept)
        self.rules: dict[str, dict[str, int | None]] = {"default": dict(self.kept)}
        self.admissions: list[tuple[int, Subject]] = []
        self.spent: list[tuple[int, Subject, int]] = []
        self.latest = 0

    @initialize()
    def everything_is_kept(self) -> None:
        for target in ["ana@x.org", "key:k1", "model:a", "address:10.0.0.0/8"]:
            self.rules[target] = dict(self.kept)
            self.limits.set(target, self.kept)

    @rule(step=st.sampled_from([0, 1, SECOND, MINUTE - 1, MINUTE, 20 * MINUTE, HOUR - 1, HOUR, DAY]))
    def time_passes(self, step: int) -> None:
        self.clock.advance(step)

    @rule()
    def time_passes_to_the_very_moment_that_a_place_frees(self) -> None:
        if self.admissions:
            self.clock.gateway = max(self.clock.gateway, self.admissions[-1][0] + MINUTE)

    @rule(
        of=targets,
        per_minute=numbers,
        per_hour=numbers,
        tokens=st.one_of(st.none(), st.integers(0, 30)),
    )
    def rule_changes(self, of: str, per_minute: int | None, per_hour: int | None, tokens: int | None) -> None:
        values = self.kept | {
            "requests_per_minute": per_minute,
            "requests_per_hour": per_hour,
            "tokens_per_minute": tokens,
        }
        self.rules[of] = values
        self.limits.set(of, values)

    @rule(target=tickets, who=who)
    def request(self, who: Subject) -> object:
        # Each admission has a microsecond of its own.
        now = max(self.clock.now(), self.latest + 1)
        expected = self.oracle_admits(who, now)
        ticket = admitted(self.admission, who, SEATS)
        assert (ticket is not None) == expected
        if ticket is None:
            return multiple()
        assert ticket.admitted_clock == now
        self.latest = now
        self.admissions.append((now, who))
        return ticket

    @rule(ticket=tickets)
    def give_back(self, ticket: Ticket) -> None:
        if not ticket.spent_clock:
            self.admission.give_back(ticket)
            self.admissions = [each for each in self.admissions if each[0] != ticket.admitted_clock]

    @rule(ticket=tickets, tokens=st.integers(0, 20))
    def settle(self, ticket: Ticket, tokens: int) -> None:
        if not ticket.spent_clock and not ticket.given_back:
            self.admission.spend_tokens(ticket, tokens)
            self.spent.append((self.clock.now(), ticket.subject, tokens))
        self.admission.settled(ticket)

    @rule()
    def sweep(self) -> None:
        self.admission.sweep()

    @rule()
    def restart(self) -> None:
        """kill -9, and a start that reads the journal (R3): every place and every token is where it was."""
        before = self.admission
        self.clock.advance(SECOND)
        self.limits.changed.clear()
        self.admission = Admission(self.limits, self.clock)
        for ticket in before._open.values():
            self.admission._open[ticket.admitted_clock] = ticket
            ticket._admission = self.admission
        past = [Remembered(who, at) for at, who in self.admissions]
        past += [Remembered(who, 0, given_back=True, tokens=n, spent_clock=at) for at, who, n in self.spent]
        rebuild = self.admission.begin_rebuild()
        rebuild.present.clear()
        rebuild.remember(past)
        self.admission.finish_rebuild()

    @invariant()
    def memory_holds_only_what_is_looked_at(self) -> None:
        horizon = self.clock.now() - DAY
        alive = [one for one in self.admissions if one[0] > horizon] + [one for one in self.spent if one[0] > horizon]
        if not alive:
            self.admission.sweep()
            assert len(self.admission._tallies) == 0

    def oracle_admits(self, who: Subject, now: int) -> bool:
        for target, applies in (
            ("user", lambda other: other.email == who.email),
            ("key:k1", lambda other: other.key_id == "k1"),
            ("model:a", lambda other: other.model == "a:latest"),
            ("address:10.0.0.0/8", lambda other: other.address == "10.0.0.1"),
        ):
            if target != "user" and not applies(who):
                continue
            said = (
                self.rules["default"] | (self.rules["ana@x.org"] if who.email == "ana@x.org" else {})
                if target == "user"
                else self.rules[target]
            )
            for name, period in (("requests_per_minute", MINUTE), ("requests_per_hour", HOUR)):
                used = sum(1 for at, other in self.admissions if applies(other) and now - period < at <= now)
                if said.get(name) is not None and used >= said[name]:
                    return False
            tokens = sum(n for at, other, n in self.spent if applies(other) and now - MINUTE < at <= now)
            if said.get("tokens_per_minute") is not None and tokens >= said["tokens_per_minute"]:
                return False
        return True


TestAdmissionAgainstOracle = AdmissionAgainstOracle.TestCase
TestAdmissionAgainstOracle.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


async def test_sixty_four_at_once_against_fifty_admit_exactly_fifty() -> None:
    """R1: whatever order the event loop runs them in."""
    admission, _, _ = opened(requests_per_minute=50)

    async def one() -> bool:
        await asyncio.sleep(0)
        return admitted(admission, subject(), SEATS) is not None

    assert sum(await asyncio.gather(*(one() for _ in range(64)))) == 50


def test_deciding_and_charging_is_one_step_without_an_await() -> None:
    """What makes R1 true under concurrency: nobody can come between looking and taking."""
    for step in (Admission.admit, Seats.check_room, Seats.enter, Ticket.acquire, Ticket.release):
        assert not inspect.iscoroutinefunction(step)


# --- what is refused ---


def test_a_client_that_waits_retry_after_succeeds() -> None:
    """R4: at any point of the window, for each request window, rounded up and never early."""
    for field, per in (("requests_per_minute", MINUTE), ("requests_per_hour", HOUR), ("requests_per_day", DAY)):
        admission, _, clock = opened(**{field: 3})
        for step in (0, per // 7, per // 3 + 1):
            clock.advance(step)
            assert admitted(admission, subject(), SEATS)
        for step in (0, 1, SECOND // 3):
            clock.advance(step)
            error = refused(admission, subject())
            assert error.retry_after is not None
            assert error.retry_after <= per // SECOND
            assert error.detail["limit"] == field
            assert not error.detail["estimate"]
        # A second before that, rounded down, would have been too early.
        clock.advance((error.retry_after - 1) * SECOND)
        assert not admitted(admission, subject(), SEATS)
        clock.advance(SECOND)
        assert admitted(admission, subject(), SEATS)


def test_of_several_full_windows_the_one_that_frees_last_is_told() -> None:
    """Else the client would come back into the next refusal."""
    admission, limits, clock = opened(requests_per_minute=1)
    limits.set("model:smollm2:135m", {"requests_per_hour": 1})
    assert admitted(admission, subject(), SEATS)
    error = refused(admission, subject())
    assert (error.detail["limit"], error.retry_after) == ("requests_per_hour", 3600)
    assert error.detail["scope"] == "model smollm2:135m: 1 requests per hour"
    clock.advance(HOUR)
    assert admitted(admission, subject(), SEATS)


def test_a_refused_request_leaves_no_trace() -> None:
    """Row 74: a hundred refusals, of a window or of the queue, use nothing and delay nothing."""
    admission, _, clock = opened(requests_per_minute=2)
    assert admitted(admission, subject(), SEATS)
    clock.advance(30 * SECOND)
    assert admitted(admission, subject(), SEATS)
    before = admission.in_use()
    for _ in range(100):
        clock.advance(SECOND // 10)
        refused(admission, subject())
        refused(admission, subject(address="10.0.0.1", key="other"))
    assert admission.in_use() == before
    clock.advance(20 * SECOND)
    assert admitted(admission, subject(), SEATS)


async def test_a_full_queue_charges_no_window() -> None:
    """All or nothing: the queue's bounds are part of the same step."""
    admission, _, _ = opened(requests_per_minute=10)
    narrow = Seats("narrow", 1, queue_size=1, per_user=1, longest_wait=60)
    places = [narrow.enter(admission.admit(subject(), narrow), "x") for _ in range(2)]
    for _ in range(20):
        with pytest.raises(Unavailable) as error:
            admission.admit(subject(), narrow)
        assert error.value.status == 503
    assert admission.in_use("user:ana@example.org") == [LimitUse("user:ana@example.org", "requests_per_minute", 2, 10)]
    for place in places:
        place.leave()


def test_one_full_window_charges_none_of_the_others() -> None:
    """All or nothing between the windows: the key's is full, the user's is not touched."""
    admission, limits, _ = opened(requests_per_minute=10)
    limits.set("key:ab12", {"requests_per_minute": 1})
    assert admitted(admission, subject(), SEATS)
    refused(admission, subject())
    assert admission.in_use("user:ana@example.org")[0].used == 1
    assert admitted(admission, subject(key=None), SEATS)


def test_nothing_is_allowed_where_the_maximum_is_zero() -> None:
    """And nobody is told to wait for it."""
    admission, limits, _ = opened()
    limits.set("model:smollm2:135m", {"requests_per_minute": 0})
    error = refused(admission, subject())
    assert error.retry_after is None
    assert error.detail["frees_at"] is None
    assert admitted(admission, subject(model="other:1b"), SEATS)


# --- what is charged ---


def test_a_request_that_was_never_sent_gives_its_place_back() -> None:
    """Left while queued, queue timeout, upstream not reachable: the place is free at once, in every window."""
    admission, limits, _ = opened(requests_per_minute=1)
    limits.set("address:192.0.2.0/24", {"requests_per_hour": 1})
    ticket = admission.admit(subject(), SEATS)
    admission.give_back(ticket)
    admission.give_back(ticket)
    assert admission.in_use() == []
    assert admitted(admission, subject(), SEATS)
    refused(admission, subject())


def test_giving_back_takes_back_ones_own_place_only() -> None:
    """Two in the same microsecond: each has a moment of its own."""
    admission, _, clock = opened(requests_per_minute=2)
    first, second = admission.admit(subject(), SEATS), admission.admit(subject(), SEATS)
    assert second.admitted_clock == first.admitted_clock + 1
    admission.give_back(first)
    clock.advance(MINUTE)
    assert admission.in_use("user:ana@example.org")[0].used == 1, "the second, a microsecond later, is still in"


def test_tokens_admit_while_less_than_the_maximum_is_used() -> None:
    """The last one may overshoot; what is in flight is not counted until it is settled."""
    admission, _, clock = opened(tokens_per_minute=100)
    first, second = admission.admit(subject(), SEATS), admission.admit(subject(), SEATS)
    admission.spend_tokens(first, 99)
    third = admission.admit(subject(), SEATS)
    clock.advance(10 * SECOND)
    admission.spend_tokens(second, 500)
    error = refused(admission, subject())
    assert (error.detail["used"], error.detail["max"]) == (599, 100)
    assert error.detail["estimate"]
    assert error.retry_after == 60
    clock.advance(MINUTE - 1)
    refused(admission, subject())
    clock.advance(1)
    assert admitted(admission, subject(), SEATS)
    admission.spend_tokens(third, 0)
    with pytest.raises(RuntimeError, match="charged already"):
        admission.spend_tokens(third, 7)


def test_a_change_of_a_limit_acts_on_the_next_request() -> None:
    """Up and down; what was used before counts; what is gone frees at once."""
    admission, limits, _ = opened(requests_per_minute=3)
    for _ in range(3):
        assert admitted(admission, subject(), SEATS)
    refused(admission, subject())
    limits.set("ana@example.org", {"requests_per_minute": 4})
    assert admitted(admission, subject(), SEATS)
    limits.set("ana@example.org", {"requests_per_minute": 2})
    assert refused(admission, subject()).detail["used"] == 4
    limits.set("ana@example.org", {"requests_per_minute": None})
    assert admitted(admission, subject(), SEATS)


def test_a_window_is_shared_by_all_that_match() -> None:
    """`model:` and `address:` are one window each; the default is one for each user."""
    admission, limits, _ = opened(requests_per_minute=2)
    limits.set("address:10.0.0.0/8", {"requests_per_minute": 3})
    people = [f"u{number}@x.org" for number in range(5)]
    results = [admitted(admission, subject(who, address="10.9.8.7"), SEATS) is not None for who in people]
    assert results == [True, True, True, False, False]
    assert admitted(admission, subject(people[4], address="192.0.2.1"), SEATS)


# --- what is told ---


def test_the_header_fields_show_the_limit_nearest_to_its_end() -> None:
    """Wire: `RateLimit-Policy` and `RateLimit` on good answers, too."""
    admission, limits, clock = opened(requests_per_minute=10)
    limits.set("key:ab12", {"requests_per_day": 3})
    ticket = admission.admit(subject(), SEATS)
    assert admission.rate_limit_headers(ticket) == {
        "RateLimit-Policy": '"key-rpd";q=3;w=86400',
        "RateLimit": '"key-rpd";r=2;t=86400',
    }
    clock.advance(15 * SECOND)
    other = admission.admit(subject(key=None), SEATS)
    assert admission.rate_limit_headers(other) == {
        "RateLimit-Policy": '"rpm";q=10;w=60',
        "RateLimit": '"rpm";r=8;t=45',
    }
    limits.set("default", {})
    assert admission.rate_limit_headers(other) == {}


def test_what_is_in_use_is_told_for_each_limit() -> None:
    """For the limits screen: used of max, now; concurrency included."""
    admission, limits, clock = opened(requests_per_minute=10, tokens_per_day=1000, concurrency=2)
    ticket = admission.admit(subject(), SEATS)
    assert ticket.acquire()
    admission.spend_tokens(ticket, 7)
    limits.set("model:smollm2:135m", {"requests_per_hour": 5})
    user = "user:ana@example.org"
    assert admission.in_use() == [
        LimitUse(user, "requests_per_minute", 1, 10),
        LimitUse(user, "tokens_per_day", 7, 1000),
        LimitUse(user, "concurrency", 1, 2),
    ]
    ticket.release()
    clock.advance(MINUTE)
    assert admission.in_use() == [LimitUse(user, "tokens_per_day", 7, 1000)]
    assert [use.used for use in admission.in_use(user)] == [0, 7, 0]


# --- concurrency ---


def test_concurrency_counts_who_runs_when_the_limit_changes() -> None:
    """A limit that comes later holds for those that run already; every target is taken or none."""
    admission, limits, _ = opened()
    running = [admission.admit(subject(), SEATS) for _ in range(2)]
    assert all(ticket.acquire() for ticket in running)
    limits.set("ana@example.org", {"concurrency": 2})
    limits.set("model:smollm2:135m", {"concurrency": 3})
    waiting = admission.admit(subject(), SEATS)
    assert not waiting.acquire()
    bob = admission.admit(subject("bob@x.org"), SEATS)
    assert bob.acquire()
    running[0].release()
    assert waiting.acquire()
    running[1].release()
    eve = admission.admit(subject("eve@x.org"), SEATS)
    assert eve.acquire()
    assert not admission.admit(subject("eve@x.org"), SEATS).acquire(), "three of that model run"
    for ticket in (waiting, bob, eve):
        ticket.release()
    assert admission.in_use("model:smollm2:135m")[0].used == 0


# --- memory and time ---


def test_memory_is_bounded_by_what_is_active() -> None:
    """Ten thousand users came by: a minute later nothing is kept of them; without limits nothing ever was."""
    admission, limits, clock = opened(requests_per_minute=10)
    for number in range(10_000):
        ticket = admission.admit(subject(f"u{number}@x.org", key=f"k{number}", address=f"10.0.{number % 256}.1"), SEATS)
        admission.spend_tokens(ticket, 5)
        admission.settled(ticket)
        admission.address_bound.admit(f"10.0.{number % 256}.1")
    assert len(admission._tallies) == 10_000
    clock.advance(MINUTE + SECOND)  # the clock stood still: the last moment was some milliseconds ahead of it
    admission.sweep()
    assert repr(admission) == "<Admission 0 tallies, 0 open, 0 running>"
    assert len(admission.address_bound) == 0
    limits.set("default", {})
    admission.settled(admission.admit(subject(), SEATS))
    assert len(admission._tallies) == 0


def test_a_busy_user_costs_what_the_windows_look_at() -> None:
    """Also between two sweeps: what is too old goes as the next comes."""
    admission, _, clock = opened(requests_per_minute=10**6, tokens_per_minute=10**9)
    for _ in range(10_000):
        clock.advance(SECOND // 10)
        ticket = admission.admit(subject(), SEATS)
        admission.spend_tokens(ticket, 3)
        admission.settled(ticket)
    tally = admission._tallies._of["user:ana@example.org"]
    assert len(tally.requests) <= 600
    assert len(tally.tokens) <= 600


def test_a_refusal_remembers_nobody() -> None:
    """A stranger's model, key or address that is refused costs no memory."""
    admission, _, _ = opened(requests_per_minute=0)
    for number in range(100):
        refused(admission, subject(f"u{number}@x.org"))
    assert len(admission._tallies) == 0


def test_the_wall_clock_decides_nothing() -> None:
    """R2: a day forward, a day back: every decision is as if it had not moved; only `frees_at` is told in its terms."""
    admission, _, clock = opened(requests_per_minute=1)
    assert admitted(admission, subject(), SEATS)
    for step in (DAY, -3 * DAY, 10 * DAY):
        clock.unix += step
        assert refused(admission, subject()).retry_after == 60
    clock.advance(MINUTE)
    clock.unix -= 400 * DAY
    assert admitted(admission, subject(), SEATS)
    assert refused(admission, subject()).retry_after == 60


async def test_sweeping_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` is the owner's background task."""
    monkeypatch.setattr("daemon.traffic.admission.SWEEP_EVERY", 0.0)
    admission, _, clock = opened(requests_per_minute=1)
    for number in range(1_700):
        assert admitted(admission, subject(f"u{number}@x.org"), SEATS)
    admission.address_bound.admit("192.0.2.1")
    clock.advance(MINUTE + SECOND)
    sweeping = asyncio.ensure_future(admission.run())
    await until(lambda: len(admission._tallies) == 0 and len(admission.address_bound) == 0)
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
