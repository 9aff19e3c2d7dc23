"""One exchange of the journal: prompt and answer as text, the whole as JSON, its timings and its place in the chain.

Rule: that somebody looked is recorded by the daemon before anything is shown. Very long texts are cut here, and said to
be: saving gives all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
from rich.style import Style
from textual.binding import Binding, BindingType

from common import protocol, times
from common.files import write_whole
from common.protocol import AuditExchange, AuditPosition, AuditShow, ChainPosition
from common.untrusted import clean, clean_block, clean_json
from console import copying
from console.client import Refused, Unreachable
from console.moments import day_and_time
from console.palette import BAD, BOLD, DIM, GOOD, PLAIN, TITLE, WARNING
from console.screens.overlay import Overlay, Paragraph
from console.screens.page import why
from console.widgets.lines import Part

LONGEST = 512 * 1024  # characters of one text that are shown


class AuditedScreen(Overlay):
    """The record with this log id."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "view", "Text/JSON"),
        Binding("w", "save", "Save"),
        Binding("y", "copy", "Copy the answer"),
        Binding("t", "thinking", "Thinking", show=False),
    ]

    def __init__(self, log_id: int) -> None:
        super().__init__(f"log {log_id}")
        self.log_id = log_id
        self.exchange: AuditExchange | None = None
        self.position: ChainPosition | None = None
        self._problem = ""
        self._chain_problem = ""
        self._as_json = False
        self._shows_thinking = True

    def on_mount(self) -> None:
        self.draw()
        self.run_worker(self._fetch(), group="fetch")

    async def _fetch(self) -> None:
        try:
            self.exchange = await self.lodge.channel.ask(protocol.AUDIT_SHOW, AuditShow(str(self.log_id)))
        except (Refused, Unreachable) as error:
            self._problem = why(error)
        self.draw()
        if self.exchange is None:
            return
        self.prompt.say("that you read this is recorded in the audit")
        try:
            self.position = await self.lodge.channel.ask(protocol.AUDIT_POSITION, AuditPosition(str(self.log_id)))
        except (Refused, Unreachable) as error:
            self._chain_problem = why(error)
        self.draw()

    # -- drawing -------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Show what is known."""
        self.heading.show([self._heading()])
        if self.exchange is None:
            words = f"Not shown: {self._problem}." if self._problem else "Asking the daemon …"
            self.view.show([(clean_block(words), BAD if self._problem else DIM)])
        elif self._as_json:
            self.view.show([_cut(line) for line in json_of(self.exchange).split("\n")])
        else:
            chain = chain_lines(self.position, self._chain_problem)
            self.view.show(text_of(self.exchange, chain, thinking=self._shows_thinking))

    def _heading(self) -> list[Part]:
        parts: list[Part] = [(f"log {self.log_id}", TITLE)]
        one = self.exchange
        if one is not None:
            state = one.state or "running"
            parts += [" · ", (clean(state), GOOD if state == "ok" else BAD if one.state else WARNING)]
            parts += [f" · {clean(one.user)} · {clean(one.model)} · {day_and_time(one.received)}"]
            parts += [(" · JSON" if self._as_json else "", WARNING)]
        return parts

    # -- keys ----------------------------------------------------------------------------------------------------------

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
        typed = await self.prompt.ask_line("Save as (0600): ", f"exchange-{exchange.log_id}.json")
        if not typed:
            return
        path = Path(typed).expanduser()
        if path.exists() and not await self.prompt.ask_yes(f"{path} is there already. Replace it?"):
            return
        try:
            write_whole(path, [msgspec.json.format(msgspec.json.encode(exchange), indent=2), b"\n"])
            self.prompt.say(f"saved to {path.absolute()}", "good")
        except OSError as error:
            self.prompt.say(f"not saved: {error.strerror or error}", "bad")


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST] + f"… ({len(text) - LONGEST:,} more characters are left out here; w saves all of it)"


def json_of(exchange: AuditExchange) -> str:
    """The whole record as indented JSON that is safe to show."""
    return clean_json(msgspec.json.format(msgspec.json.encode(exchange), indent=2).decode()).expandtabs(4)


def text_of(exchange: AuditExchange, chain: list[Paragraph], *, thinking: bool = True) -> list[Paragraph]:
    """The record as a person reads it; clean, a paragraph a line."""
    counted = [("?" if number is None else str(number)) for number in (exchange.tokens_in, exchange.tokens_out)]
    asked = "" if exchange.model == exchange.model_asked else f" (asked for as {exchange.model_asked})"
    pairs = [
        ("error", exchange.error),
        ("request", f"{exchange.request_id}  {exchange.route}{'' if exchange.stream else '  not streamed'}"),
        ("model", f"{exchange.model} on {exchange.upstream}{asked}"),
        ("from", "  ".join(each for each in (exchange.address, exchange.client_label, exchange.user_agent) if each)),
        ("key", exchange.key or "none (login)"),
        ("tokens", f"{counted[0]} in, {counted[1]} out, {exchange.bytes_out or 0:,} bytes sent"),
        ("received", day_and_time(exchange.received)),
        ("timings", timings(exchange)),
    ]
    if not exchange.request_id:  # refusals: of one caller, reason and minute
        pairs = [("reason", exchange.error), *((name, value) for name, value in pairs if name in ("from", "key"))]
    text: list[Paragraph] = []
    for name, value in pairs:
        if value:
            text.append((f"{name:<9} {clean(value)}", BAD if name in ("error", "reason") else PLAIN))
    text += [*chain, ""]
    if exchange.erased:
        return [*text, ("Prompt and answer were erased.", WARNING)]
    if not exchange.request_id:
        return text
    for title, words, style in bodies(exchange):
        if title == "THINKING" and not thinking:
            continue
        text.append((clean(title), BOLD))
        lines = clean_block(_cut(words)).split("\n")
        text.extend(lines if style is None else [(line, style) for line in lines])
        text.append("")
    return text


def bodies(exchange: AuditExchange) -> list[tuple[str, str, Style | None]]:
    """Title, words, style: each message of the request, the thinking, the answer."""
    found: list[tuple[str, str, Style | None]] = []
    request = exchange.messages
    messages = request.get("messages") if isinstance(request, dict) else None
    if isinstance(messages, list):
        for message in messages:
            role = message.get("role", "?") if isinstance(message, dict) else "?"
            found.append((f"PROMPT [{role}]", _words(message), None))
    else:
        found.append(("PROMPT", exchange.prompt, None))
    answer = exchange.answer if isinstance(exchange.answer, dict) else {}
    thought = answer.get("thinking") or (answer.get("message") or {}).get("thinking") if answer else None
    if isinstance(thought, str) and thought:
        found.append(("THINKING", thought, DIM))
    vectors = _vectors(answer)
    title = "ANSWER" if exchange.state else "ANSWER, so far"
    found.append((title, vectors or exchange.response or "(nothing)", None))
    return found


def _words(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()


def _vectors(answer: dict[str, Any]) -> str:
    """What an embedding is to a person, who cannot read numbers by the thousand."""
    vectors = answer.get("embeddings", [answer.get("embedding")])
    if not isinstance(vectors, list) or not vectors or not all(isinstance(vector, list) for vector in vectors):
        return ""
    return f"{len(vectors)} vector{'' if len(vectors) == 1 else 's'} of {len(vectors[0])} numbers (v shows them)"


def timings(exchange: AuditExchange) -> str:
    """How long after it was received what happened."""
    start = times.from_iso(exchange.received)
    parts = []
    for name in ("admitted", "seated", "first_byte", "ended"):
        moment = getattr(exchange, name)
        if moment is not None:
            parts.append(f"{name.replace('_', ' ')} +{(times.from_iso(moment) - start) / 1e6:.3f}s")
    return "  ".join(parts)


def chain_lines(position: ChainPosition | None, problem: str) -> list[Paragraph]:
    """Where it stands in the chain, and whether that holds."""
    if problem:
        return [(f"chain     not known: {clean(problem)}", WARNING)]
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
    lines += [(f"          PROBLEM: {clean(each)}", BAD) for each in position.problems]
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
