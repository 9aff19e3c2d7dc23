"""How often a wrong password may be tried: per account and address, and per address (security.md P3).

From the fifth failure on each further one doubles the wait: 1 s, 2 s, 4 s … 15 minutes. An hour without a failure is
forgotten. An account counts only together with the address that tries it, so nobody elsewhere can lock its owner out.

Rule: `begin` decides and counts in one synchronous step, so that many attempts at once get no more tries than one after
the other. Times are the gateway clock's microseconds: a stepped wall clock neither opens nor locks anything. Whether
an account exists plays no part. Storing is the caller's (`Accounts`), so that failures survive a restart.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import deque
from dataclasses import dataclass

from common.errors import LimitExceeded
from daemon.clock import MICROSECONDS, Clock

FREE_FAILURES = 5
LONGEST_WAIT_US = 900 * MICROSECONDS
FORGOTTEN_AFTER_US = 3600 * MICROSECONDS
_MOST_SCOPES = 50_000


@dataclass(slots=True)
class Failures:
    """The failures of one scope. `running` attempts count as failures until they turn out not to be."""

    failures: int = 0
    last_clock: int = 0
    blocked_until_clock: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that `begin` let through; ends in exactly one of `failed`, `succeeded`, `abandoned`."""

    account_scope: str
    address_scope: str


class Throttle:
    """Failures by scope, in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scopes: dict[str, Failures] = {}

    def __repr__(self) -> str:
        return f"<Throttle {len(self._scopes)} scopes>"

    def restore(self, rows: list[tuple[str, int, int, int]]) -> None:
        """Take up (scope, failures, last_clock, blocked_until_clock) rows of the store."""
        for scope, failures, last_clock, blocked_until_clock in rows:
            self._scopes[scope] = Failures(failures, last_clock, blocked_until_clock)

    def begin(self, account: str, address: str) -> Attempt:
        """Let an attempt on `account` from `address` through, or raise LimitExceeded with the seconds to wait."""
        now = self._clock.now()
        attempt = Attempt(_account_scope(account, address), _address_scope(address))
        wait = max(self._wait(attempt.account_scope, now), self._wait(attempt.address_scope, now, by_running=False))
        self._refuse_for(wait)
        for scope in (attempt.account_scope, attempt.address_scope):
            self._scopes.setdefault(scope, Failures()).running += 1
        return attempt

    def check(self, account: str, address: str) -> None:
        """LimitExceeded where `begin` would say so because of failures; counts nothing."""
        now = self._clock.now()
        scopes = (_account_scope(account, address), _address_scope(address))
        self._refuse_for(max(self._wait(scope, now, by_running=False) for scope in scopes))

    def failed(self, attempt: Attempt) -> list[tuple[str, int, int, int]]:
        """Count a failure; returns the rows to store."""
        now = self._clock.now()
        rows = []
        for scope in (attempt.account_scope, attempt.address_scope):
            entry = self._ended(scope)
            if now - entry.last_clock >= FORGOTTEN_AFTER_US:
                entry.failures = 0
            entry.failures += 1
            entry.last_clock = now
            if entry.failures >= FREE_FAILURES:
                # The exponent is bounded before the power: a million failures must not make a million-bit number.
                doublings = min(entry.failures - FREE_FAILURES, 20)
                entry.blocked_until_clock = now + min(MICROSECONDS << doublings, LONGEST_WAIT_US)
            self._scopes[scope] = entry
            rows.append((scope, entry.failures, entry.last_clock, entry.blocked_until_clock))
        self._bound()
        return rows

    def succeeded(self, attempt: Attempt) -> str | None:
        """Forget the account's failures from this address; returns the scope whose row is to be deleted, if any.

        The address's own failures stay: one's own right password must not buy tries at others' accounts.
        """
        entry = self._ended(attempt.account_scope)
        had_failed = entry.failures > 0
        entry.failures = 0
        entry.blocked_until_clock = 0
        self._drop_if_idle(attempt.account_scope)
        self._ended(attempt.address_scope)
        self._drop_if_idle(attempt.address_scope)
        return attempt.account_scope if had_failed else None

    def abandoned(self, attempt: Attempt) -> None:
        """The attempt never came to a result: the client left, the pool was full."""
        for scope in (attempt.account_scope, attempt.address_scope):
            self._ended(scope)
            self._drop_if_idle(scope)

    def forget_old(self) -> int:
        """Drop what an hour without a failure has made void; returns the gateway time before which rows are void."""
        void_before = self._clock.now() - FORGOTTEN_AFTER_US
        for scope in [s for s, entry in self._scopes.items() if not entry.running and entry.last_clock < void_before]:
            del self._scopes[scope]
        return void_before

    def _refuse_for(self, wait: int) -> None:
        if wait > 0:
            raise LimitExceeded(
                "too many failed attempts; try again later",
                code="too_many_attempts",
                retry_after=max(1, math.ceil(wait / MICROSECONDS)),
            )

    def _wait(self, scope: str, now: int, *, by_running: bool = True) -> int:
        """Microseconds until `scope` lets the next attempt through; 0 = now."""
        entry = self._scopes.get(scope)
        if entry is None:
            return 0
        failures = 0 if now - entry.last_clock >= FORGOTTEN_AFTER_US else entry.failures
        if failures and now < entry.blocked_until_clock:
            return entry.blocked_until_clock - now
        if by_running and entry.running and failures + entry.running >= FREE_FAILURES:
            return 1  # those that run may all fail: wait for them
        return 0

    def _ended(self, scope: str) -> Failures:
        entry = self._scopes.setdefault(scope, Failures())
        entry.running = max(0, entry.running - 1)
        return entry

    def _drop_if_idle(self, scope: str) -> None:
        entry = self._scopes[scope]
        if not entry.running and not entry.failures:
            del self._scopes[scope]

    def _bound(self) -> None:
        while len(self._scopes) > _MOST_SCOPES:
            oldest = next((scope for scope, entry in self._scopes.items() if not entry.running), None)
            if oldest is None:
                return
            del self._scopes[oldest]


class PerAddress:
    """At most `most` events in any `period_us` of one address (registrations an hour); exact, in memory."""

    def __init__(self, clock: Clock, *, most: int, period_us: int) -> None:
        self._clock = clock
        self._most = most
        self._period_us = period_us
        self._events: dict[str, deque[int]] = {}

    def admit(self, address: str, what: str) -> None:
        """Count one event, or raise LimitExceeded."""
        now = self._clock.now()
        events = self._events.setdefault(network_of(address), deque())
        while events and events[0] <= now - self._period_us:
            events.popleft()
        if len(events) >= self._most:
            wait = events[0] + self._period_us - now
            raise LimitExceeded(
                f"too many {what} from this address; try again later",
                code="too_many_attempts",
                retry_after=math.ceil(wait / MICROSECONDS),
            )
        events.append(now)

    def forget_old(self) -> None:
        """Drop addresses without an event in the period."""
        since = self._clock.now() - self._period_us
        for address in [a for a, events in self._events.items() if not events or events[-1] <= since]:
            del self._events[address]


def network_of(address: str) -> str:
    """What one party is taken to hold: an IPv4 address, an IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
    return str(parsed)


def _account_scope(account: str, address: str) -> str:
    # A digest: what strangers type as an account (perhaps a password) is not kept.
    return "account:" + hashlib.sha256(f"{account}\0{network_of(address)}".encode()).hexdigest()[:32]


def _address_scope(address: str) -> str:
    return f"address:{network_of(address)}"
