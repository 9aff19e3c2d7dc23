"""A9: what runs is set down in segments, streamed or not, so that a crash loses at most the last of them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon import relay
from daemon.audit.search import show
from daemon.store.partials import Progress
from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.journals import Desk, desk_in
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after, stall_before_headers
from tests.rigs.upstream_shapes import words_of

KINDS = [("ollama", True), ("ollama", False), ("openai", True), ("openai", False)]
IDS = ["streamed", "whole", "streamed, translated", "whole, translated"]


async def set_down(gate: Gatehouse) -> list[tuple[Any, ...]]:
    """What a crash now would leave of the one running exchange: request id, when seated, when answered, segments."""
    return await gate.house.database.read(
        lambda conn: conn.execute(
            "SELECT u.request_id, u.seated_us, u.first_byte_us, COUNT(p.n) FROM unfinished u"
            " LEFT JOIN partial p ON p.request_id = u.request_id GROUP BY 1"
        ).fetchall()
    )


def copy_as_after_a_crash(gate: Gatehouse, folder: Path) -> Path:
    """The database as it lies there now, without a word from the daemon."""
    folder.mkdir()
    with (
        closing(sqlite3.connect(gate.data / "gatelodge.db")) as here,
        closing(sqlite3.connect(folder / "gatelodge.db")) as there,
    ):
        here.backup(there)
    return folder


@pytest.mark.parametrize(("kind", "stream"), KINDS, ids=IDS)
async def test_a_crash_keeps_what_an_answer_had_a_second_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stream: bool
) -> None:
    """Within the second everything is in the store; `audit show` reads it while it runs and after the crash."""
    assert relay.PARTIAL_EVERY <= 1
    monkeypatch.setattr(relay, "PARTIAL_EVERY", 0.05)
    so_far = "".join(words_of(5)[:2])
    go_on = asyncio.Event()
    async with ScriptedUpstream(kind=kind) as upstream, gatehouse(tmp_path, upstream) as gate:
        upstream.next(stall_after(2, go_on))
        asking = asyncio.create_task(gate.chat(stream=stream))

        async def all_of_it() -> str | None:
            # As `audit show` has it; the loop that sets it down is the daemon's own.
            rows = await set_down(gate)
            return rows[0][0] if rows and (await gate.audit(rows[0][0])).response == so_far else None

        request_id = await until(all_of_it)
        ((_, seated, first_byte, _),) = await set_down(gate)
        crashed = copy_as_after_a_crash(gate, tmp_path / "crashed")
        go_on.set()
        assert (await asking).status_code == 200
        whole = await gate.audit(request_id)
        assert (whole.state, whole.response) == ("ok", "".join(words_of(5)))
        assert await set_down(gate) == []
    async with desk_in(crashed) as desk:
        assert await desk.journal.recover() == 1
        record = await show(desk.database, request_id)
        assert (record.state, record.response, record.tokens_out) == ("crashed", so_far, 2)
        assert bool(record.bytes_out) == stream, "who wanted it whole was sent nothing"
        assert record.seated and record.first_byte and record.ended is None
        times = "SELECT seated_us, first_byte_us, sent_upstream FROM journal WHERE event = 'closed'"
        assert await desk.rows(times) == [(seated, first_byte, 1)]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_64_kib_are_set_down_without_waiting_for_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """However fast an answer comes, at most so much of it is in memory alone."""
    assert relay.PARTIAL_BYTES <= 64 * 1024
    monkeypatch.setattr(relay, "PARTIAL_EVERY", 3600)
    words = ["x" * 30_000] * 3
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        sent = asyncio.Event()

        async def behave(turn: Any) -> None:
            *pieces, end = turn.pieces(words)
            await turn.head()
            for piece in pieces:
                await turn.send(piece)
            await sent.wait()
            await turn.send(end)
            await turn.finish()

        upstream.next(behave)
        asking = asyncio.create_task(gate.chat(stream=stream))
        await until(lambda: holds_segments(gate))
        sent.set()
        answer = await asking
        assert (await gate.audit(answer.headers["x-request-id"])).response == "".join(words)


async def holds_segments(gate: Gatehouse) -> bool:
    return any(segments for *_, segments in await set_down(gate))


async def test_a_crash_in_prefill_keeps_when_it_was_seated(tmp_path: Path) -> None:
    """Before the first byte there is no segment; that it held a seat is on record all the same."""
    go_on = asyncio.Event()
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        upstream.next(stall_before_headers(go_on))
        asking = asyncio.create_task(gate.chat(stream=True))
        await until(lambda: upstream.inference)
        await gate.house.gate.flush_partials()
        ((_, seated, first_byte, segments),) = await set_down(gate)
        assert seated and first_byte is None and segments == 0
        go_on.set()
        await asking


async def test_an_unstreamed_answer_that_is_cut_is_recorded_once(tmp_path: Path) -> None:
    """Set down, then cancelled: the record has the answer so far, not twice of it."""
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        upstream.next(stall_after(2, asyncio.Event()))
        asking = asyncio.create_task(gate.chat(stream=False))

        async def flushed() -> bool:
            await gate.house.gate.flush_partials()
            return await holds_segments(gate)

        await until(flushed)
        (exchange,) = gate.house.gate.live()
        await until(lambda: gate.house.gate.pieces(exchange.request_id) == 2)
        gate.house.gate.cancel(exchange.request_id)
        answer: httpx.Response = await asking
        assert answer.status_code == 503
        record = await gate.audit(exchange.request_id)
        assert (record.state, record.response) == ("cancelled_by_admin", "".join(words_of(5)[:2]))


async def test_progress_that_could_not_be_set_down_is_set_down_later(tmp_path: Path) -> None:
    """A full disk meanwhile: the next flush has it."""
    async with desk_in(tmp_path) as desk:
        exchange = desk.exchange("Count.")
        await desk.journal.opened(exchange)
        await failing_flush(desk, Progress(exchange.request_id, 5, None))
        await desk.journal.flush_partials([])
        assert await desk.rows("SELECT seated_us, first_byte_us FROM unfinished") == [(5, None)]


async def failing_flush(desk: Desk, progress: Progress) -> None:
    def broken_disk(conn: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    failing = asyncio.create_task(desk.database.write(broken_disk))
    flushing = asyncio.create_task(desk.journal.flush_partials([], [progress]))
    outcomes = await asyncio.gather(failing, flushing, return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
