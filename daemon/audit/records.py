"""The journal's records of one exchange, made from what the relay knows of it.

Rule: a `closed` record holds only what its `opened` record could not; who asked what stands there. Foreign text is kept
as it came, save what no database or JSON can hold.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon.audit.chain import Record
from daemon.exchange import EndState, Exchange

LONGEST_ERROR = 2_000
LARGEST = 2**53  # what a lying upstream may claim to have counted: exact in every reader of JSON


def opened(exchange: Exchange, *, at_us: int) -> Record:
    """The record that lets a request go upstream; its body is added in the store's thread."""
    return Record(
        event="opened",
        at_us=at_us,
        clock_us=exchange.admitted_clock,
        request_id=exchange.request_id,
        user_id=exchange.user_id,
        user=exchange.user,
        key_id=exchange.key_id,
        client_label=text(exchange.client_label),
        address=exchange.address,
        user_agent=text(exchange.user_agent),
        route=exchange.route,
        model_asked=text(exchange.model_asked),
        model=text(exchange.model),
        upstream=exchange.upstream,
        stream=int(exchange.stream),
        received_us=exchange.received,
        admitted_us=exchange.admitted,
    )


def closed(exchange: Exchange, *, at_us: int, clock_us: int) -> Record:
    """The record of its end. `opened_seq` and body are added in the store's thread."""
    state = exchange.state
    assert state is not None or exchange.seq == 0, "an exchange is closed with the state it ended in"
    return Record(
        event="closed",
        at_us=at_us,
        clock_us=clock_us,
        request_id=exchange.request_id,
        user_id=exchange.user_id,
        state=(state or EndState.REFUSED).value,
        error=text(exchange.error)[:LONGEST_ERROR],
        sent_upstream=int(exchange.sent_upstream),
        tokens_in=_count(exchange.usage.tokens_in),
        tokens_out=_count(exchange.usage.tokens_out),
        bytes_out=exchange.bytes_out,
        received_us=exchange.received,
        seated_us=exchange.seated,
        first_byte_us=exchange.first_byte,
        ended_us=exchange.ended or at_us,
        # Where it was opened for is in its opening record; here only where it went instead.
        model=text(exchange.model) if exchange.tried else None,
        upstream=exchange.upstream if exchange.tried else None,
        detail=_detail(exchange) if exchange.tried or exchange.cost is not None else None,
    )


def _detail(exchange: Exchange) -> str:
    """What few ends have: the upstreams that failed before, and what it cost in millionths of a currency."""
    detail: dict[str, Any] = {}
    if exchange.tried:
        detail["tried"] = [
            {"upstream": each.upstream, "model": text(each.model), "error": text(each.error)[:LONGEST_ERROR]}
            for each in exchange.tried
        ]
    if exchange.cost is not None:
        detail |= {"cost_micros": exchange.cost, "currency": exchange.currency}
    return msgspec.json.encode(detail).decode()


def undelivered(record: Record) -> Record:
    """The same end, where it could not be recorded in time: a good one was not told to the client as such."""
    if record.state != EndState.OK:
        return record
    return msgspec.structs.replace(
        record,
        state=EndState.UPSTREAM_ERROR.value,
        error="the end could not be recorded when the answer was complete; the client was told of a failure",
    )


def text(foreign: str) -> str:
    """Text without lone surrogates."""
    return foreign if foreign.isascii() else foreign.encode("utf-8", "replace").decode()


def _count(number: int | None) -> int | None:
    return None if number is None else max(0, min(number, LARGEST))
