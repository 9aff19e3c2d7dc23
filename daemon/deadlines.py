"""The deadlines of an exchange at its upstream: first byte, idle, total. (Connecting is the pool's.)

Rule: one timer an exchange, which is set and cancelled once where the exchange is short; a piece that arrives only
notes the time, it never moves the timer.
"""

from __future__ import annotations

import asyncio

from daemon.config import Deadlines
from daemon.exchange import EndState, Exchange


class Watch:
    """Ends `exchange` with the deadline's own state where its upstream takes too long."""

    def __init__(self, exchange: Exchange, deadlines: Deadlines) -> None:
        self._exchange = exchange
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._total_at = self._last + deadlines.total
        self._first = True
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def connected(self) -> None:
        """The request goes out: the first byte's time starts now."""
        self._last = self._loop.time()

    def touch(self) -> None:
        """Something arrived, or the client took something."""
        self._last = self._loop.time()
        self._first = False

    @property
    def silent_for(self) -> float | None:
        """Seconds since something came or was taken; None before the first byte."""
        return None if self._first else self._loop.time() - self._last

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _patience(self) -> float:
        return self._deadlines.first_byte if self._first else self._deadlines.idle

    def _arm(self) -> None:
        # Re-arming on every piece would cost more than the piece: the timer looks again when the last known patience
        # ends. The first piece may shorten that, so it never looks later than the shorter of both from now.
        soon = self._loop.time() + min(self._deadlines.first_byte, self._deadlines.idle)
        self._timer = self._loop.call_at(min(self._last + self._patience(), soon, self._total_at), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        limits = self._deadlines
        if now >= self._total_at:
            self._exchange.end(EndState.TIMEOUT_TOTAL, f"the exchange took longer than {limits.total:g} seconds")
        elif now - self._last < self._patience():
            self._arm()
        elif self._first:
            self._exchange.end(
                EndState.TIMEOUT_FIRST_BYTE,
                f"the upstream did not begin to answer within {limits.first_byte:g} seconds",
            )
        else:
            self._exchange.end(EndState.TIMEOUT_IDLE, f"the upstream said nothing for {limits.idle:g} seconds")
