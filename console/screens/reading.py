"""A conversation as one reads it: texts under their titles, cut where they are long. Pure.

Rule: a text is cut before it is cleaned and laid out, so that a prompt of a megabyte opens as quickly as one of a line;
what is left out is said in its place, `m` shows more of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from rich.style import Style

from common import times
from common.protocol import AuditExchange
from common.untrusted import clean, clean_block
from console.palette import BOLD, DIM, PLAIN, WARNING
from console.screens.overlay import Paragraph

FIRST = 16_000  # characters of one text that are laid out at first
GROWS = 8  # times as many after each `m`
OF_A_FACT = 400  # characters of what stands on a line of its own
TEXTS = 4  # so many texts' worth of a list of them


class Text(NamedTuple):
    """One part of a conversation."""

    title: str
    words: str
    style: Style | None = None


def brief(text: str) -> str:
    """A foreign word for one line: clean, and no more of it than anybody reads."""
    return clean(text if len(text) <= OF_A_FACT else text[:OF_A_FACT] + "…")


def laid_out(text: Text, room: int, *, its_end: bool = False) -> tuple[list[Paragraph], int]:
    """Title and words, clean, a paragraph a line; and how many characters are left out behind them (`its_end`: before
    them, in steps, so that what grows is not laid out anew for each piece)."""
    words, left_out = text.words, max(0, len(text.words) - room)
    if left_out and its_end:
        left_out -= left_out % (room // 2)
    shown = words[left_out:] if its_end else words[: len(words) - left_out]
    # A paragraph a line: what stands above the last line is not wrapped again when a text grows.
    lines: list[Paragraph] = [
        line if text.style is None else (line, text.style) for line in clean_block(shown).split("\n")
    ]
    if left_out:
        lines.insert(0 if its_end else len(lines), (f"… {left_out:,} more characters: m shows more", WARNING))
    return [(brief(text.title), BOLD), *lines], left_out


def all_laid_out(texts: Sequence[Text], room: int) -> tuple[list[Paragraph], int]:
    """Texts below each other, a blank line between; of very many the latest."""
    first, used = len(texts), 0
    while first and used < TEXTS * room:
        first -= 1
        used += min(room, len(texts[first].words))
    left_out = sum(len(text.words) for text in texts[:first])
    paragraphs: list[Paragraph] = [(f"… {first:,} messages before these: m shows more", WARNING), ""] if first else []
    for text in texts[first:]:
        lines, more = laid_out(text, room)
        paragraphs += [*lines, ""]
        left_out += more
    return paragraphs, left_out + first


def facts(pairs: Sequence[tuple[str, str] | tuple[str, str, Style]]) -> list[Paragraph]:
    """Names and values, a line each; those without a value are left out."""
    return [(f"{name:<9} {brief(value)}", style[0] if style else PLAIN) for name, value, *style in pairs if value]


def asked(exchange: AuditExchange) -> tuple[list[Text], list[Text]]:
    """What was asked, from the last user's message on; and what was said before that."""
    document = exchange.messages
    messages = document.get("messages") if isinstance(document, dict) else None
    if not isinstance(messages, list) or not messages:
        return [Text("PROMPT", exchange.prompt)], []
    roles = [str(message.get("role", "?")) if isinstance(message, dict) else "?" for message in messages]
    last = max((place for place, role in enumerate(roles) if role == "user"), default=0)
    texts = [Text(f"[{role}]", _words(message)) for role, message in zip(roles, messages, strict=True)]
    now = [text._replace(title=f"PROMPT {text.title}") for text in texts[last:]]
    return now, [text._replace(style=DIM) for text in texts[:last]]


def answered(exchange: AuditExchange, *, thinking: bool) -> list[Text]:
    """The thinking, where it is wanted and there is any, and the answer."""
    answer = exchange.answer if isinstance(exchange.answer, dict) else {}
    message = answer.get("message")
    thought = answer.get("thinking") or (message.get("thinking") if isinstance(message, dict) else None)
    title = "ANSWER" if exchange.state else "ANSWER, so far"
    texts = [Text(title, _vectors(answer) or exchange.response or "(nothing)")]
    if thinking and isinstance(thought, str) and thought:
        texts.insert(0, Text("THINKING", thought, DIM))
    return texts


def since(moments: Sequence[tuple[str, str | None]], start: str) -> str:
    """How long after `start` what happened: `admitted +0.00s  seated +0.20s`."""
    first = times.from_iso(start)
    return "  ".join(f"{name} +{_span((times.from_iso(moment) - first) / 1e6)}" for name, moment in moments if moment)


def _span(seconds: float) -> str:
    return f"{seconds:.2f}s" if seconds < 100 else times.short(seconds)


def _words(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, str) and (content or not isinstance(message, dict) or not message.get("tool_calls")):
        return content
    return msgspec.json.encode(message.get("tool_calls") or content if isinstance(message, dict) else content).decode()


def _vectors(answer: dict[str, Any]) -> str:
    """What an embedding is to a person, who cannot read numbers by the thousand."""
    vectors = answer.get("embeddings", [answer.get("embedding")])
    if not isinstance(vectors, list) or not vectors or not all(isinstance(vector, list) for vector in vectors):
        return ""
    return f"{len(vectors)} vector{'' if len(vectors) == 1 else 's'} of {len(vectors[0])} numbers (v shows them)"
