"""The windows' past comes back from the journal: after kill -9, after a reboot, and when a limit looks further back."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon import clock as clocks
from daemon.access.actor import DAEMON
from daemon.audit.chain import Record
from daemon.clock import SystemClock
from daemon.config import Limits as Seed
from daemon.exchange import EndState, Exchange, Usage
from daemon.store.admissions import OUT_OF_ORDER, admissions_from, admissions_settled_from, first_since
from daemon.store.journal import append
from daemon.traffic.admission import Admission, LimitUse, Subject, Ticket
from daemon.traffic.limits import Limits
from daemon.traffic.restore import restore
from tests.rigs.journals import ANA, BEN, Desk, desk_in
from tests.rigs.traffic import DAY, HOUR, MINUTE, SECOND, MovedClock, admitted, many_seats
from tests.rigs.until import until

SEATS = many_seats()
WHO = Subject(1, ANA, "k1", "llama3.2:latest", "192.0.2.7")


@dataclass
class Lodge:
    """Journal, limits and admission together, as the daemon wires them."""

    desk: Desk
    limits: Limits
    admission: Admission
    open: list[tuple[Ticket, Exchange]] = field(default_factory=list)

    async def begin(self, who: Subject = WHO) -> bool:
        """Admit and record, as the relay does; False where a limit refuses."""
        ticket = admitted(self.admission, who, SEATS)
        if ticket is None:
            return False
        exchange = self.desk.exchange(
            admitted_clock=ticket.admitted_clock,
            user_id=who.user_id,
            user=who.email,
            key_id=who.key_id,
            model=who.model,
            address=who.address,
        )
        self.open.append((ticket, exchange))
        await self.desk.journal.opened(exchange)
        return True

    async def end(self, index: int = 0, *, tokens: int = 0, sent: bool = True) -> None:
        """Settle and record, as the relay does."""
        ticket, exchange = self.open.pop(index)
        exchange.state = EndState.OK if sent else EndState.CLIENT_LEFT
        exchange.sent_upstream = sent
        exchange.usage = Usage(0, tokens)
        exchange.ended = self.desk.clock.wall()
        if sent:
            self.admission.spend_tokens(ticket, tokens)
        else:
            self.admission.give_back(ticket)
        await self.desk.journal.closed(exchange, [])
        self.admission.settled(ticket)

    def used(self, target: str) -> dict[str, int]:
        return {use.limit: use.used for use in self.admission.in_use(target)}


@asynccontextmanager
async def lodge_in(folder: Path, clock: Any = None, **seed: Any) -> AsyncIterator[Lodge]:
    """Start as the daemon starts: recovery, limits, the windows' past."""
    async with desk_in(folder, clock=clock) as desk:
        await desk.journal.recover()
        limits = await Limits.load(
            desk.database, desk.clock, seed=Seed(**seed), user_exists=lambda _: True, key_exists=lambda _: True
        )
        admission = Admission(limits, desk.clock)
        await restore(admission, limits, desk.database, desk.clock)
        yield Lodge(desk, limits, admission)


# --- restart and kill -9 (R3) ---


async def test_every_kind_of_window_survives_a_restart(tmp_path: Path) -> None:
    """Requests and tokens, of users, keys, models and networks; to the microsecond."""
    clock = MovedClock()
    everywhere = {"requests_per_minute": 3, "requests_per_hour": 4, "tokens_per_minute": 50, "tokens_per_day": 70}
    targets = ["default", "key:k1", "model:llama3.2", "address:192.0.2.0/24"]
    async with lodge_in(tmp_path, clock) as lodge:
        for target in targets:
            await lodge.limits.set(DAEMON, target, everywhere)
        await lodge.begin()
        clock.advance(30 * MINUTE)
        await lodge.begin(Subject(2, BEN, "k1", "llama3.2:latest", "192.0.2.9"))
        await lodge.begin()
        clock.advance(20 * SECOND)
        await lodge.end(0, tokens=20)
        await lodge.end(0, tokens=30)
        before = lodge.admission.in_use()
    clock.advance(SECOND)
    async with lodge_in(tmp_path, clock) as lodge:
        # The one that was open when the daemon ended is `crashed` now: it keeps its place, and cost what is known.
        assert lodge.admission.in_use() == before
        assert lodge.used(f"user:{ANA}") == {
            "requests_per_minute": 1,
            "requests_per_hour": 2,
            "tokens_per_minute": 20,
            "tokens_per_day": 20,
        }
        assert lodge.used("key:k1")["tokens_per_minute"] == 50
        assert not await lodge.begin()
        clock.advance(59 * SECOND)
        assert lodge.used("key:k1")["tokens_per_minute"] == 0, "settled exactly a minute ago"
        assert lodge.used("address:192.0.2.0/24") == {
            "requests_per_minute": 0,
            "requests_per_hour": 3,
            "tokens_per_minute": 0,
            "tokens_per_day": 50,
        }


async def test_tokens_of_a_long_exchange_count_from_its_end(tmp_path: Path) -> None:
    """Opened long before the window, settled within it, others in between: restored all the same."""
    clock = MovedClock()
    async with lodge_in(tmp_path, clock, requests_per_minute=None, tokens_per_minute=100) as lodge:
        await lodge.begin()
        for _ in range(5):
            clock.advance(10 * MINUTE)
            await lodge.begin(Subject(2, BEN, None, "llama3.2:latest", ""))
            await lodge.end(1, tokens=1)
        await lodge.end(tokens=77)
    async with lodge_in(tmp_path, clock) as lodge:
        assert lodge.used(f"user:{ANA}") == {"tokens_per_minute": 77}
        assert lodge.used(f"user:{BEN}") == {"tokens_per_minute": 1}


async def test_a_moment_is_one_admissions_name_across_a_restart(tmp_path: Path) -> None:
    """What came before the restart is in no way taken for what comes after it."""
    clock = MovedClock()
    async with lodge_in(tmp_path, clock, requests_per_minute=3) as lodge:
        assert await lodge.begin()
        assert await lodge.begin()
        latest = lodge.open[-1][0].admitted_clock
    async with lodge_in(tmp_path, clock) as lodge:
        assert await lodge.begin()
        assert lodge.open[-1][0].admitted_clock > latest
        await lodge.end(sent=False)
        assert lodge.used(f"user:{ANA}") == {"requests_per_minute": 2}


async def test_what_was_given_back_stays_given_back(tmp_path: Path) -> None:
    """Left while queued, before the restart: not counted after it."""
    async with lodge_in(tmp_path, requests_per_minute=2) as lodge:
        await lodge.begin()
        await lodge.begin()
        await lodge.end(0, sent=False)
    async with lodge_in(tmp_path) as lodge:
        assert lodge.used(f"user:{ANA}") == {"requests_per_minute": 1}
        assert await lodge.begin()
        assert not await lodge.begin()


@pytest.mark.parametrize("cycle", range(3))
async def test_a_window_survives_kill_9(tmp_path: Path, cycle: int) -> None:
    """R3: killed with settled, given-back and open requests, over and over: never more than N in a window."""
    total = 0
    for _ in range(cycle + 1):
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.rigs.killed", str(tmp_path), "12", "3", "4"
        )
        assert await killed.wait() == -signal.SIGKILL
        total += 9
    async with lodge_in(tmp_path, requests_per_minute=1) as lodge:
        await lodge.limits.set(DAEMON, "default", {"requests_per_minute": 40, "tokens_per_day": 10**6})
        assert lodge.used(f"user:{ANA}") == {"requests_per_minute": total, "tokens_per_day": (cycle + 1) * 4 * 18}
        for _ in range(40 - total):
            assert await lodge.begin()
        assert not await lodge.begin()


# --- reboots (R2) ---


@dataclass
class Machine:
    """A machine whose boot, uptime and wall clock a test decides."""

    boot: str = "one"
    uptime: int = 5 * HOUR
    wall: int = 1_700_000_000 * SECOND

    def pass_time(self, microseconds: int) -> None:
        self.uptime += microseconds
        self.wall += microseconds

    def reboot(self, *, down: int) -> None:
        """Off for `down` microseconds; the uptime begins anew."""
        self.boot += "+"
        self.uptime = 20 * SECOND
        self.wall += down + 20 * SECOND


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    it = Machine()
    monkeypatch.setattr(clocks, "_boottime", lambda: it.uptime)
    monkeypatch.setattr(clocks, "_wall", lambda: it.wall)
    monkeypatch.setattr(clocks, "boot_id", lambda: it.boot)
    return it


async def used_up(folder: Path) -> None:
    async with lodge_in(folder, requests_per_minute=None, requests_per_hour=2) as lodge:
        assert isinstance(lodge.desk.clock, SystemClock)
        for _ in range(2):
            assert await lodge.begin()
            await lodge.end()
        assert not await lodge.begin()


async def wait_is(folder: Path, seconds: int, machine: Machine) -> None:
    """The user is refused for exactly so long from now, whatever the wall clock says."""
    async with lodge_in(folder) as lodge:
        machine.pass_time(seconds * SECOND - 1)
        assert not await lodge.begin()
        machine.pass_time(1)
        assert await lodge.begin()


async def test_the_same_boot_counts_on_whatever_the_wall_clock_does(tmp_path: Path, machine: Machine) -> None:
    """R2: restarted within a boot, the wall clock stepped a day either way: no difference."""
    await used_up(tmp_path)
    machine.pass_time(10 * MINUTE)
    machine.wall += DAY
    async with lodge_in(tmp_path) as lodge:
        assert not await lodge.begin()
    machine.wall -= 3 * DAY
    await wait_is(tmp_path, 50 * 60, machine)


async def test_a_reboot_counts_the_downtime(tmp_path: Path, machine: Machine) -> None:
    """Ten minutes off, by the wall clock: ten minutes less to wait (and the seconds that booting took)."""
    await used_up(tmp_path)
    machine.reboot(down=10 * MINUTE)
    await wait_is(tmp_path, 50 * 60 - 20, machine)


async def test_a_reboot_with_the_wall_clock_set_back_counts_the_downtime_as_nothing(
    tmp_path: Path, machine: Machine
) -> None:
    """Contract: nobody gets out of a window by a wrong clock; the window goes on where it stood."""
    await used_up(tmp_path)
    machine.pass_time(10 * MINUTE)
    async with lodge_in(tmp_path) as lodge:
        await lodge.desk.database.write(lambda conn: None)  # a commit: the store knows of this moment
    machine.reboot(down=-30 * DAY)
    await wait_is(tmp_path, 50 * 60, machine)


# --- a limit that looks further back than memory ---


async def test_a_new_limit_counts_what_was_used_before_it(tmp_path: Path) -> None:
    """The past of an hour comes from the journal, for exactly those it concerns."""
    clock = MovedClock()
    async with lodge_in(tmp_path, clock, requests_per_minute=100) as lodge:
        for step in (0, 20, 20, 20):
            clock.advance(step * MINUTE)
            await lodge.begin()
            await lodge.end(tokens=10)
        assert lodge.used(f"user:{ANA}") == {"requests_per_minute": 1}
        await lodge.limits.set(DAEMON, ANA, {"requests_per_hour": 4, "tokens_per_day": 1000})
        assert lodge.used(f"user:{ANA}") == {"requests_per_minute": 1, "requests_per_hour": 3, "tokens_per_day": 40}
        assert await lodge.begin()
        assert not await lodge.begin()
        await lodge.limits.set(DAEMON, "model:llama3.2", {"tokens_per_day": 40})
        assert not await lodge.begin(Subject(2, BEN, None, "llama3.2:latest", ""))


async def test_what_happens_while_the_past_is_read_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admitted, given back, settled between two pages: memory knows best, nothing counts twice."""
    monkeypatch.setattr("daemon.traffic.restore.PAGE", 3)
    clock = MovedClock()
    async with lodge_in(tmp_path, clock, requests_per_minute=None) as lodge:
        expected = Expected(lodge)
        dice = random.Random(7)
        for _ in range(60):
            await expected.something(dice)
        read = lodge.desk.database.read

        async def read_while_requests_come_and_go(job: Any) -> Any:
            page = await read(job)
            for _ in range(2):
                await expected.something(dice)
            return page

        monkeypatch.setattr(lodge.desk.database, "read", read_while_requests_come_and_go)
        for target in ("default", "key:k1", "model:llama3.2", "address:192.0.2.0/24"):
            before = expected.happened
            await lodge.limits.set(DAEMON, target, {"requests_per_day": 10**6, "tokens_per_day": 10**6})
            assert expected.happened > before + 10
            expected.holds(target)


@dataclass
class Expected:
    """Random traffic, and what it amounts to: a list of all that counts."""

    lodge: Lodge
    requests: dict[int, Subject] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    happened: int = 0

    async def something(self, dice: random.Random) -> None:
        self.happened += 1
        lodge = self.lodge
        if not lodge.open or dice.random() < 0.5:
            who = Subject(*dice.choice([(1, ANA), (2, BEN)]), dice.choice(["k1", None]), "llama3.2:latest", "192.0.2.7")
            await lodge.begin(who)
            self.requests[lodge.open[-1][0].admitted_clock] = who
            return
        index = dice.randrange(len(lodge.open))
        ticket, _ = lodge.open[index]
        if dice.random() < 0.3:
            del self.requests[ticket.admitted_clock]
            await lodge.end(index, sent=False)
        else:
            self.tokens[ticket.admitted_clock] = dice.randrange(50)
            await lodge.end(index, tokens=self.tokens[ticket.admitted_clock])

    def holds(self, target: str) -> None:
        for each in [f"user:{ANA}", f"user:{BEN}"] if target == "default" else [target]:
            mine = {
                at: who for at, who in self.requests.items() if not each.startswith("user:") or each.endswith(who.email)
            }
            if each == "key:k1":
                mine = {at: who for at, who in mine.items() if who.key_id == "k1"}
            tokens = sum(self.tokens.get(at, 0) for at in mine)
            assert self.lodge.used(each) == {"requests_per_day": len(mine), "tokens_per_day": tokens}


async def test_the_windows_cannot_be_restored_twice_at_once(tmp_path: Path) -> None:
    """Two changes at once read the past one after the other; a failed reading leaves memory as it was."""
    async with lodge_in(tmp_path) as lodge:
        await lodge.begin()
        lodge.admission.begin_rebuild()
        with pytest.raises(RuntimeError, match="already"):
            lodge.admission.begin_rebuild()
        lodge.admission.drop_rebuild()
        assert lodge.used(f"user:{ANA}") == {"requests_per_minute": 1}
        recalls = [asyncio.ensure_future(lodge.limits.recall()) for _ in range(3)]  # type: ignore[misc]
        await until(lambda: all(recall.done() for recall in recalls))
        await asyncio.gather(*recalls)
        assert lodge.admission.in_use() == [LimitUse(f"user:{ANA}", "requests_per_minute", 1, 10)]


# --- reading the journal backwards in time ---


events = st.lists(
    st.tuples(st.sampled_from(["opened", "closed", "admin"]), st.integers(0, 40), st.integers(0, 59)), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(events, st.integers(0, 1200))
@example([("opened", 40, 0), ("opened", 40, 0), ("opened", 0, 59), ("opened", 0, 0)], 50)
def test_nothing_of_the_wanted_past_is_before_where_reading_begins(
    written: list[tuple[str, int, int]], seconds: int
) -> None:
    """Halving finds the place, with opening records up to a minute late and closing records however late."""
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE journal (seq INTEGER PRIMARY KEY, event TEXT, clock_us INTEGER, opened_seq INTEGER)")
    now, rows = 0, []
    for event, step, late in written:
        now += step * SECOND
        clock = max(0, now - late * SECOND) if event == "opened" else now
        rows.append((event, clock))
        conn.execute("INSERT INTO journal (event, clock_us) VALUES (?, ?)", (event, clock))
    since = now - seconds * SECOND
    first = first_since(conn, since)
    conn.close()
    assert not [seq for seq, (event, clock) in enumerate(rows, 1) if seq < first and clock > since and event != "admin"]
    # And it is the place, not just any: nothing much older is read.
    older = [
        seq for seq, (event, clock) in enumerate(rows, 1) if event == "opened" and clock <= since - 2 * OUT_OF_ORDER
    ]
    assert not older or first > max(older)


async def test_a_start_reads_pages_by_key_and_never_the_whole_past(tmp_path: Path) -> None:
    """With years of journal a start must not take minutes: every step goes by an index."""
    async with desk_in(tmp_path) as desk:
        await desk.database.write(lambda conn: append(conn, Record(event="admin", at_us=1, clock_us=1)))
        statements: list[str] = []

        def looked_at(conn: Any) -> list[str]:
            conn.set_trace_callback(statements.append)
            first_since(conn, 0)
            admissions_from(conn, 1, 10)
            admissions_settled_from(conn, 1)
            conn.set_trace_callback(None)
            plans = []
            for statement in statements:
                plans += [row[3] for row in conn.execute("EXPLAIN QUERY PLAN " + statement)]
            return plans

        plans = await desk.database.read(looked_at)
    assert len(plans) >= 5
    for plan in plans:
        assert plan.startswith("SEARCH"), plan
        assert "TEMP B-TREE" not in plan
        assert "opened_seq<" not in plan, "a range over the whole past"
