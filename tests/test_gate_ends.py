"""One exchange, one end: whatever ends it, in whatever order and at whatever moment, it ends once and leaves nothing.

A machine drives a whole daemon: clients ask, read, leave; the upstream speaks, fails, finishes; an administrator
cancels, a deadline passes, a user is disabled, the gateway cuts everything as a stop does. Between two of these pass a
few turns of the event loop, so that each meets an exchange in every state, and several at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.exchange import EndState
from daemon.traffic.admission import Admission
from daemon.traffic.restore import _recall
from tests.rigs.gatehouse import ADMIN, MODEL, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream, Turn
from tests.rigs.until import until

SEATS = 2
turns = st.integers(0, 4)


class Asked:
    """A client that asks, and what it got."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.stayed = True
        self.answer = asyncio.ensure_future(client.reader.read())


class Ends(RuleBasedStateMachine):
    """See the module."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    gate: ClassVar[Gatehouse]
    keys: ClassVar[list[str]]
    speaking: ClassVar[list[asyncio.Queue[str]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.first_reason: dict[str, EndState] = {}
        self.changing: list[asyncio.Future[Any]] = []
        self.before = self.do(self.closed())
        self.speaking.clear()

    def do(self, work: Any, pause: int = 0) -> Any:
        async def both() -> Any:
            result = await work if asyncio.iscoroutine(work) else work()
            for _ in range(pause):
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(both())

    # --- what happens ---

    @precondition(lambda self: len(self.asked) < 6)
    @rule(who=st.integers(0, 1), stream=st.booleans(), pause=turns)
    def ask(self, who: int, stream: bool, pause: int) -> None:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "?"}], "stream": stream}).encode()

        async def send() -> None:
            client = await RawClient.connect(self.gate.port)
            await client.send(
                b"POST /api/chat HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nAuthorization: Bearer %b\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (self.keys[who].encode(), len(body), body)
            )
            self.asked.append(Asked(client))

        self.do(send(), pause)

    # What is there to happen to depends on sockets, and so on the moment: a rule that finds nothing does nothing, as
    # Hypothesis wants the same steps to be possible each time.

    @rule(which=st.integers(0, 9), said=st.sampled_from(["piece", "piece", "finish", "reset", "close"]), pause=turns)
    def upstream_speaks(self, which: int, said: str, pause: int) -> None:
        if self.speaking:
            self.do(lambda: self.speaking[which % len(self.speaking)].put_nowait(said), pause)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 9), pause=turns)
    def client_leaves(self, which: int, pause: int) -> None:
        asked = self.asked[which % len(self.asked)]
        asked.stayed = False
        self.do(asked.client.reset, pause)

    @rule(
        which=st.integers(0, 9),
        state=st.sampled_from([EndState.CANCELLED_BY_ADMIN, EndState.TIMEOUT_IDLE, EndState.BUDGET_SPENT]),
        pause=turns,
    )
    def it_is_ended(self, which: int, state: EndState, pause: int) -> None:
        live = self.gate.house.gate.live()
        if not live:
            return
        exchange = live[which % len(live)]
        if self.do(lambda: exchange.end(state, "for some reason"), pause):
            self.first_reason[exchange.request_id] = state

    @rule(pause=turns)
    def everything_is_cut(self, pause: int) -> None:
        gate = self.gate.house.gate

        def cut() -> None:
            going = [each.request_id for each in gate.live() if each.state is None]
            assert gate.cut(lambda _: True, EndState.SHUTDOWN, "the gateway is shutting down") == len(going)
            self.first_reason |= dict.fromkeys(going, EndState.SHUTDOWN)

        self.do(cut, pause)

    @rule(pause=turns)
    def a_user_is_disabled_for_a_moment(self, pause: int) -> None:
        directory, user = self.gate.house.directory, self.gate.user

        async def change() -> None:
            await directory.disable(ADMIN, user.id)
            await directory.enable(ADMIN, user.id)

        if all(each.done() for each in self.changing):
            self.do(lambda: self.changing.append(asyncio.ensure_future(change())), pause)

    @rule(pause=st.integers(1, 30))
    def time_passes(self, pause: int) -> None:
        self.do(lambda: None, pause)

    # --- what must hold ---

    @invariant()
    def seats_are_never_more_than_there_are(self) -> None:
        seats = self.gate.house.registry.upstreams[0].seats
        assert 0 <= seats.running <= SEATS

    def teardown(self) -> None:
        self.do(self.everything_came_to_its_end())

    async def everything_came_to_its_end(self) -> None:
        house = self.gate.house
        await asyncio.gather(*self.changing)
        async with asyncio.TaskGroup() as group:
            finishing = group.create_task(self.let_the_upstream_finish())
            answers = [await asked.answer if asked.stayed else b"" for asked in self.asked]
            await until(lambda: not house.gate.live(), timeout=10)
            finishing.cancel()
        for asked in self.asked:
            asked.client.close()
        upstream = house.registry.upstreams[0]
        assert (upstream.seats.running, upstream.seats.waiting) == (0, 0)
        await until(lambda: not upstream.pool.busy)
        assert (house.admission._open, house.admission._running) == ({}, set())
        assert not house.gate._running

        async def every_one_has_an_end() -> list[tuple[str, str]]:
            # Who left while it was still being recorded gets its end as soon as it has a beginning.
            ended = (await self.closed())[len(self.before) :]
            known = dict(ended)
            return [] if None in known.values() or not self.first_reason.keys() <= known.keys() else [("", ""), *ended]

        _, *ended = await until(every_one_has_an_end, what="every opened exchange has an end")
        states = dict(ended)
        assert len(states) == len(ended), "an exchange has two ends"
        assert {each: states[each] for each in self.first_reason} == self.first_reason, "the first reason wins"
        for asked, answer in zip(self.asked, answers, strict=True):
            if asked.stayed:
                check_answer(answer, states)

        async def memory_is_what_the_journal_says() -> bool:
            again = Admission(house.limits, house.clock)
            house.limits.changed.pop()
            await _recall(again, house.database, since=0)
            return set(again.in_use()) == set(house.admission.in_use())

        # At once, but for who left while being recorded: until its end is written it counts as crashed.
        await until(memory_is_what_the_journal_says, what="a restart would find in the journal what memory knows")

    async def let_the_upstream_finish(self) -> None:
        while True:
            for queue in self.speaking:
                queue.put_nowait("finish")
            await asyncio.sleep(0.001)

    async def closed(self) -> list[tuple[str, str]]:
        """The ended exchanges of the journal: request id and state, oldest first; each opened one has one."""

        def read(conn: Any) -> list[tuple[str, str]]:
            found = conn.execute(
                "SELECT o.request_id, c.state FROM journal o LEFT JOIN journal c"
                " ON c.event = 'closed' AND c.opened_seq = o.seq WHERE o.event = 'opened' ORDER BY o.seq"
            )
            return [(row[0], row[1]) for row in found]

        return await self.gate.house.database.read(read)


def check_answer(answer: bytes, states: dict[str, str]) -> None:
    """A client that stayed got the whole and `ok`, or was told that it did not."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    lines = head.decode().splitlines()
    request_id = next(line.partition(": ")[2] for line in lines if line.startswith("X-Request-Id"))
    state = states.get(request_id, "refused")
    whole = b'"done":true' in body
    assert whole == (state == "ok"), (state, answer)
    assert whole or b'"error"' in body, (state, answer)
    assert status == 200 or not whole


async def spoken(turn: Turn) -> None:
    """An upstream that says what the machine tells it to."""
    words: asyncio.Queue[str] = asyncio.Queue()
    Ends.speaking.append(words)
    begun = False
    while True:
        said = await words.get()
        if said in {"reset", "close"}:
            turn.reset() if said == "reset" else await turn.close()
            return
        if not begun:
            begun = True
            await turn.head()
        *pieces, end = turn.pieces(["word"])
        for piece in pieces if said == "piece" else [end]:
            await turn.send(piece)
        if said == "finish":
            await turn.finish()
            return


@pytest.fixture(scope="module", autouse=True)
def _one_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Ends.loop = asyncio.new_event_loop()
    stack = AsyncExitStack()

    async def start() -> None:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        upstream.default = spoken
        Ends.gate = await stack.enter_async_context(gatehouse(tmp_path_factory.mktemp("ends"), upstream))
        _, other = await Ends.gate.member("joe@example.org")
        Ends.keys = [Ends.gate.key, other]
        everything = {"requests_per_day": 10**6, "tokens_per_day": 10**9}
        await Ends.gate.house.limits.set(ADMIN, "default", everything)

    Ends.loop.run_until_complete(start())
    yield
    Ends.loop.run_until_complete(stack.aclose())
    Ends.loop.close()


TestEnds = Ends.TestCase
TestEnds.settings = settings(
    max_examples=100,  # some two hundred exchanges
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.generate],  # what sockets decide is not the same twice: nothing to shrink or to replay
)
