"""`audit position` and `audit admin`: where an exchange stands in the chain, and what administrators did.

Rule: reading only, in pages that take milliseconds; neither shows a prompt or an answer, so neither is recorded.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from common.errors import BadRequest, NotFound
from common.protocol import AdminRecord, AuditAdmin, ChainLink, ChainPosition, ChainSeal
from common.times import from_iso, iso
from daemon.audit.chain import GENESIS, checkpoint_message, record_hash
from daemon.audit.sealing import TrustedKeys
from daemon.store.checkpoints import Checkpoint
from daemon.store.database import Database
from daemon.store.journal import head
from daemon.store.positions import AdminRow, Link, admin_page, links_of, seal_from, signature_before
from daemon.store.search import by_request, by_seq
from daemon.store.verifying import records_after

MOST = 1_000  # rows an answer may have
PAGE = 500
MOST_CHECKED = 5_000  # records hashed for one answer: some ten milliseconds of a reader
MOST_PROBLEMS = 20


async def position(database: Database, id_: str, keys: Path) -> ChainPosition:
    """Where the exchange of that request id or log id stands, and whether the chain holds from there to its seal.

    `keys` is the folder of the trusted public keys. NotFound.
    """
    trusted = TrustedKeys(keys)

    def read(conn: sqlite3.Connection) -> ChainPosition:
        found = by_seq(conn, int(id_)) if id_.isascii() and id_.isdigit() and len(id_) < 19 else by_request(conn, id_)
        if found is None:
            raise NotFound(f"the audit has no exchange {id_}")
        links = links_of(conn, found.seq, GENESIS)
        seal = seal_from(conn, links[-1].seq)
        end = links[-1].seq if seal is None else seal.seq
        walked = _walk(conn, links[0], end)
        if seal is not None:
            walked.judge(seal, trusted, signature_before(conn, seal.seq))
        return ChainPosition(
            log_id=found.seq,
            request_id=found.request_id or "",
            links=[
                ChainLink(link.seq, link.event, iso(link.at_us), link.previous.hex(), link.hash.hex()) for link in links
            ],
            seal=None if seal is None else ChainSeal(seal.seq, seal.hash.hex(), iso(seal.at_us), seal.kid),
            head_seq=head(conn).seq,
            checked=walked.checked,
            whole=walked.seq == end,
            problems=walked.problems,
        )

    return await database.read(read)


@dataclass
class _Walked:
    """The chain from one record on, hashed anew."""

    seq: int
    hash: bytes
    checked: int = 0
    problems: list[str] = field(default_factory=list)

    def judge(self, seal: Checkpoint, trusted: TrustedKeys, before: bytes) -> None:
        """Whether the seal is ours and is about this chain."""
        message = checkpoint_message(seal.seq, seal.hash, seal.at_us, seal.kid, before)
        if not trusted.is_signed(seal.kid, seal.signature, message):
            self.problems.append(f"checkpoint {seal.seq}: its signature is not that of it and the checkpoint before")
        if self.seq == seal.seq and self.hash != seal.hash:
            self.problems.append(f"checkpoint {seal.seq}: the journal before it is not what was signed")


def _walk(conn: sqlite3.Connection, first: Link, through: int) -> _Walked:
    walked = _Walked(first.seq - 1, first.previous)
    for *columns, stored in records_after(conn, first.seq - 1, through, MOST_CHECKED):
        seq = columns[0]
        if seq != walked.seq + 1:
            walked.problems.append(f"the records between {walked.seq} and {seq} are missing")
        elif record_hash(walked.hash, tuple(columns)) != stored:
            walked.problems.append(f"record {seq}: its hash does not follow from it and the record before")
        walked.seq, walked.hash = seq, stored if isinstance(stored, bytes) else b""
        walked.checked += 1
    del walked.problems[MOST_PROBLEMS:]
    return walked


async def administered(database: Database, question: AuditAdmin) -> list[AdminRecord]:
    """What administrators did and looked at, newest first. BadRequest for a moment or limit that cannot be."""
    if not 1 <= question.limit <= MOST:
        raise BadRequest(f"limit must be between 1 and {MOST}")
    since, until = _moment("since", question.since), _moment("until", question.until)
    found: list[AdminRecord] = []
    before = question.before
    while page := await database.read(partial(admin_page, before=before, limit=PAGE)):
        for row in page:
            if since is not None and row.at_us < since:
                return found
            if until is not None and row.at_us >= until:
                continue
            record = _record(row)
            if _wanted(record, question):
                found.append(record)
                if len(found) == question.limit:
                    return found
        before = page[-1].seq
    return found


def _record(row: AdminRow) -> AdminRecord:
    detail: dict[str, Any] = msgspec.json.decode(row.detail)
    actor = detail.pop("actor", None) or {}
    return AdminRecord(
        log_id=row.seq,
        timestamp=iso(row.at_us),
        actor=str(actor.get("name", "")),
        uid=actor.get("uid"),
        via=str(actor.get("via", "")),
        verb=str(detail.pop("verb", "")),
        target=str(detail.pop("target", "")),
        detail=detail,
    )


def _wanted(record: AdminRecord, question: AuditAdmin) -> bool:
    return (
        (question.actor is None or record.actor == question.actor)
        and (question.verb is None or record.verb.startswith(question.verb))
        and (question.target is None or question.target.casefold() in record.target.casefold())
    )


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return from_iso(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: {text!r} is not a moment such as 2026-01-31T09:00:00Z") from error
