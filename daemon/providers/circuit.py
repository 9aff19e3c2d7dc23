"""A circuit breaker: whether a model at an upstream may be asked, after it failed or asked to be left alone.

    closed --FAILURES in a row, or "come back later"--> open --its rest is over--> half-open
    half-open --one request is let through--> closed where it goes well, open for longer where it fails

Rules: only what is the upstream's fault counts, and only in a row. Who said when to come back is asked no sooner. One
circuit for each model of an upstream: a model that cannot be loaded says nothing about the others. Times are the
event loop's, in seconds.
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
