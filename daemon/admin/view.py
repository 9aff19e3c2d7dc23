"""The view of one running exchange: its request, the answer as it grows, its limits. Who looked is in the audit.

Rule: an answer's beginning comes from the store, the rest from what the relay holds; each viewer has at most so much
waiting and gets a few messages a second, whatever the answer does. Nothing here is on the way of a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from common.errors import NotFound, Unavailable
from common.protocol import LiveExchange, LiveNews, LiveTarget
from common.times import iso
from daemon.access.actor import Actor
from daemon.admin.live import named
from daemon.admin.rows import fullest_first, limit_use, live_row, look_at_pace
from daemon.audit.answers import answer_texts
from daemon.audit.documents import prompt_of, response_of, value_of, weight
from daemon.exchange import Exchange
from daemon.following import Following
from daemon.recent import ended_row
from daemon.store.partials import segments_of
from daemon.traffic.admission import Subject

if TYPE_CHECKING:
    from daemon.house import House

LONGEST_ANSWER = 256 * 1024  # characters of the answer so far that a view begins with
LARGEST_REQUEST = 1024 * 1024  # bytes of a request that is shown as a document
MOST_VIEWS = 32
SILENCE = 5.0  # seconds after which a view without news tells its row

# What a request is about; everything else in it is an option.
_SUBJECT = frozenset(
    {"model", "messages", "prompt", "input", "images", "suffix", "system", "context", "tools", "stream"}
)


async def shown(house: House, actor: Actor, request: LiveTarget) -> LiveExchange:
    """One exchange as it is now."""
    exchange = named(house, request.request_id)
    with closing(_follow(house, exchange)) as following:
        await _record(house, actor, exchange)
        return (await _whole(house, exchange, following))[0]


async def followed(house: House, actor: Actor, request: LiveTarget) -> AsyncGenerator[LiveNews, None]:
    """The exchange as it is, then what its answer gains, then how it ended."""
    exchange = named(house, request.request_id)
    if house.views >= MOST_VIEWS:
        raise Unavailable(f"{MOST_VIEWS} requests are being looked at already", code="too_many_views")
    house.views += 1
    try:
        with closing(_follow(house, exchange)) as following:
            await _record(house, actor, exchange)
            first, text = await _whole(house, exchange, following)
            yield LiveNews(exchange=first)
            async for news in _news(house, exchange, following, text):
                yield news
    finally:
        house.views -= 1


async def _news(house: House, exchange: Exchange, following: Following, text: _Text) -> AsyncGenerator[LiveNews, None]:
    clock = asyncio.get_running_loop().time
    told, told_at = _progress(house, exchange), clock()
    while True:
        await asyncio.sleep(house.hub.period)
        # In this order: what came before the end is told with it.
        over = house.gate.find(exchange.request_id) is None
        answer, thinking = text.gained(following, over=over)
        if over:
            yield LiveNews(gained=answer, thinking=thinking, skipped=following.lost(), ended=ended_row(exchange))
            return
        progress = _progress(house, exchange)
        if answer or thinking or progress != told or clock() - told_at >= SILENCE:
            told, told_at = progress, clock()
            look_at_pace(house)
            row = live_row(house, exchange)
            yield LiveNews(row=row, gained=answer, thinking=thinking, skipped=following.lost())


def _progress(house: House, exchange: Exchange) -> tuple[object, ...]:
    return (exchange.phase, exchange.position(), house.gate.pieces(exchange.request_id))


def _follow(house: House, exchange: Exchange) -> Following:
    following = house.gate.follow(exchange.request_id)
    if following is None:
        raise NotFound(f"request {exchange.request_id} has just ended; `audit show` has it")
    return following


async def _record(house: House, actor: Actor, exchange: Exchange) -> None:
    """On the disk before anything is shown."""
    detail = {"user": exchange.user, "log_id": exchange.seq or None}
    await house.journal.admin(actor, "live show", f"request:{exchange.request_id}", detail, user_id=exchange.user_id)


async def _whole(house: House, exchange: Exchange, following: Following) -> tuple[LiveExchange, _Text]:
    """The exchange as it is, and the reader of what its answer gains from here."""
    text = _Text(exchange)
    if following.before:
        # What the store is being given is not there yet; and what came after this view began comes from memory.
        await house.gate.flush_partials()
        set_down = await house.database.read(partial(segments_of, request_id=exchange.request_id))
        text.begin(b"".join(set_down)[: following.before])
    answer, thinking = text.gained(following, over=False)
    look_at_pace(house)
    if house.gate.find(exchange.request_id) is None:
        raise NotFound(f"request {exchange.request_id} has just ended; `audit show` has it")
    row = live_row(house, exchange)
    document, size = exchange.document, weight(exchange.document)
    subject = Subject(exchange.user_id, exchange.user, exchange.key_id, exchange.model, exchange.address)
    shown = LiveExchange(
        row=row,
        prompt=prompt_of(document),
        messages=document if size <= LARGEST_REQUEST else None,
        request_bytes=size,
        options=options_of(document),
        answer=answer[-LONGEST_ANSWER:],
        thinking=thinking[-LONGEST_ANSWER:],
        answer_cut=len(answer) > LONGEST_ANSWER or len(thinking) > LONGEST_ANSWER or following.lost(),
        user_agent=exchange.user_agent,
        model_asked=exchange.model_asked,
        log_id=exchange.seq or None,
        admitted=iso(exchange.admitted),
        limits=[limit_use(house, use) for use in fullest_first(house.admission.in_use_by(subject))],
    )
    return shown, text


def options_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a request asks for besides what it is about: Ollama's `options`, OpenAI's parameters."""
    options = {name: value for name, value in document.items() if name not in _SUBJECT and name != "options"}
    inner = document.get("options")
    return options | inner if isinstance(inner, dict) else options


class _Text:
    """An answer's bytes, cut anywhere, as the text that they add to what was shown."""

    def __init__(self, exchange: Exchange) -> None:
        self._route = exchange.route
        self._stream = exchange.stream
        self._rest = b""
        self._shown = ("", "")  # of an answer that comes as a whole

    def begin(self, data: bytes) -> None:
        """The bytes that came before the view began."""
        self._rest = data

    def gained(self, following: Following, *, over: bool) -> tuple[str, str]:
        """Answer and thinking that came since the last call."""
        if not self._stream:
            return self._gathered(following)
        data = self._rest + following.take()
        end = len(data) if over else _last_end(data)
        whole, self._rest = data[:end], data[end:]
        return _texts(self._route, whole)

    def _gathered(self, following: Following) -> tuple[str, str]:
        """Its client gets it as a whole; what is gathered so far is looked at each time."""
        before, self._shown = self._shown, _texts(self._route, following.whole())
        answer, thinking = (new.removeprefix(old) for old, new in zip(before, self._shown, strict=True))
        return answer, thinking


def _last_end(data: bytes) -> int:
    """Where the last whole line, or the last whole event of an SSE stream, ends."""
    mark = b"\n\n" if data.startswith((b"data:", b"event:", b":")) else b"\n"
    return data.rfind(mark) + len(mark) if mark in data else 0


def _texts(route: str, data: bytes) -> tuple[str, str]:
    """Answer and thinking in these bytes of the client's dialect; tool calls as JSON."""
    parts = answer_texts(route, [data])
    if not parts:
        return "", ""
    value = value_of(parts[0])
    if not isinstance(value, dict) or "role" not in value:
        return response_of(value), ""
    calls = value.get("tool_calls")
    answer = response_of(value) + (f"\n{response_of(calls)}" if calls else "")
    thinking = value.get("thinking")
    return answer, thinking if isinstance(thinking, str) else ""
