"""The journal as the relay and the daemon use it: open, close, refuse, set down what runs, seal.

Rules: `opened` returns only when the request is durable, and no byte may go upstream before (A1); when it cannot be
recorded, or not within two seconds, the request is refused and nothing of it goes on (A2). `closed` returns when the
end is durable; only then may the end of the answer leave. A refused request never waits for a disk. Cutting, hashing
and compressing happen in the store's threads, never on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from common.errors import Unavailable
from common.protocol import VerifyReport
from common.times import SECOND
from daemon.access.actor import Actor
from daemon.audit import records
from daemon.audit.answers import answer_texts
from daemon.audit.chain import Record, checkpoint_message
from daemon.audit.child import spawn_reader
from daemon.audit.documents import split_request, weight
from daemon.audit.recovery import close_crashed
from daemon.audit.refusals import Refusals, record_of
from daemon.audit.sealing import Sealer
from daemon.audit.verify import Expectation
from daemon.clock import Clock
from daemon.exchange import EndState, Exchange
from daemon.store.bodies import Ahead, keep_body, prepare_body
from daemon.store.checkpoints import Checkpoint, add_checkpoint, last_checkpoint, unsealed
from daemon.store.database import Database, StoreFailed
from daemon.store.journal import append, append_admin, close_exchange, head, open_exchange, unfinished_seq
from daemon.store.partials import Progress, keep_progress, keep_segment, take_segments
from daemon.store.refusing import Refusing, keep, kept, let_go, since

log = logging.getLogger("gatelodge.audit")

PATIENCE = 2.0  # seconds for a request to become durable
LARGE = 256 * 1024  # bytes from which a body is prepared on a reader: it would hold up everybody's commit
SEAL_RECORDS = 1_000
SEAL_AFTER = 60_000_000  # microseconds that a record stands unsealed, at most
TICK = 1.0
RECOVERED_AT_ONCE = 20


class _Body(NamedTuple):
    """A body's parts, and the costly half of keeping them where that was done ahead."""

    texts: list[bytes]
    ahead: Ahead | None


class _End(NamedTuple):
    """An end still to be recorded: `segments` of the answer are not in the store, or are all of it (`whole`)."""

    record: Record
    route: str
    segments: list[bytes]
    whole: bool = False
    set_down: bool = False  # the store may hold segments that were sent before these


class Journal:
    """One per daemon. `recover` before the first request, `run` beside the daemon, `close` at its end."""

    def __init__(self, database: Database, clock: Clock, sealer: Sealer, *, patience: float = PATIENCE) -> None:
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._patience = patience
        self._refusals = Refusals()
        self._opening: set[str] = set()  # request ids whose opening record is under way
        self._segments: dict[str, list[bytes]] = {}  # of running answers, still to be set down
        self._progress: dict[str, Progress] = {}  # of running exchanges, still to be set down
        self._set_down: set[str] = set()  # request ids with segments in the store
        self._flushing: asyncio.Future[None] | None = None
        self._unclosed: dict[str, _End] = {}  # what could not be recorded yet
        self._looked_at = -1  # the store's commits when it was last found sealed
        self._erased = False  # bodies were erased, and the store's log may still hold them

    # --- one exchange ---

    async def opened(self, exchange: Exchange) -> None:
        """Record the request durably; sets `exchange.seq`. Unavailable (503) where that fails or takes too long."""
        size = weight(exchange.document)
        started = time.monotonic()
        if self._database.stalled_for() > self._patience:
            raise self._too_slow()
        body = None
        if size >= LARGE:
            body = await self._database.read(partial(_prepare_request, exchange))
        record = records.opened(exchange, at_us=self._clock.wall())
        opening = self._database.submit(partial(_open, record, exchange, body), size=size, repeatable=True)
        self._opening.add(exchange.request_id)
        # In one step, whoever still waits: an exchange that is opened has its number or counts as being opened.
        opening.add_done_callback(partial(self._opened, exchange))
        await _until_done(opening, self._patience - (time.monotonic() - started))
        if not opening.done():
            self._close_late(exchange, EndState.REFUSED, "recording the request took too long")
            raise self._too_slow()
        exchange.seq = opening.result()

    def closed(self, exchange: Exchange, answer: Sequence[bytes]) -> asyncio.Future[None]:
        """Record the end, with what the client was sent and `flush_partials` was not given; of an exchange that is
        not streamed `answer` is the whole, and takes the place of what was set down.

        Done when it is durable; to be shielded from cancellation. Unavailable where that fails: the client must then
        not see a good end. It is recorded as soon as it can be. Nothing to do for one that was never opened.
        """
        request_id = exchange.request_id
        if exchange.seq == 0:
            if request_id in self._opening:  # its client left, or was refused, while it was being recorded
                self._close_late(exchange, exchange.state or EndState.REFUSED, exchange.error)
            nothing = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        if (request_id in self._set_down and self._flushing is not None) or sum(map(len, answer)) >= LARGE:
            return asyncio.ensure_future(self._closed_in_steps(exchange, answer))
        return self._submit_end(self._end_of(exchange, answer), None)

    async def _closed_in_steps(self, exchange: Exchange, answer: Sequence[bytes]) -> None:
        """What few ends need, and a task for: waiting for a flush, preparing a large body."""
        if exchange.request_id in self._set_down and self._flushing is not None:
            await asyncio.wait({self._flushing})  # it may yet fail and leave its segments to us
        end = self._end_of(exchange, answer)
        body = None
        if (end.whole or not end.set_down) and sum(map(len, end.segments)) >= LARGE:
            try:
                body = await self._database.read(partial(_prepare_answer, end))
            except StoreFailed as failure:
                self._end_failed(end, failure)
                raise
        await self._submit_end(end, body)

    def _end_of(self, exchange: Exchange, answer: Sequence[bytes]) -> _End:
        request_id = exchange.request_id
        end = _End(
            records.closed(exchange, at_us=self._clock.wall(), clock_us=self._clock.now()),
            exchange.route,
            [*self._segments.pop(request_id, ()), *answer] if exchange.stream else list(answer),
            whole=not exchange.stream,
            set_down=request_id in self._set_down,
        )
        self._segments.pop(request_id, None)
        self._progress.pop(request_id, None)
        return end

    def _submit_end(self, end: _End, body: _Body | None) -> asyncio.Future[None]:
        try:
            closing = self._database.submit(partial(_close, end, body), always=True, repeatable=True)
        except StoreFailed as failure:
            self._end_failed(end, failure)
            raise
        closing.add_done_callback(partial(self._end_written, end))
        return closing

    def _end_written(self, end: _End, closing: asyncio.Future[None]) -> None:
        failure = None if closing.cancelled() else closing.exception()
        if failure is not None:
            self._end_failed(end, failure)
        elif end.set_down:
            assert end.record.request_id is not None
            self._set_down.discard(end.record.request_id)

    def _end_failed(self, end: _End, failure: BaseException) -> None:
        """To be recorded as soon as it can be, but as an end that no client saw as a good one."""
        if isinstance(failure, StoreFailed):
            assert end.record.request_id is not None
            self._unclosed[end.record.request_id] = end._replace(record=records.undelivered(end.record))

    def refused(
        self,
        *,
        reason: str,
        user_id: int | None,
        user: str,
        key_id: str | None = None,
        address: str = "",
        model: str = "",
        client_label: str = "",
    ) -> None:
        """Count a refusal of a known caller; written once a minute, by caller and reason. Never waits."""
        self._refusals.count(
            self._clock.wall(),
            reason=reason,
            user_id=user_id,
            user=user,
            key_id=key_id,
            address=address,
            model=model,
            client_label=records.text(client_label),
        )

    async def set_down_refusals(self) -> None:
        """Have every refusal so far in the store, durably; at once where nothing was refused since.
        StoreFailed where that fails; the next time writes them, too."""
        changed = self._refusals.changed()
        if not changed:
            return

        def written(writing: asyncio.Future[None]) -> None:
            if writing.cancelled() or writing.exception() is not None:
                self._refusals.not_set_down(changed)

        try:
            writing = self._database.submit(partial(keep, counts=changed), always=True, repeatable=True)
        except StoreFailed:
            self._refusals.not_set_down(changed)
            raise
        writing.add_done_callback(written)
        await asyncio.shield(writing)

    async def refused_lately(self, seconds: int) -> list[tuple[int, int]]:
        """Moment and number of what was refused within the last `seconds`, as far as it is set down."""
        return await self._database.read(partial(since, since_us=self._clock.wall() - seconds * SECOND))

    async def admin(
        self, actor: Actor, verb: str, target: str, detail: dict[str, Any] | None = None, *, user_id: int | None = None
    ) -> None:
        """Record what somebody does that changes no row of ours (a pull, a look into a conversation), before it is
        done. Unavailable where it cannot be recorded: then it must not be done."""
        job = partial(
            append_admin,
            actor=actor,
            verb=verb,
            target=target,
            detail=detail or {},
            at_us=self._clock.wall(),
            clock_us=self._clock.now(),
            user_id=user_id,
        )
        await self._database.write(job)

    async def flush_partials(self, segments: Sequence[tuple[str, bytes]], progress: Sequence[Progress] = ()) -> None:
        """Set down what running answers gained: (request id, bytes of a stream), and how far exchanges came.
        StoreFailed where that fails; it is then kept here for the next time."""
        for request_id, data in segments:
            self._segments.setdefault(request_id, []).append(data)
        self._progress.update((each.request_id, each) for each in progress)
        while self._flushing is not None:  # one at a time: what fails comes back in its order
            await asyncio.wait({self._flushing})
        taken, self._segments = self._segments, {}
        told, self._progress = self._progress, {}
        if not taken and not told:
            return
        self._set_down.update(taken)
        size = sum(len(data) for pieces in taken.values() for data in pieces)
        flushing = self._flushing = self._database.submit(
            partial(_set_down, taken, told), size=size, always=True, repeatable=True
        )
        flushing.add_done_callback(partial(self._flushed, taken, told))
        await asyncio.shield(flushing)

    def _flushed(
        self, taken: dict[str, list[bytes]], told: dict[str, Progress], flushing: asyncio.Future[None]
    ) -> None:
        if self._flushing is flushing:
            self._flushing = None
        if flushing.cancelled() or flushing.exception() is not None:
            for request_id, pieces in taken.items():
                self._segments[request_id] = pieces + self._segments.get(request_id, [])
            self._progress = told | self._progress

    # --- the daemon's own: start, time, end ---

    async def recover(self) -> int:
        """Close as `crashed` what the last run left open; how many. Before anything is opened or refused."""
        self._refusals.put_back(await self._database.read(kept))
        recovered = 0
        while some := await self._database.write(
            partial(close_crashed, RECOVERED_AT_ONCE, at_us=self._clock.wall(), clock_us=self._clock.now())
        ):
            recovered += some
        if recovered:
            log.warning("%d exchanges were open when the daemon last ended: recorded as crashed", recovered)
        return recovered

    async def run(self, *, tick: float = TICK) -> None:
        """Write refusals, catch up with ends, seal; until cancelled."""
        while True:
            await asyncio.sleep(tick)
            try:
                await self._catch_up(self._refusals.of_past_minutes(self._clock.wall()))
                await self.set_down_refusals()
                await self._seal_when_due()
            except Unavailable as failure:
                log.warning("the journal is behind: %s", failure)

    async def close(self) -> None:
        """Write what is still in memory and seal; the database is closed after this."""
        try:
            await self._catch_up(self._refusals.all())
            await self.checkpoint()
        except Unavailable as failure:
            log.warning("the journal's last records could not be written: %s", failure)

    async def checkpoint(self) -> Checkpoint | None:
        """Sign the end of the chain, and tell the log; None where it is sealed already."""
        sealed = await self._database.write(partial(_seal, self._sealer, self._clock.wall()), always=True)
        if sealed is not None:
            log.info("audit checkpoint %d:%s signed by %s", sealed.seq, sealed.hash.hex(), sealed.kid)
        return sealed

    async def verify(self, expect: str | None = None) -> VerifyReport:
        """Look at the whole journal, in a child process. `expect`: SEQ:HASH, as the log of checkpoints has it."""
        arguments = await self.to_verify(expect)
        async with spawn_reader("verify", arguments) as output:
            report = await output.read()
        return msgspec.json.decode(report, type=VerifyReport)

    async def to_verify(self, expect: str | None = None) -> dict[str, Any]:
        """What the child process that verifies asks for. BadRequest where `expect` is no SEQ:HASH."""
        if expect is not None:
            Expectation.read(expect)
        if (await self._database.read(unsealed)).has_deletion:
            await self.checkpoint()  # else the bodies that it erased would look stolen
        return {"database": str(self._database.path), "keys": str(self._sealer.folder), "expect": expect}

    def bodies_were_erased(self) -> None:
        """Their last copies lie in the store's log, which is to be emptied as soon as nobody reads it."""
        self._erased = True

    async def _catch_up(self, refusals: list[Refusing]) -> None:
        for request_id, end in list(self._unclosed.items()):
            await self._database.write(partial(_close, end, None), always=True)
            del self._unclosed[request_id]
            self._set_down.discard(request_id)
        if refusals:
            now = self._clock.now()
            try:
                await self._database.write(partial(_append_refusals, refusals, now), always=True)
            except StoreFailed:
                self._refusals.put_back(refusals)
                raise

    async def _seal_when_due(self) -> None:
        if self._database.commits == self._looked_at and not self._erased:
            return
        commits = self._database.commits
        waiting = await self._database.read(unsealed)
        if not waiting.records:
            self._looked_at = commits
        elif (
            waiting.records >= SEAL_RECORDS
            or waiting.has_deletion
            or self._clock.now() - waiting.oldest_clock >= SEAL_AFTER
        ):
            self._erased = self._erased or waiting.has_deletion
            await self.checkpoint()
        if self._erased:
            # The texts are overwritten in the database; their last copies lie in the log until it is emptied.
            self._erased = not await self._database.empty_log()

    # --- within ---

    def _opened(self, exchange: Exchange, opening: asyncio.Future[int]) -> None:
        self._opening.discard(exchange.request_id)
        if not opening.cancelled() and opening.exception() is None:
            exchange.seq = opening.result()

    def _close_late(self, exchange: Exchange, state: EndState, error: str) -> None:
        """Queue the end of an exchange behind its opening record, which may yet be written or fail; nobody waits."""
        record = records.closed(exchange, at_us=self._clock.wall(), clock_us=self._clock.now())
        record.state, record.error = state.value, error
        end = _End(record, exchange.route, [])
        closing = self._database.submit(partial(_close, end, None), always=True, repeatable=True)
        closing.add_done_callback(partial(self._closed_late, exchange.request_id, end))

    def _closed_late(self, request_id: str, end: _End, closing: asyncio.Future[None]) -> None:
        if closing.cancelled() or closing.exception() is not None:
            self._unclosed[request_id] = end

    def _too_slow(self) -> Unavailable:
        return Unavailable(
            f"the request could not be recorded within {self._patience:g} seconds, so it was not sent on; try again",
            code="not_recorded",
            retry_after=5,
        )


async def _until_done(future: asyncio.Future[Any], seconds: float) -> None:
    """Wait for `future`, at most so long. As `asyncio.wait`, for one future and half the price."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)


# --- what runs in the store's threads ---


def _prepare_request(exchange: Exchange, conn: sqlite3.Connection) -> _Body:
    texts = split_request(exchange.document)
    return _Body(texts, prepare_body(conn, exchange.user_id, texts))


def _prepare_answer(end: _End, conn: sqlite3.Connection) -> _Body:
    assert end.record.user_id is not None
    texts = answer_texts(end.route, end.segments)
    return _Body(texts, prepare_body(conn, end.record.user_id, texts))


def _open(record: Record, exchange: Exchange, body: _Body | None, conn: sqlite3.Connection) -> int:
    texts, ahead = body or _Body(split_request(exchange.document), None)
    record.body, record.body_digest = keep_body(conn, exchange.user_id, texts, ahead)
    return open_exchange(conn, record)


def _close(end: _End, body: _Body | None, conn: sqlite3.Connection) -> None:
    """Append the end, unless the exchange was never opened or is closed already."""
    record = end.record
    assert record.request_id is not None and record.user_id is not None
    record.opened_seq = unfinished_seq(conn, record.request_id)
    if record.opened_seq is None:
        return
    set_down = take_segments(conn, record.request_id) if end.set_down else []
    segments = end.segments if end.whole else [*set_down, *end.segments]
    texts, ahead = body or _Body(answer_texts(end.route, segments), None)
    if texts:
        record.body, record.body_digest = keep_body(conn, record.user_id, texts, ahead)
    close_exchange(conn, record)


def _set_down(segments: dict[str, list[bytes]], progress: dict[str, Progress], conn: sqlite3.Connection) -> None:
    for request_id, pieces in segments.items():
        keep_segment(conn, request_id, b"".join(pieces))
    for each in progress.values():
        keep_progress(conn, each)


def _append_refusals(counts: list[Refusing], clock_us: int, conn: sqlite3.Connection) -> None:
    for count in counts:
        append(conn, msgspec.structs.replace(record_of(count), clock_us=clock_us))
    let_go(conn, counts)


def _seal(sealer: Sealer, at_us: int, conn: sqlite3.Connection) -> Checkpoint | None:
    end, before = head(conn), last_checkpoint(conn)
    if end.seq == (before.seq if before else 0):
        return None
    message = checkpoint_message(end.seq, end.hash, at_us, sealer.kid, before.signature if before else b"")
    sealed = Checkpoint(end.seq, end.hash, at_us, sealer.kid, sealer.sign(message))
    add_checkpoint(conn, sealed)
    return sealed
