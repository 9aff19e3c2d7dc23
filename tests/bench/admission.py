"""What admission costs: microseconds of one request's way through limits and line, without and with a crowd.

`python -m tests.bench.admission [--brief]` prints a table; it is not a test and fails nobody.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from daemon.traffic.admission import Admission
from daemon.traffic.seats import Seats
from tests.rigs.traffic import LimitsInMemory, MovedClock, many_seats, subject

DEFAULT = {"requests_per_minute": 10**6}
FULL = {
    "requests_per_minute": 10**6,
    "requests_per_hour": 10**7,
    "requests_per_day": 10**8,
    "tokens_per_minute": 10**9,
    "tokens_per_day": 10**12,
    "concurrency": 10**4,
}


def measure(users: int, requests: int, limits: LimitsInMemory, *, full: bool) -> dict[str, float]:
    """Microseconds a call, in a steady state in which every user's window is filled evenly."""
    clock = MovedClock()
    admission = Admission(limits, clock)
    seats: Seats = many_seats()
    who = [subject(f"u{number}@example.org", key=f"k{number}", user_id=number) for number in range(users)]
    spent = dict.fromkeys(("admit", "headers", "settle"), 0.0)

    def timed(name: str, call: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = call()
        spent[name] += time.perf_counter() - started
        return result

    for number in range(requests):
        clock.advance(600)
        person = who[number % users]
        ticket = timed("admit", lambda person=person: admission.admit(person, seats))
        timed("headers", lambda ticket=ticket: admission.rate_limit_headers(ticket))

        def settle(ticket=ticket) -> None:  # type: ignore[no-untyped-def]
            admission.spend_tokens(ticket, 100)
            admission.settled(ticket)

        timed("settle", settle)
    overhead = _overhead(requests)
    return {name: (seconds - overhead) / requests * 1e6 for name, seconds in spent.items()}


def _overhead(rounds: int) -> float:
    total = 0.0
    nothing: Callable[[], object] = lambda: None  # noqa: E731
    for _ in range(rounds):
        started = time.perf_counter()
        nothing()
        total += time.perf_counter() - started
    return total


async def line(rounds: int) -> float:
    """Microseconds of getting a free seat and leaving it."""
    admission = Admission(LimitsInMemory(**DEFAULT), MovedClock())
    seats = many_seats()
    tickets = [admission.admit(subject(), seats) for _ in range(rounds)]
    started = time.perf_counter()
    for ticket in tickets:
        async with seats.enter(ticket, "x"):
            pass
    return (time.perf_counter() - started) / rounds * 1e6


def refusals(rounds: int) -> float:
    """Microseconds of a 429, its text included."""
    admission, seats = Admission(LimitsInMemory(requests_per_minute=1), MovedClock()), many_seats()
    admission.admit(subject(), seats)
    started = time.perf_counter()
    for _ in range(rounds):
        try:
            admission.admit(subject(), seats)
        except Exception as error:
            assert type(error).__name__ == "LimitExceeded"
    return (time.perf_counter() - started) / rounds * 1e6


def main(argv: list[str]) -> None:
    """Print the table."""
    rounds = 5_000 if "--brief" in argv else 50_000
    print("us a call                                admit  headers  settle")
    for users in (1, 1_000):
        for words, default, more in (
            ("requests per minute", DEFAULT, {}),
            ("all six, and key, model, network", FULL, {"model:smollm2:135m": FULL, "address:192.0.2.0/24": FULL}),
        ):
            limits = LimitsInMemory(**default)
            for target, values in more.items():
                limits.set(target, values)
            if more:
                for number in range(users):
                    limits.set(f"key:k{number}", FULL)
            found = measure(users, rounds, limits, full=bool(more))
            print(
                f"{users:>5} users, {words:<25} {found['admit']:>8.2f} {found['headers']:>8.2f} {found['settle']:>7.2f}"
            )
    print(f"seat taken and left {asyncio.run(line(rounds)):>8.2f}")
    print(f"refusal             {refusals(rounds):>8.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
