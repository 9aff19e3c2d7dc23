"""Sessions (security.md J4, J5): refresh, reuse, revocation, and what survives a restart."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from common.errors import Conflict, Unauthenticated
from daemon.access.events import Cut
from daemon.access.sessions import InvalidGrant
from daemon.exchange import EndState
from tests.rigs.lodge import ADMIN, HERE, SECOND, Lodge, lodge
from tests.rigs.traffic import DAY, MovedClock
from tests.rigs.until import until

ANA, PASSWORD = "ana@example.org", "a good password"


async def login(it: Lodge) -> tuple[str, str]:
    """(access token, refresh token) of a new session."""
    issued = await it.accounts.login(ANA, PASSWORD, HERE)
    assert issued.refresh_token is not None
    return issued.access_token, issued.refresh_token


def counts(it: Lodge, token: str) -> bool:
    try:
        it.bearer(token)
    except Unauthenticated:
        return False
    return True


async def test_a_login_opens_a_session(tmp_path: Path) -> None:
    """Tokens of ten minutes and a refresh token of 256 bits, kept as a digest, with a record of who and from where."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        issued = await it.accounts.login(ANA, PASSWORD, HERE)
        assert issued.expires_in == 600
        assert issued.refresh_token is not None
        caller = it.bearer(issued.access_token)
        assert (caller.user, caller.key, caller.scheme) == (user, None, "jwt")
        ((stored, family),) = await it.query("SELECT token_hash, family_id FROM refresh_tokens")
        assert stored == hashlib.sha256(issued.refresh_token.encode()).digest()
        assert caller.session == family
        record = (await it.audit())[-1]
        assert (record["verb"], record["target"], record["address"]) == ("sessions start", f"user:{ANA}", HERE)
        for secret in (issued.access_token, issued.refresh_token):
            assert secret not in str(await it.audit())
            assert secret not in repr(issued)


async def test_a_refresh_gives_the_next_tokens_of_the_same_session(tmp_path: Path) -> None:
    """J4: it rotates; the session goes on as long as it is used."""
    async with lodge(tmp_path, tokens__refresh_lifetime=100) as it:
        await it.person(ANA, PASSWORD)
        access, refresh = await login(it)
        session = it.bearer(access).session
        for _ in range(3):
            it.clock.advance(99 * SECOND)
            issued = await it.sessions.refresh(refresh)
            assert issued.refresh_token not in (None, refresh)
            assert it.bearer(issued.access_token).session == session
            refresh = issued.refresh_token or ""
        it.clock.advance(100 * SECOND)
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(refresh)


async def test_a_refresh_token_that_is_used_twice_ends_its_session(tmp_path: Path) -> None:
    """J4: one of the two is a thief; both lose, running exchanges too, other sessions do not."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        access, refresh = await login(it)
        other, _ = await login(it)
        session = it.bearer(access).session
        issued = await it.sessions.refresh(refresh)
        it.events.clear()
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(refresh)
        assert it.cuts == [Cut(EndState.CREDENTIAL_REVOKED, "a refresh token was used twice", session=session)]
        assert (await it.audit())[-1]["verb"] == "sessions reuse"
        assert not counts(it, access)
        assert not counts(it, issued.access_token)
        assert counts(it, other)
        assert issued.refresh_token is not None
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(issued.refresh_token)


async def test_of_many_refreshes_at_once_one_succeeds_and_the_session_ends(tmp_path: Path) -> None:
    """Decided in the transaction, not before it."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        access, refresh = await login(it)
        results = await asyncio.gather(*(it.sessions.refresh(refresh) for _ in range(8)), return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert not counts(it, access)


@pytest.mark.parametrize("token", ["", "glr_", "glr_" + "a" * 43, "x" * 47, "glr_" + "ä" * 43])
async def test_an_unknown_refresh_token_is_refused_without_a_write(tmp_path: Path, token: str) -> None:
    """Guesses cost no commit."""
    async with lodge(tmp_path) as it:
        commits = it.database.commits
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(token)
        assert it.database.commits == commits


@pytest.mark.parametrize("what", ["disable", "reset", "change"])
async def test_disabling_and_a_new_password_end_all_sessions_but_no_key(tmp_path: Path, what: str) -> None:
    """J5: refused on the next request, running ones cut, refresh tokens dead; bare keys go on after a password."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        key, secret = await it.directory.issue_key(ADMIN, user.id, "laptop")
        made = it.sessions.issue_to_client(key).access_token
        sessions = [await login(it) for _ in range(2)]
        it.events.clear()
        if what == "disable":
            await it.directory.disable(ADMIN, user.id)
        elif what == "reset":
            await it.directory.reset_password(ADMIN, user.id)
        else:
            await it.accounts.change_password(ANA, PASSWORD, "another password", HERE)
        for access, refresh in sessions:
            assert not counts(it, access)
            with pytest.raises(InvalidGrant):
                await it.sessions.refresh(refresh)
        assert not counts(it, made)
        assert counts(it, secret) == (what != "disable")
        (cut,) = it.cuts
        assert cut.concerns(user_id=user.id, key_id=None, session="family")
        assert cut.concerns(user_id=user.id, key_id=key.id, session=None) == (what == "disable")
        assert not cut.concerns(user_id=user.id + 1, key_id=None, session="family")


async def test_a_session_that_begins_while_the_password_changes_does_not_outlive_the_change(tmp_path: Path) -> None:
    """The old password was right a moment ago; in the transaction it no longer is."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        await it.accounts.change_password(ANA, PASSWORD, "another password", HERE)
        with pytest.raises(Conflict):
            await it.sessions.start(user.id, user.epoch, HERE)
        assert await it.query("SELECT COUNT(*) FROM refresh_families") == [(0,)]


async def test_a_refresh_during_the_change_yields_nothing_that_counts(tmp_path: Path) -> None:
    """Whichever comes first: the tokens that come out are void."""
    for turns in range(6):
        folder = tmp_path / str(turns)
        async with lodge(folder) as it:
            user = await it.person(ANA, PASSWORD)
            _, refresh = await login(it)
            refreshing = asyncio.ensure_future(it.sessions.refresh(refresh))
            for _ in range(turns):
                await asyncio.sleep(0)
            await it.directory.disable(ADMIN, user.id)
            await it.directory.enable(ADMIN, user.id)
            (result,) = await asyncio.gather(refreshing, return_exceptions=True)
            if not isinstance(result, BaseException):
                assert not counts(it, result.access_token)
                with pytest.raises(InvalidGrant):
                    await it.sessions.refresh(result.refresh_token or "")


async def test_revoking_a_refresh_token_ends_its_session_alone(tmp_path: Path) -> None:
    """RFC 7009, J5; a second time is no error."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        access, refresh = await login(it)
        other, _ = await login(it)
        session = it.bearer(access).session
        it.events.clear()
        assert await it.sessions.revoke(refresh)
        assert it.cuts == [Cut(EndState.CREDENTIAL_REVOKED, "the session was ended", session=session)]
        assert not counts(it, access)
        assert counts(it, other)
        assert await it.sessions.revoke(refresh)
        assert len(it.cuts) == 1
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(refresh)


async def test_revoking_an_access_token_ends_it_alone(tmp_path: Path) -> None:
    """The session goes on; a token of automation takes its running exchanges along."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        access, refresh = await login(it)
        assert await it.sessions.revoke(access)
        assert not counts(it, access)
        assert counts(it, (await it.sessions.refresh(refresh)).access_token)
        key, secret = await it.directory.issue_key(ADMIN, user.id, "robot")
        made = it.sessions.issue_to_client(key).access_token
        session = it.bearer(made).session
        assert await it.sessions.revoke(made)
        assert it.cuts[-1] == Cut(EndState.CREDENTIAL_REVOKED, "the token was revoked", session=session)
        assert not counts(it, made)
        assert counts(it, secret)


async def test_what_is_not_ours_cannot_be_revoked(tmp_path: Path) -> None:
    """And costs no write."""
    async with lodge(tmp_path) as it:
        commits = it.database.commits
        for text in ("nonsense", "a.b.c", "glk_abc_def", "glr_" + "a" * 43):
            assert not await it.sessions.revoke(text)
        assert it.database.commits == commits


async def test_what_was_revoked_stays_revoked_after_a_restart(tmp_path: Path) -> None:
    """J5: access tokens, sessions and keys alike."""
    clock = MovedClock()
    async with lodge(tmp_path, clock=clock) as it:
        user = await it.person(ANA, PASSWORD)
        alone, _ = await login(it)
        session, refresh = await login(it)
        good, good_refresh = await login(it)
        key, secret = await it.directory.issue_key(ADMIN, user.id, "laptop")
        made = it.sessions.issue_to_client(key).access_token
        await it.sessions.revoke(alone)
        await it.sessions.revoke(refresh)
        await it.directory.revoke_key(ADMIN, key.id)
    clock.advance(SECOND)
    async with lodge(tmp_path, clock=clock) as it:
        for ended in (alone, session, secret, made):
            assert not counts(it, ended)
        assert counts(it, good)
        await it.sessions.refresh(good_refresh)
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(refresh)


async def test_what_is_over_is_forgotten(tmp_path: Path) -> None:
    """Store and memory hold what can still decide something; a session that was revoked just now stays known."""
    async with lodge(tmp_path, tokens__refresh_lifetime=DAY // SECOND) as it:
        await it.person(ANA, PASSWORD)
        access, _ = await login(it)
        other, refresh = await login(it)
        await it.sessions.revoke(access)
        await it.sessions.revoke(refresh)
        await it.sessions.look_after()
        assert repr(it.sessions) == "<Sessions 1 families and 1 tokens revoked lately>"
        assert not counts(it, other)
        assert len(await it.query("SELECT * FROM refresh_families")) == 2
        it.clock.advance(DAY)
        await it.sessions.look_after()
        assert repr(it.sessions) == "<Sessions 0 families and 0 tokens revoked lately>"
        for table in ("refresh_families", "refresh_tokens", "revoked_tokens"):
            assert await it.query(f"SELECT * FROM {table}") == []


async def test_a_disabled_users_refresh_token_is_refused(tmp_path: Path) -> None:
    """Also one of a family that nobody revoked."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        _, refresh = await login(it)
        await it.directory.disable(ADMIN, user.id)
        await it.database.write(lambda conn: conn.execute("UPDATE refresh_families SET revoked_us = NULL"))
        with pytest.raises(InvalidGrant):
            await it.sessions.refresh(refresh)


async def test_looking_after_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at the wrong moment does not end the rotation of signing keys for good."""
    monkeypatch.setattr("daemon.access.sessions.LOOK_AFTER_EVERY", 0.001)
    async with lodge(tmp_path, tokens__signing_key_lifetime=3600) as it:
        first = it.sessions.tokens.keys.signer
        tries = 0

        def fail() -> bool:
            nonlocal tries
            tries += 1
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(it.sessions.tokens.keys, "rotate", fail)
            looking = asyncio.ensure_future(it.sessions.run())
            await until(lambda: tries > 2)
        it.clock.advance(3600 * SECOND)
        await until(lambda: len(it.sessions.tokens.keys.jwks()["keys"]) == 2)
        it.clock.advance(600 * SECOND)
        assert it.sessions.tokens.keys.signer != first
        looking.cancel()
