"""The journal as the relay uses it: durable before it says so, exactly one end, refusal where it cannot record."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import Unavailable
from daemon.access.actor import DAEMON
from daemon.audit.journal import LARGE, SEAL_AFTER
from daemon.audit.refusals import MINUTE, MOST, MOST_EACH, Refusals, record_of
from daemon.exchange import EndState, Usage
from daemon.store import bodies
from daemon.store.bodies import load_body
from daemon.store.database import QUEUED_JOBS, Database, StoreBusy, StoreFailed
from daemon.store.journal import append_user_deletion
from tests.rigs.journals import Desk, add_users, desk_in, finish, streamed
from tests.rigs.traffic import MovedClock
from tests.rigs.until import until

ENDS = "SELECT state, error, sent_upstream, body IS NULL FROM journal WHERE event = 'closed' ORDER BY seq"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as opened:
        yield opened


@contextmanager
def stalled(database: Database) -> Iterator[threading.Event]:
    """The writer's thread hangs, as on a disk that does not answer, until the event is set."""
    gate = threading.Event()
    database.submit(lambda conn: gate.wait(20))
    try:
        yield gate
    finally:
        gate.set()


async def full(database: Database) -> None:
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 1").fetchone())


async def roomy(database: Database) -> None:
    # The limit itself is no write, so it can be lifted where nothing else works.
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 1000000").fetchone())


async def texts_of(desk: Desk, seq: int) -> list[bytes]:
    def job(conn: sqlite3.Connection) -> list[bytes]:
        (manifest,) = conn.execute("SELECT body FROM journal WHERE seq = ?", (seq,)).fetchone()
        texts = load_body(conn, manifest)
        assert texts is not None
        return texts

    return await desk.database.read(job)


async def test_an_opened_request_is_in_the_file_when_opened_returns(desk: Desk) -> None:
    """A1: another program that opens the file now sees it, whatever becomes of the daemon."""
    exchange = desk.exchange("Why is the sky blue?")
    await desk.journal.opened(exchange)
    other = sqlite3.connect(desk.path)
    row = other.execute(
        'SELECT seq, request_id, user_id, "user", key_id, client_label, address, user_agent, route, model_asked, model,'
        " upstream, stream, clock_us, received_us FROM journal WHERE event = 'opened'"
    ).fetchone()
    other.close()
    assert row == (
        exchange.seq,
        exchange.request_id,
        1,
        "ana@example.org",
        "k1",
        "notebook",
        "192.0.2.7",
        "curl/8",
        "/api/chat",
        "llama3.2",
        "llama3.2:latest",
        "local",
        1,
        exchange.admitted_clock,
        exchange.received,
    )
    assert b"Why is the sky blue?" in (await texts_of(desk, exchange.seq))[1]


async def test_an_end_carries_the_answer_and_what_it_cost(desk: Desk) -> None:
    """The closing record: state, times, tokens, bytes, and the whole answer as one message."""
    exchange = await desk.converse("Why?", answer="Because it scatters.")
    ((seq, *row),) = await desk.rows(
        "SELECT seq, opened_seq, request_id, state, error, sent_upstream, tokens_in, tokens_out, bytes_out, ended_us"
        " FROM journal WHERE event = 'closed'"
    )
    assert row == [
        exchange.seq, exchange.request_id, "ok", "", 1, 11, 7, exchange.bytes_out, exchange.ended,
    ]  # fmt: skip
    assert await texts_of(desk, seq) == [b'{"role":"assistant","content":"Because it scatters."}']
    assert await desk.rows("SELECT * FROM unfinished") == []


async def test_a_running_answer_is_set_down_and_replaced_by_the_whole(desk: Desk) -> None:
    """A9 and the contract: segments lie in `partial` while it runs and are gone with the closing commit."""
    exchange = desk.exchange("Count.")
    await desk.journal.opened(exchange)
    pieces = streamed("one two three four")
    await desk.journal.flush_partials([(exchange.request_id, b"".join(pieces[:2]))])
    await desk.journal.flush_partials([(exchange.request_id, pieces[2])])
    assert await desk.rows("SELECT n FROM partial ORDER BY n") == [(1,), (2,)]
    finish(exchange, EndState.OK, desk.clock)
    await desk.journal.closed(exchange, pieces[3:])
    assert await desk.rows("SELECT * FROM partial") == []
    assert (await texts_of(desk, 2)) == [b'{"role":"assistant","content":"one two three four"}']


async def test_what_comes_after_the_end_is_not_set_down(desk: Desk) -> None:
    """No row stays in `partial` for an exchange that is closed."""
    exchange = await desk.converse("Why?")
    await desk.journal.flush_partials([(exchange.request_id, b"late")])
    assert await desk.rows("SELECT * FROM partial") == []


async def test_segments_that_could_not_be_set_down_are_in_the_answer_all_the_same(desk: Desk) -> None:
    """The relay lets its bytes go when it hands them over: a full disk meanwhile must not lose a word."""
    exchange = desk.exchange("Count.")
    await desk.journal.opened(exchange)
    one, two, three, end = streamed("one two three")
    await full(desk.database)
    large = b'{"message":{"content":""},"x":"' + b"".join(b"%d" % n for n in range(20_000)) + b'"}\n'
    with pytest.raises(StoreFailed):
        await desk.journal.flush_partials([(exchange.request_id, one + large)])
    await roomy(desk.database)
    await desk.journal.flush_partials([(exchange.request_id, two)])
    finish(exchange, EndState.OK, desk.clock)
    await desk.journal.closed(exchange, [three, end])
    assert await texts_of(desk, 2) == [b'{"role":"assistant","content":"one two three"}']


def broken_disk(conn: sqlite3.Connection) -> None:
    """A job that takes everything in its commit along."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise error


async def test_segments_that_fail_together_come_back_in_their_order(desk: Desk) -> None:
    """Two flushes at once, both lost with their commit: the answer still reads as it was sent."""
    exchange = desk.exchange("Count.")
    await desk.journal.opened(exchange)
    one, two, three, end = streamed("one two three")
    with stalled(desk.database) as gate:
        await until(lambda: desk.database.stalled_for() > 0)
        desk.database.submit(broken_disk)
        flushes = [
            asyncio.create_task(desk.journal.flush_partials([(exchange.request_id, piece)])) for piece in (one, two)
        ]
        await until(lambda: desk.database.pending_jobs >= 3)
        gate.set()
        outcomes = await asyncio.gather(*flushes, return_exceptions=True)
    assert StoreFailed in map(type, outcomes)
    finish(exchange, EndState.OK, desk.clock)
    await desk.journal.closed(exchange, [three, end])
    assert await texts_of(desk, 2) == [b'{"role":"assistant","content":"one two three"}']


async def test_an_end_waits_for_segments_under_way(desk: Desk) -> None:
    """A flush that fails after the end was asked for gives its segments to the closing record, in order."""
    exchange = desk.exchange("Count.")
    await desk.journal.opened(exchange)
    one, two, end = streamed("one two")
    await desk.journal.flush_partials([(exchange.request_id, b"")])
    with stalled(desk.database) as gate:
        await until(lambda: desk.database.stalled_for() > 0)
        flushing = asyncio.create_task(desk.journal.flush_partials([(exchange.request_id, one)]))
        await asyncio.sleep(0)
        failing = desk.database.submit(broken_disk)  # takes the flush of its batch along
        finish(exchange, EndState.OK, desk.clock)
        closing = asyncio.ensure_future(desk.journal.closed(exchange, [two, end]))
        await asyncio.sleep(0)
        gate.set()
    outcomes = await asyncio.gather(flushing, failing, closing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreFailed, StoreFailed, type(None)]
    assert await texts_of(desk, 2) == [b'{"role":"assistant","content":"one two"}']


async def test_a_failing_journal_refuses(desk: Desk) -> None:
    """A2: full disk -> 503 with Retry-After, nothing opened; and the next request works when there is room again."""
    await full(desk.database)
    exchange = desk.exchange("".join(map(str, range(5_000))))
    with pytest.raises(Unavailable) as refusal:
        await desk.journal.opened(exchange)
    assert refusal.value.status == 503 and refusal.value.retry_after
    assert exchange.seq == 0
    finish(exchange, EndState.REFUSED, desk.clock)
    await desk.journal.closed(exchange, [])  # the relay's one clean-up: there is nothing to close
    await roomy(desk.database)
    await desk.converse("And now?")
    assert [row[0] for row in await desk.rows(ENDS)] == ["ok"]


async def test_a_full_queue_refuses(desk: Desk) -> None:
    """A2: 1,000 waiting events -> 503; those that are open can still be closed."""
    running = desk.exchange("Before.")
    await desk.journal.opened(running)
    with stalled(desk.database) as gate:
        waiting = [desk.database.submit(lambda conn: None) for _ in range(QUEUED_JOBS - 1)]
        with pytest.raises(StoreBusy) as refusal:
            await desk.journal.opened(desk.exchange("One more."))
        assert refusal.value.status == 503 and refusal.value.retry_after
        closing = asyncio.create_task(desk.end(running, EndState.OK, "Good."))
        await until(lambda: desk.database.pending_jobs > QUEUED_JOBS)
        gate.set()
        await asyncio.gather(closing, *waiting)
    assert [row[0] for row in await desk.rows(ENDS)] == ["ok"]


async def test_a_stalled_journal_refuses_and_a_late_record_is_closed_at_once(tmp_path: Path) -> None:
    """A2: after two seconds 503; when the disk comes back the record is there, and ended, in the same moment."""
    async with desk_in(tmp_path, patience=0.05) as desk:
        exchange = desk.exchange("Slow disk?")
        with stalled(desk.database) as gate:
            with pytest.raises(Unavailable) as refusal:
                await desk.journal.opened(exchange)
            assert refusal.value.status == 503 and refusal.value.retry_after
            finish(exchange, EndState.REFUSED, desk.clock)
            await asyncio.wait_for(desk.journal.closed(exchange, []), 5)  # the client is not kept waiting for the disk
            # The writer is known to hang now: the next one is refused without a wait of its own.
            pending = desk.database.pending_jobs
            await until(lambda: desk.database.stalled_for() > 0.05)
            with pytest.raises(Unavailable):
                await desk.journal.opened(desk.exchange("Me, too?"))
            assert desk.database.pending_jobs == pending
            gate.set()
        await until(lambda: desk.database.pending_jobs == 0)
        assert await desk.rows(ENDS) == [("refused", "recording the request took too long", 0, 1)]
        assert await desk.rows("SELECT * FROM unfinished") == []


async def test_a_client_that_leaves_while_it_is_recorded_is_closed(desk: Desk) -> None:
    """The write goes on without its caller; its end is queued right behind it."""
    exchange = desk.exchange("Gone.")
    with stalled(desk.database) as gate:
        opening = asyncio.create_task(desk.journal.opened(exchange))
        await until(lambda: desk.database.pending_jobs == 2)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        exchange.state, exchange.error = EndState.CLIENT_LEFT, "the client closed the connection"
        await desk.journal.closed(exchange, [])
        gate.set()
    await until(lambda: desk.database.pending_jobs == 0)
    assert await desk.rows(ENDS) == [("client_left", "the client closed the connection", 0, 1)]


@pytest.mark.parametrize("soon", [False, True], ids=["as the record is written", "a callback later"])
async def test_leaving_at_the_moment_of_the_record_leaves_nothing_open(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, soon: bool
) -> None:
    """The opening is durable, but the news has not reached the one who waits for it, who is cancelled: closed all the
    same, as one end."""
    exchange = desk.exchange("Gone.")
    submit = desk.database.submit

    def submit_and_leave(*job: Any, **more: Any) -> asyncio.Future[Any]:
        written = submit(*job, **more)
        leave = (lambda _: asyncio.get_running_loop().call_soon(opening.cancel)) if soon else lambda _: opening.cancel()
        written.add_done_callback(leave)
        return written

    monkeypatch.setattr(desk.database, "submit", submit_and_leave)
    opening = asyncio.create_task(desk.journal.opened(exchange))
    await asyncio.wait({opening})
    monkeypatch.undo()
    exchange.state, exchange.error = EndState.CLIENT_LEFT, "left"
    await desk.journal.closed(exchange, [])
    assert await until(lambda: desk.rows(ENDS)) == [("client_left", "left", 0, 1)]


async def test_a_late_end_that_fails_is_recorded_later(desk: Desk) -> None:
    """A client that left while being recorded, and then a bad disk: the exchange is not left open."""
    exchange = desk.exchange("Gone.")
    gate = threading.Event()
    opening = asyncio.create_task(desk.journal.opened(exchange))
    # Right behind it, into the same commit: what holds it up.
    asyncio.get_running_loop().call_soon(desk.database.submit, lambda conn: gate.wait(20))
    await until(lambda: desk.database.stalled_for() > 0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    exchange.state, exchange.error = EndState.CLIENT_LEFT, "left"
    failing = desk.database.submit(broken_disk)
    await desk.journal.closed(exchange, [])
    gate.set()
    await asyncio.wait({failing})
    assert await desk.rows("SELECT request_id FROM unfinished") == [(exchange.request_id,)]
    assert await desk.rows(ENDS) == []
    running = asyncio.create_task(desk.journal.run(tick=0.01))
    assert await until(lambda: desk.rows(ENDS)) == [("client_left", "left", 0, 1)]
    running.cancel()


async def test_an_end_that_cannot_be_recorded_is_an_error_and_recorded_later(desk: Desk) -> None:
    """The client is told of a failure, so `ok` is not what is recorded later; other ends keep their name."""
    fine, left = desk.exchange("One."), desk.exchange("Two.")
    await desk.journal.opened(fine)
    await desk.journal.opened(left)
    await full(desk.database)
    long = " ".join(map(str, range(20_000)))
    with pytest.raises(Unavailable):
        await desk.end(fine, EndState.OK, long)
    with pytest.raises(Unavailable):
        await desk.end(left, EndState.CLIENT_LEFT, long, error="left")
    await roomy(desk.database)
    running = asyncio.create_task(desk.journal.run(tick=0.01))
    await until(lambda: desk.database.read(lambda conn: not conn.execute("SELECT 1 FROM unfinished").fetchone()))
    running.cancel()
    assert [(state, sent, no_body) for state, _, sent, no_body in await desk.rows(ENDS)] == [
        ("upstream_error", 1, 0),
        ("client_left", 1, 0),
    ]


async def test_an_exchange_is_closed_once(desk: Desk) -> None:
    """Exactly one end: a second attempt changes nothing."""
    exchange = await desk.converse("Why?")
    finish(exchange, EndState.CANCELLED_BY_ADMIN, desk.clock)
    await desk.journal.closed(exchange, [])
    assert [row[0] for row in await desk.rows(ENDS)] == ["ok"]


async def test_large_bodies_are_prepared_beside_the_writer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image must not hold up everybody's commit: hashing and compressing happen on a reader; stored all the same."""
    await desk.converse("The key is made.")
    image = "".join(map(str, range(LARGE // 4)))
    packed_in: list[int] = []

    def pack(text: bytes) -> bodies.Packed:
        if len(text) >= LARGE:
            packed_in.append(threading.get_ident())
        return original(text)

    original = bodies.pack
    monkeypatch.setattr(bodies, "pack", pack)
    exchange = desk.exchange("See?")
    exchange.document["messages"][0]["images"] = [image]
    await desk.journal.opened(exchange)
    await desk.end(exchange, EndState.OK, image)
    ((opened,), (closed,)) = await desk.rows("SELECT seq FROM journal WHERE seq > 2 ORDER BY seq")
    assert image.encode() in (await texts_of(desk, opened))[1]
    assert image.encode() in (await texts_of(desk, closed))[0]
    writer = await desk.database.write(lambda conn: threading.get_ident())
    assert len(packed_in) == 2 and writer not in packed_in
    parts = await desk.rows("SELECT COUNT(*) FROM parts")
    await desk.converse("See?", document=exchange.document, answer=image)
    assert await desk.rows("SELECT COUNT(*) FROM parts") == parts


async def test_what_no_database_can_hold_does_not_stop_the_end(desk: Desk) -> None:
    """Lone surrogates in an error and a lying upstream's counts are foreign input, not a reason to lose the record."""
    exchange = desk.exchange("Why?", user_agent="bad\udcff", client_label="\ud800")
    await desk.journal.opened(exchange)
    finish(exchange, EndState.UPSTREAM_ERROR, desk.clock, error="said \udcff" + "x" * 10_000)
    exchange.usage = Usage(2**70, -5)
    await desk.journal.closed(exchange, [])
    ((tokens_in, tokens_out, error),) = await desk.rows(
        "SELECT tokens_in, tokens_out, error FROM journal WHERE event = 'closed'"
    )
    assert (tokens_in, tokens_out) == (2**53, 0) and error.startswith("said ?x") and len(error) <= 2_000


# --- refusals ---


async def test_refusals_are_counted_by_caller_reason_and_minute(tmp_path: Path) -> None:
    """One record for a hundred refusals, written when their minute is over; nothing is written on their path."""
    clock = MovedClock()
    async with desk_in(tmp_path, clock=clock) as desk:
        commits = desk.database.commits
        for _ in range(100):
            desk.journal.refused(
                reason="requests_per_minute", user_id=1, user="ana@example.org", key_id="k1", address="192.0.2.7"
            )
        desk.journal.refused(reason="queue_full", user_id=1, user="ana@example.org")
        assert desk.database.commits == commits and desk.database.pending_jobs == 0
        running = asyncio.create_task(desk.journal.run(tick=0.01))
        clock.advance(MINUTE)
        query = "SELECT \"user\", key_id, address, state, detail FROM journal WHERE event = 'refused' ORDER BY seq"
        rows = await until(lambda: desk.rows(query))
        running.cancel()
        assert [(*row[:4], msgspec.json.decode(row[4])) for row in rows] == [
            ("ana@example.org", "k1", "192.0.2.7", "refused", {"reason": "requests_per_minute", "count": 100}),
            ("ana@example.org", None, "", "refused", {"reason": "queue_full", "count": 1}),
        ]


async def test_the_running_minutes_refusals_are_written_at_the_end(desk: Desk) -> None:
    """A clean stop loses no count."""
    desk.journal.refused(reason="tokens_per_day", user_id=2, user="ben@example.org")
    await desk.journal.close()
    assert await desk.rows("SELECT COUNT(*) FROM journal WHERE event = 'refused'") == [(1,)]


async def test_refusals_outlive_a_full_disk(tmp_path: Path) -> None:
    """What could not be written this minute is written with the next."""
    clock = MovedClock()
    async with desk_in(tmp_path, clock=clock) as desk:
        await full(desk.database)
        for user in range(2_000):  # more than fits into what pages there are
            desk.journal.refused(reason="requests_per_minute", user_id=user, user="somebody@example.org")
        await desk.journal.close()
        await roomy(desk.database)
        desk.journal.refused(reason="requests_per_minute", user_id=7, user="somebody@example.org")
        await desk.journal.close()
        counts = await desk.rows("SELECT detail FROM journal WHERE event = 'refused'")
        assert sum(msgspec.json.decode(detail)["count"] for (detail,) in counts) == 2_001 and len(counts) == 2_000


async def test_refusals_survive_a_crash(tmp_path: Path) -> None:
    """Set down within a second, beside their path; they stand in one place at any time, whatever the last run did."""
    clock = MovedClock()

    def refuse(desk: Desk, label: str) -> None:
        desk.journal.refused(reason="r", user_id=1, user="ana@example.org", key_id="k1", model="m", client_label=label)

    both = (
        "SELECT COALESCE(SUM(number), 0) FROM refusing",
        ("SELECT COALESCE(SUM(json_extract(detail, '$.count')), 0) FROM journal WHERE event = 'refused'"),
    )

    async def stand(desk: Desk) -> list[int]:
        return [(await desk.rows(query))[0][0] for query in both]

    async with desk_in(tmp_path, clock=clock) as desk:
        for label in ("notebook", "notebook", "cron"):
            refuse(desk, label)
        running = asyncio.create_task(desk.journal.run(tick=0.01))
        await until(lambda: desk.rows("SELECT 1 FROM refusing"))
        running.cancel()
        await full(desk.database)
        refuse(desk, "cron")
        for user in range(1_000):  # more than fits into what pages there are
            desk.journal.refused(reason="r", user_id=user + 10, user="somebody@example.org")
        with pytest.raises(StoreFailed):
            await desk.journal.set_down_refusals()
        await roomy(desk.database)
        await desk.journal.set_down_refusals()
        commits = desk.database.commits
        await desk.journal.set_down_refusals()
        assert desk.database.commits == commits
        assert await stand(desk) == [1_004, 0]
    async with desk_in(tmp_path, clock=clock) as desk:  # nothing closed the last journal
        await desk.journal.recover()
        refuse(desk, "cron")
        await desk.journal.set_down_refusals()
        assert await stand(desk) == [1_005, 0]
        await desk.journal.close()
        assert await stand(desk) == [0, 1_005]
        rows = await desk.rows(
            "SELECT client_label, model, json_extract(detail, '$.count') FROM journal"
            " WHERE event = 'refused' AND user_id = 1 ORDER BY client_label"
        )
        assert rows == [("cron", "m", 3), ("notebook", "m", 2)]


def test_counts_that_could_not_be_written_are_counted_on() -> None:
    """A full disk meanwhile changes no number."""
    refusals = Refusals()

    def count() -> None:
        refusals.count(5, reason="r", user_id=1, user="a", key_id=None, address="", model="")

    count()
    taken = refusals.all()
    count()
    refusals.put_back(taken)
    (counted,) = refusals.of_past_minutes(MINUTE)
    assert msgspec.json.decode(record_of(counted).detail or "") == {"reason": "r", "count": 2}
    assert refusals.all() == [] == refusals.changed()


def test_the_memory_of_refusals_is_bounded() -> None:
    """Beyond so many different callers, or names that one caller gives itself, the rest is counted together."""
    refusals = Refusals()
    for user in range(1, MOST + 51):
        refusals.count(5, reason="r", user_id=user, user=str(user), key_id=None, address="", model="")
    counts = refusals.all()
    assert len(counts) == MOST + 1 and sum(each.number for each in counts) == MOST + 50
    for number in range(MOST_EACH + 50):
        name = f"n{number}"
        refusals.count(5, reason="r", user_id=1, user="a", key_id="k", address="", model="", client_label=name)
    counts = refusals.all()
    assert len(counts) == MOST_EACH + 1 and sum(each.number for each in counts) == MOST_EACH + 50
    assert {each.user for each in counts} == {"a"}


# --- checkpoints ---


async def test_the_chain_is_sealed_a_minute_after_the_oldest_unsealed_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A6: a signed checkpoint, which the log tells, too; none where there is nothing new."""
    clock = MovedClock()
    caplog.set_level(logging.INFO, "gatelodge.audit")
    async with desk_in(tmp_path, clock=clock) as desk:
        running = asyncio.create_task(desk.journal.run(tick=0.01))
        await desk.converse("Why?")
        clock.advance(SEAL_AFTER)
        ((seq, hash_),) = await until(lambda: desk.rows("SELECT seq, hash FROM checkpoints"))
        running.cancel()
        assert seq == 2 and [(hash_,)] == await desk.rows("SELECT hash FROM journal WHERE seq = 2")
        assert f"audit checkpoint 2:{hash_.hex()}" in caplog.text
        assert await desk.journal.checkpoint() is None


async def test_a_thousand_records_are_sealed_without_waiting_for_the_minute(tmp_path: Path) -> None:
    """A6: every 1,000 records."""
    async with desk_in(tmp_path, clock=MovedClock()) as desk:
        running = asyncio.create_task(desk.journal.run(tick=0.01))
        await asyncio.gather(*(desk.converse(f"Question {n}") for n in range(500)))
        await until(lambda: desk.rows("SELECT seq FROM checkpoints"))
        running.cancel()


async def test_a_deletion_is_sealed_at_once_and_leaves_the_log(tmp_path: Path) -> None:
    """Verify wants it sealed, and the erased texts' last copies lie in the store's log: neither waits for a minute."""
    async with desk_in(tmp_path, clock=MovedClock()) as desk:
        await desk.converse("The tiny oak secret.", answer="Kept.")
        log = desk.path.with_name("gatelodge.db-wal")
        assert b"tiny oak" in log.read_bytes()
        running = asyncio.create_task(desk.journal.run(tick=0.01))
        await desk.database.write(
            lambda conn: append_user_deletion(
                conn, actor=DAEMON, user_id=1, target="x", detail={}, at_us=1, clock_us=desk.clock.now()
            )
        )
        await until(lambda: desk.rows("SELECT seq FROM checkpoints WHERE seq = 3"))
        await until(lambda: b"tiny oak" not in log.read_bytes() + desk.path.read_bytes())
        running.cancel()


# --- recovery ---


async def test_what_was_open_is_crashed_after_a_restart(tmp_path: Path) -> None:
    """One end each, with what was set down of the answer; what ended before is left alone."""
    async with desk_in(tmp_path) as desk:
        await desk.converse("Done.")
        running, queued = desk.exchange("Count."), desk.exchange("Waits.")
        await desk.journal.opened(running)
        await desk.journal.opened(queued)
        await desk.journal.flush_partials([(running.request_id, b"".join(streamed("one two", done=False)))])
    async with desk_in(tmp_path) as desk:
        assert await desk.journal.recover() == 2
        assert await desk.journal.recover() == 0
        rows = await desk.rows(
            "SELECT seq, opened_seq, state, tokens_out, body IS NULL FROM journal WHERE event = 'closed' ORDER BY seq"
        )
        assert [row[1:] for row in rows] == [
            (1, "ok", 7, 0),
            (running.seq, "crashed", 2, 0),
            (queued.seq, "crashed", None, 1),
        ]
        assert await texts_of(desk, rows[1][0]) == [b'{"role":"assistant","content":"one two"}']
        assert await desk.rows("SELECT (SELECT COUNT(*) FROM partial), (SELECT COUNT(*) FROM unfinished)") == [(0, 0)]


async def test_recovery_comes_through_whatever_lies_in_partial(tmp_path: Path) -> None:
    """A damaged segment, half a line, a route of another release: the start must not fail on them for ever."""
    async with desk_in(tmp_path) as desk:
        exchanges = [desk.exchange("a"), desk.exchange("b"), desk.exchange("c", route="/v9/unheard-of")]
        for exchange in exchanges:
            await desk.journal.opened(exchange)
        await desk.journal.flush_partials(
            [(exchange.request_id, data) for exchange, data in zip(exchanges, (b"x", b'{"mess', b"raw"), strict=True)]
        )
        await desk.database.write(
            lambda conn: conn.execute(
                "UPDATE partial SET data = x'00' WHERE request_id = ?", (exchanges[0].request_id,)
            )
        )
    async with desk_in(tmp_path) as desk:
        assert await desk.journal.recover() == 3
        assert await desk.rows("SELECT state, COUNT(*) FROM journal WHERE event = 'closed'") == [("crashed", 3)]


async def test_a_deleted_users_exchange_is_not_recorded(desk: Desk) -> None:
    """No key, no body: what cannot be kept under the user's key is refused, not kept in clear."""
    await desk.database.write(lambda conn: conn.execute("UPDATE users SET deleted_us = 1 WHERE id = 2").fetchone())
    with pytest.raises(LookupError):
        await desk.journal.opened(desk.exchange("Hello?", user_id=2))
    await desk.database.write(lambda conn: add_users(conn, ("ana@example.org",)))
    await desk.converse("Others go on.")
