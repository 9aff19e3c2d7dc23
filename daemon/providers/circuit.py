"""A circuit breaker: whether a model at an upstream may be asked, after it failed or asked to be left alone.

    closed --FAILURES in a row, or "come back later"--> open --its rest is over--> half-open
    half-open --one request is let through--> closed where it goes well, open for longer where it fails

Rules: only what is the upstream's fault counts, and only in a row. Who said when to come back is asked no sooner. One
circuit for each model of an upstream: a model that cannot be loaded says nothing about the others. And one for each
user who met failures there: what fails may be what that user asks, so it shuts nobody else out. Where it failed two of
them, the model rests for everybody (`Circuits`). Times are the event loop's, in seconds.
"""

from __future__ import annotations

from typing import Literal

FAILURES = 5  # in a row, until it is left alone
FIRST_REST = 2.0  # seconds; each further one is twice as long
LONGEST_REST = 60.0
LONGEST_WISH = 3600.0  # seconds that an upstream's own Retry-After counts at most

State = Literal["closed", "open", "half-open"]


class Circuit:
    """See the module. It remembers; who asks and tells is the upstream."""

    __slots__ = ("_failures", "_probing", "_rests", "_until")

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._rests = 0  # in a row
        self._until = 0.0  # 0: closed
        self._probing = False

    def __repr__(self) -> str:
        return f"<Circuit {self._failures} failures, {self._rests} rests{', probing' if self._probing else ''}>"

    def state(self, now: float) -> State:
        if not self._until:
            return "closed"
        return "open" if self._probing or now < self._until else "half-open"

    def wait(self, now: float) -> float:
        """Seconds until it may be asked; 0: now. While one request tries, nobody knows: at least a second."""
        if not self._until:
            return 0.0
        return max(self._until - now, 1.0 if self._probing else 0.0)

    @property
    def probing(self) -> bool:
        """Whether a request that tries it is under way."""
        return self._probing

    def ask(self, now: float) -> bool:
        """Whether it may be asked now; of a half-open one, this is the request that tries."""
        state = self.state(now)
        if state == "half-open":
            self._probing = True
        return state != "open"

    def succeeded(self) -> None:
        """It answered well: closed."""
        self._failures = self._rests = 0
        self._until, self._probing = 0.0, False

    def failed(self, now: float) -> None:
        """It failed by its own fault."""
        self._failures += 1
        if self._probing or self._failures >= FAILURES:
            self.open(now)

    def open(self, now: float) -> None:
        """Leave it alone, each time for longer."""
        self._until = now + min(LONGEST_REST, FIRST_REST * 2**self._rests)
        self._rests = min(self._rests + 1, 10)
        self._probing = False

    def rest(self, now: float, seconds: float) -> None:
        """It said after how many seconds to come back."""
        self._probing = False
        if seconds > 0:
            self._until = max(self._until, now + min(seconds, LONGEST_WISH))

    def left(self) -> None:
        """A request ended without telling anything (its client left, it was wrong in itself)."""
        self._probing = False


EVERYBODY = 0  # in the place of a user's id


class Circuits:
    """The circuits of one upstream, of each model for everybody and for each user who met failures there."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, dict[int, Circuit]] = {}  # by model, then by user

    def wait(self, model: str, user: int, now: float) -> float:
        """Seconds until `user` may ask for it; 0: now."""
        circuits = self._of.get(model)
        if circuits is None:
            return 0.0
        return max([circuits[each].wait(now) for each in {EVERYBODY, user} if each in circuits], default=0.0)

    def resting(self, now: float) -> list[str]:
        """The models that are left alone by everybody."""
        return [model for model in self._of if self.wait(model, EVERYBODY, now)]

    def ask(self, model: str, user: int, now: float) -> bool:
        """Whether a request of `user` may go out now; of a model that rested, this is the one that tries."""
        circuits = self._of.get(model)
        if circuits is None:
            return True
        concerned = [circuits[each] for each in {EVERYBODY, user} if each in circuits]
        if any(each.state(now) == "open" for each in concerned):
            return False
        return sum(each.ask(now) for each in concerned) == len(concerned)  # each is told that one tries

    def succeeded(self, model: str, user: int) -> bool:
        """It answered `user`; whether that ends a rest, or its beginnings. What others met alone may be their own."""
        circuits = self._of.get(model)
        if circuits is None:
            return False
        ended = [circuits.pop(each, None) for each in {EVERYBODY, user}]
        if not circuits:
            del self._of[model]
        return any(ended)

    def failed(self, model: str, user: int, now: float) -> bool:
        """It failed `user` by its own fault; whether it rests now, for them or for everybody."""
        circuits = self._of.setdefault(model, {})
        own = circuits.setdefault(user, Circuit())
        own.failed(now)
        common = circuits.get(EVERYBODY)
        if user == EVERYBODY or (common is not None and common.state(now) == "open" and not common.probing):
            return own.state(now) == "open"
        failing = [each for id_, each in circuits.items() if id_ != EVERYBODY and each.state(now) != "closed"]
        if (common is not None and common.probing) or len(failing) > 1:
            circuits.setdefault(EVERYBODY, Circuit()).open(now)
        return own.state(now) == "open" or self.wait(model, EVERYBODY, now) > 0

    def rest(self, model: str, now: float, seconds: float) -> None:
        """It said after how many seconds to come back, whoever asks."""
        self._of.setdefault(model, {}).setdefault(EVERYBODY, Circuit()).rest(now, seconds)

    def left(self, model: str, user: int) -> None:
        """A request of `user` ended without telling anything."""
        circuits = self._of.get(model, {})
        for each in {EVERYBODY, user}:
            if each in circuits:
                circuits[each].left()
