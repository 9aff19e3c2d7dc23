"""The Keys page under a pilot, against a real daemon: issue, rotate, revoke; refused, in conflict, lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from common import protocol
from common.protocol import KeysList, KeysRotate, KeyTarget
from tests.rigs.console import Seat, open_seat
from tests.rigs.until import until

ANA = "ana@example.org"
SECRET = re.compile(r"glk_[0-9A-Za-z]{10}_[0-9A-Za-z]{43}")


@asynccontextmanager
async def keys_page(tmp_path: Path, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Seat]:
    """A console on its Keys page; ana has one key."""
    async with open_seat(tmp_path, size=size) as seat:
        await seat.press("3")
        await seat.sees("[3 Keys]", "ana@exam")
        yield seat


def fill(seat: Seat, **texts: str) -> None:
    """Put texts into the fields of the form in sight."""
    for name, text in texts.items():
        seat.app.screen.query_one(f"#field-{name}", Input).value = text


def secret(seat: Seat) -> str:
    """The key that the box shows."""
    found = SECRET.search(seat.frame())
    assert found, seat.frame()
    return found[0]


async def row(seat: Seat, key_id: str, **values: object) -> None:
    """Until the event came back and the page shows it."""
    rows = seat.app.link.mirror.rows["key"]
    await until(lambda: key_id in rows and all(rows[key_id][name] == value for name, value in values.items()))
    seat.app.main.tick()


def chosen(seat: Seat) -> str:
    """The id of the key under the cursor."""
    key_id = seat.app.main.page.table.cursor_id  # type: ignore[union-attr]
    assert key_id
    return str(key_id)


async def test_a_key_is_issued_shown_once_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label, expiry, models; wrong fields are told; the secret can be saved (0600) and is gone with its box."""
    monkeypatch.chdir(tmp_path)
    async with keys_page(tmp_path, size=(120, 30)) as seat:
        await seat.press("i")
        await seat.sees("Issue a key", ANA, "what is it for?", "llama3* qwen3; empty: all")
        assert seat.app.screen.focused is seat.app.screen.query_one("#field-label")  # the user stands there already
        fill(seat, user="bob@example.org", expires="soon", addresses="here")
        await seat.sees("there is no such user", "90d, 12h, 30m", "'here' is no address")
        await seat.press("enter")
        await seat.sees("Issue a key")
        fill(seat, user=ANA.upper(), label="ci runner", expires="90d", models="smollm2*", addresses="127.0.0.0/8")
        await seat.press("enter")
        await seat.sees("Shown this once", "ci runner")
        key = secret(seat)
        await seat.press("s")
        await seat.sees("saved to")
        saved = tmp_path / f"gatelodge-key-{key.split('_')[1]}.txt"
        assert saved.read_text() == key + "\n"
        assert saved.stat().st_mode & 0o777 == 0o600
        await seat.press("escape")
        await seat.loses(key)
        await seat.sees(f"is issued to {ANA}", "ci runner", "in 90d", "smollm2*", "127.0.0.0/8")
        await until(lambda: chosen(seat) == key.split("_")[1])  # what was made stands under the cursor
        assert (await seat.office.gate.chat(key=key)).status_code == 200
        await seat.loses("never ana@example.org  ci runner")


async def test_a_metrics_key_is_good_for_nothing_else(tmp_path: Path) -> None:
    """And the list says so."""
    async with keys_page(tmp_path, size=(120, 30)) as seat:
        await seat.press("i")
        await seat.sees("Issue a key")
        fill(seat, label="prometheus", metrics="yes")
        await seat.press("enter")
        await seat.sees("Shown this once")
        key = secret(seat)
        await seat.press("escape")
        await seat.sees("prometheus", "/metrics")
        assert (await seat.office.gate.chat(key=key)).status_code == 403


async def test_a_key_is_rotated_with_grace(tmp_path: Path) -> None:
    """Both secrets work until then, and the row says that there are two; with 0 the old one ends."""
    async with keys_page(tmp_path) as seat:
        old, key_id = seat.office.gate.key, chosen(seat)
        await seat.press("t")
        await seat.sees("Rotate the key", "works on for the time of grace", "then the old secret ends")
        fill(seat, grace="31d")
        await seat.sees("at most 30d")
        fill(seat, grace="1h")
        await seat.press("enter")
        await seat.sees("The new key", "The old secret works until")
        new = secret(seat)
        await seat.press("escape")
        await seat.sees("2 secrets", "is rotated")
        assert {(await seat.office.gate.chat(key=each)).status_code for each in (old, new)} == {200}
        await row(seat, key_id)
        await seat.press("t")
        await seat.sees("It was rotated a short while ago")
        fill(seat, grace="0")
        await seat.sees("0: the old secret ends at once")
        await seat.press("enter")
        await seat.sees("The old secret no longer works.")
        assert (await seat.office.gate.chat(key=new)).status_code == 401


async def test_a_key_is_revoked_and_leaves_the_list(tmp_path: Path) -> None:
    """The box tells what ends and when it was used last; the default is No; `a` shows what is over."""
    async with keys_page(tmp_path) as seat:
        key_id = chosen(seat)
        await seat.press("R")
        await seat.sees(f"Revoke the key {key_id} (test) of {ANA}?", "Last used", "[N] no")
        await seat.press("enter")
        await seat.loses("Revoke the key")
        assert (await seat.office.gate.chat()).status_code == 200
        await seat.press("R", "y")
        await seat.sees("is revoked", ">revoked")
        assert (await seat.office.gate.chat()).status_code == 401
        await seat.press("R", "y")  # the cursor stays on it: typed twice, it hits no other key
        await seat.sees("is revoked: i issues a new one")
        await seat.press("1", "3")
        await seat.sees("There is no key that works.", "without 1 revoked or expired")
        await seat.press("a")
        await seat.sees("revoked", ANA[:10])
        await until(seat.app.main.page.is_meant)  # type: ignore[union-attr]  # the row that went was seen to go
        await seat.press("enter")
        await seat.sees("last used", "anywhere", "Esc Back")


async def test_somebody_else_was_faster(tmp_path: Path) -> None:
    """The version of the key press is sent: a key that was rotated meanwhile is not revoked."""
    async with keys_page(tmp_path) as seat:
        key_id = chosen(seat)
        await seat.press("R")
        await seat.sees("Revoke the key")
        await seat.office.ask(protocol.KEYS_ROTATE, KeysRotate(key_id, grace_seconds=600))
        await seat.press("y")
        await seat.sees("changed since you looked, nothing was done")
        await row(seat, key_id, version=2)
        await seat.press("t")
        await seat.sees("Rotate the key")
        await seat.office.ask(protocol.KEYS_ROTATE, KeysRotate(key_id, grace_seconds=600))
        await seat.press("enter")
        await seat.sees("changed since you looked, nothing was done")
        keys = await seat.office.ask(protocol.KEYS_LIST, KeysList())
        assert [key.state for key in keys if key.id == key_id] == ["active"]


async def test_the_daemon_goes_while_a_key_is_described(tmp_path: Path) -> None:
    """The form stays as it was filled in, and says why; nothing is issued until the daemon is back."""
    async with keys_page(tmp_path) as seat:
        hub = seat.office.gate.house.hub
        await seat.press("i")
        await seat.sees("Issue a key")
        fill(seat, label="ci runner", expires="90d")
        hub.close("the daemon is stopping")
        await until(lambda: not seat.app.link.is_live)
        await seat.press("enter")
        await seat.sees("Not sent: the daemon is away (STALE", "ci runner", "90d")
        hub._closed = ""
        seat.app.link.retry_now()
        await until(lambda: seat.app.link.is_live)
        await seat.press("enter")
        await seat.sees("Shown this once")
        hub.close("gone again")
        await until(lambda: not seat.app.link.is_live)
        assert secret(seat)  # what was shown stays until one closes it
        await seat.press("escape")
        await seat.sees("STALE")
        await seat.press("R")
        await seat.sees("nothing is changed while the daemon is away")


async def test_a_key_that_expires_while_one_looks_is_over(tmp_path: Path) -> None:
    """Nobody tells when one expires: the page counts itself."""
    async with keys_page(tmp_path, size=(140, 30)) as seat:
        key_id = chosen(seat)
        key = seat.app.link.mirror.rows["key"][key_id]
        key["expires"] = "2020-01-01T00:00:00.000000Z"
        seat.app.link.mirror.changes["key"] += 1
        await seat.sees("There is no key that works.")
        await seat.press("a")
        await seat.sees("expired", "KEY", "last used")


async def test_from_a_user_to_their_keys_and_back(tmp_path: Path) -> None:
    """`i` on Users opens the form for that user; `u` on Keys goes to the user."""
    async with open_seat(tmp_path) as seat:
        await seat.press("2")
        await seat.sees(ANA)
        await seat.press("i")
        await seat.sees("Issue a key", ANA, "[3 Keys]")
        await seat.press("escape")
        await seat.sees("t Rotate")
        await seat.press("u")
        await seat.sees("[2 Users]", f"filter '{ANA}'")
        revoked = await seat.office.ask(protocol.KEYS_REVOKE, KeyTarget(seat.office.gate.key.split("_")[1]))
        await row(seat, revoked.id, state="revoked")
        await until(lambda: " 0 " in seat.line(ANA))
