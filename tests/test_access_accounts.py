"""Accounts: who asks learns nothing about an account whose password they do not know (security.md P2-P4, P7)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest, Forbidden, GatewayError, LimitExceeded, Unauthenticated, Unavailable
from tests.rigs.lodge import ADMIN, HERE, SECOND, Lodge, lodge
from tests.rigs.traffic import HOUR, MovedClock
from tests.rigs.until import until

ANA, PASSWORD = "ana@example.org", "a good password"
OTHER_PASSWORD = "another good one"


async def refusal(it: Lodge, email: str, password: str, address: str = HERE) -> tuple[Any, ...]:
    """Everything that a refused login tells."""
    with pytest.raises(GatewayError) as caught:
        await it.accounts.login(email, password, address)
    error = caught.value
    return error.status, error.code, error.message, error.retry_after, str(error.detail), str(error.headers)


def counting(it: Lodge, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of store and password pool from now on."""
    asked: list[str] = []
    for part, names in ((it.passwords, ("_run",)), (it.database, ("read", "submit"))):
        for name in names:
            method = getattr(part, name)

            def watched(*args: Any, _method: Any = method, _name: str = name, **kwargs: Any) -> Any:
                asked.append(_name)
                return _method(*args, **kwargs)

            monkeypatch.setattr(part, name, watched)
    return asked


async def every_kind_of_account(it: Lodge) -> dict[str, str]:
    """E-mail addresses by what is wrong with them; PASSWORD is right for all that have one."""
    await it.person("active@example.org", PASSWORD)
    disabled = await it.person("disabled@example.org", PASSWORD)
    await it.directory.disable(ADMIN, disabled.id)
    await it.directory.add_user(ADMIN, "service@example.org", service=True)
    await it.directory.add_user(ADMIN, "onetime@example.org")
    await it.accounts.register("pending@example.org", PASSWORD, HERE)
    await it.accounts.register("active@example.org", "shadow of a password", HERE)
    return {
        "active": "active@example.org",
        "disabled": "disabled@example.org",
        "service": "service@example.org",
        "one-time": "onetime@example.org",
        "pending": "pending@example.org",
        "unknown": "nobody@example.org",
        "no address": "nonsense",
        "endless": "x" * 10_000,
    }


async def test_every_refused_login_gets_the_same_answer_at_the_same_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: unknown, disabled, service, pending, one-time with a wrong password, and disabled with the right one.

    The same words, one look into the store, two computations, one write of the failure.
    """
    async with lodge(tmp_path) as it:
        accounts = await every_kind_of_account(it)
        asked = counting(it, monkeypatch)
        told, cost = set(), set()
        for number, email in enumerate(accounts.values()):
            told.add(await refusal(it, email, "wrong password", f"10.0.1.{number}"))
            cost.add(tuple(asked))
            asked.clear()
        told.add(await refusal(it, accounts["disabled"], PASSWORD, "10.0.2.1"))
        cost.add(tuple(asked))
        assert len(told) == 1
        assert cost == {("read", "_run", "_run", "submit")}
        assert told.pop()[:2] == (401, "login_failed")


async def test_a_password_change_tells_no_more_than_a_login(tmp_path: Path) -> None:
    """The same words for whatever is wrong; the new password is judged before the account is looked at."""
    async with lodge(tmp_path) as it:
        accounts = await every_kind_of_account(it)
        told = {await refusal(it, "nobody@example.org", "wrong password")}
        for number, email in enumerate(accounts.values()):
            with pytest.raises(Unauthenticated) as caught:
                await it.accounts.change_password(email, "wrong password", OTHER_PASSWORD, f"10.0.1.{number}")
            error = caught.value
            told.add((error.status, error.code, error.message, None, str(error.detail), str(error.headers)))
            with pytest.raises(BadRequest):
                await it.accounts.change_password(email, "wrong password", "short", f"10.0.1.{number}")
        assert len(told) == 1


async def test_a_right_password_that_waits_for_approval_is_told_so(tmp_path: Path) -> None:
    """403; each of several entries of an address knows its own."""
    async with lodge(tmp_path) as it:
        for number in range(3):
            await it.accounts.register(ANA, f"{PASSWORD} {number}", HERE)
        for number in range(3):
            with pytest.raises(Forbidden) as caught:
                await it.accounts.login(ANA, f"{PASSWORD} {number}", HERE)
            assert caught.value.code == "pending_approval"
        assert (await refusal(it, ANA, PASSWORD))[0] == 401


async def test_registering_an_address_does_not_tell_whether_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 49: the same answer at the same cost, also afterwards at the login; nothing is stored of a known address."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        before = await it.query("SELECT * FROM users"), len(await it.audit())
        asked = counting(it, monkeypatch)
        answers, cost = [], []
        for email in (ANA, "nobody@example.org"):
            code = await it.accounts.register(email, OTHER_PASSWORD, HERE)
            answers.append((len(code), code[2], type(code)))
            cost.append(tuple(asked))
            asked.clear()
            with pytest.raises(Forbidden) as caught:
                await it.accounts.login(email, OTHER_PASSWORD, HERE)
            answers.append(caught.value.code)
            asked.clear()
        assert answers[:2] == answers[2:]
        assert cost[0] == cost[1] == ("read", "_run", "submit")
        assert (await it.query("SELECT * FROM users"))[0] == before[0][0]
        assert await it.query("SELECT email FROM registrations") == [("nobody@example.org",)]
        assert len(await it.audit()) == before[1] + 1
        await it.accounts.login(ANA, PASSWORD, HERE)


async def test_a_one_time_password_opens_the_password_change_and_nothing_else(tmp_path: Path) -> None:
    """P4, row 52: not the login; once; and only for a day."""
    async with lodge(tmp_path) as it:
        user, one_time = await it.directory.add_user(ADMIN, ANA)
        assert one_time is not None
        status, code, *_ = await refusal(it, ANA, one_time)
        assert (status, code) == (403, "password_change_required")
        with pytest.raises(BadRequest):
            await it.accounts.change_password(ANA, one_time, one_time, HERE)
        await it.accounts.change_password(ANA, one_time, PASSWORD, HERE)
        assert not it.directory.users[user.id].must_change
        await it.accounts.login(ANA, PASSWORD, HERE)
        for attempt in (it.accounts.login(ANA, one_time, HERE),):
            with pytest.raises(Unauthenticated):
                await attempt
        with pytest.raises(Unauthenticated):
            await it.accounts.change_password(ANA, one_time, OTHER_PASSWORD, HERE)

        reset = await it.directory.reset_password(ADMIN, user.id)
        assert (await refusal(it, ANA, PASSWORD))[0] == 401
        it.clock.advance(24 * HOUR)
        assert (await refusal(it, ANA, reset))[0] == 401
        with pytest.raises(Unauthenticated):
            await it.accounts.change_password(ANA, reset, OTHER_PASSWORD, HERE)


async def test_a_one_time_password_used_twice_at_once_sets_one_password(tmp_path: Path) -> None:
    """P4: single use, also in a race."""
    async with lodge(tmp_path) as it:
        _, one_time = await it.directory.add_user(ADMIN, ANA)
        assert one_time is not None
        results = await asyncio.gather(
            *(it.accounts.change_password(ANA, one_time, f"{PASSWORD} {n}", HERE) for n in range(4)),
            return_exceptions=True,
        )
        assert results.count(None) == 1
        assert sum(isinstance(result, Unauthenticated) for result in results) == 3


async def test_a_service_account_never_logs_in(tmp_path: Path) -> None:
    """Automation has keys."""
    async with lodge(tmp_path) as it:
        await it.directory.add_user(ADMIN, "robot@example.org", service=True)
        for password in ("", PASSWORD):
            assert (await refusal(it, "robot@example.org", password))[0] == 401


async def test_wrong_passwords_are_throttled_and_a_restart_forgives_none(tmp_path: Path) -> None:
    """P3: 429 from the fifth failure on, known or unknown, with the right password too; not from elsewhere."""
    clock = MovedClock()
    async with lodge(tmp_path, clock=clock) as it:
        await it.person(ANA, PASSWORD)
        for _ in range(5):
            assert (await refusal(it, ANA, "wrong password"))[0] == 401
        for _ in range(5):
            assert (await refusal(it, "nobody@example.org", "wrong password", "10.7.7.7"))[0] == 401
    async with lodge(tmp_path, clock=clock) as it:
        known = await refusal(it, ANA, PASSWORD)
        assert known == await refusal(it, "nobody@example.org", PASSWORD, "10.7.7.7")
        assert known[:2] == (429, "too_many_attempts")
        assert known[3] == 1
        await it.accounts.login(ANA, PASSWORD, "10.9.9.9")
        with pytest.raises(LimitExceeded):
            await it.accounts.change_password(ANA, PASSWORD, OTHER_PASSWORD, HERE)
        clock.advance(SECOND)
        await it.accounts.login(ANA, PASSWORD, HERE)
        clock.advance(2 * HOUR)
        await it.accounts.look_after()
        assert await it.query("SELECT * FROM throttle") == []


async def test_a_thousand_guesses_at_once_are_five(tmp_path: Path) -> None:
    """P3: guessing in parallel is no faster; the pool is not even asked."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        results = await asyncio.gather(
            *(it.accounts.login(ANA, f"guess number {n}", HERE) for n in range(1000)), return_exceptions=True
        )
        assert sum(isinstance(result, Unauthenticated) for result in results) == 5
        assert sum(isinstance(result, LimitExceeded) for result in results) == 995


async def test_the_shadow_of_a_registration_buys_no_tries(tmp_path: Path) -> None:
    """Registering somebody's address with a known password, and "logging in" with it, forgives no failure."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        await it.accounts.register(ANA, OTHER_PASSWORD, HERE)
        for _ in range(4):
            assert (await refusal(it, ANA, "wrong password"))[0] == 401
        assert (await refusal(it, ANA, OTHER_PASSWORD))[0] == 403
        await it.database.write(lambda _: None)  # what was submitted before is stored
        assert await it.query("SELECT failures FROM throttle") == [(4,), (4,)]
        assert (await refusal(it, ANA, "wrong password"))[0] == 401
        assert (await refusal(it, ANA, "wrong password"))[0] == 429


async def test_a_full_pool_is_nobodys_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: 503, and the throttle counts nothing."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)

        async def full(_: Any, **__: Any) -> None:
            raise Unavailable("full", retry_after=1)

        with monkeypatch.context() as patch:
            patch.setattr(it.passwords, "_run", full)
            for _ in range(10):
                assert (await refusal(it, ANA, PASSWORD))[0] == 503
        await it.accounts.login(ANA, PASSWORD, HERE)


async def test_an_old_hash_is_raised_at_the_next_login(tmp_path: Path) -> None:
    """P7: rehashed when the parameters rise, without ending anything."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
    async with lodge(tmp_path, passwords__time=3) as it:
        user = it.directory.find(ANA)
        await it.accounts.login(ANA, PASSWORD, HERE)

        async def raised() -> bool:
            ((stored,),) = await it.query("SELECT password_hash FROM users")
            return ",t=3," in stored

        await until(raised)
        assert it.directory.find(ANA) == user
        await it.accounts.login(ANA, PASSWORD, HERE)


async def test_registrations_are_bounded(tmp_path: Path) -> None:
    """So many an hour from one address, so many pending in all; the second bound is the same for known addresses."""
    async with lodge(tmp_path, registration__per_address_per_hour=2, registration__pending=3) as it:
        await it.person("known@example.org", PASSWORD)
        await it.accounts.register("a@example.org", PASSWORD, HERE)
        await it.accounts.register("b@example.org", PASSWORD, HERE)
        with pytest.raises(LimitExceeded) as late:
            await it.accounts.register("c@example.org", PASSWORD, HERE)
        assert late.value.retry_after == 3600
        await it.accounts.register("c@example.org", PASSWORD, HERE, counted=False)
        told = set()
        for email in ("known@example.org", "d@example.org"):
            with pytest.raises(Unavailable) as full:
                await it.accounts.register(email, PASSWORD, "10.0.0.9")
            told.add((full.value.message, full.value.retry_after))
        assert len(told) == 1


@pytest.mark.parametrize("password", ["short", "password", "x" * 129])
async def test_an_unfit_password_is_refused_before_anything_is_asked(tmp_path: Path, password: str) -> None:
    """P5, at every door a new password comes in by."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        for email in (ANA, "nobody@example.org"):
            with pytest.raises(BadRequest):
                await it.accounts.register(email, password, HERE)
            with pytest.raises(BadRequest):
                await it.accounts.change_password(email, PASSWORD, password, HERE)


async def test_no_password_lies_in_the_store(tmp_path: Path) -> None:
    """P8: neither those that are right nor those that are wrong, nor what was typed as an address."""
    secrets = [PASSWORD, OTHER_PASSWORD, "wrong password", "typed into the wrong field"]
    async with lodge(tmp_path) as it:
        _, one_time = await it.directory.add_user(ADMIN, "bea@example.org")
        assert one_time is not None
        secrets.append(one_time)
        await it.person(ANA, PASSWORD)
        await it.accounts.register("pending@example.org", OTHER_PASSWORD, HERE)
        issued = await it.accounts.login(ANA, PASSWORD, HERE)
        secrets += [issued.access_token, issued.refresh_token or ""]
        await it.sessions.refresh(issued.refresh_token or "")
        await refusal(it, ANA, "wrong password")
        await refusal(it, "typed into the wrong field", PASSWORD)
        user = it.directory.find(ANA)
        assert user is not None
        key, text = await it.directory.issue_key(ADMIN, user.id, "laptop")
        secrets += [text, text.rpartition("_")[2], await it.directory.rotate_key(ADMIN, key.id, 60)]
        files = b"".join(file.read_bytes() for file in tmp_path.glob("gatelodge.db*"))
    files += b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert ANA.encode() in files
    assert [secret for secret in secrets if secret.encode() in files] == []
