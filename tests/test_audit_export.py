"""Exports: lossless, never a formula, one snapshot however long they take; verified only when read back."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import Conflict, NotFound
from common.protocol import AuditExport, AuditExported
from common.times import iso
from common.untrusted import csv_uncell
from daemon.access.actor import Actor
from daemon.audit.child import ReaderFailed
from daemon.audit.export import COLUMNS, PAGE, Exports, Outgoing, Span, _csv_line, write_export
from daemon.audit.search import show
from daemon.exchange import EndState
from daemon.store.users import exchanges_beyond_export
from tests.rigs.journals import BEN, Desk, desk_in, streamed
from tests.rigs.traffic import HOUR, MovedClock

ROOT = Actor(uid=0, name="root", via="socket")
HOSTILE = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''", 'a,"b"\n;c', "\x1b[2J", "\u202eevil", "é",
]  # fmt: skip


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as opened:
        yield opened


async def read(outgoing: Outgoing) -> bytes:
    async with aclosing(aiter(outgoing)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def export(desk: Desk, **fields: Any) -> bytes:
    return await read(await Exports(desk.database, desk.clock).begin(AuditExport(**fields)))


def rows_of(data: bytes) -> list[dict[str, str]]:
    header, *rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
    assert tuple(header) == COLUMNS
    return [dict(zip(header, row, strict=True)) for row in rows]


async def test_csv_has_the_seeds_columns_first_and_then_ours(desk: Desk) -> None:
    """`log_id,prompt,response,timestamp`, then who, what, when, and the whole request; UTF-8 without BOM."""
    exchange = await desk.converse("Why?", "Because.", "Grüße?", answer="Grüße.")
    data = await export(desk)
    assert data.startswith(
        b"log_id,prompt,response,timestamp,request_id,user,key,client_label,address,route,model,upstream,state,"
        b"tokens_in,tokens_out,received,admitted,seated,first_byte,ended,messages\r\n"
    )
    (row,) = rows_of(data)
    assert json.loads(row.pop("messages")) == exchange.document
    ((admitted, ended),) = await desk.rows(
        "SELECT o.admitted_us, c.ended_us FROM journal o JOIN journal c ON c.opened_seq = o.seq"
    )
    assert row == {
        "log_id": "1", "prompt": "Grüße?", "response": "Grüße.", "timestamp": iso(exchange.received),
        "request_id": exchange.request_id, "user": "ana@example.org", "key": "k1", "client_label": "notebook",
        "address": "192.0.2.7", "route": "/api/chat", "model": "llama3.2:latest", "upstream": "local", "state": "ok",
        "tokens_in": "11", "tokens_out": "7", "received": iso(exchange.received), "admitted": iso(admitted),
        "seated": iso(ended), "first_byte": iso(ended), "ended": iso(ended),
    }  # fmt: skip


async def test_no_cell_is_a_formula_and_every_text_comes_back(desk: Desk) -> None:
    """T3: a dangerous start gets one apostrophe, in every column; one apostrophe less is the exact text."""
    for text in HOSTILE:
        await desk.converse(text, answer=text, client_label=text, model=text)
    rows = rows_of(await export(desk))
    assert [csv_uncell(row["prompt"]) for row in rows] == HOSTILE
    assert [csv_uncell(row["response"]) for row in rows] == HOSTILE
    assert [csv_uncell(row["client_label"]) for row in rows] == HOSTILE
    for row in rows:
        assert not [cell for cell in row.values() if cell.startswith(tuple("=+-@\t\r\n"))]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_csv_line_is_read_back_as_it_was_written(cells: list[str]) -> None:
    """Quotes, commas, line ends of any kind, NUL: the reader of RFC 4180 gets the same cells."""
    line = _csv_line(cells).decode("utf-8")
    assert list(csv.reader(io.StringIO(line, newline=""), strict=True)) == [cells]


async def test_jsonl_has_the_same_names_and_loses_nothing(desk: Desk) -> None:
    """The canonical form: an object a line, request and answer whole."""
    exchange = await desk.converse("=Why?", answer="'Because.")
    (line,) = (await export(desk, format="jsonl")).splitlines()
    row = json.loads(line)
    assert set(COLUMNS) <= set(row)
    assert (row["prompt"], row["response"], row["log_id"]) == ("=Why?", "'Because.", 1)
    assert row["messages"] == exchange.document
    assert row["answer"] == {"role": "assistant", "content": "'Because."}
    assert (row["user_agent"], row["bytes_out"], row["tokens_in"]) == ("curl/8", exchange.bytes_out, 11)


async def test_an_export_is_of_one_user_or_of_a_span(tmp_path: Path) -> None:
    """--user, --since, --until; oldest first; refusals and administrators' records are not exchanges."""
    clock = MovedClock()
    async with desk_in(tmp_path, clock=clock) as desk:
        for n in range(3):
            await desk.converse(f"ana {n}")
            await desk.converse(f"ben {n}", user_id=2, user=BEN)
            clock.advance(HOUR)
        desk.journal.refused(reason="r", user_id=1, user="ana@example.org")
        await desk.journal.close()
        half = iso(clock.wall() - 2 * HOUR)

        async def prompts(**fields: str) -> list[str]:
            return [row["prompt"] for row in rows_of(await export(desk, **fields))]

        assert await prompts() == ["ana 0", "ben 0", "ana 1", "ben 1", "ana 2", "ben 2"]
        assert await prompts(user=BEN) == ["ben 0", "ben 1", "ben 2"]
        assert await prompts(since=half) == ["ana 1", "ben 1", "ana 2", "ben 2"]
        assert await prompts(until=half, user=BEN) == ["ben 0"]
        with pytest.raises(NotFound):
            await export(desk, user="nobody@example.org")


async def test_an_export_is_one_snapshot_over_all_its_pages(desk: Desk) -> None:
    """What is opened or closed after its beginning is not in it: pages of short reads, one moment."""
    running = desk.exchange("Running.")
    await desk.journal.opened(running)
    await desk.journal.flush_partials([(running.request_id, b"".join(streamed("so far", done=False)))])
    assert (await show(desk.database, running.request_id)).response == "so far"
    for n in range(PAGE + 20):
        await desk.converse(f"q {n}")
    through = (await desk.rows("SELECT MAX(seq) FROM journal"))[0][0]
    conn = sqlite3.connect(desk.path)
    pages = write_export(conn, "csv", Span(None, None, None, through))
    data = next(pages) + next(pages)
    await desk.end(running, EndState.OK, " late.")
    await desk.converse("Newer.")
    data += b"".join(pages)
    conn.close()
    rows = rows_of(data)
    assert [row["prompt"] for row in rows] == ["Running.", *(f"q {n}" for n in range(PAGE + 20))]
    conn = sqlite3.connect(desk.path)
    again = rows_of(b"".join(write_export(conn, "csv", Span(None, None, None, through))))
    conn.close()
    assert again == rows and (again[0]["state"], again[0]["response"]) == ("", "")


async def test_an_export_read_back_whole_is_verified_and_recorded(desk: Desk) -> None:
    """The daemon compares the file's SHA-256 with what it sent; who exported what where is in the audit."""
    await desk.converse("Of Ana.")
    exports = Exports(desk.database, desk.clock)
    outgoing = await exports.begin(AuditExport(user="ana@example.org"))
    data = await read(outgoing)
    await desk.converse("Later.")
    digest = hashlib.sha256(data).hexdigest()
    report = AuditExported(export=outgoing.id, sha256=digest, bytes=len(data), file="/root/ana.csv")
    confirmed = await exports.confirm(report, ROOT)
    assert (confirmed.verified, confirmed.through_log_id, confirmed.sha256) == (True, 2, digest)
    ((detail, user_id),) = await desk.rows("SELECT detail, user_id FROM journal WHERE event = 'admin'")
    told = json.loads(detail)
    assert (told["verb"], told["file"], told["sha256"], told["through"]) == ("audit export", "/root/ana.csv", digest, 2)
    assert (told["actor"], user_id) == ({"uid": 0, "name": "root", "via": "socket"}, 1)
    with pytest.raises(NotFound):  # once
        await exports.confirm(report, ROOT)


async def test_only_what_was_sent_and_arrived_whole_is_verified(desk: Desk) -> None:
    """Another hash, another length, an id of nobody, an export that was not read to its end: none counts."""
    for n in range(400):
        await desk.converse(f"{n}" * 300)
    exports = Exports(desk.database, desk.clock)
    outgoing = await exports.begin(AuditExport())
    data = await read(outgoing)
    good = AuditExported(export=outgoing.id, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), file="f")
    for name, value, error in [
        ("sha256", "00" * 32, Conflict), ("bytes", len(data) - 1, Conflict), ("export", "nobody", NotFound),
    ]:  # fmt: skip
        wrong = AuditExported(**{field: getattr(good, field) for field in good.__struct_fields__} | {name: value})
        with pytest.raises(error):
            await exports.confirm(wrong, ROOT)
    left = await exports.begin(AuditExport())
    chunks = aiter(left)
    part = await anext(chunks)
    await chunks.aclose()
    with pytest.raises(NotFound):
        await exports.confirm(
            AuditExported(export=left.id, sha256=hashlib.sha256(part).hexdigest(), bytes=len(part), file="f"), ROOT
        )
    assert await desk.rows("SELECT * FROM exports") == []
    assert (await exports.confirm(good, ROOT)).verified


async def test_deleting_a_user_asks_for_an_export_newer_than_the_last_end(desk: Desk) -> None:
    """Row 54: of that user or of everybody, from the first record on; a span does not count; nor an older one."""
    exports = Exports(desk.database, desk.clock)

    async def verified(**fields: str) -> None:
        outgoing = await exports.begin(AuditExport(**fields))
        data = await read(outgoing)
        report = AuditExported(export=outgoing.id, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), file="f")
        await exports.confirm(report, ROOT)

    async def missing() -> str | None:
        return await desk.database.read(lambda conn: exchanges_beyond_export(conn, 1))

    await desk.converse("One.")
    await verified(user=BEN)
    await verified(user="ana@example.org", since=iso(0))
    assert await missing()
    await verified(user="ana@example.org")
    assert await missing() is None
    running = desk.exchange("Two.")
    await desk.journal.opened(running)
    assert await missing()
    await desk.end(running, EndState.OK, "Yes.")
    assert await missing()
    await verified()
    assert await missing() is None


async def test_an_export_that_breaks_off_is_an_error(desk: Desk) -> None:
    """A child that fails midway must not look like a short journal."""
    await desk.converse("One.")
    exports = Exports(desk.database, desk.clock)
    outgoing = await exports.begin(AuditExport())
    await desk.database.write(lambda conn: conn.execute("ALTER TABLE parts RENAME TO elsewhere").fetchone())
    with pytest.raises(ReaderFailed, match="no such table: parts"):
        await read(outgoing)
    with pytest.raises(NotFound):
        await exports.confirm(AuditExported(export=outgoing.id, sha256="", bytes=0, file="f"), ROOT)


async def test_exporting_does_not_hold_the_event_loop(desk: Desk) -> None:
    """It is another process: the loop turns while it works."""
    for n in range(50):
        await desk.converse(f"q {n}")
    exporting = asyncio.create_task(export(desk))
    turns = 0
    while not exporting.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 100 and len(rows_of(exporting.result())) == 50
