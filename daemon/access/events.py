"""What the directory tells others: that a row changed (for the hub), that running exchanges must end (for the gate)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daemon.exchange import EndState
from daemon.store.keys import Key
from daemon.store.registrations import Registration
from daemon.store.users import User


@dataclass(frozen=True, slots=True)
class Change:
    """A user, key or pending registration is now as `row` says; None = it is gone. `id` as text: 7, K3b…, K7-42QX."""

    kind: Literal["user", "key", "registration"]
    id: str
    row: User | Key | Registration | None


@dataclass(frozen=True, slots=True)
class Cut:
    """Running exchanges that must end now, in `state` and for `reason` (words for their clients).

    Exactly one of `user_id`, `key_id`, `session` is set; with `sessions_only` a user's exchanges under a bare API key
    go on: keys survive a password change.
    """

    state: EndState
    reason: str
    user_id: int | None = None
    key_id: str | None = None
    session: str | None = None
    sessions_only: bool = False

    def concerns(self, *, user_id: int, key_id: str | None, session: str | None) -> bool:
        """Whether an exchange of that user, key and session is meant."""
        if self.user_id is not None:
            return user_id == self.user_id and not (self.sessions_only and session is None)
        if self.key_id is not None:
            return key_id == self.key_id
        return session is not None and session == self.session
