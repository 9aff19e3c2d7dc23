"""The circuit breaker: five failures in a row open it, one request tries it, a provider's own word is kept."""

from __future__ import annotations

from daemon.providers.circuit import FAILURES, FIRST_REST, LONGEST_REST, LONGEST_WISH, Circuit


def opened(now: float = 100.0) -> Circuit:
    circuit = Circuit()
    for _ in range(FAILURES):
        circuit.failed(now)
    return circuit


def test_it_opens_after_failures_in_a_row_only() -> None:
    """An answer in between begins the count anew."""
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        circuit.failed(100.0)
    assert (circuit.state(100.0), circuit.ask(100.0), circuit.wait(100.0)) == ("closed", True, 0.0)
    circuit.succeeded()
    for _ in range(FAILURES - 1):
        circuit.failed(100.0)
    assert circuit.state(100.0) == "closed"
    circuit.failed(100.0)
    assert (circuit.state(100.0), circuit.ask(100.0), circuit.wait(100.0)) == ("open", False, FIRST_REST)


def test_after_its_rest_one_request_tries() -> None:
    """The others are refused until that one is over, however many come."""
    circuit = opened()
    later = 100.0 + FIRST_REST
    assert circuit.state(later - 0.001) == "open"
    assert circuit.state(later) == "half-open"
    assert [circuit.ask(later) for _ in range(4)] == [True, False, False, False]
    assert circuit.wait(later) == 1.0
    circuit.succeeded()
    assert (circuit.state(later), circuit.ask(later), circuit.wait(later)) == ("closed", True, 0.0)


def test_a_try_that_fails_opens_it_for_longer() -> None:
    """Twice as long each time, up to a bound."""
    circuit, now, rests = opened(), 100.0, []
    for _ in range(8):
        rests.append(circuit.wait(now))
        now += circuit.wait(now)
        assert circuit.ask(now)
        circuit.failed(now)
    assert rests == [2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_REST, LONGEST_REST, LONGEST_REST]


def test_a_try_that_tells_nothing_leaves_the_next_one_to_try() -> None:
    """Its client left: a circuit must not stay open because of that."""
    circuit = opened()
    later = 100.0 + FIRST_REST
    assert circuit.ask(later)
    circuit.left()
    assert circuit.ask(later)


def test_it_is_asked_no_sooner_than_it_wished() -> None:
    """Its own Retry-After, but not for ever; none at all where it says at once."""
    circuit = Circuit()
    circuit.rest(100.0, 30.0)
    assert (circuit.ask(129.9), circuit.wait(110.0), circuit.ask(130.0)) == (False, 20.0, True)
    eternal = Circuit()
    eternal.rest(100.0, 10**9)
    assert eternal.wait(100.0) == LONGEST_WISH
    at_once = Circuit()
    at_once.rest(100.0, 0)
    assert at_once.ask(100.0)
