"""What the console asks besides: drains, who may use a model, the chain, what administrators did, stale edits."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common import protocol
from common.protocol import (
    AuditAdmin,
    AuditPosition,
    KeysIssue,
    KeysRotate,
    KeyTarget,
    ModelsList,
    ModelTarget,
    Nothing,
    UsersAdd,
    UsersApprove,
    UsersDiscard,
    UserTarget,
)
from tests.rigs.gatehouse import MODEL, gatehouse
from tests.rigs.office import Office, open_office
from tests.rigs.scripted_upstream import ScriptedUpstream

ANA = "ana@example.org"


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        yield office


async def test_a_drained_upstream_takes_nothing_new_until_it_is_taken_back(tmp_path: Path) -> None:
    """Requests are refused in words where no other upstream has the model; the drain holds over a restart."""
    async with ScriptedUpstream(models=(MODEL,)) as upstream:
        async with gatehouse(tmp_path, upstream) as gate:
            office = Office(gate)
            row = await office.ask(protocol.UPSTREAMS_DRAIN, protocol.UpstreamTarget("up"))
            assert row.drained and row.state == "ok"
            answer = await gate.chat()
            assert answer.status_code == 503 and "drained" in answer.text
        async with gatehouse(tmp_path, upstream) as gate:
            office = Office(gate)
            assert (await office.ask(protocol.UPSTREAMS_LIST, Nothing()))[0].drained
            assert "drained" in (await office.done("upstreams", "list")).stdout
            row = protocol.UpstreamRow(**await office.json("upstreams", "undrain", "up"))
            assert not row.drained and row.latency_ms is not None
            assert (await gate.chat()).status_code == 200
            await office.done("upstreams", "undrain", "up")
            verbs = [each["verb"] for each in office.recorded() if each["verb"].startswith("upstreams")]
            assert verbs == ["upstreams drain", "upstreams undrain"]
            assert (await office.cli("upstreams", "drain", "elsewhere")).exit_code == 1


async def test_a_request_goes_to_the_upstream_that_is_not_drained(tmp_path: Path) -> None:
    """Of two that have the model the drained one gets nothing."""
    async with ScriptedUpstream(models=(MODEL,)) as one, ScriptedUpstream(models=(MODEL,)) as other:
        upstreams = [{"name": name, "kind": "ollama", "url": each.url} for name, each in (("a", one), ("b", other))]
        async with gatehouse(tmp_path, one, upstreams=upstreams) as gate:
            await gate.house.registry.refresh()
            await Office(gate).done("upstreams", "drain", "a")
            for _ in range(3):
                assert (await gate.chat()).status_code == 200
            assert {row.upstream for row in await gate.records()} == {"b"}


async def test_a_loaded_model_is_told_with_its_memory(office: Office) -> None:
    """VRAM, context and expiry where the upstream tells them; the upstream's row has their sum."""
    await office.gate.chat()
    office.gate.upstream.loaded.append(MODEL) if MODEL not in office.gate.upstream.loaded else None
    rows = {row.name: row for row in await office.ask(protocol.MODELS_LIST, ModelsList())}
    assert (rows[MODEL].loaded, rows[MODEL].vram, rows[MODEL].context) == (True, 0, 2048)
    assert (rows["qwen3:4b"].loaded, rows["qwen3:4b"].vram) == (False, None)
    upstream = (await office.ask(protocol.UPSTREAMS_LIST, Nothing()))[0]
    assert (upstream.loaded, upstream.vram) == (1, 0)


async def test_who_may_use_a_model(office: Office) -> None:
    """People by login, keys by their patterns; the disabled, the revoked and the keys for other models not."""
    await office.ask(protocol.USERS_ADD, UsersAdd("ben@example.org"))
    await office.ask(protocol.USERS_ADD, UsersAdd("cid@example.org"))
    await office.ask(protocol.USERS_DISABLE, UserTarget("cid@example.org"))
    fits = await office.ask(protocol.KEYS_ISSUE, KeysIssue("ben@example.org", "fits", models=["qwen*", "smol*"]))
    await office.ask(protocol.KEYS_ISSUE, KeysIssue("ben@example.org", "other", models=["qwen*"]))
    await office.ask(protocol.KEYS_ISSUE, KeysIssue("ben@example.org", "numbers", metrics=True))
    gone = await office.ask(protocol.KEYS_ISSUE, KeysIssue("ben@example.org", "gone"))
    await office.ask(protocol.KEYS_REVOKE, KeyTarget(gone.id))
    rows = await office.ask(protocol.MODELS_ACCESS, ModelTarget(MODEL))
    assert [(row.user, row.by, row.label, row.pattern) for row in rows] == [
        (ANA, "key", "test", None),
        ("ben@example.org", "login", "", None),
        ("ben@example.org", "key", "fits", "smol*"),
    ]
    assert rows[2].key == fits.id
    assert "every model" in (await office.done("models", "access", MODEL)).stdout
    assert (await office.json("models", "access", MODEL))[0]["user"] == ANA


async def test_an_exchange_has_its_place_in_the_chain(office: Office) -> None:
    """Its records with their hashes, each behind the one before; sealed by the next checkpoint."""
    await office.gate.chat()
    await office.gate.chat()
    log_id = (await office.gate.records())[0].log_id
    place = await office.ask(protocol.AUDIT_POSITION, AuditPosition(str(log_id)))
    assert [link.event for link in place.links] == ["opened", "closed"]
    assert place.links[0].seq == log_id and place.links[1].previous == place.links[0].hash
    assert place.seal is None and place.head_seq == place.links[1].seq
    sealed = await office.gate.house.journal.checkpoint()
    assert sealed is not None
    place = await office.ask(protocol.AUDIT_POSITION, AuditPosition(place.request_id))
    assert place.seal is not None and (place.seal.seq, place.seal.hash) == (sealed.seq, sealed.hash.hex())
    assert (place.checked, place.whole, place.problems) == (sealed.seq - place.log_id + 1, True, [])
    shown = (await office.done("audit", "position", place.request_id)).stdout
    assert place.links[1].hash in shown and f"{sealed.seq}:{sealed.hash.hex()}" in shown
    assert (await office.json("audit", "position", str(log_id)))["request_id"] == place.request_id
    assert (await office.refused(protocol.AUDIT_POSITION, AuditPosition("999999"))).status == 404
    assert not [each for each in office.recorded() if each["verb"].startswith("audit")]


async def test_a_chain_that_was_changed_behind_an_exchange_is_told(office: Office) -> None:
    """A record that was rewritten, and a seal that is not ours, are found from the exchange to its seal."""
    await office.gate.chat()
    await office.gate.chat()
    last, first = (row.log_id for row in await office.gate.records())
    await office.gate.house.journal.checkpoint()
    await office.gate.house.database.write(
        lambda conn: conn.execute("UPDATE journal SET tokens_out = 1 WHERE opened_seq = ?", (last,)).rowcount
    )
    place = await office.ask(protocol.AUDIT_POSITION, AuditPosition(str(first)))
    assert [problem.partition(":")[2] for problem in place.problems] == [
        " its hash does not follow from it and the record before"
    ]
    assert (await office.cli("audit", "position", str(first))).exit_code == 1
    await office.gate.house.database.write(
        lambda conn: conn.execute("UPDATE checkpoints SET at_us = at_us + 1").rowcount
    )
    place = await office.ask(protocol.AUDIT_POSITION, AuditPosition(str(first)))
    assert any("signature" in problem for problem in place.problems)


async def test_what_administrators_did_is_listed_and_searched(office: Office) -> None:
    """Newest first, by account, verb and target, page by page; a look into a conversation is among it."""
    await office.gate.chat()
    log_id = (await office.gate.records())[0].log_id
    await office.done("audit", "show", str(log_id))
    await office.ask(protocol.USERS_ADD, UsersAdd("ben@example.org"))
    await office.ask(protocol.USERS_DISABLE, UserTarget("ben@example.org"))
    rows = await office.ask(protocol.AUDIT_ADMIN, AuditAdmin(limit=3))
    assert [row.verb for row in rows] == ["users disable", "users add", "audit show"]
    assert rows[0].via == "socket" and rows[0].uid is not None and rows[0].detail["new"] == {"status": "disabled"}
    older = await office.ask(protocol.AUDIT_ADMIN, AuditAdmin(before=rows[-1].log_id))
    assert older and older[0].log_id < rows[-1].log_id
    assert [row["verb"] for row in await office.json("audit", "admin", "verb:users", "target:ben@")] == [
        "users disable",
        "users add",
    ]
    assert await office.json("audit", "admin", f"actor:{rows[0].actor}", "since:1h", "verb:audit show")
    assert await office.json("audit", "admin", "until:2020-01-01") == []
    assert "users disable" in (await office.done("audit", "admin", "--limit", "1")).stdout
    assert (await office.cli("audit", "admin", "colour:red")).exit_code == 2
    assert (await office.refused(protocol.AUDIT_ADMIN, AuditAdmin(limit=0))).status == 400


async def test_a_stale_key_is_not_rotated_or_revoked(office: Office) -> None:
    """The version that was seen is no longer there: Conflict, and nothing happens."""
    issued = await office.ask(protocol.KEYS_ISSUE, KeysIssue(ANA, "ci"))
    await office.ask(protocol.KEYS_ROTATE, KeysRotate(issued.id, version=1))
    for refused in (
        await office.refused(protocol.KEYS_ROTATE, KeysRotate(issued.id, version=1)),
        await office.refused(protocol.KEYS_REVOKE, KeyTarget(issued.id, version=1)),
    ):
        assert (refused.status, refused.code) == (409, "changed_meanwhile")
    row = await office.ask(protocol.KEYS_REVOKE, KeyTarget(issued.id, version=2))
    assert row.state == "revoked"


async def test_who_registered_is_created_then_and_approved_later_or_refused(office: Office) -> None:
    """`created` is the registration's moment; a refused entry is gone, and its address may register again."""
    wanted = {"email": "dee@example.org", "password": "a good password"}
    for _ in range(2):
        answer = await office.gate.http.post(office.gate.url + "/auth/register", json=wanted)
        assert answer.status_code == 202
        code = answer.json()["code"]
        entry = next(iter(office.gate.house.directory.registrations.values()), None)
        if entry is None:
            break
        code = entry.code
        gone = await office.ask(protocol.USERS_DISCARD, UsersDiscard(code))
        assert (gone.email, gone.discarded) == ("dee@example.org", True)
    assert (await office.refused(protocol.USERS_DISCARD, UsersDiscard(code))).status == 404
    await office.gate.http.post(office.gate.url + "/auth/register", json=wanted)
    entry = next(iter(office.gate.house.directory.registrations.values()))
    row = await office.ask(protocol.USERS_APPROVE, UsersApprove(entry.code))
    assert row.approved is not None and row.created < row.approved
    detail = await office.ask(protocol.USERS_SHOW, UserTarget("dee@example.org"))
    assert detail.user.created == row.created
