"""Text that tries to drive a terminal or break a screen, a daemon full of it, a reader of what a terminal is sent.

`fill(daemon, strings)` puts each string into every field of a row of its own, of every kind, and answers every verb
with more of them. `strange(sent)` is what was sent to a terminal and is neither the console's own nor harmless text.
"""

from __future__ import annotations

import itertools
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.segment import Segment
from textual.color import Color

from common.protocol import (
    LIMIT_FIELDS,
    VERBS,
    AuditRow,
    EndedRow,
    EndedState,
    JobKind,
    JobRow,
    JobState,
    KeyRow,
    KeyState,
    Kind,
    LimitRow,
    LimitsTried,
    LimitUse,
    LiveRow,
    ModelRow,
    Totals,
    TriedLimit,
    TriedUser,
    UpstreamRow,
    Usage,
    UsageRow,
    UserRow,
    UserStatus,
)
from common.untrusted import is_unsafe
from console.guard import OutputGuard
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.specimens import MOMENT, Words, specimen

VECTORS = Path(__file__).resolve().parents[1] / "vectors"

# Each stands alone for a way in; none of the sequences is one that the console itself sends.
# fmt: off
OURS = (
    "\x1b[2J", "\x1b[77;777H", "\x1b[5;38;5;199mevil\x1b[0m", "\x1b[?1049l", "\x1b[?25h", "\x1b[6n",
    "\x1b[c", "\x1bc", "\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]8;;file:///etc/passwd\x07x\x1b]8;;\x07", '\x1bP$q"p\x1b\\', "\x1bP+q544e\x1b\\",
    "\x1b_APC\x1b\\", "\x1b^PM\x1b\\", "\x1bXSOS\x1b\\", "\x1b[20t", "\x1b#8", "\x9b2J",
    "\x9d52;c;ZXZpbA==\x9c", "\x90q\x9c", "\x85", "\x8d", "\xc2\x9b2J", "\x1b", "\x1b[", "\x1b]",
    "\x7f", "\x00", "\x07", "\x08\x08\x08evil", "a\rb", "a\nb", "a\tb", "a\x0bb\x0cc", "\x0e\x0f",
    "\x1b(0lqqk\x1b(B", "\x1b[200~q\x1b[201~", "[/]", "[/red]", "[red]", "[@click=app.quit]q[/]",
    "[@click=app.quit()]", "[link=file:///etc]x[/link]", "[bold", "[", "]", "\\[/]", "[[/]]",
    "[$error]", "[on red blink]x", "$text", ":smile:", "{{x}}", "%s%n", "[reverse]" * 50, "[/" * 50,
    "\u202eevil", "\u202a\u202b\u202d\u2066\u2067\u2068\u2069", "\u200f\u200e\u061c", "אבג abc דהו",
    "مرحبا", "a\u0301\u0302" * 40, "\u200b\u200c\u200d\u2060\ufeff", "\U000e0041\U000e007f",
    "\ufffe\uffff\ufdd0", "\u2028\u2029", "\u3164\u115f\uffa0", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇩", "👍🏿",
    "☺️", "☺︎", "1️⃣", "🫠", "⌚️⌚", "日本語テキスト", "ｆｕｌｌ", "한글", "Ａ" * 200, "e" + "\u0301" * 500,
    "'; DROP TABLE users;--", "../../etc/passwd", "-rf", "--socket", "~root", "$(id)", "`id`",
    "a b  c", " ", "", "\xa0", "q", "y",
)
# fmt: on
LATER = "2099-12-31T23:59:59Z"  # what has ended is shown for a moment only
LONG_LINE = "wide 宽 and \x1b[31m long [/] " * 40_000  # about a megabyte


def naughty() -> list[str]:
    """The Big List of Naughty Strings (tests/vectors/README.md)."""
    found: list[str] = json.loads((VECTORS / "blns.json").read_text(encoding="utf-8"))
    return found


def corpus() -> list[str]:
    """Everything, each string once."""
    return list(dict.fromkeys((*OURS, *naughty())))


def sharpest() -> list[str]:
    """Ours, and of the long list those that steer, hide, reverse, or look like markup."""
    steering = [each for each in naughty() if any(map(is_unsafe, each)) or "[" in each or not each.isprintable()]
    return list(dict.fromkeys((*OURS, *steering)))


def fill(daemon: ScriptedDaemon, strings: Sequence[str]) -> None:
    """Nothing but these, one a row, in every field of every kind of row and of every answer."""
    daemon.clear()
    ended, users, keys = _cycle(EndedState), _cycle(UserStatus), _cycle(KeyState)
    jobs, kinds = _cycle(JobState), _cycle(JobKind)
    health = itertools.cycle(("ok", "down", "unknown"))
    states = itertools.cycle(("run", "prefill", "queued", "run"))
    for n, text in enumerate(strings):

        def words(text: str = text) -> str:
            return text

        rows: list[tuple[Kind, str, Any]] = [
            ("live", f"{n} {text}", specimen(LiveRow, words, state=next(states), position=n)),
            (
                "ended",
                f"{n} e {text}",
                specimen(EndedRow, words, state=next(ended), id=f"{n} e {text}", ended=LATER),
            ),
            ("registration", f"{n} r {text}", specimen(UserRow, words, status="pending", id=None)),
            ("user", str(n), specimen(UserRow, words, status=next(users), id=n, code=None)),
            ("key", f"{n} {text}", specimen(KeyRow, words, state=next(keys))),
            (
                "upstream",
                f"{n} {text}",
                specimen(UpstreamRow, words, state=next(health), drained=n % 2 > 0),
            ),
            ("job", str(n), specimen(JobRow, words, id=n, state=next(jobs), kind=next(kinds))),
        ]
        for kind, row_id, row in rows:
            daemon.put(kind, row_id, row)
            if len(text) > 100_000:
                daemon.send()  # all of them in one message would be larger than a message may be
    daemon.totals = Totals(running=len(strings), seats=7, queued=3, oldest_queued=MOMENT)
    _answer_with(daemon, strings)


def watched_guard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the output guard had to take out, from now on."""
    found: list[str] = []
    apply = OutputGuard.apply

    def watched(self: OutputGuard, segments: list[Segment], background: Color) -> list[Segment]:
        safe = apply(self, segments, background)
        found.extend(
            f"{before.text!r} -> {after.text!r}"
            for before, after in zip(segments, safe, strict=True)
            if before.text != after.text
        )
        return safe

    monkeypatch.setattr(OutputGuard, "apply", watched)
    return found


def _cycle(literal: Any) -> itertools.cycle[Any]:
    return itertools.cycle(typing.get_args(literal))


def _answer_with(daemon: ScriptedDaemon, strings: Sequence[str]) -> None:
    endless = itertools.cycle(strings)

    def words() -> str:
        return next(endless)

    for verb in VERBS:
        kind = typing.get_args(verb.answer)[0] if typing.get_origin(verb.answer) is list else verb.answer
        if kind is bytes:
            continue
        many = verb.form == "many" or kind is not verb.answer
        daemon.answers[verb.name] = _each(kind, strings) if many else _one(kind, words)
    daemon.answers["audit/search"] = lambda question: (
        []
        if question["before"]
        else [specimen(AuditRow, lambda text=text: text, log_id=10_000 - n) for n, text in enumerate(strings)]
    )
    daemon.answers["models/list"] = lambda _: [
        specimen(ModelRow, lambda text=text: text, loaded=n % 2 == 0) for n, text in enumerate(strings)
    ]
    daemon.answers["limits/show"] = lambda _: [
        LimitRow(target="default", requests_per_minute=3),
        *(LimitRow(target=target, tokens_per_day=9, use=[_use(target)]) for target in _targets(strings)),
    ]
    daemon.answers["limits/use"] = lambda _: [_use(target) for target in _targets(strings)]
    daemon.answers["limits/set"] = daemon.answers["limits/clear"] = lambda question: LimitRow(target=question["target"])
    daemon.answers["limits/try"] = lambda _: specimen(
        LimitsTried,
        words,
        target=f"user:{words()}",
        users=[specimen(TriedUser, words) for _ in range(4)],
        limits=[TriedLimit(target=f"user:{words()}", limit=name, refused=3) for name in LIMIT_FIELDS],
    )
    daemon.answers["usage"] = lambda question: specimen(
        Usage,
        words,
        by=question["by"],
        rows=_each(UsageRow, strings)({}),
        bucket_seconds=3600,
    )


def _each(kind: Any, strings: Sequence[str]) -> Any:
    return lambda _: [specimen(kind, lambda text=text: text) for text in strings]


def _one(kind: Any, words: Words) -> Any:
    return lambda _: specimen(kind, words)


def _targets(strings: Sequence[str]) -> list[str]:
    kinds = itertools.cycle(("user", "key", "model", "address"))
    return [f"{kind}:{text}" for kind, text in zip(kinds, strings, strict=False)]


def _use(target: str) -> LimitUse:
    return LimitUse(target=target, limit="tokens_per_day", used=5, max=9, frees_at=MOMENT)


# What the console sends while it runs: where to write, in which of the sixteen colours, and the frame's two ends.
_OWN = re.compile(
    rb"\x1b\[(?:(?P<row>\d+);(?P<column>\d+)H"
    rb"|(?:(?:[012347]|2[2-9]|[349][0-79]|10[0-7])(?:;(?=\d))?)*m"
    rb"|\?2026[hl])"
)


def strange(sent: bytes, width: int, height: int) -> list[str]:
    """Sequences that are not the console's own or write outside of the terminal, and characters that steer one."""
    found: list[str] = []

    def own(match: re.Match[bytes]) -> bytes:
        if match["row"] and not (0 < int(match["row"]) <= height and 0 < int(match["column"]) <= width):
            found.append(repr(match.group()))
        return b""

    text = _OWN.sub(own, sent).decode("utf-8", "backslashreplace").replace("\r\n", "")
    for number, character in enumerate(text):
        if is_unsafe(character):
            found.append(repr(text[max(0, number - 10) : number + 20]))
    return found
