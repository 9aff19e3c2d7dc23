"""A password that comes along with a request: checked once, kept for a minute, refused as a login is (P6, P2, P3)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.errors import Forbidden, GatewayError, LimitExceeded, Unauthenticated
from daemon.access.inline import LIFE_US
from daemon.clock import MICROSECONDS
from tests.rigs.lodge import ADMIN, HERE, Lodge, lodge
from tests.test_access_accounts import OTHER_PASSWORD, counting, every_kind_of_account

ANA, PASSWORD = "ana@example.org", "a good password"
ELSEWHERE = "10.9.9.9"


async def told(it: Lodge, email: str, password: str, address: str, ask: str) -> tuple[Any, ...]:
    """Everything that a refusal tells, at the login or of an inline credential."""
    with pytest.raises(GatewayError) as caught:
        await getattr(it.accounts, ask)(email, password, address)
    error = caught.value
    return error.status, error.code, error.message, error.retry_after, str(error.detail), str(error.headers)


async def test_it_is_checked_once_and_then_remembered_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: one argon2 computation, then none for 60 seconds, then one again; another spelling is another credential."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        asked = counting(it, monkeypatch)
        assert (await it.accounts.inline("Ana@Example.org", PASSWORD, HERE)).id == user.id
        assert asked == ["read", "_run"]
        for _ in range(3):
            it.clock.advance(LIFE_US // 4)
            assert (await it.accounts.inline("Ana@Example.org", PASSWORD, HERE)).id == user.id
        assert len(asked) == 2
        it.clock.advance(LIFE_US // 4)
        await it.accounts.inline("Ana@Example.org", PASSWORD, HERE)
        assert len(asked) == 4
        await it.accounts.inline(ANA, PASSWORD, HERE)
        assert len(asked) == 6


async def test_many_that_begin_at_once_have_it_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that starts twenty requests is not throttled by its own password, nor is the pool filled by it."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        asked = counting(it, monkeypatch)
        users = await asyncio.gather(*(it.accounts.inline(ANA, PASSWORD, HERE) for _ in range(20)))
        assert len({user.id for user in users}) == 1
        assert asked == ["read", "_run"]


async def test_who_leaves_while_it_is_checked_spoils_it_for_nobody(tmp_path: Path) -> None:
    """The first of a crowd is cancelled; the others get their answer."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        first, second = (asyncio.ensure_future(it.accounts.inline(ANA, PASSWORD, HERE)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).email == ANA


@pytest.mark.parametrize("change", ["password", "reset", "disabled", "deleted", "off", "epoch"])
async def test_what_is_remembered_ends_with_what_it_stands_for(tmp_path: Path, change: str) -> None:
    """P6: bound to hash and epoch; a new or reset password, a disabled or deleted user end it with the next request."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        await it.accounts.inline(ANA, PASSWORD, HERE)
        match change:
            case "password":
                await it.accounts.change_password(ANA, PASSWORD, OTHER_PASSWORD, HERE)
                assert (await it.accounts.inline(ANA, OTHER_PASSWORD, HERE)).id == user.id
            case "reset":
                await it.directory.reset_password(ADMIN, user.id)
            case "disabled":
                await it.directory.disable(ADMIN, user.id)
            case "deleted":
                await it.directory.disable(ADMIN, user.id)
                await it.directory.delete_user(ADMIN, user.id)
            case "off":
                await it.directory.set_inline_auth(ADMIN, user.id, False)
            case "epoch":
                await it.directory.disable(ADMIN, user.id)
                await it.directory.enable(ADMIN, user.id)
                assert (await it.accounts.inline(ANA, PASSWORD, HERE)).epoch > user.epoch
                return
        with pytest.raises(Forbidden if change == "off" else Unauthenticated):
            await it.accounts.inline(ANA, PASSWORD, HERE)


async def test_whatever_is_wrong_with_it_is_told_as_at_the_login_and_costs_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: the same words, headers and work for every kind of account, the login's own."""
    async with lodge(tmp_path) as it:
        accounts = await every_kind_of_account(it)
        asked = counting(it, monkeypatch)
        answers, costs = set(), set()
        for ask in ("login", "inline"):
            for number, email in enumerate(accounts.values()):
                answers.add(await told(it, email, "wrong password", f"10.{len(ask)}.1.{number}", ask))
                costs.add(tuple(asked))
                asked.clear()
            answers.add(await told(it, accounts["disabled"], PASSWORD, f"10.{len(ask)}.2.1", ask))
            costs.add(tuple(asked))
            asked.clear()
        assert len(answers) == 1
        assert costs == {("read", "_run", "_run", "submit")}


async def test_a_right_password_that_may_not_yet_is_told_as_at_the_login(tmp_path: Path) -> None:
    """Pending, and one-time: 403 in the login's words; neither is remembered."""
    async with lodge(tmp_path) as it:
        await it.accounts.register(ANA, PASSWORD, HERE)
        assert (await told(it, ANA, PASSWORD, HERE, "inline"))[1] == "pending_approval"
        _, password = await it.directory.add_user(ADMIN, "joe@example.org")
        for _ in range(2):
            assert (await told(it, "joe@example.org", str(password), HERE, "inline"))[1] == "password_change_required"


async def test_guesses_are_throttled_together_with_those_at_the_login(tmp_path: Path) -> None:
    """P3: five failures, by either way, and both wait."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        for number in range(5):
            await told(it, ANA, f"wrong {number}", HERE, ("inline", "login")[number % 2])
        for ask in ("inline", "login"):
            assert (await told(it, ANA, PASSWORD, HERE, ask))[0] == 429
        assert (await it.accounts.inline(ANA, PASSWORD, ELSEWHERE)).email == ANA


async def test_a_throttled_guesser_is_not_told_by_what_is_remembered_that_a_guess_is_right(tmp_path: Path) -> None:
    """Neither from elsewhere, where nothing is remembered, nor from the owner's own address."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        for address in (HERE, ELSEWHERE):
            await it.accounts.inline(ANA, PASSWORD, HERE)
            for number in range(5):
                await told(it, ANA, f"wrong {number}", address, "inline")
            with pytest.raises(LimitExceeded):
                await it.accounts.inline(ANA, PASSWORD, address)
            it.clock.advance(3600 * MICROSECONDS)


async def test_an_old_hash_is_raised_by_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: people who never log in otherwise get the costlier hash as well."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        before = await it.query("SELECT password_hash FROM users")
        monkeypatch.setattr(it.passwords, "is_outdated", lambda _: True)
        await it.accounts.inline(ANA, PASSWORD, HERE)
        await it.database.write(lambda conn: None)  # behind the one that nobody waits for
        assert await it.query("SELECT password_hash FROM users") != before


async def test_nothing_of_the_password_is_kept(tmp_path: Path) -> None:
    """Not in memory's own words either: a MAC under a key that another process does not have."""
    async with lodge(tmp_path) as it, lodge(tmp_path / "other") as other:
        await it.person(ANA, PASSWORD)
        await it.accounts.inline(ANA, PASSWORD, HERE)
        kept = it.accounts._verified
        assert PASSWORD not in repr(vars(kept))
        (mark,) = kept._known
        assert len(mark) == 32
        assert mark != other.accounts._verified.mark(ANA, PASSWORD, HERE)
        assert kept.mark("a", "bc", HERE) != kept.mark("ab", "c", HERE)


async def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first, and what is over goes by itself."""
    monkeypatch.setattr("daemon.access.inline._MOST", 3)
    async with lodge(tmp_path) as it:
        kept = it.accounts._verified
        marks = [kept.mark(ANA, str(number), HERE) for number in range(5)]
        for mark in marks:
            kept.keep(mark, user_id=1, epoch=1, version=1, email=ANA)
        assert [kept.find(mark) is not None for mark in marks] == [False, False, True, True, True]
        it.clock.advance(LIFE_US)
        await it.accounts.look_after()
        assert kept._known == {}
