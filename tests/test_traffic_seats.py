"""The line in front of an upstream: first come, first served, bounded; who leaves is gone at once; no seat is lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Unavailable
from daemon.traffic.admission import Admission
from daemon.traffic.seats import Place, QueueTimeout, Seats, State
from tests.rigs.traffic import LimitsInMemory, MovedClock, subject
from tests.rigs.until import until


def seats_of(size: int = 1, *, queue_size: int = 512, per_user: int = 128, longest_wait: float = 600) -> Seats:
    return Seats("up", size, queue_size=queue_size, per_user=per_user, longest_wait=longest_wait)


def opened(**default: int) -> tuple[Admission, LimitsInMemory]:
    limits = LimitsInMemory(**default)
    return Admission(limits, MovedClock()), limits


@dataclass
class Guest:
    """A task that holds a place until it is told to go."""

    place: Place
    go: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def stay(self) -> None:
        async with self.place:
            await self.go.wait()


def arrive(admission: Admission, seats: Seats, who: str = "ana@x.org") -> Guest:
    """Admit, enter and wait, as the relay does."""
    ticket = admission.admit(subject(who, user_id=hash(who)), seats)
    guest = Guest(seats.enter(ticket, f"request of {who}"))
    guest.task = asyncio.ensure_future(guest.stay())
    return guest


async def turns(count: int = 5) -> None:
    """Let everything that is ready happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_seats_go_to_who_came_first() -> None:
    """One at a time through one seat, in order; the line says where each of them is."""
    admission, _ = opened()
    seats = seats_of(1)
    guests = [arrive(admission, seats) for _ in range(4)]
    await turns()
    assert repr(seats) == "<Seats up 1/1 running, 3 waiting>"
    for number, guest in enumerate(guests):
        assert [each.place.position() for each in guests[number:]] == [None, *range(1, 4 - number)]
        guest.go.set()
        await guest.task
    assert (seats.running, seats.waiting) == (0, 0)


async def test_a_seat_may_come_before_it_is_waited_for() -> None:
    """The request is being recorded while it stands in line: what was granted meanwhile is there at once."""
    admission, _ = opened()
    seats = seats_of(1)
    first = arrive(admission, seats)
    second = seats.enter(admission.admit(subject(), seats), "second")
    first.go.set()
    await first.task
    assert second.state is State.SEATED
    async with second:
        assert seats.running == 1
    assert seats.running == 0


async def test_cancelled_in_the_line_is_out_of_it_at_once() -> None:
    """Departure in the queue: the next one moves up, nothing is held."""
    admission, _ = opened()
    seats = seats_of(1)
    first, second, third = (arrive(admission, seats) for _ in range(3))
    await turns()
    second.task.cancel()
    await until(second.task.cancelled)
    assert third.place.position() == 1
    first.go.set()
    await until(lambda: third.place.state is State.SEATED)
    assert (seats.running, seats.waiting) == (1, 0)
    third.go.set()
    await third.task


async def test_cancelled_in_the_moment_of_being_seated_passes_the_seat_on() -> None:
    """The grant and the cancellation meet in one tick: the seat is not lost."""
    admission, _ = opened()
    seats = seats_of(1)
    first, second, third = (arrive(admission, seats) for _ in range(3))
    await turns()
    first.place.leave()
    assert second.place.state is State.SEATED
    second.task.cancel()
    await until(lambda: third.place.state is State.SEATED)
    assert second.task.cancelled()
    assert seats.running == 1
    third.go.set()
    first.go.set()
    await asyncio.gather(first.task, third.task)
    assert seats.running == 0


async def test_leaving_without_having_waited_frees_the_place() -> None:
    """A request that could not be recorded never waits for its seat; leaving twice is leaving once."""
    admission, _ = opened()
    seats = seats_of(1)
    one, two = (seats.enter(admission.admit(subject(), seats), "x") for _ in range(2))
    two.leave()
    one.leave()
    one.leave()
    assert (seats.running, seats.waiting) == (0, 0)


async def test_who_waited_too_long_is_told_when_to_come_again() -> None:
    """503 queue_timeout with Retry-After; the line is shorter by one."""
    admission, _ = opened()
    seats = seats_of(1, longest_wait=0.02)
    first, second = (arrive(admission, seats) for _ in range(2))
    with pytest.raises(QueueTimeout) as error:
        await second.task
    assert (error.value.status, error.value.code) == (503, "queue_timeout")
    assert error.value.retry_after is not None
    assert error.value.retry_after >= 1
    assert (seats.running, seats.waiting) == (1, 0)
    first.go.set()
    await first.task


async def test_the_wait_may_end_before_it_is_waited_for() -> None:
    """Too old while still being recorded: told as soon as it asks."""
    admission, _ = opened()
    seats = seats_of(1, longest_wait=0.01)
    first = arrive(admission, seats)
    second = seats.enter(admission.admit(subject(), seats), "second")
    await until(lambda: second.state is State.EXPIRED)
    assert seats.waiting == 0
    with pytest.raises(QueueTimeout):
        async with second:
            pass
    first.go.set()
    await first.task


async def test_who_got_a_seat_may_stay_longer_than_anybody_may_wait() -> None:
    """The end of the patience is forgotten with the wait."""
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    admission, _ = opened()
    seats = seats_of(1, longest_wait=0.03)
    first, second = (arrive(admission, seats) for _ in range(2))
    first.go.set()
    await first.task
    third = arrive(admission, seats)
    with pytest.raises(QueueTimeout):
        await third.task
    assert (second.place.state, problems) == (State.SEATED, [])
    second.go.set()
    await second.task


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    """Row 65: bounded in all; whoever can run at once needs no room in the queue."""
    admission, _ = opened()
    seats = seats_of(2, queue_size=3)
    guests = [arrive(admission, seats, f"u{number}@x.org") for number in range(5)]
    with pytest.raises(Unavailable) as error:
        admission.admit(subject("new@x.org"), seats)
    assert (error.value.status, error.value.code) == (503, "queue_full")
    assert error.value.retry_after is not None
    assert error.value.detail == {"waiting": 3, "max": 3}
    for guest in guests:
        guest.go.set()
    await asyncio.gather(*(guest.task for guest in guests))
    assert admission.admit(subject("new@x.org"), seats)


async def test_one_user_cannot_fill_the_queue() -> None:
    """`queue.per_user`: the others still find room."""
    admission, _ = opened()
    seats = seats_of(1, queue_size=10, per_user=2)
    guests = [arrive(admission, seats, "greedy@x.org") for _ in range(3)]
    with pytest.raises(Unavailable) as error:
        admission.admit(guests[0].place.turn.subject, seats)  # type: ignore[attr-defined]
    assert error.value.code == "queue_full_for_user"
    guests.append(arrive(admission, seats, "other@x.org"))
    for guest in guests:
        guest.go.set()
    await asyncio.gather(*(guest.task for guest in guests))


async def test_a_queue_of_those_who_may_not_run_holds_up_nobody() -> None:
    """The line is full of one user's requests that wait for their own limit, a seat is free: another user runs."""
    admission, limits = opened()
    limits.set("greedy@x.org", {"concurrency": 1})
    seats = seats_of(2, queue_size=2)
    guests = [arrive(admission, seats, "greedy@x.org") for _ in range(3)]
    assert repr(seats) == "<Seats up 1/2 running, 2 waiting>"
    with pytest.raises(Unavailable):
        arrive(admission, seats, "greedy@x.org")
    guests.append(arrive(admission, seats, "other@x.org"))
    assert guests[-1].place.state is State.SEATED
    for guest in guests:
        guest.go.set()
    await asyncio.gather(*(guest.task for guest in guests))


async def test_what_is_freed_at_one_upstream_is_noticed_at_the_other() -> None:
    """A concurrency limit is the user's, not the upstream's."""
    admission, _ = opened(concurrency=1)
    here, there = seats_of(5), seats_of(5)
    first, second = arrive(admission, here), arrive(admission, there)
    await turns()
    assert second.place.state is State.WAITING
    first.go.set()
    await until(lambda: second.place.state is State.SEATED)
    second.go.set()
    await second.task


async def test_who_waits_for_a_limit_runs_when_it_is_raised() -> None:
    """A change acts at once on the line, too."""
    admission, limits = opened(concurrency=1)
    seats = seats_of(5)
    guests = [arrive(admission, seats) for _ in range(3)]
    assert seats.running == 1
    limits.set("ana@x.org", {"concurrency": 2})
    assert seats.running == 2
    limits.set("ana@x.org", {"concurrency": None})
    assert seats.running == 3
    for guest in guests:
        guest.go.set()
    await asyncio.gather(*(guest.task for guest in guests))


async def test_the_estimate_follows_how_long_seats_were_held() -> None:
    """Nothing known: nothing said. Then position times the moving average, shared by all seats. Who has held a seat
    for longer than that slows its line, and only by that seat."""
    admission, _ = opened()
    seats = seats_of(1)
    first, second, third = (arrive(admission, seats) for _ in range(3))
    assert second.place.estimated_wait() is None
    first.place.since -= 10
    first.go.set()
    await first.task
    assert third.place.estimated_wait() == pytest.approx(10, abs=0.5)
    seats.resize(2)
    fourth = arrive(admission, seats)
    assert fourth.place.estimated_wait() == pytest.approx(5, abs=0.5)
    second.place.since -= 60
    third.place.since -= 60
    fifth = arrive(admission, seats)
    assert fourth.place.estimated_wait() == pytest.approx(30, abs=0.5)
    assert fifth.place.estimated_wait() == pytest.approx(60, abs=0.5)
    third.place.since += 55
    assert fourth.place.estimated_wait() == pytest.approx(60 / 7, abs=0.5)
    seats.resize(1)
    assert fourth.place.estimated_wait() == pytest.approx(2 * 60 / 7, abs=0.5)
    for guest in (second, third, fourth, fifth):
        guest.go.set()
    await asyncio.gather(second.task, third.task, fourth.task, fifth.task)


async def test_seats_can_be_added_taken_away_and_drained_live() -> None:
    """More seats: the next ones run now. Fewer: those who run stay. Drained: nobody new, who waits keeps waiting."""
    admission, _ = opened()
    seats = seats_of(1)
    guests = [arrive(admission, seats) for _ in range(4)]
    seats.resize(3)
    assert (seats.running, seats.waiting) == (3, 1)
    seats.resize(1)
    assert (seats.running, seats.waiting) == (3, 1)
    seats.drain()
    for guest in guests:
        guest.go.set()
    await asyncio.gather(*(guest.task for guest in guests[:3]))
    assert repr(seats) == "<Seats up 0/1 running, 1 waiting, draining>"
    with pytest.raises(Unavailable) as error:
        admission.admit(subject(), seats)
    assert error.value.code == "draining"
    seats.undrain()
    await guests[3].task
    assert (seats.running, seats.waiting) == (0, 0)
    with pytest.raises(ValueError, match="at least one seat"):
        seats.resize(0)


async def test_whoever_shows_the_seats_is_told_when_they_change() -> None:
    """Each step that changes what a row about the upstream says."""
    admission, _ = opened()
    seats = seats_of(1, longest_wait=0.01)
    seen: list[str] = []
    seats.changed = lambda: seen.append(repr(seats).removeprefix("<Seats up ").removesuffix(">"))
    one, two = (seats.enter(admission.admit(subject(), seats), "x") for _ in range(2))
    await until(lambda: two.state is State.EXPIRED)
    seats.resize(2)
    seats.drain()
    seats.undrain()
    one.leave()
    assert seen == [
        "1/1 running, 0 waiting",
        "1/1 running, 1 waiting",
        "1/1 running, 0 waiting",
        "1/2 running, 0 waiting",
        "1/2 running, 0 waiting, draining",
        "1/2 running, 0 waiting",
        "0/2 running, 0 waiting",
    ]


def test_an_illegal_move_raises() -> None:
    """The states of a place are a table."""
    admission, _ = opened()
    place = Place(seats_of(1), admission.admit(subject(), seats_of(1)), "x")
    place.expired()
    with pytest.raises(RuntimeError, match="cannot become seated"):
        place.seated()


# --- against an oracle: random arrivals, departures, cancellations, sizes, limits ---

USERS = ["ana@x.org", "bob@x.org", "eve@x.org"]
operations = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from(USERS)),
        st.tuples(st.just("finish"), st.integers(0, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("finish and cancel"), st.integers(0, 30), st.integers(0, 30)),
        st.tuples(st.just("resize"), st.integers(1, 4)),
        st.tuples(st.just("drain"), st.booleans()),
        st.tuples(st.just("limit"), st.sampled_from(USERS), st.sampled_from([None, 1, 2])),
        st.tuples(
            st.just("let time pass"),
        ),
    ),
    max_size=40,
)


class Model:
    """What must be true, said in the plainest way: lists of numbers."""

    def __init__(self) -> None:
        self.size = 1
        self.draining = False
        self.line: list[int] = []
        self.running: list[int] = []
        self.user: dict[int, str] = {}
        self.limit: dict[str, int | None] = {}

    def fill(self) -> None:
        while len(self.running) < self.size and not self.draining:
            for number in self.line:
                limit = self.limit.get(self.user[number])
                of_user = sum(1 for each in self.running if self.user[each] == self.user[number])
                if limit is None or of_user < limit:
                    self.line.remove(number)
                    self.running.append(number)
                    break
            else:
                return

    def gone(self, number: int) -> None:
        for where in (self.line, self.running):
            if number in where:
                where.remove(number)
        self.fill()


@settings(max_examples=200, deadline=None)
@given(operations)
def test_no_seat_is_lost_and_no_wake_up_missed(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """After every event, who runs and who waits is what the oracle says; at the end nothing is held."""
    asyncio.run(_play(steps))


async def _play(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    admission, limits = opened()
    seats, model, guests = seats_of(1), Model(), dict[int, Guest]()

    def some(pool: list[int], index: int) -> int | None:
        return pool[index % len(pool)] if pool else None

    for count, (what, *how) in enumerate(steps):
        match what:
            case "arrive":
                if model.draining:
                    continue
                guests[count] = arrive(admission, seats, how[0])
                await turns(1)  # a task that is cancelled before it began never holds its place by `async with`
                model.user[count] = how[0]
                model.line.append(count)
                model.fill()
            case "finish" | "cancel" | "finish and cancel":
                numbers = [some(model.running, how[0])] if what.startswith("finish") else []
                if numbers and numbers[0] is not None:
                    guests[numbers[0]].place.leave()
                    guests[numbers[0]].go.set()
                    model.gone(numbers[0])
                if what.endswith("cancel"):
                    number = some(sorted(model.line + model.running), how[-1])
                    if number is not None:
                        guests[number].task.cancel()
                        await turns(3)
                        model.gone(number)
            case "resize":
                seats.resize(how[0])
                model.size = how[0]
                model.fill()
            case "drain":
                (seats.drain if how[0] else seats.undrain)()
                model.draining = how[0]
                model.fill()
            case "limit":
                limits.set(how[0], {"concurrency": how[1]})
                model.limit[how[0]] = how[1]
                model.fill()
            case "let time pass":
                await turns(3)
        line = [number for number, guest in guests.items() if guest.place.state is State.WAITING]
        running = {number for number, guest in guests.items() if guest.place.state is State.SEATED}
        assert (line, running) == (model.line, set(model.running))
        assert (seats.running, seats.waiting) == (len(running), len(line))
        assert [guests[number].place.position() for number in line] == list(range(1, len(line) + 1))
    for guest in guests.values():
        guest.task.cancel()
    await asyncio.gather(*(guest.task for guest in guests.values()), return_exceptions=True)
    assert (seats.running, seats.waiting) == (0, 0)
    assert repr(admission).endswith(" 0 running>")
    assert not admission._running_in
