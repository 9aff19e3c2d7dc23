"""What a page asks the program for: the three tiers of confirmation, a secret shown once, a form, a refused change."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.widgets import Input

from common import protocol
from common.protocol import Failure, UsersNotes
from console.client import Refused, Unreachable
from console.screens.page import why
from console.widgets.form import Field
from tests.rigs.console import Seat, open_seat
from tests.rigs.until import until

SECRET = "glk_" + "s3cret" * 6


def begin(seat: Seat, asked: Coroutine[Any, Any, Any]) -> list[Any]:
    """Ask as an action of a page does; the answer is in the list when it is there."""
    answers: list[Any] = []

    async def keep() -> None:
        answers.append(await asked)

    assert seat.app.main.page is not None
    seat.app.main.page.begin(keep())
    return answers


@pytest.mark.parametrize(("key", "answer"), [("y", True), ("n", False), ("enter", False), ("escape", False)])
async def test_a_box_with_consequences_defaults_to_no(tmp_path: Path, key: str, answer: bool) -> None:
    """Only `y` does it; what will happen, and to whom, is in sight, however it is written."""
    async with open_seat(tmp_path) as seat:
        words = ["Her sessions end [/] [@click=app.quit]x[/] \x1b[2J.", "模型" * 60]
        answers = begin(seat, seat.app.confirm("Reset the password of ana?", words))
        frame = await seat.sees("Reset the password", "[/] [@click=app.quit]x[/] \\x1b[2J", "[N] no")
        assert all(line.rstrip().endswith(("│", "╮", "╯")) for line in frame.split("\n") if "模型" in line)
        await seat.press("j", "1", "c")
        assert not answers, "a key that answers nothing does nothing"
        await seat.press(key)
        await seat.loses("Reset the password")
        assert answers == [answer]


async def test_the_gravest_wants_the_name_typed(tmp_path: Path) -> None:
    """A wrong name is told; Esc leaves everything as it is."""
    async with open_seat(tmp_path) as seat:
        answers = begin(seat, seat.app.confirm_by_name("Delete ana?", ["For good."], "ana@example.org"))
        await seat.sees("Type ana@example.org")
        await seat.type("ana")
        await seat.press("enter")
        await seat.sees("That is not the name.")
        assert not answers
        await seat.type("@example.org")
        await seat.press("enter")
        await seat.loses("Delete ana?")
        assert answers == [True]
        answers = begin(seat, seat.app.confirm_by_name("Delete ana?", ["For good."], "ana@example.org"))
        await seat.sees("Delete ana?")
        await seat.press("escape")
        await seat.loses("Delete ana?")
        assert answers == [False]


async def test_a_secret_is_shown_once_and_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a private file that replaces none; no key but Esc takes it away, and then it is nowhere on the screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMUX", raising=False)
    async with open_seat(tmp_path) as seat:
        copied: list[str] = []
        monkeypatch.setattr(seat.app, "copy_to_clipboard", copied.append)
        answers = begin(seat, seat.app.show_secret("A key", SECRET, "Shown this once.", file_name="key.txt"))
        await seat.sees(SECRET)
        await seat.press("c")
        await seat.sees("OSC 52")
        assert copied == [SECRET]
        await seat.press("s")
        await seat.sees("saved to")
        assert (tmp_path / "key.txt").read_text() == SECRET + "\n"
        assert (tmp_path / "key.txt").stat().st_mode & 0o777 == 0o600
        await seat.press("s")
        await seat.sees("not saved", "there already")
        await seat.press("q", "enter", "y", "1")
        assert SECRET in seat.frame()
        await seat.press("escape")
        await seat.loses(SECRET)
        assert answers == [None]


async def test_a_form_says_what_is_wrong_while_one_types(tmp_path: Path) -> None:
    """Enter sends it from any field, or goes to the first that is wrong and says why; words of a few need a letter."""
    fields = [
        Field("email", "E-mail", check=lambda text: "" if "@" in text else "no address"),
        Field("kind", "Kind", "person", choices=("person", "service"), fixed=True),
        Field("role", "Role", "user", hint="user or admin", below=lambda text: f"as /there/{text}"),
    ]
    async with open_seat(tmp_path) as seat:
        seat.app.say("something else was done")
        await seat.sees("something else was done", "q Quit")
        answers = begin(seat, seat.app.fill("Create a user", fields))
        await seat.sees("no address", "user or admin")
        assert seat.app.main.prompt.said == "", "an old sentence stands under a new question"
        assert seat.app.main._keys.lines == [[]], "keys of the page stand under a box, where they do nothing"
        await seat.press("tab", "down")
        await seat.sees("as /there/user")
        await seat.pilot.resize_terminal(59, 15)
        await seat.sees("the console needs 60x15")
        assert "Create a user" not in seat.frame()
        await seat.press("x", "enter", "escape")  # who does not see what answers, answers nothing
        await seat.pilot.resize_terminal(80, 24)
        await seat.sees("Create a user", "as /there/user")
        await until(lambda: seat.app.focused is seat.app.screen.query_one("#field-role"))
        await seat.press("enter")
        await seat.sees("E-mail: no address")
        await seat.type("li@example.org")
        await seat.loses("no address")
        await seat.press("down")
        kind = seat.app.screen.query_one("#field-kind", Input)
        for keys, value in (
            (("s",), "service"),
            (("p", "e", "r", "s"), "person"),
            (("s",), "service"),
            (("x", "backspace"), "service"),
            (("right",), "person"),
            (("left",), "service"),
        ):
            await seat.press(*keys)
            assert kind.value == value, keys
        for _ in range(2):  # in one burst: it is sent once
            seat.app.post_message(events.Key("enter", "\r"))
        await seat.loses("Create a user")
        assert answers == [{"email": "li@example.org", "kind": "service", "role": "user"}]
        assert len(seat.app.screen_stack) == 1
        await seat.sees("q Quit")
        answers = begin(seat, seat.app.fill("Create a user", fields))
        await seat.sees("Create a user")
        for key in (events.Key("alt+2", "2"), events.Key("4", "4")):  # as a slow link brings them: Esc, 2 and 4
            seat.app.post_message(key)
        await seat.loses("Create a user")
        await seat.sees("[4 Models]")
        assert answers == [None]


async def test_a_change_that_somebody_else_made_is_told(tmp_path: Path) -> None:
    """The version that was looked at is sent; nothing is overwritten."""
    async with open_seat(tmp_path) as seat:
        row = next(iter(seat.app.link.mirror.rows["user"].values()))
        question = UsersNotes(row["email"], "theirs")
        await seat.office.ask(protocol.USERS_NOTES, question)
        page = seat.app.main.page
        assert page is not None
        mine = UsersNotes(row["email"], "mine", version=row["version"])
        answers = begin(seat, page.ask(protocol.USERS_NOTES, mine))
        await seat.sees("changed since you looked, nothing was done")
        assert answers == [None]
        users = await seat.office.ask(protocol.USERS_LIST, protocol.UsersList())
        assert [user.notes for user in users if user.email == row["email"]] == ["theirs"]


def test_what_failed_is_said_in_the_daemons_words() -> None:
    """A refusal and a daemon that is not there are sentences, never a traceback."""
    assert why(Refused(Failure("no such key", "not_found"), 404)) == "no such key"
    assert why(Unreachable("no daemon: start it")) == "no daemon: start it"


async def test_on_a_first_start_it_says_what_to_tell_people(tmp_path: Path) -> None:
    """Nobody has registered yet: the very line that lets somebody in. Somebody waits: where to go."""
    async with open_seat(tmp_path) as seat:
        rows = seat.app.link.mirror.rows
        rows["user"].clear()
        seat.app.link.mirror.changes["live"] += 1
        await seat.sees("Nobody has registered yet.", "POST", "register")
        rows["registration"]["CODE"] = {"email": "li@example.org"}
        seat.app.link.mirror.changes["live"] += 1
        await seat.sees("Somebody waits to be let in")


async def test_nothing_ticks_while_something_covers_the_page(tmp_path: Path) -> None:
    """A box over the page: the page below costs nothing; afterwards it is up to date at once."""
    async with open_seat(tmp_path) as seat:
        answers = begin(seat, seat.app.confirm("Sure?", ["So."]))
        await seat.sees("Sure?")
        calls: list[int] = []
        page = seat.app.main.page
        assert page is not None
        tick = page.tick
        page.tick = lambda: (calls.append(1), tick())[1]  # type: ignore[method-assign]
        await asyncio.sleep(0.6)  # two periods: that something does not happen takes its time
        assert not calls
        await seat.press("escape")
        await seat.loses("Sure?")
        assert calls
        assert answers == [False]
