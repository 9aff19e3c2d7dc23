"""The directory: every change durable, audited, told, and in memory before it returns."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest, Conflict, NotFound, Unauthenticated, Unavailable
from daemon.access import keys
from daemon.access.book import canonical_email
from daemon.access.directory import Change, Cut, Directory, new_code
from daemon.audit.chain import Record
from daemon.exchange import EndState
from daemon.store import journal
from tests.rigs.lodge import ADMIN, HERE, SECOND, Lodge, lodge
from tests.rigs.until import until

PASSWORD = "a good password"


async def reloaded(it: Lodge) -> Directory:
    """The directory as a restart would find it."""
    return await Directory.load(it.database, it.clock, it.passwords)


async def same_after_restart(it: Lodge) -> None:
    again = await reloaded(it)
    assert again.users == it.directory.users
    assert again.keys == it.directory.keys
    assert again.registrations == it.directory.registrations


async def test_a_registration_becomes_a_user_by_its_code(tmp_path: Path) -> None:
    """Approval takes over the password of that very entry, records who approved, and tells the watchers."""
    async with lodge(tmp_path) as it:
        code = await it.accounts.register("Ana@Example.org", PASSWORD, HERE)
        user = await it.directory.approve(ADMIN, code.lower())
        assert (user.email, user.role, user.status, user.service) == ("ana@example.org", "user", "active", False)
        assert it.directory.registrations == {}
        assert it.directory.find("ANA@example.org") == user
        assert [event for event in it.events if isinstance(event, Change)] == [
            Change("registration", code, it.events[0].row),  # type: ignore[union-attr]
            Change("registration", code, None),
            Change("user", str(user.id), user),
        ]
        assert (await it.accounts.login("ana@example.org", PASSWORD, HERE)).refresh_token
        registered, approved, _ = await it.audit()
        assert registered["verb"] == "users register"
        assert approved == {
            "actor": {"uid": 0, "name": "root", "via": "socket"},
            "verb": "users approve",
            "target": "user:ana@example.org",
            "code": code,
            "address": HERE,
            "discarded": [],
        }
        await same_after_restart(it)


async def test_of_several_entries_for_an_address_only_a_code_is_approved(tmp_path: Path) -> None:
    """Else a stranger who registered first would be let in under somebody's address; the others are discarded."""
    async with lodge(tmp_path) as it:
        codes = [await it.accounts.register("ana@example.org", f"{PASSWORD} {n}", HERE) for n in range(3)]
        with pytest.raises(Conflict) as refusal:
            await it.directory.approve(ADMIN, "ana@example.org")
        assert refusal.value.detail["codes"] == codes
        assert it.directory.users == {}
        await it.directory.approve(ADMIN, codes[1])
        assert it.directory.registrations == {}
        assert await it.query("SELECT COUNT(*) FROM registrations") == [(0,)]
        await it.accounts.login("ana@example.org", f"{PASSWORD} 1", HERE)
        for other in (0, 2):
            with pytest.raises(Unauthenticated):
                await it.accounts.login("ana@example.org", f"{PASSWORD} {other}", HERE)


async def test_a_single_entry_is_approved_by_its_address(tmp_path: Path) -> None:
    """As `users approve EMAIL` says; what is not there is said so."""
    async with lodge(tmp_path) as it:
        await it.accounts.register("ana@example.org", PASSWORD, HERE)
        await it.directory.approve(ADMIN, " ANA@example.org ")
        with pytest.raises(Conflict, match="already"):
            await it.directory.approve(ADMIN, "ana@example.org")
        for unknown in ("bea@example.org", "K7-42QX"):
            with pytest.raises(NotFound):
                await it.directory.approve(ADMIN, unknown)


async def test_a_registration_can_be_refused(tmp_path: Path) -> None:
    """Only that entry goes, and the record stays."""
    async with lodge(tmp_path) as it:
        codes = [await it.accounts.register("ana@example.org", f"{PASSWORD} {n}", HERE) for n in range(2)]
        await it.directory.discard(ADMIN, codes[0])
        assert list(it.directory.registrations) == [codes[1]]
        assert (await it.audit())[-1]["verb"] == "users discard"
        await same_after_restart(it)


async def test_an_added_user_gets_a_one_time_password_and_a_service_account_none(tmp_path: Path) -> None:
    """P4; entries that waited for the address are discarded; an address is given once."""
    async with lodge(tmp_path) as it:
        await it.accounts.register("ana@example.org", PASSWORD, HERE)
        ana, password = await it.directory.add_user(ADMIN, "ANA@example.org", "admin")
        assert password is not None
        assert ana.must_change
        assert ana.role == "admin"
        assert ana.one_time_expires_us == it.clock.wall() + 24 * 3600 * SECOND
        assert it.directory.registrations == {}
        robot, none = await it.directory.add_user(ADMIN, "robot@example.org", service=True)
        assert none is None
        assert robot.service
        assert not robot.must_change
        with pytest.raises(Conflict):
            await it.directory.add_user(ADMIN, "ana@example.org")
        with pytest.raises(Conflict, match="no password"):
            await it.directory.reset_password(ADMIN, robot.id)
        assert password not in str(await it.audit())
        await same_after_restart(it)


async def test_disabling_ends_sessions_and_running_exchanges_and_enabling_brings_keys_back(tmp_path: Path) -> None:
    """J5: the epoch rises; keys rest and work again."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        issued = await it.accounts.login(ana.email, PASSWORD, HERE)
        _, key = await it.directory.issue_key(ADMIN, ana.id, "laptop")
        it.events.clear()
        disabled = await it.directory.disable(ADMIN, ana.id)
        assert disabled.epoch == ana.epoch + 1
        assert it.cuts == [Cut(EndState.USER_DISABLED, "the user was disabled", user_id=ana.id)]
        for credential in (issued.access_token, key):
            with pytest.raises(Unauthenticated):
                it.bearer(credential)
        enabled = await it.directory.enable(ADMIN, ana.id)
        assert it.bearer(key).user == enabled
        with pytest.raises(Unauthenticated):
            it.bearer(issued.access_token)
        await same_after_restart(it)


async def test_what_changes_nothing_records_nothing(tmp_path: Path) -> None:
    """Disabling, enabling, revoking, role and notes: the second time there is nothing to say."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        key, _ = await it.directory.issue_key(ADMIN, ana.id, "laptop")
        await it.directory.revoke_key(ADMIN, key.id)
        await it.directory.disable(ADMIN, ana.id)
        before = len(await it.audit())
        it.events.clear()
        await it.directory.disable(ADMIN, ana.id)
        await it.directory.set_role(ADMIN, ana.id, "user")
        await it.directory.set_notes(ADMIN, ana.id, "")
        await it.directory.revoke_key(ADMIN, key.id)
        assert len(await it.audit()) == before
        assert it.events == []


async def test_role_and_notes_are_changed_with_old_and_new_in_the_record(tmp_path: Path) -> None:
    """Who looks back sees what it was."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        await it.directory.set_role(ADMIN, ana.id, "admin")
        await it.directory.set_notes(ADMIN, ana.id, "left-handed")
        role, notes = (await it.audit())[-2:]
        assert (role["old"], role["new"]) == ({"role": "user"}, {"role": "admin"})
        assert (notes["old"], notes["new"]) == ({"notes": ""}, {"notes": "left-handed"})
        assert it.directory.users[ana.id].epoch == ana.epoch
        with pytest.raises(BadRequest):
            await it.directory.set_role(ADMIN, ana.id, "root")  # type: ignore[arg-type]
        with pytest.raises(BadRequest):
            await it.directory.set_notes(ADMIN, ana.id, "x" * 2001)
        await same_after_restart(it)


async def test_a_change_of_what_has_changed_since_is_refused(tmp_path: Path) -> None:
    """The version that the administrator saw must still be the one."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        await it.directory.set_notes(ADMIN, ana.id, "first", ana.version)
        for change in (
            it.directory.disable(ADMIN, ana.id, ana.version),
            it.directory.enable(ADMIN, ana.id, ana.version),
            it.directory.set_role(ADMIN, ana.id, "admin", ana.version),
            it.directory.set_notes(ADMIN, ana.id, "second", ana.version),
            it.directory.reset_password(ADMIN, ana.id, ana.version),
            it.directory.delete_user(ADMIN, ana.id, ana.version),
        ):
            with pytest.raises(Conflict, match="in the meantime"):
                await change
        with pytest.raises(NotFound):
            await it.directory.disable(ADMIN, 999)


async def test_a_change_goes_on_when_who_asked_has_left(tmp_path: Path) -> None:
    """Memory and store never disagree, whatever a client does."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        asking = asyncio.ensure_future(it.directory.disable(ADMIN, ana.id))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: it.directory.users[ana.id].status == "disabled")
        await same_after_restart(it)


async def test_a_change_that_cannot_be_stored_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory follows the store, never the other way round."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        it.events.clear()

        def fail(*_: Any, **__: Any) -> None:
            raise Unavailable("no")

        monkeypatch.setattr("daemon.access.book.append_admin", fail)
        with pytest.raises(Unavailable):
            await it.directory.disable(ADMIN, ana.id)
        with pytest.raises(Unavailable):
            await it.directory.issue_key(ADMIN, ana.id, "laptop")
        assert it.directory.users[ana.id] == ana
        assert it.directory.keys == {}
        assert it.events == []
        await same_after_restart(it)


async def test_many_changes_at_once_leave_memory_as_the_store(tmp_path: Path) -> None:
    """Each one decides on what the one before has left."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        await asyncio.gather(
            *(it.directory.set_notes(ADMIN, ana.id, f"note {n}") for n in range(20)),
            *(it.directory.issue_key(ADMIN, ana.id, f"key {n}") for n in range(20)),
            it.directory.disable(ADMIN, ana.id),
            it.directory.enable(ADMIN, ana.id),
        )
        assert len(it.directory.keys) == 20
        await same_after_restart(it)


# -- deletion ---------------------------------------------------------------------------------------------------------


async def exchanged(it: Lodge, user_id: int, *, closed: bool = True) -> int:
    """One exchange of the user in the journal; the sequence number of its last record."""

    def job(conn: sqlite3.Connection) -> int:
        opened = journal.open_exchange(
            conn, Record(event="opened", at_us=1, clock_us=1, request_id=f"r{it.clock.now()}", user_id=user_id)
        )
        if not closed:
            return opened
        return journal.close_exchange(
            conn,
            Record(
                event="closed",
                at_us=2,
                clock_us=2,
                request_id=f"r{it.clock.now()}",
                opened_seq=opened,
                user_id=user_id,
                state="ok",
            ),
        )

    it.clock.advance(1)
    return await it.database.write(job)


async def exported(it: Lodge, user_id: int | None, through: int, since_us: int | None = None) -> None:
    await it.database.write(
        lambda conn: conn.execute(
            "INSERT INTO exports (id, user_id, since_us, through_seq, sha256, size, at_us, where_to)"
            " VALUES (?, ?, ?, ?, x'00', 1, 1, 'file')",
            (f"export {user_id} {through} {since_us}", user_id, since_us, through),
        )
    )


async def test_only_a_disabled_user_with_everything_exported_is_deleted(tmp_path: Path) -> None:
    """Contract, "Audit": export before deletion, enforced; an export of a part does not count."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        with pytest.raises(Conflict, match="disable"):
            await it.directory.delete_user(ADMIN, ana.id)
        await it.directory.disable(ADMIN, ana.id)
        last = await exchanged(it, ana.id)

        async def refused() -> None:
            with pytest.raises(Conflict) as refusal:
                await it.directory.delete_user(ADMIN, ana.id)
            assert refusal.value.code == "not_exported"

        await refused()
        await exported(it, ana.id, last - 1)
        await refused()
        await exported(it, ana.id, last, since_us=5)
        await refused()
        await exported(it, ana.id + 1, last)
        await refused()
        await exported(it, ana.id, last)
        await exchanged(it, ana.id, closed=False)
        await refused()
        await it.database.write(lambda conn: conn.execute("DELETE FROM unfinished"))
        assert (await it.directory.delete_user(ADMIN, ana.id)).email == "ana@example.org"


async def test_deletion_erases_credentials_and_leaves_a_tombstone(tmp_path: Path) -> None:
    """Nothing of the user can be used any more; the number is never given again, the address may be."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        issued = await it.accounts.login(ana.email, PASSWORD, HERE)
        key, secret = await it.directory.issue_key(ADMIN, ana.id, "laptop")
        await exchanged(it, ana.id)
        await exported(it, None, 1_000_000)
        await it.directory.disable(ADMIN, ana.id)
        it.events.clear()
        await it.directory.delete_user(ADMIN, ana.id)
        assert it.events == [Change("key", key.id, None), Change("user", str(ana.id), None)]
        for credential in (issued.access_token, secret):
            with pytest.raises(Unauthenticated):
                it.bearer(credential)
        ((email, password_hash, body_key),) = await it.query(
            "SELECT email, password_hash, body_key FROM users WHERE id = ?", ana.id
        )
        assert (email, password_hash, body_key) == (f"deleted-{ana.id}", None, None)
        for table in ("keys", "refresh_families", "refresh_tokens"):
            assert await it.query(f"SELECT COUNT(*) FROM {table}") == [(0,)]
        assert (await it.audit())[-1]["verb"] == "users delete"
        await same_after_restart(it)
        again, _ = await it.directory.add_user(ADMIN, "ana@example.org")
        assert again.id != ana.id


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    """Neither the store nor the audit nor memory knows the secret."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        key, text = await it.directory.issue_key(
            ADMIN,
            ana.id,
            " laptop ",
            expires_us=it.clock.wall() + SECOND,
            models=["llama3*"],
            addresses=["10.1.2.3/8"],
            in_path=True,
        )
        assert (key.label, key.models, key.addresses, key.in_path) == ("laptop", ("llama3*",), ("10.0.0.0/8",), True)
        parts = keys.read(text)
        assert parts is not None
        assert parts[0] == key.id
        stored = await it.query("SELECT * FROM keys")
        assert parts[1] not in f"{stored}{await it.audit()}{it.directory.keys}{it.events}"
        assert keys.secret_hash(parts[1]) in stored[0]
        record = (await it.audit())[-1]
        assert (record["verb"], record["target"], record["models"]) == ("keys issue", f"key:{key.id}", ["llama3*"])
        await same_after_restart(it)


async def test_a_rotated_keys_old_secret_works_until_its_grace_ends(tmp_path: Path) -> None:
    """J6: same id, two valid secrets meanwhile; without grace the old one ends at once."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        key, first = await it.directory.issue_key(ADMIN, ana.id, "laptop")
        second = await it.directory.rotate_key(ADMIN, key.id, 3600)
        assert it.bearer(first).key == it.bearer(second).key == it.directory.keys[key.id]
        await same_after_restart(it)
        it.clock.advance(3600 * SECOND - 1)
        it.bearer(first)
        it.clock.advance(1)
        with pytest.raises(Unauthenticated):
            it.bearer(first)
        third = await it.directory.rotate_key(ADMIN, key.id)
        with pytest.raises(Unauthenticated):
            it.bearer(second)
        it.bearer(third)
        for grace in (-1, 31 * 86400):
            with pytest.raises(BadRequest):
                await it.directory.rotate_key(ADMIN, key.id, grace)


async def test_a_key_in_use_is_rotated_without_a_failed_request(tmp_path: Path) -> None:
    """J6: whoever goes over to the new secret within the grace never sees a 401."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        key, current = await it.directory.issue_key(ADMIN, ana.id, "laptop")
        served = 0
        stop = asyncio.Event()

        async def use() -> None:
            nonlocal served
            while not stop.is_set():
                it.bearer(current)
                served += 1
                await asyncio.sleep(0)

        user = asyncio.ensure_future(use())
        for _ in range(10):
            current = await it.directory.rotate_key(ADMIN, key.id, 60)
        stop.set()
        await user
        assert served > 10


async def test_revoking_a_key_cuts_what_runs_under_it_and_nothing_else(tmp_path: Path) -> None:
    """J5: another key and the sessions of the user go on."""
    async with lodge(tmp_path) as it:
        ana = await it.person("ana@example.org", PASSWORD)
        issued = await it.accounts.login(ana.email, PASSWORD, HERE)
        key, text = await it.directory.issue_key(ADMIN, ana.id, "laptop")
        _, other = await it.directory.issue_key(ADMIN, ana.id, "phone")
        token = it.sessions.issue_to_client(key).access_token
        it.bearer(token)
        it.events.clear()
        await it.directory.revoke_key(ADMIN, key.id)
        assert it.cuts == [Cut(EndState.CREDENTIAL_REVOKED, "the key was revoked", key_id=key.id)]
        for credential in (text, token):
            with pytest.raises(Unauthenticated):
                it.bearer(credential)
        it.bearer(other)
        it.bearer(issued.access_token)
        with pytest.raises(Conflict):
            await it.directory.rotate_key(ADMIN, key.id)
        with pytest.raises(NotFound):
            await it.directory.revoke_key(ADMIN, "unknown")
        await same_after_restart(it)


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": ""},
        {"label": " "},
        {"label": "x" * 65},
        {"label": "bell\a"},
        {"expires_us": 1},
        {"expires_us": 10**30},
        {"models": [""]},
        {"models": ["m"] * 101},
        {"addresses": ["office"]},
        {"addresses": ["10.0.0.1"] * 101},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """In words, before anything is stored."""
    async with lodge(tmp_path) as it:
        robot, _ = await it.directory.add_user(ADMIN, "robot@example.org", service=True)
        with pytest.raises(BadRequest):
            await it.directory.issue_key(ADMIN, robot.id, **({"label": "laptop"} | wrong))
        assert it.directory.keys == {}


async def test_the_last_use_of_a_key_is_written_now_and_then(tmp_path: Path) -> None:
    """Using a key costs no write; the flush stores when and from where, and tells the watchers."""
    async with lodge(tmp_path) as it:
        robot, _ = await it.directory.add_user(ADMIN, "robot@example.org", service=True)
        key, text = await it.directory.issue_key(ADMIN, robot.id, "laptop")
        it.events.clear()
        commits = it.database.commits
        it.bearer(text)
        it.clock.advance(SECOND)
        it.bearer(text, "10.9.9.9")
        assert it.database.commits == commits
        await it.directory.flush_uses()
        used = it.directory.keys[key.id]
        assert (used.last_used_us, used.last_address) == (it.clock.wall(), "10.9.9.9")
        assert used.version == key.version
        assert it.events == [Change("key", key.id, used)]
        await same_after_restart(it)
        it.events.clear()
        await it.directory.flush_uses()
        assert it.events == []


async def test_uses_that_could_not_be_written_are_kept_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk loses no last use, and the background task goes on."""
    async with lodge(tmp_path) as it:
        robot, _ = await it.directory.add_user(ADMIN, "robot@example.org", service=True)
        key, text = await it.directory.issue_key(ADMIN, robot.id, "laptop")
        it.bearer(text)
        failures = 0

        async def fail(*_: Any, **__: Any) -> None:
            nonlocal failures
            failures += 1
            raise Unavailable("disk full")

        monkeypatch.setattr("daemon.access.book.FLUSH_USES_EVERY", 0.001)
        with monkeypatch.context() as patch:
            patch.setattr(it.database, "write", fail)
            flushing = asyncio.ensure_future(it.directory.run())
            await until(lambda: failures > 2)
        await until(lambda: it.directory.keys[key.id].last_used_us == it.clock.wall())
        flushing.cancel()


# -- the first start, names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "email"),
    [
        ("ana@localhost", "ana@localhost"),
        ("Ana", "ana@localhost"),
        ("DOMAIN\\Ana Weiß@localhost", "domainanawei@localhost"),
        ("日本@localhost", "admin@localhost"),
    ],
)
async def test_the_first_user_is_an_administrator_with_a_key(tmp_path: Path, given: str, email: str) -> None:
    """`./run`'s first start; whatever the account is called; only once."""
    async with lodge(tmp_path) as it:
        user, text = await it.directory.first_user(given)
        assert (user.email, user.role, user.status) == (email, "admin", "active")
        assert it.bearer(text, "127.0.0.1").user == user
        assert [record["actor"]["via"] for record in await it.audit()] == ["start", "start"]
        with pytest.raises(Conflict):
            await it.directory.first_user("somebody")
        await same_after_restart(it)


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("  Ana@Example.ORG ", "ana@example.org"),
        ("STRASSE@example.org", "strasse@example.org"),
        ("straße@example.org", "strasse@example.org"),
        ("\uff41na@example.org", "ana@example.org"),
        ("ana@localhost", "ana@localhost"),
    ],
)
def test_an_address_has_one_spelling(text: str, email: str) -> None:
    """Case, width and white space make no second account."""
    assert canonical_email(text) == email
    assert canonical_email(email) == email


@pytest.mark.parametrize(
    "text",
    [
        *("", "ana", "@", "ana@", "@example.org", "a@b@c", "ana b@example.org", "ana\n@example.org", "ana\x00@x"),
        *("<ana@x>", '"ana"@x', "ana@x,bea@x", "a" * 250 + "@x.org", "ana\u202e@x", "user:ana@x"),
        *("ana\ufe0f@x", "ana\u3164@x", "ana\u034f@x", "an\u180ba@x"),  # printable, and nobody sees them
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Nothing that could break a line, a filter or a cell."""
    with pytest.raises(BadRequest):
        canonical_email(text)


def test_a_code_is_short_and_told_apart() -> None:
    """Like K7-42QX, without letters and digits that are mistaken for each other."""
    for _ in range(200):
        code = new_code()
        assert len(code) == 7
        assert code[2] == "-"
        assert not set(code) & set("01OIL")
