"""What ended a moment ago, and what was refused: for the live screen, in memory alone.

Rule: noting one costs a few copied values, no I/O and no formatting; rows are made when somebody looks. Bounded: the
latest exchanges, the latest callers refused. The audit has all of it; what is here is gone with the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from common.protocol import EndedRow
from common.times import SECOND, iso
from daemon.exchange import EndState, Exchange

MOST_ENDED = 100
MOST_REFUSED = 100  # different callers and reasons
ONE_ROW = 60 * SECOND  # refusals of one caller and reason are one row for so long
FEWEST = 8  # tokens from which an ended exchange has a pace: fewer came in one piece, or nearly
SHORTEST = 0.5  # seconds that they took, at least: else the network's pace would be shown, not the model's
LATELY = 300  # seconds over which failures are counted
MINUTE = 60
_REFUSED = "refused-"  # begins the ids of such rows

ERRORS = frozenset(
    {
        EndState.UPSTREAM_ERROR,
        EndState.TIMEOUT_CONNECT,
        EndState.TIMEOUT_FIRST_BYTE,
        EndState.TIMEOUT_IDLE,
        EndState.TIMEOUT_TOTAL,
        EndState.QUEUE_TIMEOUT,
        EndState.SHUTDOWN,
        EndState.CRASHED,
    }
)


class Recent:
    """The rows of kind "ended", by id, oldest first, and the counts of the head line."""

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._ended: dict[str, _Ended] = {}
        self._refused: dict[tuple[str, str | None, str], _Refused] = {}
        self._refusals = 0
        self._ends = Lately(LATELY, 30)
        self._errors = Lately(LATELY, 30)
        self._turned_away = Lately(MINUTE, 60)

    def ended(self, exchange: Exchange) -> None:
        """An exchange came to its end."""
        request_id, usage = exchange.request_id, exchange.usage
        self._ended[request_id] = _Ended(exchange, usage.tokens_in, usage.tokens_out)
        if len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        now = self._seconds()
        self._ends.count(now)
        if exchange.state in ERRORS:
            self._errors.count(now)

    def refused(
        self,
        at_us: int,
        *,
        reason: str,
        user: str,
        key: str | None,
        client_label: str,
        address: str,
        route: str,
        model: str,
    ) -> None:
        """A request of a known caller was refused; `at_us` on the wall clock."""
        name = (user, key, reason)
        row = self._refused.get(name)
        if row is None or at_us - row.first_us >= ONE_ROW:
            if row is not None:
                del self._refused[name]
            elif len(self._refused) >= MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
            self._refusals += 1
            named = f"{_REFUSED}{self._refusals}"
            row = self._refused[name] = _Refused(named, at_us, client_label, address, route, model)
        row.count += 1
        row.last_us = at_us
        self._turned_away.count(self._seconds())

    def refused_before(self, counts: Iterable[tuple[int, int]], at_us: int) -> None:
        """What the last run refused, for the head line: (moment, how many); `at_us` is now, on the wall clock. Those of
        a minute are taken for as old as their first."""
        now = self._seconds()
        for moment_us, number in counts:
            self._turned_away.count(now, ago=max(0, at_us - moment_us) / SECOND, number=number)

    def rows(self) -> Iterator[tuple[str, EndedRow]]:
        """Every row, with its id."""
        for request_id, ended in self._ended.items():
            yield request_id, ended.row()
        for name, refused in self._refused.items():
            yield refused.id, refused.row(name)

    def counts(self) -> dict[str, int]:
        """A number for each row that changes when it does: so that nobody need be told of each end, however many."""
        return dict.fromkeys(self._ended, 1) | {row.id: row.count for row in self._refused.values()}

    def row(self, row_id: str) -> EndedRow | None:
        """The row of that id, if it is still here."""
        ended = self._ended.get(row_id)
        if ended is not None:
            return ended.row()
        if not row_id.startswith(_REFUSED):
            return None
        return next((row.row(name) for name, row in self._refused.items() if row.id == row_id), None)

    @property
    def refused_last_minute(self) -> int:
        """Requests refused within the last minute."""
        return self._turned_away.total(self._seconds())

    @property
    def ended_lately(self) -> int:
        """Exchanges that ended within the last five minutes."""
        return self._ends.total(self._seconds())

    @property
    def errors_lately(self) -> int:
        """Of them those that failed."""
        return self._errors.total(self._seconds())


class Lately:
    """How many within the last `seconds`, to the width of one of `slots`."""

    def __init__(self, seconds: int, slots: int) -> None:
        self._width = seconds / slots
        self._counts = [0] * slots
        self._latest = 0  # the slot's number since the clock began

    def count(self, now: float, *, ago: float = 0.0, number: int = 1) -> None:
        """So many more, so many seconds ago."""
        self._move(now)
        back = int(ago / self._width)
        if back < len(self._counts):
            self._counts[(self._latest - back) % len(self._counts)] += number

    def total(self, now: float) -> int:
        """How many they are."""
        self._move(now)
        return sum(self._counts)

    def _move(self, now: float) -> None:
        slot = int(now / self._width)
        if slot > self._latest:
            for each in range(self._latest + 1, min(slot, self._latest + len(self._counts)) + 1):
                self._counts[each % len(self._counts)] = 0
            self._latest = slot


class _Ended:
    """What is kept of an exchange: not its request."""

    __slots__ = ("_names", "_state", "_times", "_tokens")

    def __init__(self, exchange: Exchange, tokens_in: int | None, tokens_out: int | None) -> None:
        self._state = (exchange.state, exchange.error)
        self._names = (
            exchange.request_id,
            exchange.user,
            exchange.key_id,
            exchange.client_label,
            exchange.address,
            exchange.route,
            exchange.model,
            exchange.upstream,
        )
        self._times = (exchange.received, exchange.first_byte, exchange.ended)
        self._tokens = (tokens_in, tokens_out)

    def row(self) -> EndedRow:
        request_id, user, key, label, address, route, model, upstream = self._names
        received, first_byte, ended = self._times
        ended = ended or received
        state, error = self._state
        tokens_in, tokens_out = self._tokens
        pace = None
        if tokens_out and tokens_out >= FEWEST and first_byte is not None and ended - first_byte >= SHORTEST * SECOND:
            pace = round(tokens_out * SECOND / (ended - first_byte), 1)
        return EndedRow(
            id=request_id,
            request_id=request_id,
            state=(state or EndState.OK).value,
            error=error or None,
            count=1,
            user=user,
            key=key,
            client_label=label,
            address=address,
            route=route,
            model=model,
            upstream=upstream,
            received=iso(received),
            ended=iso(ended),
            elapsed=max(0, ended - received) / SECOND,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            tokens_per_second=pace,
        )


@dataclass(slots=True)
class _Refused:
    """Refusals of one caller for one reason; label, address, route and model are those of the first."""

    id: str
    first_us: int
    client_label: str
    address: str
    route: str
    model: str
    last_us: int = 0
    count: int = 0

    def row(self, name: tuple[str, str | None, str]) -> EndedRow:
        user, key, reason = name
        return EndedRow(
            id=self.id,
            request_id="",
            state="refused",
            error=reason,
            count=self.count,
            user=user,
            key=key,
            client_label=self.client_label,
            address=self.address,
            route=self.route,
            model=self.model,
            upstream="",
            received=iso(self.first_us),
            ended=iso(self.last_us),
            elapsed=max(0, self.last_us - self.first_us) / SECOND,
            tokens_in=None,
            tokens_out=None,
            tokens_per_second=None,
        )


def ended_row(exchange: Exchange) -> EndedRow:
    """The row of an exchange that has ended."""
    return _Ended(exchange, exchange.usage.tokens_in, exchange.usage.tokens_out).row()
