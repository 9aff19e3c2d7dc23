"""What the store found, as the rows of the admin socket and of an export, with the texts of its bodies.

Rule: a body that was erased is empty and said to be; one that the disk damaged is said to be, in its place, and never
keeps the rest from being shown or exported (`audit verify` names it).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from common.protocol import AuditExchange, AuditRow, TriedUpstream
from common.times import iso, iso_or_none
from daemon.audit.answers import answer_texts
from daemon.audit.documents import join_request, prompt_of, prompt_of_parts, response_of, value_of
from daemon.money import written
from daemon.store.bodies import DamagedBody, load_body, load_part, unpack_ids
from daemon.store.partials import segments_of
from daemon.store.search import Found

T = TypeVar("T")

BEGINNING = 200  # characters of the prompt in a list
DAMAGED = "[this body is damaged in the store: see audit verify]"


def row_of(conn: sqlite3.Connection, found: Found) -> AuditRow:
    """A line of a list."""
    prompt = _prompt(conn, found)
    return AuditRow(
        log_id=found.seq,
        request_id=found.request_id or "",
        timestamp=iso(found.received_us),
        user=found.user or "",
        key=found.key_id,
        client_label=found.client_label or "",
        address=found.address or "",
        route=found.route or "",
        model=found.model or "",
        upstream=found.upstream or "",
        state=found.state,
        error=found.error if found.request_id is not None else _refusals(found),
        tokens_in=found.tokens_in,
        tokens_out=found.tokens_out,
        received=iso(found.received_us),
        admitted=iso_or_none(found.admitted_us),
        seated=iso_or_none(found.seated_us),
        first_byte=iso_or_none(found.first_byte_us),
        ended=iso_or_none(found.ended_us),
        prompt=(prompt or "")[:BEGINNING],
        erased=prompt is None,
    )


def exchange_of(conn: sqlite3.Connection, found: Found, *, so_far: bool = False) -> AuditExchange:
    """An exchange, whole; also a line of a JSONL export. `so_far`: of one that runs, what was set down of its answer
    (not in an export, which is of one moment, however long it takes)."""
    request = _body(conn, found.request, lambda parts: msgspec.json.decode(join_request(parts)), prompt_of)
    answer = _body(conn, found.answer, lambda parts: value_of(parts[0]), response_of)
    ended = msgspec.json.decode(found.end_detail or "{}", type=_Ended)
    if so_far and found.state is None:
        answer = _running_answer(conn, found)
    return AuditExchange(
        log_id=found.seq,
        prompt=request.text,
        response=answer.text,
        timestamp=iso(found.received_us),
        request_id=found.request_id or "",
        user=found.user or "",
        key=found.key_id,
        client_label=found.client_label or "",
        address=found.address or "",
        user_agent=found.user_agent or "",
        route=found.route or "",
        model_asked=found.model_asked or "",
        model=found.model or "",
        upstream=found.upstream or "",
        stream=bool(found.stream),
        state=found.state,
        error=found.error if found.request_id is not None else _refusals(found),
        tokens_in=found.tokens_in,
        tokens_out=found.tokens_out,
        bytes_out=found.bytes_out,
        received=iso(found.received_us),
        admitted=iso_or_none(found.admitted_us),
        seated=iso_or_none(found.seated_us),
        first_byte=iso_or_none(found.first_byte_us),
        ended=iso_or_none(found.ended_us),
        messages=request.value,
        answer=answer.value,
        erased=request.erased or answer.erased,
        tried=ended.tried,
        cost=None if ended.cost_micros is None else written(ended.cost_micros),
        currency=ended.currency,
    )


class _Ended(msgspec.Struct):
    """The detail of a closing record."""

    tried: list[TriedUpstream] = []
    cost_micros: int | None = None
    currency: str | None = None


def _running_answer(conn: sqlite3.Connection, found: Found) -> _Read:
    """What was set down so far of an answer that still runs."""
    parts = answer_texts(found.route or "", segments_of(conn, found.request_id or ""))
    if not parts:
        return _Read(None, "")
    value = value_of(parts[0])
    return _Read(value, response_of(value))


def texts_of(conn: sqlite3.Connection, found: Found) -> tuple[str, str]:
    """Prompt and answer as text, for searching."""
    return _prompt(conn, found) or "", _reading(lambda: _response(conn, found))


def _prompt(conn: sqlite3.Connection, found: Found) -> str | None:
    """The prompt, read from the end of the conversation: of forty turns one or two parts are loaded. None: erased."""
    if found.request is None:
        return ""
    manifest = found.request

    def read() -> str | None:
        ids = unpack_ids(manifest)
        for id_ in reversed(ids[1:-1] or ids):
            part = load_part(conn, id_)
            if part is None:
                return None
            prompt = prompt_of_parts([part] if len(ids) == 1 else [b"", part, b""])
            if prompt:
                return prompt
        return ""

    return _reading(read)


def _response(conn: sqlite3.Connection, found: Found) -> str:
    texts = None if found.answer is None else load_body(conn, found.answer)
    return response_of(value_of(texts[0])) if texts else ""


class _Read(NamedTuple):
    """A body that was read, or what is said in its place."""

    value: Any
    text: str
    erased: bool = False


def _body(
    conn: sqlite3.Connection,
    manifest: bytes | None,
    read: Callable[[list[bytes]], Any],
    text_of: Callable[[Any], str],
) -> _Read:
    if manifest is None:
        return _Read(None, "")
    try:
        parts = load_body(conn, manifest)
        if parts is None:
            return _Read(None, "", erased=True)
        value = read(parts)
    except (DamagedBody, msgspec.DecodeError, UnicodeDecodeError):
        return _Read(None, DAMAGED)
    return _Read(value, text_of(value))


def _reading(read: Callable[[], T]) -> T | str:
    try:
        return read()
    except (DamagedBody, msgspec.DecodeError, UnicodeDecodeError):
        return DAMAGED


def _refusals(found: Found) -> str:
    detail: dict[str, Any] = msgspec.json.decode(found.detail or "{}")
    count = detail.get("count", 1)
    return f"{detail.get('reason', '')}, {'once' if count == 1 else f'{count} times'}"
