"""How a conversation is laid out to be read: what comes first, how much of it, and that none of it takes long. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.style import Style

from common.protocol import AuditExchange, AuditRow, ChainPosition
from console.mirror import cleaned
from console.screens.audit_rows import LINES, detail_lines
from console.screens.audited import json_of, text_of
from console.screens.overlay import Paragraph
from console.screens.reading import FIRST, TEXTS, Text, laid_out, since
from console.widgets.facts import LINES as OF_A_FACT
from console.widgets.facts import facts
from tests.rigs.specimens import MOMENT, specimen

LONG = "次の文章を要約して ください。\x1b[2J" * 70_000  # 1.4 million characters
TURNS = [("system", "Be brief."), ("user", "One?"), ("assistant", "1."), ("user", "Two?"), ("tool", "2 it is")]


def words(paragraphs: list[Paragraph]) -> list[str]:
    return [each if isinstance(each, str) else each[0] for each in paragraphs]


def exchange(turns: list[tuple[str, str]], **given: Any) -> AuditExchange:
    messages = [{"role": role, "content": content} for role, content in turns]
    answer = {"message": {"thinking": "Twice."}}
    given = {"messages": {"messages": messages}, "answer": answer, "response": "2.", "error": None} | given
    one: AuditExchange = specimen(AuditExchange, lambda: "word", **given)
    return one


def test_what_was_asked_and_answered_comes_first() -> None:
    """Then what was said before it, last the record; what is wrong is not something to scroll for."""
    shown = words(text_of(exchange(TURNS), None, "")[0])
    titles = [line for line in shown if line.isupper() or line.startswith(("PROMPT", "BEFORE", "[", "ANSWER"))]
    assert shown[:2] == ["PROMPT [user]", "Two?"]
    assert titles[:5] == ["PROMPT [user]", "PROMPT [tool]", "THINKING", "ANSWER", "BEFORE THAT, 3 messages"]
    assert titles[5:] == ["[system]", "[user]", "[assistant]", "RECORD"]
    chain = specimen(ChainPosition, lambda: "word", problems=["record 7 was changed"])
    shown = words(text_of(exchange(TURNS, error="it fell over"), chain, "")[0])
    assert shown[:3] == ["error     it fell over", "chain     PROBLEM: record 7 was changed", "PROMPT [user]"]
    assert words(text_of(exchange([], messages=None, prompt="Only this"), None, "")[0])[:2] == ["PROMPT", "Only this"]


def test_a_record_of_a_megabyte_opens_as_quickly_as_one_of_a_line() -> None:
    """Every text is cut before it is cleaned and laid out; it is said, and more of it can be had, in the end all."""
    one: AuditExchange = specimen(
        AuditExchange,
        lambda: LONG,
        messages={"messages": [{"role": LONG, "content": LONG}] * 20 + [{"role": "user", "content": LONG}] * 2},
        answer={"thinking": LONG},
        erased=False,
    )
    for shown, left_out in (text_of(one, None, LONG), json_of(one, FIRST)):
        assert sum(map(len, words(shown))) < 30 * FIRST  # each escape is a few characters
        assert left_out > len(LONG)
        assert any("m shows more" in line for line in words(shown))
    shown, left_out = text_of(exchange([("user", LONG)]), None, "", room=10 * len(LONG))
    assert left_out == 0
    assert max(words(shown), key=len).count("次の文章") == LONG.count("次の文章")


def test_of_a_text_that_grows_the_end_is_shown_and_what_stands_is_not_laid_out_anew() -> None:
    """The cut moves in steps: between two of them every line but the last is as it was."""
    grown = "".join(f"line {number}\n" for number in range(5000))
    (_, note, *before), left_out = laid_out(Text("ANSWER", grown[:-200]), 8000, its_end=True)
    (_, _, *after), again = laid_out(Text("ANSWER", grown), 8000, its_end=True)
    assert left_out == again
    assert isinstance(note, tuple) and note[0].startswith(f"… {left_out:,} more")
    assert after[: len(before) - 1] == before[:-1]
    assert after[-2] == "line 4999"
    assert 8000 <= sum(len(line) + 1 for line in words(after)) <= 12_001


def test_of_very_many_messages_the_latest_are_shown() -> None:
    """Of those before it is said how many they are."""
    turns = [("user", f"{number} {'x' * FIRST}") for number in range(50)]
    shown = words(text_of(exchange(turns), None, "")[0])
    assert [line.split()[0] for line in shown if line.endswith("xxx")] == [
        "49",
        *(str(n) for n in range(49 - TEXTS, 49)),
    ]
    assert "… 45 messages before these: m shows more" in shown


def test_panes_bound_what_they_lay_out_four_times_a_second() -> None:
    """However long a field is."""
    row = cleaned(msgspec.to_builtins(specimen(AuditRow, lambda: LONG)))
    assert len(detail_lines(row)) < 2 * (len(row) + 4) * LINES
    assert len(facts([("name", LONG, Style())], room=20)) < 2 * OF_A_FACT


@pytest.mark.parametrize(("seconds", "said"), [(0, "+0.00s"), (99.994, "+99.99s"), (125, "+2m05s")])
def test_timings_fit_into_a_line(seconds: float, said: str) -> None:
    """A wait of minutes needs no hundredths."""
    later = f"2026-01-31T09:{5 + int(seconds + 7) // 60:02d}:{(seconds + 7) % 60:09.6f}Z"
    assert since([("seated", later), ("first byte", None)], MOMENT) == f"seated {said}"
