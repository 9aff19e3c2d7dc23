"""The Users page under a pilot, against a real daemon: let in, shut out, reset, delete; refused, in conflict, lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from common import protocol
from common.protocol import UsersNotes, UserTarget
from console.screens.page import AWAY
from tests.rigs.console import Seat, open_seat
from tests.rigs.gatehouse import ADMIN
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after

LI = "li@example.org"
ANA = "ana@example.org"


@asynccontextmanager
async def users_page(tmp_path: Path, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Seat]:
    """A console on its Users page, with ana, a service account, and mia, a person."""
    async with open_seat(tmp_path, size=size) as seat:
        await seat.office.gate.house.directory.add_user(ADMIN, "mia@example.org")
        await seat.press("2")
        await seat.sees("[2 Users]", "mia@example.org")
        yield seat


async def register(seat: Seat, email: str = LI, address: str = "10.1.2.3") -> str:
    """Somebody registers; their code."""
    code = await seat.office.gate.house.directory.add_registration(email, "$argon2id$none", address, most=100)
    assert code is not None
    await until(lambda: code in seat.app.link.mirror.rows["registration"])
    return str(code)


def under_cursor(seat: Seat) -> str:
    """The row under the cursor, as it is drawn."""
    return next((line for line in seat.frame().split("\n") if line.startswith(">")), "")


async def choose(seat: Seat, words: str) -> None:
    """Put the cursor on the row with these words."""
    await seat.sees(words)
    table = seat.app.main.page.table  # type: ignore[union-attr]
    row = next(row_id for row_id in table.ids if any(words in str(cell) for cell in table._lookup(row_id)))
    assert table.select(row)
    await seat.pilot.pause()


def fill(seat: Seat, **texts: str) -> None:
    """Put texts into the fields of the form in sight."""
    for name, text in texts.items():
        seat.app.screen.query_one(f"#field-{name}", Input).value = text


def user(seat: Seat, email: str) -> dict[str, object]:
    """The user as the console knows them."""
    return next(row for row in seat.app.link.mirror.rows["user"].values() if row["email"] == email)


async def shown(seat: Seat, email: str, **values: object) -> None:
    """Until the event came back and the page shows it."""
    await until(lambda: all(user(seat, email)[name] == value for name, value in values.items()))
    seat.app.main.tick()


def verbs(seat: Seat) -> list[str]:
    """What was changed, by the daemon's audit."""
    return [record["verb"] for record in seat.office.recorded()]


async def test_who_waits_is_seen_from_every_page_and_let_in(tmp_path: Path) -> None:
    """A badge on the tab; on top of the list with code, address and time; `a` `y` lets them in."""
    async with open_seat(tmp_path) as seat:
        code = await register(seat)
        await seat.sees("2 Users(1)", "[1 Live]")
        await seat.press("2")
        frame = await seat.sees("[2 Users(1)]", code, "10.1.2.3", "a Approve", "x Refuse")
        assert "pending" in frame.split("\n")[4]
        assert all(len(each) <= 80 for each in frame.split("\n"))
        await seat.press("a")
        await seat.sees(f"Let {LI} in (code {code}, from 10.1.2.3")
        await seat.press("n")
        await seat.loses("Let li@")
        assert "users approve" not in verbs(seat)
        second = await register(seat, "aa@example.org")
        await choose(seat, code)
        await seat.press("a", "y")
        await seat.sees("is approved and may log in", "[2 Users(1)]")
        assert user(seat, LI)["status"] == "active"
        # The cursor went with them, past the one who still waits: what is typed next is about them.
        assert LI in under_cursor(seat) and "active" in under_cursor(seat)
        await seat.press("a", "y")
        await seat.sees(f"{LI} is a user already")
        assert second in seat.app.link.mirror.rows["registration"]


async def test_of_several_registrations_of_one_address_the_code_decides(tmp_path: Path) -> None:
    """Only one may be theirs: the box says so, and which others go."""
    async with users_page(tmp_path) as seat:
        first, second = await register(seat), await register(seat, address="203.0.113.9")
        await choose(seat, second)
        await seat.press("a")
        await seat.sees("was registered 2 times", "203.0.113.9", first, "[N] no")
        await seat.press("y")
        await seat.loses("pending")
        assert user(seat, LI)["status"] == "active"
        assert not seat.app.link.mirror.rows["registration"]


async def test_a_registration_is_refused(tmp_path: Path) -> None:
    """`x` `y`; and what is for users does nothing to it but say so."""
    async with users_page(tmp_path) as seat:
        code, other = await register(seat), await register(seat, "zoe@example.org")
        await seat.sees(other)
        await choose(seat, code)
        await seat.press("d")
        await seat.sees("waits to be let in: a approves, x refuses")
        await seat.press("x", "y")
        await seat.sees(f"{code} of {LI} is refused")
        assert "users discard" in verbs(seat)
        await until(lambda: other in under_cursor(seat))
        await seat.press("x")  # typed at the one that went: not at the one that slid to its place
        await seat.sees("the row under the cursor has just gone")
        assert "[y]" not in seat.frame()
        await until(seat.app.main.page.may_act)  # type: ignore[union-attr]
        await seat.press("x")
        await seat.sees(f"Refuse the registration {other}")
        await seat.press("n")


async def test_disabling_cuts_their_streams_and_enabling_lets_them_in_again(tmp_path: Path) -> None:
    """The question tells how many end; the row changes when the event comes back."""
    async with users_page(tmp_path) as seat:
        gate = asyncio.Event()
        seat.upstream.default = stall_after(1, gate)
        client = asyncio.create_task(seat.office.gate.chat(stream=True))
        await until(lambda: seat.app.link.mirror.rows["live"])
        await choose(seat, ANA)
        await seat.press("d")
        await seat.sees(f"Disable {ANA}? 1 request ends now")
        await seat.press("y")
        await seat.sees(f"{ANA} is disabled", "e Enable", "D Delete")
        assert "disabled" in seat.line("service")
        answer = await client
        assert "disabled" in answer.text
        await seat.press("d")
        await seat.sees("is disabled already; e enables")
        await seat.press("e", "y")
        await seat.sees(f"{ANA} is enabled", "d Disable")
        gate.set()


async def test_a_password_is_reset_and_shown_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a box whose default is No; the one-time password can be saved, and is gone when it is closed."""
    monkeypatch.chdir(tmp_path)
    async with users_page(tmp_path) as seat:
        await choose(seat, "mia@example.org")
        await seat.press("R")
        await seat.sees("Reset the password of mia@example.org?", "every session ends", "[N] no")
        await seat.press("enter")
        await seat.loses("every session ends")
        assert "users reset-password" not in verbs(seat)
        await seat.press("R", "y")
        await seat.sees("One-time password of mia@example.org", "Good until", "POST /auth/password")
        await seat.press("s")
        await seat.sees("saved to")
        saved = tmp_path / "one-time-password-mia@example.org.txt"
        password = saved.read_text().strip()
        assert saved.stat().st_mode & 0o777 == 0o600
        assert password in seat.frame()
        await seat.press("escape")
        await seat.loses(password)
        await choose(seat, ANA)
        await seat.press("R")
        await seat.sees("is a service account: it has keys, no password")


async def test_role_and_notes(tmp_path: Path) -> None:
    """The role is asked about in the footer; notes are typed there."""
    async with users_page(tmp_path) as seat:
        await choose(seat, "mia@example.org")
        await seat.press("o", "y")
        await seat.sees("mia@example.org is now admin")
        await shown(seat, "mia@example.org", role="admin")
        await seat.press("n")
        await seat.type("back in may")
        await seat.press("enter")
        await seat.sees("the notes on mia@example.org are kept", "back in may")
        assert user(seat, "mia@example.org")["role"] == "admin"


async def test_a_conflict_is_told_and_nothing_is_overwritten(tmp_path: Path) -> None:
    """Somebody else changes the user while one types."""
    async with users_page(tmp_path) as seat:
        await choose(seat, "mia@example.org")
        await seat.press("n")
        await seat.office.ask(protocol.USERS_NOTES, UsersNotes("mia@example.org", "theirs"))
        await until(lambda: user(seat, "mia@example.org")["notes"] == "theirs")
        await seat.type("mine")
        await seat.press("enter")
        await seat.sees("changed since you looked, nothing was done")
        assert user(seat, "mia@example.org")["notes"] == "theirs"


async def test_delete_wants_the_name_and_the_export_and_offers_it(tmp_path: Path) -> None:
    """Not while active; not without the name; refused until exported: the export is begun from here."""
    async with users_page(tmp_path) as seat:
        await seat.office.gate.chat()
        await choose(seat, ANA)
        await seat.press("D")
        await seat.sees("only a disabled user can be deleted")
        await seat.press("d", "y")
        await shown(seat, ANA, status="disabled")
        await seat.press("D")
        await seat.sees(f"Type {ANA}", "Erased for good")
        await seat.press("enter")
        await seat.sees("That is not the name.")
        seat.app.screen.query_one(Input).value = ANA
        await seat.press("enter")
        await seat.sees(f"{ANA} was not deleted", "Export everything of theirs now?")
        await seat.press("y")
        await seat.sees("D deletes now", timeout=15)
        assert seat.app.link.mirror.rows["user"]
        await seat.press("D")
        await seat.sees("Erased for good")
        seat.app.screen.query_one(Input).value = ANA
        await seat.press("enter")
        await seat.sees(f"{ANA} is deleted")
        await until(lambda: all(row["email"] != ANA for row in seat.app.link.mirror.rows["user"].values()))


async def test_a_user_is_created_and_a_refused_form_keeps_what_was_typed(tmp_path: Path) -> None:
    """Wrong fields are told while one types; what the daemon refuses comes back with its reason."""
    async with users_page(tmp_path) as seat:
        await seat.press("c")
        await seat.sees("Create a user", "an e-mail address")
        fill(seat, email="mia@example.org")
        await seat.sees("is a user already")
        fill(seat, email='quo"ted@example.org', kind="service")
        await seat.press("enter")
        await seat.sees("Not done: that e-mail address has characters", 'quo"ted@example.org', "service")
        fill(seat, email="bot@example.org")
        await seat.press("enter")
        await seat.sees("bot@example.org is created; i issues it a key", ">active       bot@example.org")
        assert user(seat, "bot@example.org")["service"]
        seat.app.main.page.apply_filter("mia")  # type: ignore[union-attr]
        await seat.press("c")
        await seat.sees("Create a user")
        fill(seat, email=LI)
        await seat.press("enter")
        await seat.sees(f"One-time password of {LI}")
        await seat.press("escape")
        await seat.sees(f">active       {LI}")  # what was made is seen, whatever was filtered for


async def test_the_daemon_goes_while_a_box_is_open(tmp_path: Path) -> None:
    """`y` in the box changes nothing and says why; a form stays as it was; when the daemon is back, it is sent."""
    async with users_page(tmp_path) as seat:
        hub = seat.office.gate.house.hub
        await choose(seat, "mia@example.org")
        await seat.press("R")
        await seat.sees("Reset the password")
        hub.close("the daemon is stopping")
        await until(lambda: not seat.app.link.is_live)
        await seat.press("y")
        await seat.sees("Not sent: the daemon is away (STALE", "○ STALE")
        await seat.press("escape")
        await seat.loses("[y]")
        await seat.press("d")
        await seat.sees(AWAY)
        assert "users reset-password" not in verbs(seat)
        hub._closed = ""
        await seat.press("r")
        await seat.sees("● LIVE")
        await seat.loses(AWAY)
        await seat.press("c")
        await seat.sees("Create a user")
        fill(seat, email="bot@example.org", kind="service")
        hub.close("gone")
        await until(lambda: not seat.app.link.is_live)
        await seat.press("enter")
        await seat.sees("Not sent: the daemon is away (STALE", "bot@example.org")
        hub._closed = ""
        seat.app.link.retry_now()
        await until(lambda: seat.app.link.is_live)
        await seat.press("enter")
        await seat.sees("bot@example.org is created")


async def test_details_are_beside_the_list_or_behind_enter(tmp_path: Path) -> None:
    """At 80 columns Enter opens them, with limits and keys; from 140 on they are in sight."""
    async with users_page(tmp_path, size=(140, 30)) as seat:
        await choose(seat, ANA)
        await seat.sees("KEYS (1)", "let in")
        await register(seat)
        await choose(seat, "10.1.2.3")
        await seat.sees("WAITS TO BE LET IN", "Ask them for their code")
        await choose(seat, ANA)
        await seat.press("enter")
        await seat.sees("LIMITS IN FORCE", "requests/minute", "KEYS (1)", "active")
        await seat.press("escape")
        await seat.sees("[2 Users(1)]")


async def test_nobody_has_registered_yet(tmp_path: Path) -> None:
    """The very request that lets somebody in, with the daemon's own address."""
    async with open_seat(tmp_path) as seat:
        await seat.press("2")
        frame = await seat.sees("Nobody has registered yet.", "  POST http://127.0.0.1:", "/auth/register")
        assert '  {"email": "you@example.org", "password": "…"}' in frame and ">active" in frame
        rows = seat.app.link.mirror.rows["user"]
        rows.clear()
        seat.app.link.mirror.changes["user"] += 1
        await seat.sees("Nobody has registered yet.", '{"email":', "press c")
        await register(seat)
        await seat.loses("Nobody has registered yet.")


async def test_what_is_gone_meanwhile_is_refused_by_the_daemon(tmp_path: Path) -> None:
    """Between the key and `y` the registration was let in by somebody else: nothing else is done."""
    async with users_page(tmp_path) as seat:
        code = await register(seat)
        await choose(seat, code)
        await seat.press("x")
        await seat.sees("Refuse the registration")
        await seat.office.ask(protocol.USERS_APPROVE, protocol.UsersApprove(code))
        await seat.press("y")
        await seat.sees("no registration with the code")
        assert (await seat.office.ask(protocol.USERS_SHOW, UserTarget(LI))).user.status == "active"


HOSTILE = "[/] [@click=app.quit]x[/] \x1b[2J\x1b]52;c;AAAA\x07 \u202eevil \U0001f469\u200d\U0001f469 模型"


async def test_hostile_words_of_others_stay_words(tmp_path: Path) -> None:
    """In notes, labels, model patterns and a registration's address: in the list, the pane, boxes and questions."""
    async with users_page(tmp_path, size=(160, 40)) as seat:
        await seat.office.ask(protocol.USERS_NOTES, UsersNotes("mia@example.org", HOSTILE))
        house = seat.office.gate.house
        mia = next(each for each in house.directory.users.values() if each.email == "mia@example.org")
        await house.directory.issue_key(ADMIN, mia.id, "[/][@click=app.quit]x[/]", models=["\x1b[31m[/]*"])
        await register(seat, "[/]\x1b[2J@x", "\x1b]0;evil\x07[/]")
        await choose(seat, "mia@example.org")
        frame = await seat.sees("[/] [@click=app.quit]x[/] \\x1b[2J", "KEYS (1)")
        assert "\x1b" not in frame and "\u202e" not in frame
        for keys in (
            ["enter", "escape"],
            ["n", "escape"],
            ["R", "n"],
            ["d", "n"],
            ["question_mark", "escape"],
            ["o", "n"],
        ):
            await seat.press(*keys)
            await seat.pilot.pause()
        await choose(seat, "\\x1b[2J@x")
        for keys in (["enter", "escape"], ["a", "n"], ["x", "n"], ["d"], ["i"], ["l", "2"]):
            await seat.press(*keys)
            await seat.pilot.pause()
        await seat.press("3")
        await seat.sees("[3 Keys]", "[/][@click=a", "\\x1b[31m[/]*")
        for keys in (["G", "enter", "escape"], ["t", "escape"], ["R", "n"], ["i", "escape"], ["l", "3"]):
            await seat.press(*keys)
            await seat.pilot.pause()
        assert "\x1b" not in seat.frame()
        assert seat.app.is_running


async def test_what_is_typed_ahead_of_a_box_does_nothing_to_anybody(tmp_path: Path) -> None:
    """On a slow line keys come in one burst: those for a box that is still being opened are no actions of the page."""
    async with users_page(tmp_path) as seat:
        await choose(seat, "mia@example.org")
        for key in ("c", "d", "a", "i", "s", "y", "q", "3"):  # `c`, then an address: before the form stands there
            seat.app.post_message(events.Key(key, key))
        await seat.sees("Create a user")
        await seat.press("escape")
        await seat.loses("Create a user")
        await seat.sees("[2 Users]")
        assert "[y]" not in seat.frame()
        for key in ("n", "d", "y"):
            seat.app.post_message(events.Key(key, key))
        await seat.sees("Notes on mia@example.org")
        await seat.press("escape")
        await seat.loses("Notes on")
        assert user(seat, "mia@example.org")["status"] == "active"
        assert "users disable" not in verbs(seat)
