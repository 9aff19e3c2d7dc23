"""After a crash: every exchange that is still open gets its one end, `crashed`, with what was set down of its answer.

Rule: what happened after the last commit nobody knows, so nothing is claimed: no usage of the upstream's, only the
pieces that were certainly generated, and no end. A crashed exchange keeps its place in the request windows.
"""

from __future__ import annotations

import sqlite3

from daemon.audit.answers import answer_texts, pieces_in
from daemon.audit.chain import Record
from daemon.exchange import EndState
from daemon.store.bodies import keep_body
from daemon.store.journal import Unfinished, close_exchange, unfinished
from daemon.store.partials import take_segments


def close_crashed(limit: int, conn: sqlite3.Connection, *, at_us: int, clock_us: int) -> int:
    """Close at most `limit` open exchanges, oldest first; how many there were to close."""
    some = unfinished(conn, limit)
    for exchange in some:
        close_exchange(conn, _end_of(conn, exchange, at_us, clock_us))
    return len(some)


def _end_of(conn: sqlite3.Connection, exchange: Unfinished, at_us: int, clock_us: int) -> Record:
    segments = take_segments(conn, exchange.request_id)
    record = Record(
        event="closed",
        at_us=at_us,
        clock_us=clock_us,
        request_id=exchange.request_id,
        opened_seq=exchange.seq,
        user_id=exchange.user_id,
        state=EndState.CRASHED.value,
        error="the daemon ended while this exchange was running",
        # An answer of which something was set down was asked for; of the others it is not known.
        sent_upstream=1 if segments or exchange.first_byte_us is not None else None,
        tokens_out=pieces_in(exchange.route, segments) if segments else None,
        # Who wanted it whole was sent nothing yet.
        bytes_out=sum(map(len, segments)) if exchange.stream else 0,
        received_us=exchange.received_us,
        seated_us=exchange.seated_us,
        first_byte_us=exchange.first_byte_us,
    )
    texts = answer_texts(exchange.route, segments)
    if texts:
        record.body, record.body_digest = keep_body(conn, exchange.user_id, texts)
    return record
