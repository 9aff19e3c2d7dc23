"""Who is asking: headers to a caller, from memory, with one answer for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tornado.httputil import HTTPHeaders

from common.errors import BadRequest, Forbidden, Unauthenticated
from tests.rigs.lodge import ADMIN, HERE, SECOND, Lodge, lodge

ANA, PASSWORD = "ana@example.org", "a good password"


def headers(*lines: tuple[str, str]) -> HTTPHeaders:
    made = HTTPHeaders()
    for name, value in lines:
        made.add(name, value)
    return made


async def robot(it: Lodge, **restrictions: object) -> str:
    """A service account's key."""
    user, _ = await it.directory.add_user(ADMIN, "robot@example.org", service=True)
    _, text = await it.directory.issue_key(ADMIN, user.id, "robot", **restrictions)  # type: ignore[arg-type]
    return text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer {}"),
        ("Authorization", "bearer {}"),
        ("authorization", "BEARER   {}"),
        ("X-API-KEY", "{}"),
        ("x-api-key", "{}"),
        ("x_api_key", "{}"),
        ("X_API_KEY", "{}"),
    ],
)
async def test_a_key_is_taken_from_every_header_of_the_contract(tmp_path: Path, name: str, value: str) -> None:
    """Bearer in any case, X-API-KEY in both spellings."""
    async with lodge(tmp_path) as it:
        key = await robot(it)
        caller = it.access.identify(headers((name, value.format(key))), address=HERE)
        assert caller.user.email == "robot@example.org"
        assert (caller.scheme, caller.session) == ("key", None)
        assert caller.key is not None


async def test_the_same_credential_twice_is_one_and_two_are_refused(tmp_path: Path) -> None:
    """Two different ones on a request: 400, whichever would count."""
    async with lodge(tmp_path) as it:
        key = await robot(it)
        same = headers(("Authorization", f"Bearer {key}"), ("X-API-KEY", key), ("x_api_key", key))
        assert it.access.identify(same, address=HERE).key
        for two in (
            headers(("Authorization", f"Bearer {key}"), ("X-API-KEY", "glk_a_b")),
            headers(("X-API-KEY", key), ("x_api_key", "glk_a_b")),
            headers(("X-API-KEY", key), ("X-API-KEY", "other")),
            headers(("Authorization", "Bearer a.b.c"), ("X-API-KEY", key)),
            headers(("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")),
            headers(("Authorization", "Basic eA=="), ("Authorization", f"Bearer {key}")),
        ):
            with pytest.raises(BadRequest):
                it.access.identify(two, address=HERE)


@pytest.mark.parametrize("lines", [(), (("X-API-KEY", ""),), (("Authorization", "Basic eDp5"),), (("Cookie", "a=b"),)])
async def test_without_a_credential_the_challenge_is_bare(tmp_path: Path, lines: tuple[tuple[str, str], ...]) -> None:
    """RFC 6750, 3.1: no error code for who has sent nothing; `error` and `detail` both in the body."""
    async with lodge(tmp_path) as it:
        with pytest.raises(Unauthenticated) as refusal:
            it.access.identify(headers(*lines), address=HERE)
        assert refusal.value.headers == {"WWW-Authenticate": 'Bearer realm="gatelodge"'}
        assert refusal.value.detail["detail"]


async def test_whatever_is_wrong_with_a_credential_the_answer_is_the_same(tmp_path: Path) -> None:
    """Unknown, wrong, disabled, revoked, expired, nonsense: one sentence, `invalid_token`."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        good, text = await it.directory.issue_key(ADMIN, user.id, "good")
        revoked, revoked_text = await it.directory.issue_key(ADMIN, user.id, "revoked")
        await it.directory.revoke_key(ADMIN, revoked.id)
        _, expired_text = await it.directory.issue_key(
            ADMIN, user.id, "expired", expires_us=it.clock.wall() + 5 * SECOND
        )
        old_token = it.sessions.issue_to_client(good).access_token
        it.clock.advance(600 * SECOND)
        other, _ = await it.directory.add_user(ADMIN, "other@example.org", service=True)
        _, disabled_text = await it.directory.issue_key(ADMIN, other.id, "disabled")
        await it.directory.disable(ADMIN, other.id)
        it.bearer(text)
        answers = set()
        for credential in (
            "glk_unknown_" + "a" * 43,
            f"glk_{good.id}_" + "a" * 43,
            f"glk_{good.id}_",
            text + "x",
            text[:-1],
            revoked_text,
            expired_text,
            disabled_text,
            old_token,
            "nonsense",
            "",
            "a.b.c",
            "x" * 5000,
            "\u00ff\u0000",
        ):
            with pytest.raises(Unauthenticated) as refusal:
                it.bearer(credential)
            error = refusal.value
            answers.add((error.status, error.code, error.message, str(error.detail), str(error.headers)))
        assert len(answers) == 1
        assert 'error="invalid_token"' in answers.pop()[-1]


async def test_a_key_is_good_from_its_addresses_only(tmp_path: Path) -> None:
    """Row 25; a token made from it, too."""
    async with lodge(tmp_path) as it:
        key = await robot(it, addresses=["10.0.0.0/8"])
        assert it.bearer(key, "10.200.0.1").key
        held = next(iter(it.directory.keys.values()))
        token = it.sessions.issue_to_client(held).access_token
        assert it.bearer(token, "10.200.0.1").key == held
        for credential in (key, token):
            with pytest.raises(Forbidden):
                it.bearer(credential, "192.168.0.1")


async def test_a_metrics_key_is_good_for_metrics_and_nothing_else_is(tmp_path: Path) -> None:
    """RFC 6750 `insufficient_scope`, both ways; people's tokens are not for /metrics either."""
    async with lodge(tmp_path) as it:
        key = await robot(it, metrics=True)
        assert it.bearer(key, purpose="metrics").key
        user = await it.person(ANA, PASSWORD)
        _, other = await it.directory.issue_key(ADMIN, user.id, "laptop")
        token = (await it.accounts.login(ANA, PASSWORD, HERE)).access_token
        for credential, purpose in ((key, "inference"), (other, "metrics"), (token, "metrics")):
            with pytest.raises(Forbidden) as refusal:
                it.bearer(credential, purpose=purpose)
            assert 'error="insufficient_scope"' in refusal.value.headers["WWW-Authenticate"]


async def test_a_token_made_from_a_key_names_user_and_key(tmp_path: Path) -> None:
    """So limits, models and addresses of the key hold for it; it ends with the key."""
    async with lodge(tmp_path) as it:
        await robot(it, expires_us=it.clock.wall() + 60 * SECOND, models=["llama3*"])
        key = next(iter(it.directory.keys.values()))
        issued = it.sessions.issue_to_client(key)
        assert issued.expires_in == 60
        assert issued.refresh_token is None
        caller = it.bearer(issued.access_token)
        assert (caller.key, caller.scheme) == (key, "jwt")
        assert caller.session
        it.clock.advance(60 * SECOND)
        with pytest.raises(Unauthenticated):
            it.bearer(issued.access_token)


async def test_a_caller_who_was_identified_a_moment_ago_may_no_longer_count(tmp_path: Path) -> None:
    """What ends between identifying and running is found by asking again."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        key, text = await it.directory.issue_key(ADMIN, user.id, "laptop")
        issued = await it.accounts.login(ANA, PASSWORD, HERE)
        by_key, by_token = it.bearer(text), it.bearer(issued.access_token)
        other = it.bearer((await it.accounts.login(ANA, PASSWORD, HERE)).access_token)
        made = it.bearer(it.sessions.issue_to_client(key).access_token)
        assert all(it.access.still_counts(caller) for caller in (by_key, by_token, other, made))
        await it.sessions.revoke(issued.refresh_token or "")
        assert not it.access.still_counts(by_token)
        assert it.access.still_counts(other)
        await it.accounts.change_password(ANA, PASSWORD, "another password", HERE)
        assert not it.access.still_counts(other)
        assert not it.access.still_counts(made)
        assert it.access.still_counts(by_key)
        await it.directory.revoke_key(ADMIN, key.id)
        assert not it.access.still_counts(by_key)
        _, text = await it.directory.issue_key(ADMIN, user.id, "phone")
        by_key = it.bearer(text)
        await it.directory.disable(ADMIN, user.id)
        assert not it.access.still_counts(by_key)


async def test_identifying_touches_neither_store_nor_password_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot path is synchronous and from memory: no job reaches either."""
    async with lodge(tmp_path) as it:
        await it.person(ANA, PASSWORD)
        token = (await it.accounts.login(ANA, PASSWORD, HERE)).access_token

        def never(*_: object, **__: object) -> None:
            raise AssertionError("not on the hot path")

        for part, name in ((it.database, "read"), (it.database, "submit"), (it.passwords, "_run")):
            monkeypatch.setattr(part, name, never)
        for _ in range(50):
            assert it.bearer(token).user.email == ANA
        monkeypatch.undo()


async def test_an_oauth_client_is_a_live_inference_key_from_its_address(tmp_path: Path) -> None:
    """`client_id` = glk_<id>, `client_secret` = the secret; anything else is nobody."""
    async with lodge(tmp_path) as it:
        user = await it.person(ANA, PASSWORD)
        key, text = await it.directory.issue_key(ADMIN, user.id, "robot", addresses=["10.0.0.0/8"])
        metrics, metrics_text = await it.directory.issue_key(ADMIN, user.id, "metrics", metrics=True)
        name, _, secret = text.rpartition("_")
        assert it.access.key_of_client(name, secret, address=HERE) == key
        assert it.access.key_of_client(name, secret, address="192.168.0.1") is None
        assert it.access.key_of_client(key.id, secret, address=HERE) is None
        assert it.access.key_of_client(name, "wrong", address=HERE) is None
        assert it.access.key_of_client("", "", address=HERE) is None
        assert it.access.key_of_client(f"glk_{metrics.id}", metrics_text.rpartition("_")[2], address=HERE) is None
        await it.directory.disable(ADMIN, user.id)
        assert it.access.key_of_client(name, secret, address=HERE) is None
