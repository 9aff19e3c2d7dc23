"""Tokens of other gateways become keys: they go on working, hashed, and never come back by themselves (28, 36)."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import Conflict, Unauthenticated
from daemon.access.imports import LONGEST_TOKEN, Imported, weakness
from daemon.store.database import Database
from tests.rigs.lodge import ADMIN, HERE, SECOND, Lodge, lodge
from tests.test_access_directory import same_after_restart
from tests.test_access_identity import headers

STRONG = "Zk3v9QmXw7Lr2Tn8Yb5Hd4Pc"
TOKENS = [("user1", "token_for_user1"), ("user2", STRONG), ("joe@example.org", "7d4c1a90-52f1-4f0e-9a53-0f0a5a1b2c3d")]


async def imported(it: Lodge, found: list[tuple[str, str]] | None = None) -> list[Imported]:
    return await it.directory.import_tokens(ADMIN, found or TOKENS, source="tokens.json", domain="example.org")


async def test_a_token_of_another_gateway_goes_on_working(tmp_path: Path) -> None:
    """As a Bearer, as an X-API-KEY; the users are service accounts, or those that are there already."""
    async with lodge(tmp_path) as it:
        joe, _ = await it.directory.add_user(ADMIN, "joe@example.org")
        rows = await imported(it)
        assert [(row.user.email, row.state, row.new_user) for row in rows] == [
            ("user1@example.org", "imported", True),
            ("user2@example.org", "imported", True),
            ("joe@example.org", "imported", False),
        ]
        assert rows[2].user.id == joe.id
        assert rows[0].user.service
        for (_, token), row in zip(TOKENS, rows, strict=True):
            for line in (("Authorization", f"Bearer {token}"), ("X-API-KEY", token), ("x_api_key", token)):
                caller = it.access.identify(headers(line), address=HERE)
                assert (caller.user.id, caller.key, caller.scheme) == (row.user.id, row.key, "key")
            assert row.key.label == "imported from tokens.json"
        await same_after_restart(it)


async def test_only_a_digest_of_it_is_kept(tmp_path: Path) -> None:
    """Not the token: neither in the store nor in the audit, which tells who imported what for whom."""
    async with lodge(tmp_path) as it:
        rows = await imported(it)
        written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        for _, token in TOKENS:
            assert token.encode() not in written
        records = [record for record in await it.audit() if record["verb"] == "keys import"]
        assert [record["target"] for record in records] == [f"key:{row.key.id}" for row in rows]
        assert records[0]["actor"]["name"] == "root"
        assert (records[0]["user"], records[0]["name"], records[0]["weak"]) == ("user1@example.org", "user1", True)
        assert STRONG not in repr(rows)


async def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    """Idempotent: no key, no user, no record; what is new in the file is added."""
    async with lodge(tmp_path) as it:
        first = await imported(it)
        before = (dict(it.directory.users), dict(it.directory.keys), len(await it.audit()))
        again = await imported(it)
        assert [(row.state, row.key.id) for row in again] == [("known", row.key.id) for row in first]
        assert (it.directory.users, it.directory.keys, len(await it.audit())) == before
        more = await imported(it, [*TOKENS, ("user4", "x" * 30)])
        assert [row.state for row in more] == ["known", "known", "known", "imported"]


async def test_a_token_that_was_ended_does_not_come_back(tmp_path: Path) -> None:
    """Revoked, or rotated away: also after a restart, and whatever is imported."""
    async with lodge(tmp_path) as it:
        revoked, rotated, kept = await imported(it)
        await it.directory.revoke_key(ADMIN, revoked.key.id)
        secret = await it.directory.rotate_key(ADMIN, rotated.key.id, grace_seconds=60)
        assert it.bearer(STRONG).key is not None
        assert it.bearer(secret).user.id == rotated.user.id
        assert [row.state for row in await imported(it)] == ["ended", "known", "known"]
        it.clock.advance(61 * SECOND)
        assert [row.state for row in await imported(it)] == ["ended", "ended", "known"]
        for _, token in TOKENS[:2]:
            with pytest.raises(Unauthenticated) as caught:
                it.bearer(token)
            assert caught.value.code == "invalid_token"
        assert it.bearer(TOKENS[2][1]).key == kept.key
        assert it.bearer(secret).user.id == rotated.user.id
        with pytest.raises(Unauthenticated):
            it.bearer(secret.rpartition("_")[2])  # a secret alone is no key: only the imported token was one
        await same_after_restart(it)


async def test_what_is_wrong_with_it_is_told_as_of_any_credential(tmp_path: Path) -> None:
    """One answer: a token that is nobody's, one that ended, one of a disabled user."""
    async with lodge(tmp_path) as it:
        first, second, _ = await imported(it)
        await it.directory.revoke_key(ADMIN, first.key.id)
        await it.directory.disable(ADMIN, second.user.id)
        said = set()
        for token in ("nobody's token", TOKENS[0][1], STRONG, "a.b.c", "glk_a_b"):
            for line in (("Authorization", f"Bearer {token}"), ("X-API-KEY", token)):
                with pytest.raises(Unauthenticated) as caught:
                    it.access.identify(headers(line), address=HERE)
                error = caught.value
                said.add((error.message, error.code, str(error.headers), str(error.detail)))
        assert len(said) == 1


REFUSED = [
    ([("user1", "")], "token_empty"),
    ([("user1", "   ")], "token_empty"),
    ([("user1", " x")], "token_unusable"),
    ([("user1", "a\nb")], "token_unusable"),
    ([("user1", "schlüssel-zum-tor")], "token_unusable"),
    ([("user1", "x" * (LONGEST_TOKEN + 1))], "token_unusable"),
    ([("user1", "glk_a_b")], "token_foreign"),
    ([("user 1", "x")], "name_unusable"),
    ([("user1", "same"), ("user2", "same")], "token_twice"),
    ([("other", STRONG)], "token_twice"),
    ([("token_for_user1", "user1")], "reversed"),
    ([(STRONG, "alice")], "reversed"),
    ([(STRONG, "Alice B. Carroll")], "reversed"),
    ([("Zk3v9QmXw7", "user22")], "reversed"),
    ([("7d4c1a90-52f1-4f0e", "nightly-ci")], "reversed"),
    ([("sk-or-v1-abc", "bob")], "reversed"),
    ([("short", "ana@example.org")], "reversed"),
]


async def test_a_file_with_a_token_that_cannot_be_is_refused_as_a_whole(tmp_path: Path) -> None:
    """An empty key would be everybody's; nothing else of the file is taken either."""
    fine = ("fine", "a fine token of enough letters")
    async with lodge(tmp_path) as it:
        await imported(it)
        before = (dict(it.directory.users), dict(it.directory.keys), len(await it.audit()))
        for found, code in REFUSED:
            with pytest.raises(Conflict) as caught:
                await it.directory.import_tokens(ADMIN, [fine, *found], source=".env", domain="example.org")
            assert caught.value.code == code, found
            if code == "reversed":
                assert "entry 2 of .env" in caught.value.message and found[0][0] not in caught.value.message
        with pytest.raises(Conflict):
            await it.directory.import_tokens(ADMIN, [], source=".env", domain="example.org")
        assert (it.directory.users, it.directory.keys, len(await it.audit())) == before


async def test_names_that_look_like_tokens_are_taken_where_the_token_is_none_of_a_name(tmp_path: Path) -> None:
    """Not every odd name is a file written the other way round; as an address any of them can be a name."""
    odd = [
        ("student20260001", "8kQ2-xW"),
        ("Build7Node", STRONG),
        ("user1", "admin"),
        ("user2", "p@ssw0rd"),
        ("k2@example.org", "letmein"),
    ]
    async with lodge(tmp_path) as it:
        assert [row.state for row in await imported(it, odd)] == ["imported"] * 5


async def test_an_import_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing, in memory as in the store."""
    async with lodge(tmp_path) as it:

        async def failing(self: Database, job: object, **_: object) -> object:
            raise Conflict("no")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", failing)
            with pytest.raises(Conflict):
                await imported(it)
        assert (it.directory.users, it.directory.keys, it.directory.imported) == ({}, {}, {})


async def test_a_deleted_user_takes_its_token_along(tmp_path: Path) -> None:
    """Credentials are erased with the user; the digest, too."""
    async with lodge(tmp_path) as it:
        first, *_ = await imported(it)
        await it.directory.disable(ADMIN, first.user.id)
        await it.directory.delete_user(ADMIN, first.user.id)
        with pytest.raises(Unauthenticated):
            it.bearer(TOKENS[0][1])
        assert len(it.directory.imported) == 2
        await same_after_restart(it)


@pytest.mark.parametrize(
    ("token", "weak"),
    [
        ("admin", True),
        ("token_for_user1", True),
        ("your_secret_api_key", True),
        ("password123", True),
        ("Zk3v9QmXw7Lr2Tn8Yb5", True),
        ("aaaaaaaaaabbbbbbbbbbcccc", True),
        (STRONG, False),
        ("7d4c1a90-52f1-4f0e-9a53-0f0a5a1b2c3d", False),
    ],
)
def test_weak_ones_are_pointed_out(token: str, weak: bool) -> None:
    """What stands in documents, is short, or is made of few characters."""
    assert bool(weakness(token)) is weak
