"""One exchange of the journal: prompt and answer as text, the whole as JSON, its timings and its place in the chain.

Rule: that somebody looked is recorded by the daemon before anything is shown. What one came for stands first: what was
asked and answered, below it what was said before, last the record. Long texts are cut, and said to be (`reading.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import msgspec
from rich.style import Style
from textual.binding import Binding, BindingType

from common import protocol
from common.files import write_whole
from common.protocol import AuditExchange, AuditPosition, AuditShow, ChainPosition
from common.untrusted import clean, clean_block, clean_json
from console import copying, states
from console.client import Refused, Unreachable
from console.figures import count
from console.moments import day_and_time
from console.palette import BAD, BOLD, DIM, GOOD, TITLE, WARNING
from console.screens.overlay import Overlay, Paragraph
from console.screens.page import why
from console.screens.reading import FIRST, GROWS, TEXTS, all_laid_out, answered, asked, brief, facts, since
from console.widgets.lines import Line, Part


class AuditedScreen(Overlay):
    """The record of this log id or request id."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "more", "More"),
        Binding("v", "view", "Text/JSON"),
        Binding("w", "save", "Save"),
        Binding("y", "copy", "Copy the answer"),
        Binding("t", "thinking", "Thinking", show=False),
    ]

    def __init__(self, record: int | str) -> None:
        super().__init__(f"log {record}" if isinstance(record, int) else f"req {record[:8]}")
        self.heading.styles.height = 2
        self.record = str(record)
        self.exchange: AuditExchange | None = None
        self.position: ChainPosition | None = None
        self._problem = ""
        self._chain_problem = ""
        self._as_json = False
        self._room = FIRST
        self._left_out = 0
        self._shows_thinking = True

    def on_mount(self) -> None:
        self.draw()
        self.run_worker(self._fetch(), group="fetch")

    async def _fetch(self) -> None:
        try:
            self.exchange = await self.lodge.channel.ask(protocol.AUDIT_SHOW, AuditShow(self.record))
        except (Refused, Unreachable) as error:
            self._problem = why(error)
        self.draw()
        if self.exchange is None:
            return
        self.prompt.say("that you read this is recorded in the audit")
        try:
            self.position = await self.lodge.channel.ask(protocol.AUDIT_POSITION, AuditPosition(self.record))
        except (Refused, Unreachable) as error:
            self._chain_problem = why(error)
        self.draw()

    # -- drawing -------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Show what is known."""
        if self.exchange is None:
            words = f"Not shown: {self._problem}." if self._problem else "Asking the daemon …"
            self.view.show([(clean_block(words), BAD if self._problem else DIM)])
            return
        self.heading.show(_heading(self.exchange, as_json=self._as_json))
        left_out = self._left_out
        if self._as_json:
            shown, self._left_out = json_of(self.exchange, self._room)
        else:
            shown, self._left_out = text_of(
                self.exchange, self.position, self._chain_problem, room=self._room, thinking=self._shows_thinking
            )
        self.view.show(shown)
        if bool(left_out) != bool(self._left_out):
            self.refresh_bindings()

    # -- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is more only where something is left out."""
        return bool(self._left_out) if action == "more" else True

    def action_more(self) -> None:
        self._room *= GROWS
        self.draw()

    def action_view(self) -> None:
        self._as_json = not self._as_json
        self.view.top = 0
        self.draw()

    def action_thinking(self) -> None:
        self._shows_thinking = not self._shows_thinking
        self.draw()

    def action_copy(self) -> None:
        if self.exchange is not None:
            self.run_worker(self._copy(self.exchange.response))

    async def _copy(self, text: str) -> None:
        self.prompt.say(f"the answer: {await copying.copy(self.lodge, text)}")

    def action_save(self) -> None:
        if self.exchange is not None:
            self.run_worker(self._save(self.exchange))

    async def _save(self, exchange: AuditExchange) -> None:
        ending = "json" if self._as_json else "txt"
        typed = await self.prompt.ask_line("Save as (0600): ", f"exchange-{exchange.log_id}.{ending}")
        if not typed:
            return
        path = Path(typed).expanduser()
        if path.exists() and not await self.prompt.ask_yes(f"{path} is there already. Replace it?"):
            return
        try:
            write_whole(path, [self._saved(exchange, path.suffix or f".{ending}"), b"\n"])
            self.prompt.say(f"saved to {path.absolute()}", "good")
        except OSError as error:
            self.prompt.say(f"not saved: {error.strerror or error}", "bad")

    def _saved(self, exchange: AuditExchange, ending: str) -> bytes:
        """The record as the file's name promises it: the text as one reads it, but whole, or everything as JSON."""
        if ending.lower() == ".json" or (self._as_json and ending.lower() != ".txt"):
            return msgspec.json.format(msgspec.json.encode(exchange), indent=2)
        shown, _ = text_of(exchange, self.position, self._chain_problem, room=sys.maxsize)
        return "\n".join(line if isinstance(line, str) else line[0] for line in shown).encode()


def _heading(one: AuditExchange, *, as_json: bool) -> list[Line]:
    """Who, when, how it ended; with which model, how long it took, from where."""
    first: list[Part] = [(f"log {one.log_id}", TITLE), " · ", (brief(states.word(one.state)), _style(one.state))]
    first += [f" · {brief(one.user)} · {day_and_time(one.received)}", (" · JSON" if as_json else "", WARNING)]
    words = [f"{brief(one.model)} on {brief(one.upstream)}" if one.model else ""]
    if one.ended and one.request_id:
        words.append(f"took {since([('', one.ended)], one.received).removeprefix(' +')}")
    if one.tokens_in is not None or one.tokens_out is not None:
        words.append(f"{count(one.tokens_in)} in, {count(one.tokens_out)} out")
    words += [brief(one.address), brief(one.client_label)]
    return [first, [(" · ".join(word for word in words if word), DIM)]]


def _style(state: str | None) -> Style:
    return GOOD if state == "ok" else states.style(state)


def json_of(exchange: AuditExchange, room: int) -> tuple[list[Paragraph], int]:
    """The record as indented JSON that is safe to show, a paragraph a line, cut as texts are; what is left out."""
    lines = msgspec.json.format(msgspec.json.encode(exchange), indent=2).decode().split("\n")
    shown: list[Paragraph] = []
    left_out = used = 0
    for place, line in enumerate(lines):
        if used >= TEXTS * room:
            left_out += len(lines) - place
            shown.append((f"… {len(lines) - place:,} more lines: m shows more, w saves all", WARNING))
            break
        more = max(0, len(line) - room)
        shown.append(clean_json(line[:room]).expandtabs(4) + (f"… {more:,} more characters" if more else ""))
        left_out += more
        used += min(room, len(line))
    return shown, left_out


def text_of(
    exchange: AuditExchange, chain: ChainPosition | None, problem: str, *, room: int = FIRST, thinking: bool = True
) -> tuple[list[Paragraph], int]:
    """The record as a person reads it: what was asked and answered, what was said before, then everything else; and how
    much is left out. Clean, a paragraph a line."""
    # What is wrong is not something to scroll for.
    top: list[Paragraph] = facts(
        [("error", exchange.error or "", BAD)] if exchange.request_id else [("reason", exchange.error or "", BAD)]
    )
    top += [(f"chain     PROBLEM: {brief(each)}", BAD) for each in (chain.problems if chain else ())]
    record: list[Paragraph] = [("RECORD", BOLD), *facts(_pairs(exchange)), *chain_lines(chain, problem)]
    if exchange.erased:
        return [*top, ("Prompt and answer were erased.", WARNING), "", *record], 0
    if not exchange.request_id:  # refusals: of one caller, reason and minute
        return [*top, "", *record], 0
    now, before = asked(exchange)
    text: list[Paragraph] = []
    left_out = 0
    for texts in (now, answered(exchange, thinking=thinking), before):
        if texts is before and before:
            text.append((f"BEFORE THAT, {len(before):,} message{'' if len(before) == 1 else 's'}", BOLD))
        lines, more = all_laid_out(texts, room)
        text += lines
        left_out += more
    return [*top, *text, *record], left_out


def _pairs(exchange: AuditExchange) -> list[tuple[str, str]]:
    if not exchange.request_id:
        return [("from", exchange.address), ("key", exchange.key or "")]
    counted = [("?" if number is None else str(number)) for number in (exchange.tokens_in, exchange.tokens_out)]
    whence = (exchange.address, exchange.client_label, exchange.user_agent)
    asked_for = "" if exchange.model == exchange.model_asked else f" (asked for as {brief(exchange.model_asked)})"
    return [
        ("state", states.full(exchange.state)),
        ("request", f"{exchange.request_id}  {exchange.route}{'' if exchange.stream else '  not streamed'}"),
        ("model", f"{brief(exchange.model)} on {exchange.upstream}{asked_for}"),
        ("from", "  ".join(brief(each) for each in whence if each)),
        ("key", exchange.key or "none (login)"),
        ("before", ", ".join(f"{each.upstream}: {each.error}" for each in exchange.tried)),
        ("tokens", f"{counted[0]} in, {counted[1]} out, {exchange.bytes_out or 0:,} bytes sent"),
        ("cost", "" if exchange.cost is None else f"{exchange.cost} {exchange.currency}"),
        ("received", day_and_time(exchange.received)),
        ("timings", timings(exchange)),
    ]


def timings(exchange: AuditExchange) -> str:
    """How long after it was received what happened."""
    names = ("admitted", "seated", "first_byte", "ended")
    return since([(name.replace("_", " "), getattr(exchange, name)) for name in names], exchange.received)


def chain_lines(position: ChainPosition | None, problem: str) -> list[Paragraph]:
    """Where it stands in the chain, and whether that holds."""
    if problem:
        return [(f"chain     not known: {brief(problem)}", WARNING)]
    if position is None:
        return [("chain     being hashed anew …", DIM)]
    lines: list[Paragraph] = [
        line
        for link in position.links
        for line in (
            f"chain     record {link.seq} of {position.head_seq}, {clean(link.event)}, its hash",
            f"          {clean(link.hash)}",
        )
    ]
    if position.problems:
        lines.append(("          DOES NOT HOLD: see above", BAD))
    if not position.problems:
        partly = "" if position.whole else " (its seal is further away)"
        many = "1 record was" if position.checked == 1 else f"{position.checked} records from there on were"
        lines.append((f"          holds: {many} hashed anew{partly}", GOOD))
    seal = position.seal
    if seal is None:
        lines.append(("          not sealed yet: a signed checkpoint follows within a minute", DIM))
    else:
        lines.append(f"          sealed by {seal.seq} of {day_and_time(seal.at)}, key {clean(seal.key)}")
    return lines
