"""Exports: every exchange of the wanted span, oldest first, as CSV or JSON lines, written by the reader process.

Rules: an export covers the first N records, N taken at its beginning, so pages read over minutes are one snapshot.
JSONL is the canonical form; a CSV cell is never a formula and one leading apostrophe less is the exact text (T3). An
export counts (for deleting a user) once whoever wrote it to a disk has read it back and its SHA-256 is the one we sent.
"""

from __future__ import annotations

import csv
import hashlib
import io
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import partial

import msgspec

from common.errors import Conflict, NotFound
from common.protocol import AuditExchange, AuditExport, AuditExported, AuditFilter, ExportReport
from common.untrusted import csv_cell
from daemon.access.actor import Actor
from daemon.audit.child import read_chunks
from daemon.audit.rows import exchange_of
from daemon.audit.search import criteria_of
from daemon.clock import Clock
from daemon.store.database import Database
from daemon.store.exports import Export, add_export
from daemon.store.journal import append_admin, head
from daemon.store.search import Criteria, oldest

COLUMNS = (
    "log_id", "prompt", "response", "timestamp", "request_id", "user", "key", "client_label", "address", "route",
    "model", "upstream", "state", "tokens_in", "tokens_out", "received", "admitted", "seated", "first_byte", "ended",
    "messages",
)  # fmt: skip
PAGE = 100
REMEMBERED = 100  # exports that may still be reported as verified

_json = msgspec.json.Encoder().encode


class Span(msgspec.Struct, frozen=True):
    """What an export covers, resolved: it means the same in the child as here."""

    user_id: int | None
    since_us: int | None
    until_us: int | None
    through_seq: int

    def criteria(self) -> Criteria:
        return Criteria(user_id=self.user_id, since_us=self.since_us, until_us=self.until_us)


class Sent(msgspec.Struct, frozen=True):
    """A whole export that was handed out."""

    span: Span
    sha256: bytes
    size: int
    format: str


class Exports:
    """The exports of one daemon: those that were sent wait here to be reported as safely on a disk."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._sent: dict[str, Sent] = {}

    async def begin(self, question: AuditExport) -> Outgoing:
        """An export to be read. NotFound, BadRequest where the question makes no sense."""
        span = await self._database.read(partial(_span, question))
        return Outgoing(self, span, question.format)

    async def confirm(self, report: AuditExported, actor: Actor) -> ExportReport:
        """What the caller read back from its disk, compared with what was sent; recorded where it is the same.

        NotFound for an export that is not known (any more), Conflict where the file is not what was sent.
        """
        sent = self._sent.get(report.export)
        if sent is None:
            raise NotFound("there is no such export to report; export again")
        if report.sha256.lower() != sent.sha256.hex() or report.bytes != sent.size:
            raise Conflict(
                f"{report.file} is not what was sent: export again",
                code="export_differs",
                detail={"sha256": sent.sha256.hex(), "bytes": sent.size},
            )
        await self._database.write(partial(self._record, report, sent, actor))
        self._sent.pop(report.export, None)
        return ExportReport(
            export=report.export,
            verified=True,
            sha256=sent.sha256.hex(),
            bytes=sent.size,
            file=report.file,
            through_log_id=sent.span.through_seq,
        )

    def _record(self, report: AuditExported, sent: Sent, actor: Actor, conn: sqlite3.Connection) -> None:
        now, span = self._clock.wall(), sent.span
        add_export(
            conn,
            Export(
                report.export, span.user_id, span.since_us, span.until_us, span.through_seq, sent.sha256, sent.size,
                now, report.file, sent.format,
            ),
        )  # fmt: skip
        append_admin(
            conn,
            actor=actor,
            verb="audit export",
            target="everybody" if span.user_id is None else f"user {span.user_id}",
            detail={
                "export": report.export, "file": report.file, "format": sent.format, "sha256": sent.sha256.hex(),
                "bytes": sent.size, "since_us": span.since_us, "until_us": span.until_us, "through": span.through_seq,
            },
            at_us=now,
            clock_us=self._clock.now(),
            user_id=span.user_id,
        )  # fmt: skip

    def _was_sent(self, id_: str, sent: Sent) -> None:
        self._sent[id_] = sent
        while len(self._sent) > REMEMBERED:
            del self._sent[next(iter(self._sent))]


class Outgoing:
    """One export on its way: iterate its bytes; read to its end, it can be confirmed under `id`."""

    def __init__(self, exports: Exports, span: Span, format_: str) -> None:
        self.id = secrets.token_hex(8)
        self.content_type = "text/csv; charset=utf-8" if format_ == "csv" else "application/x-ndjson"
        self._exports = exports
        self._span = span
        self._format = format_

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The export's bytes. ReaderFailed where they are not whole."""
        database = str(self._exports._database.path)
        digest, size = hashlib.sha256(), 0
        arguments = {"database": database, "format": self._format, "span": self._span}
        async with aclosing(read_chunks("export", arguments)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        self._exports._was_sent(self.id, Sent(self._span, digest.digest(), size, self._format))


def _span(question: AuditExport, conn: sqlite3.Connection) -> Span:
    wanted = criteria_of(conn, AuditFilter(user=question.user, since=question.since, until=question.until))
    return Span(wanted.user_id, wanted.since_us, wanted.until_us, head(conn).seq)


# --- the child's half ---


def write_export(conn: sqlite3.Connection, format_: str, span: Span) -> Iterator[bytes]:
    """The bytes of an export, page by page; each page is a short read."""
    yield header(format_)
    after = None
    while page := oldest(conn, span.criteria(), PAGE, through_seq=span.through_seq, after=after):
        yield b"".join(line_of(format_, exchange_of(conn, found)) for found in page)
        after = page[-1].place


def header(format_: str) -> bytes:
    """What stands before the first exchange."""
    return _csv_line(COLUMNS) if format_ == "csv" else b""


def line_of(format_: str, exchange: AuditExchange) -> bytes:
    """One exchange as it stands in the file."""
    return _csv_exchange(exchange) if format_ == "csv" else _json(exchange) + b"\n"


def _csv_exchange(exchange: AuditExchange) -> bytes:
    cells = []
    for name in COLUMNS:
        value = getattr(exchange, name)
        if name == "messages":
            value = "" if value is None else _json(value).decode()
        cells.append(csv_cell(value) if isinstance(value, str) else "" if value is None else value)
    return _csv_line(cells)


def _csv_line(cells: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)  # type: ignore[arg-type]
    return text.getvalue().encode()
