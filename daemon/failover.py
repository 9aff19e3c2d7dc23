"""What becomes of an exchange whose upstream failed before the answer's first byte: another upstream, or once more.

Rules: only as long as nothing of an answer has come. Another upstream that may serve the model is asked at once. Where
there is none, a provider outside of the LAN is asked again after a pause, its own `Retry-After` or a growing one of
ours, RETRIES times at most and never where it would take longer than LONGEST_WAIT; what a server on the LAN says is
told right away. Every upstream that was tried stands in the exchange's record.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from common.errors import GatewayError, UpstreamFailed
from daemon.dialects.asks import Ask
from daemon.dialects.translator import Translator, UpstreamSaid
from daemon.exchange import Tried
from daemon.providers.choosing import Route
from daemon.providers.errors import ConnectFailed, ConnectTimedOut
from daemon.traffic.admission import Admission, Ticket

RETRIES = 2  # of one exchange at a provider outside
FIRST_WAIT = 0.5  # seconds; each further one is twice as long, and up to a half longer by chance
LONGEST_WAIT = 20.0  # seconds that an exchange waits before it is tried again
# What may be different at another server, or a moment later. 529 is Anthropic's word for overloaded.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_BUSY = frozenset({429, 503, 529})


class Next(NamedTuple):
    """Where the exchange goes on, with what, and after how many seconds."""

    route: Route
    translator: Translator
    wait: float


class Attempts:
    """The upstreams of one exchange: the one that is asked, and those that could be asked besides."""

    __slots__ = ("_ask", "_others", "_retries", "_user", "route")

    def __init__(self, ask: Ask, routes: list[Route], user: int) -> None:
        self.route = routes[0]
        self._ask = ask
        self._user = user
        self._others = routes[1:]
        self._retries = 0

    def note(self, failure: UpstreamFailed) -> None:
        """Tell the upstream's circuit what this failure means for it."""
        upstream, model, user = self.route.upstream, self.route.model, self._user
        if isinstance(failure, UpstreamSaid):
            said = failure.status if failure.upstream_status is None else failure.upstream_status
            if said in _BUSY and failure.retry_after is not None:
                upstream.went_wrong(model, user, failure.retry_after)
            elif said in _PASSING:
                upstream.went_wrong(model, user)
            else:
                upstream.told_nothing(model, user)
        elif isinstance(failure, ConnectFailed) and not isinstance(failure, ConnectTimedOut):
            # A refused connection costs nothing: it may be tried again at once, and `Upstream.state` knows of it.
            upstream.told_nothing(model, user)
        else:
            upstream.went_wrong(model, user)

    def next(self, failure: UpstreamFailed, admission: Admission, ticket: Ticket) -> Next | None:
        """Where to go on after `failure`; None where that is the end of it. Decided in one step, without waiting."""
        if not _passes(failure):
            return None
        while self._others:
            route = self._others.pop(0)
            if route.upstream.rests(route.model, self._user):
                continue
            try:
                admission.check_room(ticket, route.upstream.seats)
                translator = route.upstream.translator(self._ask)
            except GatewayError:
                continue  # it has no room, is being drained, or cannot do what is asked
            self.route = route
            return Next(route, translator, 0.0)
        return self._again(failure)

    def _again(self, failure: UpstreamFailed) -> Next | None:
        upstream = self.route.upstream
        if not self.route.leaves_lan or self._retries >= RETRIES:
            return None
        pause = FIRST_WAIT * 2**self._retries * random.uniform(1.0, 1.5)  # noqa: S311 - no secret
        wait = max(
            pause if failure.retry_after is None else failure.retry_after, upstream.rests(self.route.model, self._user)
        )
        if wait > LONGEST_WAIT:
            return None
        self._retries += 1
        return Next(self.route, upstream.translator(self._ask), wait)

    def tried(self, failure: UpstreamFailed) -> Tried:
        """This attempt, for the record."""
        return Tried(self.route.upstream.name, self.route.model, failure.message)


def retry_after(headers: Mapping[str, str]) -> int | None:
    """Seconds that a `Retry-After` (RFC 9110, 10.2.3) asks for, rounded up; None without one that can be read."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text[0].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0, math.ceil(seconds)) if math.isfinite(seconds) else None


def _passes(failure: UpstreamFailed) -> bool:
    """Whether it may go better elsewhere or later."""
    if isinstance(failure, UpstreamSaid):
        status = failure.status if failure.upstream_status is None else failure.upstream_status
        return status in _PASSING
    return True
