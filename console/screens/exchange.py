"""One exchange as it streams: prompt, answer growing, options, timings, the limits it is under. Looking is recorded.

Rule: nothing is drawn when a piece comes, only four times a second. What grows stays in sight, the request stands below
it. Where the tie breaks, what was read stays, and the title says that it goes on no longer.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import ClassVar

from textual.binding import Binding, BindingType

from common import protocol, times
from common.errors import NotFound
from common.protocol import CancelRequest, EndedRow, LiveExchange, LiveNews, LiveRow, LiveTarget
from common.untrusted import clean, clean_block
from console import states
from console.client import Refused, Unreachable
from console.palette import BAD, BOLD, DIM, GOOD, KEY, PLAIN, TITLE, WARNING
from console.screens.overlay import Overlay, Paragraph
from console.screens.page import AWAY, why
from console.screens.reading import FIRST, GROWS, Text, brief, facts, laid_out, since
from console.widgets.head import rate
from console.widgets.lines import Line, Part

HAD_ENDED = "it had just ended by itself"
RETRY = 0.5  # seconds between two attempts to follow it


class ExchangeScreen(Overlay):
    """Follows the exchange with this id until it ends or one goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel"),
        Binding("enter", "record", "Its record"),
        Binding("f", "follow", "Follow the answer"),
        Binding("m", "more", "More"),
        Binding("t", "thinking", "Thinking", show=False),
    ]

    def __init__(self, request_id: str) -> None:
        super().__init__(f"req {request_id[:8]}", follow=True)
        self.heading.styles.height = 2
        self.request_id = request_id
        self.exchange: LiveExchange | None = None
        self._row: LiveRow | None = None
        self._answer: list[str] = []
        self._thinking: list[str] = []
        self._skipped = False
        self._ended: EndedRow | None = None
        self._room = FIRST
        self._left_out = 0
        self._gone = ""  # why the daemon does not let it be followed
        self._lost_at: float | None = None  # since when the tie is broken, monotonic seconds
        self._changed = True
        self._shows_thinking = True

    def on_mount(self) -> None:
        self.run_worker(self._follow(), group="follow")

    async def _follow(self) -> None:
        """To its end; where the tie breaks, on when the daemon is there again: the exchange may have gone on."""
        while self._ended is None and not self._gone:
            try:
                asked = LiveTarget(self.request_id)
                async with aclosing(self.lodge.channel.items(protocol.LIVE_FOLLOW, asked)) as news:
                    async for message in news:
                        self._lost_at = None
                        self._take(message)
            except Refused as error:
                self._gone = why(error)
                if error.code == NotFound.code:
                    self._gone = "It has ended."
                    if self.exchange is None and self.is_current:
                        return self.action_record()  # nothing was read yet: what one came for is there
                self.refresh_bindings()
            except Unreachable:
                pass
            self._changed = True
            if self._ended is None and not self._gone:
                self._lost_at = self._lost_at or self.lodge.monotonic()
                await asyncio.sleep(RETRY)

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
        if news.ended is not None:
            self._ended = news.ended
            self.refresh_bindings()

    # -- drawing -------------------------------------------------------------------------------------------------------

    def tick_body(self) -> None:
        """Draw what came since the last time."""
        self.heading.show(self._heading())
        if self._changed:
            self._changed = False
            self._draw()

    def _heading(self) -> list[Line]:
        """How it stands; whose it is, with which model, from where."""
        parts: list[Part] = [(f"req {clean(self.request_id[:8])}", TITLE), " · "]
        row, ended = self._row, self._ended
        if ended is not None:
            style = GOOD if ended.state == "ok" else states.style(ended.state)
            parts += [("ENDED ", DIM), (states.word(ended.state), style), f" after {times.short(ended.elapsed)}"]
            if ended.error:
                parts += [(f": {brief(ended.error)}", BAD)]
        elif self._gone:
            parts += [("NO LONGER RUNS", BAD), "; ", ("Enter", KEY), " shows its record"]
        elif self._lost_at is not None:
            age = times.short(max(0.0, self.lodge.monotonic() - self._lost_at))
            parts += [(f"NOT FOLLOWED for {age}; goes on when the daemon is LIVE again", BAD)]
        elif row is not None:
            waited = max(0.0, self.lodge.now() - times.from_iso(row.received) / 1e6)
            word = f"q#{row.position}" if row.state == "queued" else row.state
            parts += [(word, GOOD), f" {times.short(waited)} · {row.tokens_out} tok"]
            if row.tokens_per_second is not None:
                parts += [f" · {rate(row.tokens_per_second)} tok/s"]
        else:
            parts += [("asking the daemon …", DIM)]
        if row is None:
            return [parts]
        words = (row.user, f"{brief(row.model)} on {brief(row.upstream)}", row.address, row.client_label)
        return [parts, [(" · ".join(brief(word) for word in words if word), DIM)]]

    def _draw(self) -> None:
        exchange, left_out = self.exchange, 0
        if exchange is None:
            self.view.show([(clean_block(self._gone), BAD)] if self._gone else [])
            return
        shown: list[Paragraph] = []
        texts = [Text("PROMPT", exchange.prompt), Text("THINKING", "".join(self._thinking), DIM)]
        if not (self._shows_thinking and texts[1].words):
            del texts[1]
        skipped = " (its beginning, or a part of it, is left out here)" if self._skipped else ""
        texts.append(Text(f"ANSWER{skipped}", "".join(self._answer)))
        for text in texts:
            lines, more = laid_out(text, self._room, its_end=text.title != "PROMPT")
            shown += [*lines, ""]
            left_out += more
        self.view.show([*shown, *self._record(exchange)], follow_to=len(shown) - 1)
        if bool(left_out) != bool(self._left_out):
            self.refresh_bindings()
        self._left_out = left_out

    def _record(self, exchange: LiveExchange) -> list[Paragraph]:
        """What stands below: from where, what else it asks for, what it is under."""
        row = exchange.row
        asked = f" (asked for as {brief(exchange.model_asked)})" if exchange.model_asked != row.model else ""
        whence = (row.address, row.client_label, exchange.user_agent)
        options = json.dumps(exchange.options, ensure_ascii=False) if exchange.options else ""
        lines: list[Paragraph] = [("REQUEST", BOLD)]
        lines += facts(
            [
                ("timings", _timings(exchange, self._row or row)),
                ("options", options),
                ("request", f"{row.request_id}  {row.route}  {'stream' if row.stream else 'whole'}{asked}"),
                ("from", "  ".join(brief(each) for each in whence if each)),
                ("key", row.key or "none (login)"),
            ]
        )
        for use in exchange.limits:
            full = use.max > 0 and use.used >= use.max
            words = f"{use.used} of {use.max} {use.limit.replace('_', ' ')}, {use.target}"
            lines += facts([("limit", words, WARNING if full else PLAIN)])
        return lines

    # -- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What has ended cannot be cancelled, but has a record; there is more only where something is left out."""
        if action == "more":
            return bool(self._left_out)
        if action in ("cancel", "record"):
            return (self._ended is None and not self._gone) == (action == "cancel")
        return True

    def action_record(self) -> None:
        from console.screens.audited import AuditedScreen

        self.app.switch_screen(AuditedScreen(self.request_id))

    def action_more(self) -> None:
        self._room *= GROWS
        self._changed = True

    def action_follow(self) -> None:
        self.view.follow_on()

    def action_thinking(self) -> None:
        self._shows_thinking = not self._shows_thinking
        self._changed = True

    def action_cancel(self) -> None:
        if self.lodge.link.is_live:
            self.run_worker(self._cancel())
        else:
            self.lodge.say(AWAY, "away")

    async def _cancel(self) -> None:
        whose = f" of {self._row.user}" if self._row is not None else ""
        if not await self.prompt.ask_yes(f"Cancel req {self.request_id[:8]}{whose}?"):
            return
        try:
            answer = await self.lodge.channel.ask(protocol.CANCEL, CancelRequest(self.request_id))
            self.prompt.say("it is cancelled" if answer.cancelled else HAD_ENDED)
        except (Refused, Unreachable) as error:
            ended = isinstance(error, Refused) and error.code == NotFound.code
            self.prompt.say(HAD_ENDED if ended else why(error), "info" if ended else "bad")


def _timings(exchange: LiveExchange, row: LiveRow) -> str:
    """What took how long, from the moments that are known: within a line of 80 cells."""
    known = [("admitted", exchange.admitted), ("seated", row.seated), ("first byte", row.first_byte)]
    return f"{row.received[11:19]}Z  {since(known, row.received)}"
