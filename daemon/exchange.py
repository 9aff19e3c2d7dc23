"""One exchange: what was asked, by whom, what became of it. Its states and their meaning live here and nowhere else.

    received -> admitted -> recorded -> queued -> seated -> relaying -> ended(EndState)

Rule: every admitted exchange ends in exactly one `EndState`; the first reason to end it wins (`Exchange.end`).
Times are Unix microseconds on the wall clock, except `admitted_clock`, on the gateway's clock (`daemon/clock.py`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class EndState(StrEnum):
    """How an exchange ended (contract: "One exchange, one end")."""

    OK = "ok"
    CLIENT_LEFT = "client_left"
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_BYTE = "timeout_first_byte"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    QUEUE_TIMEOUT = "queue_timeout"
    CANCELLED_BY_ADMIN = "cancelled_by_admin"
    USER_DISABLED = "user_disabled"
    CREDENTIAL_REVOKED = "credential_revoked"
    BUDGET_SPENT = "budget_spent"
    SHUTDOWN = "shutdown"
    REFUSED = "refused"
    CRASHED = "crashed"


# The status a client gets when an exchange ends so before its first byte.
STATUS_OF_END: dict[EndState, int] = {
    EndState.CLIENT_LEFT: 499,
    EndState.UPSTREAM_ERROR: 502,
    EndState.TIMEOUT_CONNECT: 502,
    EndState.TIMEOUT_FIRST_BYTE: 504,
    EndState.TIMEOUT_IDLE: 504,
    EndState.TIMEOUT_TOTAL: 504,
    EndState.QUEUE_TIMEOUT: 503,
    EndState.SHUTDOWN: 503,
    EndState.CANCELLED_BY_ADMIN: 503,
    EndState.USER_DISABLED: 403,
    EndState.BUDGET_SPENT: 403,
    EndState.CREDENTIAL_REVOKED: 401,
}


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))


def new_request_id() -> str:
    """A request id: 128 random bits as 26 characters of Crockford's base32, lower case."""
    number = int.from_bytes(secrets.token_bytes(16), "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


# Ends that cost no money, whatever was delivered (contract, "What is counted").
FREE_OF_CHARGE = frozenset(
    {
        EndState.UPSTREAM_ERROR,
        EndState.TIMEOUT_CONNECT,
        EndState.TIMEOUT_FIRST_BYTE,
        EndState.TIMEOUT_IDLE,
        EndState.TIMEOUT_TOTAL,
        EndState.QUEUE_TIMEOUT,
        EndState.SHUTDOWN,
        EndState.CRASHED,
        EndState.CANCELLED_BY_ADMIN,
        EndState.REFUSED,
    }
)


@dataclass(slots=True)
class Usage:
    """Tokens as the upstream counted them; None where it told nothing."""

    tokens_in: int | None = None
    tokens_out: int | None = None


class Tried(NamedTuple):
    """An upstream that was asked and failed before the answer's first byte, so that another one was."""

    upstream: str
    model: str
    error: str


@dataclass(slots=True, eq=False)
class Exchange:
    """The live state of one exchange. Mutated only on the event loop, by the relay and by `end()`."""

    request_id: str
    user_id: int
    user: str  # e-mail address
    key_id: str | None
    session: str | None  # refresh family or token family of a JWT caller
    client_label: str
    address: str
    user_agent: str
    route: str  # "/api/chat"
    model_asked: str
    model: str  # the model that serves it
    upstream: str  # its name; with `model`, where it is now: `tried` has where it was before
    stream: bool
    document: dict[str, Any] = field(repr=False)  # the checked request body, secrets removed
    received: int
    admitted: int = 0
    admitted_clock: int = 0
    seated: int | None = None
    first_byte: int | None = None
    ended: int | None = None
    seq: int = 0  # of its opened record
    sent_upstream: bool = False
    usage: Usage = field(default_factory=Usage)
    tried: list[Tried] | None = None
    cost: int | None = None  # millionths of `currency`; None: the model has no known price
    currency: str = ""
    bytes_out: int = 0
    chunks_out: int = 0
    state: EndState | None = None
    error: str = ""
    task: asyncio.Task[Any] | None = None
    position: Callable[[], int | None] = lambda: None  # place in the queue, 1 = next
    estimated_wait: Callable[[], float | None] = lambda: None  # seconds until a seat, guessed from recent exchanges

    def end(self, state: EndState, error: str) -> bool:
        """End it from outside (administrator, deadline, shutdown, departure): the first reason wins.

        Returns whether this call was that reason. The exchange's task is cancelled; its clean-up records the end.
        """
        if self.state is not None:
            return False
        self.state = state
        self.error = error
        if self.task is not None:
            self.task.cancel()
        return True

    @property
    def phase(self) -> str:
        """A word for people: queued, prefill, run, ended."""
        if self.state is not None:
            return "ended"
        if self.seated is None:
            return "queued"
        return "prefill" if self.first_byte is None else "run"
