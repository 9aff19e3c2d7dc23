"""Nothing that comes from outside drives or breaks a box (T1, T2): every question, form and secret of Users, Keys and
Limits is gone through to its end, with a daemon that refuses and answers in the same words.

The list and what its keys open first are in `test_console_hostile.py`. Here boxes are answered: what follows a Yes, a
form that is refused, a secret, a trial, the offer of an export. What the administrator types is theirs, and may reach
the output guard; what the daemon says may not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from common.protocol import Failure, KeyRow, LimitRow, UserRow
from common.untrusted import clean, is_unsafe
from console.app import Lodge
from console.widgets.dialogs import ConfirmByName, ShowSecret
from console.widgets.form import Form
from tests.rigs.console import console_at, frame_of
from tests.rigs.hostile import LONG_LINE, fill, sharpest, watched_guard
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.specimens import specimen
from tests.rigs.until import until

EVERYTHING_AT_ONCE = "\x1b[31m\x1b]52;c;ZXZpbA==\x07[/][@click=app.quit]\u202e\x00\x9b2J\n\t宽👩‍👩‍👧 "
MOST_STEPS = 20  # of one journey: from its key to where nothing is asked any more


@dataclass(frozen=True)
class Journey:
    """A key on a row of a page, and what a form needs to be accepted; the verbs that it must have asked for."""

    page: str
    row: str
    key: str
    verbs: frozenset[str]
    good: dict[str, str] = field(default_factory=dict)


def _to(*verbs: str) -> frozenset[str]:
    return frozenset(verbs)


PENDING, ACTIVE, DISABLED, KEY, TARGET = "0 r {}", "0", "1", "0 {}", "user:{}"
JOURNEYS = (
    Journey("users", PENDING, "a", _to("users/approve")),
    Journey("users", PENDING, "x", _to("users/discard")),
    Journey("users", ACTIVE, "d", _to("users/disable")),
    Journey("users", DISABLED, "e", _to("users/enable")),
    Journey("users", ACTIVE, "R", _to("users/reset-password")),
    Journey("users", ACTIVE, "o", _to("users/role")),
    Journey("users", ACTIVE, "n", _to("users/notes")),
    Journey("users", ACTIVE, "c", _to("users/add"), {"email": "new@example.org", "kind": "person", "role": "user"}),
    Journey("users", DISABLED, "D", _to("users/delete", "jobs/export")),
    Journey("users", ACTIVE, "i", _to("keys/issue"), {"label": "ci", "expires": "90d"}),
    Journey("keys", KEY, "i", _to("keys/issue"), {"label": "ci", "models": "", "addresses": ""}),
    Journey("keys", KEY, "t", _to("keys/rotate"), {"grace": "1h"}),
    Journey("keys", KEY, "R", _to("keys/revoke")),
    Journey(
        "limits", TARGET, "e", _to("limits/try", "limits/set"), {"requests_per_minute": "5", "tokens_per_day": "9"}
    ),
    Journey("limits", TARGET, "n", _to("limits/try", "limits/set"), {"target": "model:m", "requests_per_minute": "5"}),
    Journey("limits", TARGET, "x", _to("limits/clear")),
)
CHANGES = frozenset().union(*(journey.verbs for journey in JOURNEYS)) - {"limits/try"}


@pytest.fixture
def slipped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the guard had to take out."""
    return watched_guard(monkeypatch)


def answers(daemon: ScriptedDaemon, text: str) -> Counter[str]:
    """Each change is refused at first, in these words, then done; how often each was asked, until it is cleared."""
    asked: Counter[str] = Counter()

    def refusing(verb: str, then: Any) -> Callable[[dict[str, Any]], Any]:
        def answer(question: dict[str, Any]) -> Any:
            asked[verb] += 1
            if asked[verb] > 1:
                return then(question)
            if verb == "users/delete":
                return Failure(text, "not_exported", {"export": {"filter": {"user": text}, "format": "jsonl"}})
            return Failure(text, "refused")

        return answer

    for verb in CHANGES:
        daemon.answers[verb] = refusing(verb, daemon.answers[verb])
    return asked


def people(daemon: ScriptedDaemon, text: str) -> None:
    """Somebody who waits, an active and a disabled user, a key, limits: each called that."""
    fill(daemon, [text])

    def words() -> str:
        return text

    daemon.put("user", "0", specimen(UserRow, words, status="active", id=0, code=None, service=False))
    daemon.put("user", "1", specimen(UserRow, words, status="disabled", id=1, code=None))
    daemon.put("key", f"0 {text}", specimen(KeyRow, words, state="active", id=f"0 {text}", expires=None))
    own = {"tokens_per_day": 9, "requests_per_minute": 3}
    daemon.answers["limits/show"] = lambda question: [
        LimitRow(target="default", requests_per_minute=3),
        LimitRow(target=question.get("target") or f"user:{text}", **own),
    ]


async def go_through(app: Lodge, pilot: Pilot[None], journey: Journey, text: str, slipped: list[str]) -> None:
    """From the key to the end, answering whatever is asked; every frame is looked at."""

    async def look() -> None:
        await pilot.pause(0.01)
        app.main.tick()
        assert not [each for each in frame_of(app) if is_unsafe(each) and each != "\n"]

    page: Any = await app.go_to(journey.page)
    row = journey.row.format(text)
    await until(lambda: app.main.tick() or row in page.table.ids, what=f"{row!r} of {journey.page}")
    assert page.table.select(row)
    await pilot.pause()
    await until(page.may_act)
    await pilot.press(journey.key)
    for _ in range(MOST_STEPS):
        await look()
        assert not slipped, f"{journey.page}, {journey.key}: {slipped[:3]}"
        screen = app.screen
        if isinstance(screen, Form):
            given = {entry.id or "": entry.value for entry in screen.query(Input)}
            for entry in screen.query(Input):
                entry.value = text
            await look()
            slipped.clear()
            for entry in screen.query(Input):
                entry.value = journey.good.get((entry.id or "").removeprefix("field-"), given[entry.id or ""])
            await look()
            slipped.clear()
            await pilot.press("enter")
        elif isinstance(screen, ConfirmByName):
            screen.query_one(Input).value = text + "x"
            await pilot.press("enter")
            await look()
            screen.query_one(Input).value = screen._target
            await look()
            slipped.clear()
            await pilot.press("enter")
        elif isinstance(screen, ShowSecret):
            await pilot.press("s")
            await look()
            await pilot.press("escape")
        elif screen is not app.main or app.main.prompt._question is not None:
            await pilot.press("y")
        elif app.main.prompt.is_asking:
            app.main.prompt.entry.value = text
            await look()
            slipped.clear()
            app.main.prompt.entry.value = "seen"
            await pilot.press("enter")
        elif app._action is None or app._action.is_finished:
            return
    raise AssertionError(f"{journey.page}, {journey.key} has no end:\n{frame_of(app)}")


async def all_journeys(tmp_path: Path, strings: Sequence[str], slipped: list[str]) -> None:
    """Each one twice: it is refused once, and done once."""
    async with ScriptedDaemon(tmp_path / "socket") as daemon:
        people(daemon, "harmless")
        async with console_at(daemon.path, size=(120, 40)) as (app, pilot):
            await until(lambda: app.link.is_live)
            for text in strings:
                people(daemon, text)
                asked = answers(daemon, text)
                daemon.send()
                await until(lambda: app.link.mirror.seq == daemon.seq, timeout=30)
                for journey in JOURNEYS:
                    asked.clear()
                    daemon.asked.clear()
                    for _ in range(2):
                        await go_through(app, pilot, journey, text, slipped)
                    missing = journey.verbs - {verb for verb, _ in daemon.asked}
                    assert not missing, f"{journey.page}, {journey.key}, {text[:40]!r}: {missing} was never asked"
                    assert app.is_running and len(app.screen_stack) == 1


async def test_every_box_is_gone_through_with_everything_at_once(
    tmp_path: Path, slipped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused and done: words of users, of keys, of the daemon's refusals and answers stay words."""
    monkeypatch.chdir(tmp_path)
    await all_journeys(tmp_path, [EVERYTHING_AT_ONCE], slipped)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_every_box_is_gone_through_with_all_that_is_sharp(
    tmp_path: Path, slipped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, with every eighth of the sharpest, and a long line."""
    monkeypatch.chdir(tmp_path)
    visible = [text for text in sharpest()[::8] if clean(text).strip()]
    await all_journeys(tmp_path, [LONG_LINE[:20_000], *visible], slipped)
