"""A clock that a test moves, limits without a store, and short ways to an admission."""

from __future__ import annotations

from collections.abc import Callable

from daemon.traffic.admission import Admission, Subject, Ticket
from daemon.traffic.rules import DEFAULT, Rules, Values, read_target
from daemon.traffic.seats import Seats

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_000 * DAY  # gateway time of a test's beginning


class MovedClock:
    """A Clock that stands still until it is moved."""

    def __init__(self, now: int = START, wall: int = 1_700_000_000 * SECOND) -> None:
        self.gateway = now
        self.unix = wall

    def now(self) -> int:
        return self.gateway

    def wall(self) -> int:
        return self.unix

    def advance(self, microseconds: int) -> None:
        """Let time pass on both clocks."""
        self.gateway += microseconds
        self.unix += microseconds


class LimitsInMemory(Rules):
    """What `Limits` is to an admission, without a database behind it."""

    def __init__(self, **default: int | None) -> None:
        super().__init__()
        self.changed: list[Callable[[str], None]] = []
        self.set(DEFAULT, default)

    def set(self, target: str, values: Values) -> bool:
        """Whether some window now looks further back."""
        name = read_target(target)
        further = self.replace(name, values)
        for listener in self.changed:
            listener(name)
        return further


def subject(
    email: str = "ana@example.org",
    *,
    key: str | None = "ab12",
    model: str = "smollm2:135m",
    address: str = "192.0.2.7",
    user_id: int | None = None,
) -> Subject:
    """A request's subject."""
    return Subject(hash(email) & 0xFFFF if user_id is None else user_id, email, key, model, address)


def many_seats(size: int = 10_000) -> Seats:
    """Seats that are never short."""
    return Seats("up", size, queue_size=512, per_user=128, longest_wait=600)


def admitted(admission: Admission, who: Subject, seats: Seats) -> Ticket | None:
    """The ticket, or None where a limit refuses."""
    from common.errors import LimitExceeded

    try:
        return admission.admit(who, seats)
    except LimitExceeded:
        return None
