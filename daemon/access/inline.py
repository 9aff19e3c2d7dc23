"""Passwords that came along with a request and were right a moment ago, so that argon2 is not asked for each (P6).

Rule: what is kept is a MAC of address, name and password under a key that this process alone has, and never a
password. It counts for a minute, from the network it was checked for, and only while the user is as it was then: the
epoch and the version rise with whatever ends or replaces a password, so no hash but the one that was checked is behind
it. Bound to the network because a throttled guesser elsewhere must not find the right password here.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

import msgspec

from daemon.access.throttle import network_of
from daemon.clock import MICROSECONDS, Clock
from daemon.store.users import User

LIFE_US = 60 * MICROSECONDS
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """Whose password it was, and until when, on the gateway's clock, that counts."""

    user_id: int
    epoch: int
    version: int
    email: str  # in its canonical spelling
    until_clock: int

    def is_of(self, user: User) -> bool:
        """Whether `user` is as it was when the password was checked."""
        return (user.id, user.epoch, user.version) == (self.user_id, self.epoch, self.version)


class Verified:
    """Inline credentials that were right within the last minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, Known] = {}  # oldest first

    def __repr__(self) -> str:
        return f"<Verified {len(self._known)}>"

    def mark(self, email: str, password: str, address: str) -> bytes:
        """Under which such a credential is kept. Tells nothing to who has not the key."""
        text = msgspec.json.encode([network_of(address), email, password])
        return hmac.digest(self._key, text, "sha256")

    def find(self, mark: bytes) -> Known | None:
        """Whose it was, if it still counts."""
        known = self._known.get(mark)
        if known is None or self._clock.now() >= known.until_clock:
            return None
        return known

    def keep(self, mark: bytes, *, user_id: int, epoch: int, version: int, email: str) -> None:
        """It was right just now."""
        self._known.pop(mark, None)
        self._known[mark] = Known(user_id, epoch, version, email, self._clock.now() + LIFE_US)
        if len(self._known) > _MOST:
            self.forget_old()
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]

    def forget_old(self) -> None:
        """Drop what counts no more."""
        now = self._clock.now()
        self._known = {mark: known for mark, known in self._known.items() if now < known.until_clock}
