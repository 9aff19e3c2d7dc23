"""One exchange as it streams: prompt, answer growing, options, timings, the limits it is under. Looking is recorded.

Rule: nothing is drawn when a piece comes, only four times a second. Where the tie breaks, what was read stays, and the
title says that it goes on no longer.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from common import protocol, times
from common.protocol import CancelRequest, LiveExchange, LiveNews, LiveTarget
from common.untrusted import clean, clean_block
from console.client import Refused, Unreachable
from console.palette import BAD, BOLD, DIM, GOOD, TITLE, WARNING
from console.screens.overlay import Overlay, Paragraph
from console.screens.page import why
from console.widgets.head import rate
from console.widgets.lines import Part


class ExchangeScreen(Overlay):
    """Follows the exchange with this id until it ends or one goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel"),
        Binding("f", "follow", "Follow the end"),
        Binding("t", "thinking", "Thinking", show=False),
    ]

    def __init__(self, request_id: str) -> None:
        super().__init__(f"req {request_id[:8]}", follow=True)
        self.request_id = request_id
        self.exchange: LiveExchange | None = None
        self._row: Any = None
        self._answer: list[str] = []
        self._thinking: list[str] = []
        self._skipped = False
        self._ended: Any = None
        self._broken = ""
        self._changed = True
        self._shows_thinking = True

    def on_mount(self) -> None:
        self.run_worker(self._follow(), group="follow")

    async def _follow(self) -> None:
        try:
            async with aclosing(self.lodge.channel.items(protocol.LIVE_FOLLOW, LiveTarget(self.request_id))) as news:
                async for message in news:
                    self._take(message)
        except (Refused, Unreachable) as error:
            self._broken = why(error)
            self._changed = True

    def _take(self, news: LiveNews) -> None:
        self._changed = True
        if news.exchange is not None:
            self.exchange, self._row = news.exchange, news.exchange.row
            self._answer, self._thinking = [news.exchange.answer], [news.exchange.thinking]
            self._skipped = news.exchange.answer_cut
        self._row = news.row or self._row
        self._answer.append(news.gained)
        self._thinking.append(news.thinking)
        self._skipped = self._skipped or news.skipped
        self._ended = news.ended or self._ended

    # -- drawing -------------------------------------------------------------------------------------------------------

    def tick_body(self) -> None:
        """Draw what came since the last time."""
        self.heading.show([self._heading()])
        if self._changed:
            self._changed = False
            self.view.show(self._paragraphs())

    def _heading(self) -> list[Part]:
        parts: list[Part] = [(f"req {clean(self.request_id[:8])}", TITLE)]
        row, ended = self._row, self._ended
        parts.append(" · ")
        if ended is not None:
            style = GOOD if ended.state == "ok" else BAD
            parts += [("ENDED ", DIM), (clean(ended.state), style), f" after {times.short(ended.elapsed)}"]
            if ended.error:
                parts += [(f": {clean(ended.error)}", BAD)]
        elif self._broken:
            parts += [(f"NOT FOLLOWED: {clean(self._broken)}", BAD)]
        elif row is not None:
            waited = max(0.0, self.lodge.now() - times.from_iso(row.received) / 1e6)
            word = f"q#{row.position}" if row.state == "queued" else row.state
            parts += [(word, GOOD), f" {times.short(waited)} · {row.tokens_out} tok"]
            if row.tokens_per_second is not None:
                parts += [f" · {rate(row.tokens_per_second)} tok/s"]
        else:
            parts += [("asking the daemon …", DIM)]
        if row is not None:
            parts += [f" · {clean(row.user)} · {clean(row.model)} on {clean(row.upstream)}"]
        return parts

    def _paragraphs(self) -> list[Paragraph]:
        exchange = self.exchange
        if exchange is None:
            return [(clean_block(self._broken), BAD)] if self._broken else []
        row = exchange.row
        asked = f" (asked for as {exchange.model_asked})" if exchange.model_asked != row.model else ""
        facts: list[Paragraph] = [
            (f"request   {row.request_id}  {row.route}  {'stream' if row.stream else 'whole'}{asked}", DIM),
            (f"from      {row.address}  {row.client_label}  {exchange.user_agent}", DIM),
            (f"key       {row.key or 'none (login)'}", DIM),
            (f"timings   {_timings(exchange, self._row)}", DIM),
        ]
        if exchange.options:
            facts.append((f"options   {json.dumps(exchange.options, ensure_ascii=False)}", DIM))
        for use in exchange.limits:
            full = use.max > 0 and use.used >= use.max
            words = f"limit     {use.target}: {use.limit.replace('_', ' ')} {use.used} of {use.max}"
            facts.append((words, WARNING if full else DIM))
        answer = "".join(self._answer)
        thinking = "".join(self._thinking)
        text: list[Paragraph] = [*facts, "", ("PROMPT", BOLD), exchange.prompt, ""]
        if thinking and self._shows_thinking:
            text += [("THINKING", BOLD), (thinking, DIM), ""]
        text.append(("ANSWER" + (" (its beginning, or a part of it, is left out here)" if self._skipped else ""), BOLD))
        text.append(answer)
        cleaned: list[Paragraph] = []
        for each in text:
            words, style = (each, None) if isinstance(each, str) else each
            # A paragraph a line: what stands above the last line is not wrapped again when the answer grows.
            lines = clean_block(words).split("\n")
            cleaned.extend(lines if style is None else [(line, style) for line in lines])
        return cleaned

    # -- keys ----------------------------------------------------------------------------------------------------------

    def action_follow(self) -> None:
        self.view.action_to_end()

    def action_thinking(self) -> None:
        self._shows_thinking = not self._shows_thinking
        self._changed = True

    def action_cancel(self) -> None:
        if self._ended is not None:
            self.prompt.say("it has ended already")
        else:
            self.run_worker(self._cancel())

    async def _cancel(self) -> None:
        whose = f" of {self._row.user}" if self._row is not None else ""
        if not await self.prompt.ask_yes(f"Cancel req {self.request_id[:8]}{whose}?"):
            return
        try:
            answer = await self.lodge.channel.ask(protocol.CANCEL, CancelRequest(self.request_id))
            self.prompt.say("it is cancelled" if answer.cancelled else "it had just ended by itself")
        except (Refused, Unreachable) as error:
            self.prompt.say(why(error), "bad")


def _timings(exchange: LiveExchange, row: Any) -> str:
    """What took how long, from the moments that are known."""
    moments = [
        ("received", row.received),
        ("admitted", exchange.admitted),
        ("seated", row.seated),
        ("first byte", row.first_byte),
    ]
    start = times.from_iso(row.received)
    known = [(name, moment) for name, moment in moments if moment]
    return "  ".join(
        f"{name} {moment[11:19]}Z" if i == 0 else f"{name} +{(times.from_iso(moment) - start) / 1e6:.2f}s"
        for i, (name, moment) in enumerate(known)
    )
