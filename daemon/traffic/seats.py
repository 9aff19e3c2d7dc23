"""Seats at one upstream, and the line in front of them: first come, first served.

    waiting -> seated -> left        waiting -> expired -> left        waiting -> left

Rules: everything is decided synchronously, in `_fill`: after each event no seat is free that somebody in the line may
take. A place whose concurrency limits do not allow it to run now is passed over and keeps its position. Whoever leaves
(done, cancelled, refused) leaves at once. The line is bounded, in all and for each user; who waited too long is told.

A fair queue is to replace the order in `_next`; nobody outside this file knows that order.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Protocol

from common.errors import Unavailable

_WEIGHT = 0.2  # of the latest exchange in the moving average of seat-holding time
_SHORTEST = 0.001  # seconds a seat is held at least, in an estimate
_GUESS = 5.0  # seconds a seat is held, as long as nobody has left one yet
_LONGEST_RETRY = 300  # seconds: beyond this a Retry-After is no estimate any more


class Turn(Protocol):
    """What the line asks of an admitted request (`daemon/traffic/admission.py`)."""

    @property
    def user_id(self) -> int: ...

    def acquire(self) -> bool:
        """Take its place under every concurrency limit, or none of them and False."""
        ...

    def release(self) -> None:
        """Give those places back; whoever waits for them is woken."""
        ...


class QueueTimeout(Unavailable):
    """The request waited for a seat as long as anybody may."""

    code = "queue_timeout"


class State(Enum):
    """Where a place in the line is."""

    WAITING = "waiting"
    SEATED = "seated"
    EXPIRED = "expired"
    LEFT = "left"


_MOVES = {
    State.WAITING: {State.SEATED, State.EXPIRED, State.LEFT},
    State.SEATED: {State.LEFT},
    State.EXPIRED: {State.LEFT},
    State.LEFT: set[State](),
}


class Seats:
    """The seats of one upstream. To be used on one event loop."""

    def __init__(self, name: str, size: int, *, queue_size: int, per_user: int, longest_wait: float) -> None:
        """`size` requests run at once, `queue_size` wait, `per_user` of them of one user, `longest_wait` seconds."""
        _check_size(size)
        self.name = name
        self._size = size
        self._queue_size = queue_size
        self._per_user = per_user
        self._longest_wait = longest_wait
        self._line: dict[Place, None] = {}  # in order of arrival; only who waits
        self._waiting_of: dict[int, int] = {}  # user -> how many in the line
        self._seated: set[Place] = set()
        self._draining = False
        self._positions: dict[Place, int] | None = None  # of the line as it is; None: to be counted again
        self._holding: float | None = None  # seconds a seat is held, moving average
        self.changed: Callable[[], None] = lambda: None  # told when seats or line changed; must not wait

    # --- what it looks like ---

    @property
    def size(self) -> int:
        """How many requests run at once."""
        return self._size

    @property
    def running(self) -> int:
        """How many seats are taken; more than `size` for a while after it was made smaller."""
        return len(self._seated)

    @property
    def waiting(self) -> int:
        """How many are in the line."""
        return len(self._line)

    @property
    def draining(self) -> bool:
        """Whether no seat is handed out."""
        return self._draining

    def __repr__(self) -> str:
        drain = ", draining" if self._draining else ""
        return f"<Seats {self.name} {self.running}/{self._size} running, {len(self._line)} waiting{drain}>"

    # --- joining the line ---

    def check_room(self, user_id: int, *, may_run: bool = True) -> None:
        """Unavailable (503) where a request of this user could neither run at once nor wait.

        `may_run`: whether its concurrency limits would let it run now. Nothing is taken by asking.
        """
        if self._draining:
            raise self._no_room(f"the upstream {self.name} is being drained and takes nothing new", "draining", {})
        # With a seat free, nobody in the line may take it (the rule of `_fill`): who may run goes past them.
        if may_run and self.running < self._size:
            return
        if len(self._line) >= self._queue_size:
            waiting = len(self._line)
            raise self._no_room(
                f"the queue of upstream {self.name} is full: {waiting} requests are waiting",
                "queue_full",
                {"waiting": waiting, "max": self._queue_size},
            )
        own = self._waiting_of.get(user_id, 0)
        if own >= self._per_user:
            raise self._no_room(
                f"{own} of your requests are waiting for upstream {self.name} already, and no more may",
                "queue_full_for_user",
                {"waiting": own, "max": self._per_user},
            )

    def enter(self, turn: Turn, request_id: str) -> Place:
        """A place for an admitted request: seated at once where that can be, else at the line's end.

        To be called in the same tick as `check_room`. Whoever got a place must leave it (`async with`, or `leave`).
        """
        place = Place(self, turn, request_id)
        self._line[place] = None
        self._waiting_of[turn.user_id] = self._waiting_of.get(turn.user_id, 0) + 1
        self._positions = None
        self._fill()
        if place.state is State.WAITING:
            place.expires = asyncio.get_running_loop().call_later(self._longest_wait, self._expire, place)
        self.changed()
        return place

    # --- while it runs ---

    def resize(self, size: int) -> None:
        """Let `size` requests run at once from now on; those that run are not disturbed."""
        _check_size(size)
        self._size = size
        self._fill()
        self.changed()

    def rebound(self, *, queue_size: int, per_user: int, longest_wait: float) -> None:
        """Other bounds of the line, for who comes from now on."""
        self._queue_size = queue_size
        self._per_user = per_user
        self._longest_wait = longest_wait

    def drain(self) -> None:
        """Hand out no more seats and take nobody new; who waits keeps waiting."""
        self._draining = True
        self.changed()

    def undrain(self) -> None:
        """Hand out seats again."""
        self._draining = False
        self._fill()
        self.changed()

    def poke(self) -> None:
        """A concurrency limit allows more than before: look through the line again."""
        self._fill()

    # --- how it is decided ---

    def _fill(self) -> None:
        """Hand out seats until none is free or nobody may take one."""
        while len(self._seated) < self._size and not self._draining:
            place = self._next()
            if place is None:
                return
            self._take_out(place)
            self._seated.add(place)
            place.seated()

    def _next(self) -> Place | None:
        """Who gets the next seat: the first in the line whose concurrency limits it could take."""
        for place in self._line:
            if place.turn.acquire():
                return place
        return None

    def _take_out(self, place: Place) -> None:
        del self._line[place]
        user_id = place.turn.user_id
        self._waiting_of[user_id] -= 1
        if not self._waiting_of[user_id]:
            del self._waiting_of[user_id]
        self._positions = None
        if place.expires is not None:
            place.expires.cancel()
            place.expires = None

    def _left(self, place: Place, state: State) -> None:
        """`place` was given up in `state`."""
        if state is State.WAITING:
            self._take_out(place)
        elif state is State.SEATED:
            held = asyncio.get_running_loop().time() - place.since
            self._holding = held if self._holding is None else self._holding + _WEIGHT * (held - self._holding)
            self._seated.remove(place)
            place.turn.release()
            self._fill()
        self.changed()

    def _expire(self, place: Place) -> None:
        place.expires = None
        self._take_out(place)
        place.expired()
        self.changed()

    # --- what is told of the wait ---

    def _position(self, place: Place) -> int | None:
        if self._positions is None:
            self._positions = {each: number for number, each in enumerate(self._line, start=1)}
        return self._positions.get(place)

    def _estimate(self, position: int) -> float | None:
        """Seconds until `position` is seated; None: nothing is known yet. A seat is held as long as they were lately;
        one that has been for longer is likely to be so for as long again."""
        if self._holding is None:
            return None
        mean, now = max(self._holding, _SHORTEST), asyncio.get_running_loop().time()
        freed = sum(1 / max(mean, now - place.since) for place in self._seated)  # seats a second
        freed += max(0, self._size - len(self._seated)) / mean
        too_many = max(0, len(self._seated) - self._size)  # they leave without a seat becoming free
        return (position + too_many) / freed

    def _timed_out(self) -> QueueTimeout:
        return QueueTimeout(
            f"no seat at upstream {self.name} became free within {self._longest_wait:g} s",
            retry_after=self._retry_after(len(self._line) + 1),
        )

    def _no_room(self, message: str, code: str, detail: dict[str, int]) -> Unavailable:
        return Unavailable(message, code=code, retry_after=self._retry_after(1), detail=detail)

    def _retry_after(self, position: int) -> int:
        seconds = self._estimate(position)
        return min(_LONGEST_RETRY, max(1, math.ceil(_GUESS if seconds is None else seconds)))


class Place:
    """One request's place: `async with place:` waits for the seat and holds it.

    QueueTimeout where the wait was too long. Cancelled while waiting, it is out of the line at once.
    """

    __slots__ = ("_seats", "_woken", "expires", "request_id", "since", "state", "turn")

    def __init__(self, seats: Seats, turn: Turn, request_id: str) -> None:
        self._seats = seats
        self._woken: asyncio.Future[None] | None = None
        self.turn = turn
        self.request_id = request_id
        self.state = State.WAITING
        self.since = 0.0  # event-loop time of being seated
        self.expires: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Place:
        try:
            if self.state is State.WAITING:
                self._woken = asyncio.get_running_loop().create_future()
                await self._woken
            if self.state is State.SEATED:
                return self
            if self.state is State.EXPIRED:
                raise self._seats._timed_out()
            raise RuntimeError(f"{self!r} was left before it was entered")
        except BaseException:
            # A seat may have come together with the cancellation: it goes to the next in the line, now.
            self.leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Give up place or seat; a second time does nothing."""
        if self.state is State.LEFT:
            return
        state = self.state
        self._move(State.LEFT)
        self._seats._left(self, state)
        self._wake()

    def position(self) -> int | None:
        """Its number in the line, 1 = first; None where it does not wait."""
        return self._seats._position(self) if self.state is State.WAITING else None

    def estimated_wait(self) -> float | None:
        """Seconds until its seat, guessed from how long seats were held lately; None where it is not known."""
        position = self.position()
        return None if position is None else self._seats._estimate(position)

    def seated(self) -> None:
        """It has a seat now (called by the line)."""
        self._move(State.SEATED)
        self.since = asyncio.get_running_loop().time()
        self._wake()

    def expired(self) -> None:
        """It waited too long (called by the line)."""
        self._move(State.EXPIRED)
        self._wake()

    def _move(self, state: State) -> None:
        if state not in _MOVES[self.state]:
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        self.state = state

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def __repr__(self) -> str:
        return f"<Place {self.request_id} {self.state.value} at {self._seats.name}>"


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"an upstream has at least one seat, not {size}")
