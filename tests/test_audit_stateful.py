"""The journal against a model, under every order of events that Hypothesis finds: what was acknowledged is there, each
exchange has one end and its own answer, `audit verify` finds nothing, whatever stopped, crashed or was erased."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from daemon.access.actor import DAEMON
from daemon.audit.sealing import TrustedKeys
from daemon.audit.search import show
from daemon.audit.verify import verify
from daemon.exchange import EndState, Exchange
from daemon.store.opening import connect_to_read
from tests.rigs.journals import streamed
from tests.rigs.keeping import Keeper, keeper_in

T = TypeVar("T")
ENDS = st.sampled_from([EndState.OK, EndState.CLIENT_LEFT, EndState.UPSTREAM_ERROR, EndState.CANCELLED_BY_ADMIN])
# Few different ones, so that texts meet again: parts are stored once a user.
TEXTS = st.sampled_from(["Why?", "How?", "And then?", "a long one " * 40])


# Hundreds of commits: what a sync takes is not what is tried here.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass
class Known:
    """What the model knows of one exchange."""

    exchange: Exchange
    words: list[str] = field(default_factory=list)  # set down so far
    state: str | None = None
    may_be_erased: bool = False


class JournalMachine(RuleBasedStateMachine):
    """Two users' exchanges on one desk."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="gatelodge-journal-", dir=MEMORY))
        self.loop = asyncio.new_event_loop()
        self.lives = 0
        self.known: dict[str, Known] = {}
        self.admin = self.refused = 0
        self.counted: int = 0  # refusals that are in memory only
        self.retired = False
        self.entered: AbstractAsyncContextManager[Keeper]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize()
    def begin(self) -> None:
        self.start(self.root / "0")

    def start(self, folder: Path) -> None:
        """As the daemon does: open, recover."""
        self.folder = folder
        self.entered = keeper_in(folder)
        self.keeper = self.run(self.entered.__aenter__())
        self.desk = self.keeper.desk
        still_open = self.running()
        assert self.run(self.desk.journal.recover()) == len(still_open)
        for known in still_open:
            known.state = EndState.CRASHED.value

    def running(self) -> list[Known]:
        return [known for known in self.known.values() if known.state is None]

    def one(self, data: st.DataObject) -> Known:
        return data.draw(st.sampled_from(self.running()))

    # --- what happens ---

    @rule(texts=st.lists(TEXTS, min_size=1, max_size=3), user=st.integers(1, 2), stream=st.booleans())
    def opened(self, texts: list[str], user: int, stream: bool) -> None:
        exchange = self.desk.exchange(*texts, user_id=user, stream=stream)
        self.run(self.desk.journal.opened(exchange))
        self.known[exchange.request_id] = Known(exchange)

    @rule(texts=st.lists(TEXTS, min_size=2, max_size=5), state=ENDS)
    def many_at_once(self, texts: list[str], state: EndState) -> None:
        async def converse(text: str) -> None:
            exchange = self.desk.exchange(text)
            await self.desk.journal.opened(exchange)
            await self.desk.end(exchange, state, text)
            self.known[exchange.request_id] = Known(exchange, [text], state.value)

        async def all_of_them() -> None:
            await asyncio.gather(*map(converse, texts))

        self.run(all_of_them())

    @precondition(lambda self: self.running())
    @rule(data=st.data(), words=st.lists(TEXTS, min_size=1, max_size=3))
    def gained(self, data: st.DataObject, words: list[str]) -> None:
        known = self.one(data)
        pieces = [streamed(word, done=False) for word in words]
        segments = [(known.exchange.request_id, b"".join(piece)) for piece in pieces]
        self.run(self.desk.journal.flush_partials(segments))
        known.words += words

    @precondition(lambda self: self.running())
    @rule(data=st.data(), word=TEXTS, state=ENDS)
    def closed(self, data: st.DataObject, word: str, state: EndState) -> None:
        known = self.one(data)
        known.words.append(word)
        # Of a stream the rest; of an answer that its client gets whole, all of it.
        rest = word if known.exchange.stream else "".join(known.words)
        self.run(self.desk.end(known.exchange, state, rest))
        known.state = state.value

    @precondition(lambda self: len(self.running()) < len(self.known))
    @rule(data=st.data(), state=ENDS)
    def closed_again(self, data: st.DataObject, state: EndState) -> None:
        """Changes nothing."""
        known = data.draw(st.sampled_from([known for known in self.known.values() if known.state is not None]))
        self.run(self.desk.end(known.exchange, state, "another answer"))

    @rule(reason=st.sampled_from(["requests_per_minute", "queue_full"]), times=st.integers(1, 3))
    def turned_away(self, reason: str, times: int) -> None:
        for _ in range(times):
            self.desk.journal.refused(reason=reason, user_id=1, user="ana@example.org")
        self.counted += times

    @rule()
    def administered(self) -> None:
        self.run(self.desk.journal.admin(DAEMON, "limits set", "default", {"old": 1, "new": 2}))
        self.admin += 1

    @rule()
    def sealed(self) -> None:
        self.run(self.desk.journal.checkpoint())

    @precondition(lambda self: not self.retired)
    @rule()
    def retire(self) -> None:
        """Export, verify, erase what has ended so far."""
        self.retired = True  # children are slow to start: once an example
        row = self.run(self.keeper.retain())
        assert row.state == "done", row.error
        for known in self.known.values():
            known.may_be_erased = known.may_be_erased or known.state is not None

    @rule()
    def restart(self) -> None:
        """An orderly stop writes what is in memory; what runs meanwhile is crashed at the next start."""
        self.run(self.desk.journal.close())
        self.refused, self.counted = self.refused + self.counted, 0
        self.run(self.entered.__aexit__(None, None, None))
        self.start(self.folder)

    @rule()
    def crash(self) -> None:
        """The files as they lie there at this moment."""
        self.lives += 1
        folder = self.root / str(self.lives)
        shutil.copytree(self.folder, folder)
        self.counted = 0  # what a crash may lose
        self.run(self.entered.__aexit__(None, None, None))
        self.start(folder)

    # --- what must hold ---

    @rule()
    def everything_is_right(self) -> None:
        with closing(connect_to_read(self.desk.path)) as conn:
            assert verify(conn, TrustedKeys(self.desk.secrets)).problems == []
        self.run(self.compare())

    async def compare(self) -> None:
        opened = await self.desk.rows("SELECT request_id FROM journal WHERE event = 'opened' ORDER BY seq")
        assert [request_id for (request_id,) in opened] == sorted(
            self.known, key=lambda request_id: self.known[request_id].exchange.seq
        )
        ends = await self.desk.rows("SELECT request_id, state FROM journal WHERE event = 'closed'")
        ended = {request_id: known.state for request_id, known in self.known.items() if known.state is not None}
        assert len(ends) == len(ended) and dict(ends) == ended
        unfinished = await self.desk.rows("SELECT request_id FROM unfinished")
        assert {request_id for (request_id,) in unfinished} == {each.exchange.request_id for each in self.running()}
        lost = await self.desk.rows("SELECT * FROM partial WHERE request_id NOT IN (SELECT request_id FROM unfinished)")
        assert lost == []
        for request_id, known in self.known.items():
            record = await show(self.desk.database, request_id)
            assert record.response == "".join(known.words) or (known.may_be_erased and record.erased)
        admin = "SELECT COUNT(*) FROM journal WHERE event = 'admin' AND detail LIKE '%\"limits set\"%'"
        assert await self.desk.rows(admin) == [(self.admin,)]
        refused = "SELECT COALESCE(SUM(detail ->> 'count'), 0) FROM journal WHERE event = 'refused'"
        assert await self.desk.rows(refused) == [(self.refused,)]

    def teardown(self) -> None:
        try:
            if hasattr(self, "desk"):
                self.everything_is_right()
                self.run(self.entered.__aexit__(None, None, None))
        finally:
            self.loop.close()
            shutil.rmtree(self.root, ignore_errors=True)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.long
@pytest.mark.timeout(1800)
class TestJournalForLong(JournalMachine.TestCase):  # type: ignore[misc]
    """The same, hundreds of times, with new dice."""

    settings = settings(
        max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
