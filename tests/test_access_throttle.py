"""The login throttle (security.md P3), on a clock that stands still until it is moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import LimitExceeded
from daemon.access.throttle import Attempt, PerAddress, Throttle, network_of
from tests.rigs.traffic import HOUR, SECOND, MovedClock

ANA = "ana@example.org"
HERE, ELSEWHERE = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def throttle(clock: MovedClock) -> Throttle:
    return Throttle(clock)


def fail(throttle: Throttle, account: str = ANA, address: str = HERE, times: int = 1) -> None:
    for _ in range(times):
        throttle.failed(throttle.begin(account, address))


def wait(throttle: Throttle, account: str = ANA, address: str = HERE) -> int:
    """Seconds that an attempt would have to wait; 0 = it may begin."""
    try:
        throttle.abandoned(throttle.begin(account, address))
    except LimitExceeded as refusal:
        assert refusal.retry_after is not None
        return refusal.retry_after
    return 0


def test_four_failures_are_free(throttle: Throttle) -> None:
    """Nobody waits for a few typing errors."""
    fail(throttle, times=4)
    assert wait(throttle) == 0


def test_from_the_fifth_failure_the_wait_doubles(throttle: Throttle, clock: MovedClock) -> None:
    """1 s, 2 s, 4 s … and never more than a quarter of an hour; who waits so long may try again."""
    fail(throttle, times=4)
    waits = []
    for _ in range(14):
        fail(throttle)
        waits.append(wait(throttle))
        clock.advance(waits[-1] * SECOND - 1)
        assert wait(throttle) == 1
        clock.advance(1)
        assert wait(throttle) == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]


def test_an_attacker_elsewhere_does_not_lock_the_owner_out(throttle: Throttle, clock: MovedClock) -> None:
    """An account counts only with the address that tries it."""
    for _ in range(12):
        fail(throttle, address=ELSEWHERE)
        clock.advance(wait(throttle, address=ELSEWHERE) * SECOND)
    fail(throttle, address=ELSEWHERE)
    assert wait(throttle, address=ELSEWHERE) > 0
    assert wait(throttle, address=HERE) == 0


def test_an_address_that_tries_many_accounts_waits_for_all(throttle: Throttle) -> None:
    """Five accounts with one wrong password each are five failures of the address."""
    for number in range(5):
        fail(throttle, account=f"user{number}@example.org")
    assert wait(throttle, account="fresh@example.org") == 1
    assert wait(throttle, account="fresh@example.org", address=ELSEWHERE) == 0


def test_ones_own_right_password_buys_no_tries_at_others(throttle: Throttle) -> None:
    """A success forgets the account's failures, not the address's."""
    fail(throttle, times=4)
    throttle.succeeded(throttle.begin("attacker@example.org", HERE))
    fail(throttle)
    assert wait(throttle) == 1


def test_a_right_password_forgets_the_failures_of_its_account(throttle: Throttle, clock: MovedClock) -> None:
    """Four typing errors today and four tomorrow never add up."""
    fail(throttle, times=4)
    assert throttle.succeeded(throttle.begin(ANA, HERE)) is not None
    clock.advance(2 * HOUR)  # for the address
    fail(throttle, times=4)
    assert wait(throttle) == 0
    assert throttle.succeeded(throttle.begin("other@example.org", HERE)) is None


def test_many_attempts_at_once_get_no_more_tries_than_one_after_the_other(throttle: Throttle) -> None:
    """Decided and counted in one step: of fifty at once five run, the others wait."""
    running: list[Attempt] = []
    refused = 0
    for _ in range(50):
        try:
            running.append(throttle.begin(ANA, HERE))
        except LimitExceeded:
            refused += 1
    assert len(running) == 5
    assert refused == 45
    for attempt in running:
        throttle.failed(attempt)
    assert wait(throttle) == 1


def test_after_a_wait_one_attempt_at_a_time(throttle: Throttle, clock: MovedClock) -> None:
    """The wait that is over opens for one, not for fifty."""
    fail(throttle, times=5)
    clock.advance(1 * SECOND)
    first = throttle.begin(ANA, HERE)
    assert wait(throttle) == 1
    throttle.failed(first)
    assert wait(throttle) == 2


def test_an_attempt_that_never_came_to_a_result_counts_nothing(throttle: Throttle) -> None:
    """A full pool or a client that left is nobody's failure; nothing stays behind."""
    for _ in range(20):
        throttle.abandoned(throttle.begin(ANA, HERE))
    assert repr(throttle) == "<Throttle 0 scopes>"


def test_an_hour_without_a_failure_is_forgotten(throttle: Throttle, clock: MovedClock) -> None:
    """Counting begins anew, and the memory is freed."""
    fail(throttle, times=4)
    clock.advance(HOUR + 1)
    fail(throttle, times=4)
    assert wait(throttle) == 0
    clock.advance(HOUR + 1)
    throttle.forget_old()
    assert repr(throttle) == "<Throttle 0 scopes>"


def test_a_stepped_wall_clock_changes_nothing(throttle: Throttle, clock: MovedClock) -> None:
    """Waits are on the gateway's clock."""
    fail(throttle, times=5)
    for step in (86400, -2 * 86400):
        clock.unix += step * SECOND
        assert wait(throttle) == 1


def test_failures_survive_a_restart(throttle: Throttle, clock: MovedClock) -> None:
    """What `failed` gives to store is enough to go on with."""
    stored: dict[str, tuple[str, int, int, int]] = {}
    for _ in range(6):
        for row in throttle.failed(throttle.begin(ANA, HERE)):
            stored[row[0]] = row
        clock.advance(wait(throttle) * SECOND)
    fail_now = throttle.failed(throttle.begin(ANA, HERE))
    stored |= {row[0]: row for row in fail_now}
    again = Throttle(clock)
    again.restore(list(stored.values()))
    assert wait(again) == wait(throttle) == 4


def test_nothing_typed_as_an_account_is_kept(throttle: Throttle) -> None:
    """People type passwords into the wrong field."""
    rows = throttle.failed(throttle.begin("my secret password", HERE))
    assert not any("secret" in row[0] for row in rows)


def test_memory_is_bounded(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker with many addresses pushes out the oldest, not the gateway."""
    monkeypatch.setattr("daemon.access.throttle._MOST_SCOPES", 50)
    for number in range(200):
        fail(throttle, address=f"10.1.{number // 250}.{number % 250}")
    assert repr(throttle) == "<Throttle 50 scopes>"


@given(st.lists(st.sampled_from(["begin", "fail", "succeed", "abandon", "second"]), max_size=60))
def test_no_more_than_the_free_failures_run_into_a_wait(steps: list[str]) -> None:
    """Whatever the order: failures plus running attempts pass five only one at a time, after a wait."""
    clock = MovedClock()
    throttle = Throttle(clock)
    running: list[Attempt] = []
    failures = 0
    for step in steps:
        if step == "second":
            clock.advance(SECOND)
        elif step == "begin":
            try:
                running.append(throttle.begin(ANA, HERE))
            except LimitExceeded:
                assert failures + len(running) + 1 >= 5
            else:
                assert failures + len(running) <= 5 or len(running) == 1
        elif running:
            attempt = running.pop()
            if step == "fail":
                throttle.failed(attempt)
                failures += 1
            elif step == "succeed":
                throttle.succeeded(attempt)
                failures = 0
            else:
                throttle.abandoned(attempt)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("", "", True),
    ],
)
def test_an_ipv6_network_counts_as_one_party(one: str, other: str, same: bool) -> None:
    """Whoever has one address of a /64 has them all."""
    assert (network_of(one) == network_of(other)) is same


def test_events_of_an_address_are_counted_exactly(clock: MovedClock) -> None:
    """So many in any hour, boundary included, and a true time to come again."""
    registrations = PerAddress(clock, most=2, period_us=HOUR)
    registrations.admit(HERE, "registrations")
    clock.advance(HOUR // 2)
    registrations.admit(HERE, "registrations")
    registrations.admit(ELSEWHERE, "registrations")
    with pytest.raises(LimitExceeded) as refusal:
        registrations.admit(HERE, "registrations")
    assert refusal.value.retry_after == 1800
    clock.advance(HOUR // 2 - 1)
    with pytest.raises(LimitExceeded):
        registrations.admit(HERE, "registrations")
    clock.advance(1)
    registrations.admit(HERE, "registrations")
    clock.advance(HOUR)
    registrations.forget_old()
    assert registrations._events == {}
