"""The verbs of the admin socket over a real daemon: what they answer, what they change, who it is recorded under."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common import paths, protocol
from common.protocol import (
    PROTOCOL_VERSION,
    VERBS,
    VERSION_HEADER,
    AuditExport,
    AuditExported,
    AuditFilter,
    AuditSearch,
    AuditShow,
    AuditVerify,
    CancelRequest,
    KeysIssue,
    KeysList,
    KeysRotate,
    KeyTarget,
    LimitsSet,
    LimitsShow,
    LimitTarget,
    LimitValues,
    ModelsList,
    ModelTarget,
    Nothing,
    SelftestRequest,
    UpstreamsSeats,
    UpstreamTarget,
    UsersAdd,
    UsersApprove,
    UsersList,
    UsersNotes,
    UsersRole,
    UserTarget,
)
from console.client import Refused, Unreachable
from daemon.admin import models, server
from daemon.admin.peer import account_name
from daemon.admin.verbs import TABLE
from daemon.doctor import PROBED
from daemon.store.settings import set_setting
from tests.rigs.gatehouse import ADMIN, MODEL, gatehouse
from tests.rigs.office import Office, open_office
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import holds, until
from tests.rigs.upstream_behaviours import stall_after


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        yield office


# -- the socket itself ------------------------------------------------------------------------------------------------


def test_every_verb_of_the_protocol_is_answered_once() -> None:
    """The two tables are the same; nothing is answered that the protocol does not know."""
    assert {name: bound.verb for name, bound in TABLE.items()} == {verb.name: verb for verb in VERBS}


async def test_curl_can_do_what_the_console_does(office: Office) -> None:
    """POST with JSON, no header needed; an empty body is an empty question."""
    response = await office.http("POST", "/users/add", content=b'{"email":"joe@example.org"}')
    assert response.status_code == 200
    assert response.json()["email"] == "joe@example.org"
    response = await office.http("POST", "/status")
    assert response.json()["users"] == {"active": 2, "disabled": 0, "pending": 0}
    assert "server" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/users/crown", b"{}", 404, "unknown_verb"),
        ("POST", "/users/list", b'{"statsu":"active"}', 400, "invalid_request"),
        ("POST", "/users/list", b"[]", 400, "invalid_request"),
        ("POST", "/users/list", b"{", 400, "invalid_request"),
        ("POST", "/users/show", b'{"user":"nobody@example.org"}', 404, "user_unknown"),
        ("GET", "/users/list", b"", 405, "method_not_allowed"),
        ("POST", "/watch", b"", 405, "method_not_allowed"),
    ],
)
async def test_a_wrong_question_is_refused_in_words(
    office: Office, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    """An HTTP status, a stable code and a sentence; never a traceback."""
    response = await office.http(method, path, content=body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["error"]
    assert "Traceback" not in response.text


async def test_another_version_of_the_protocol_is_refused_in_words(office: Office) -> None:
    """An old program after an upgrade says what to do instead of misreading."""
    headers = {VERSION_HEADER: str(PROTOCOL_VERSION + 1)}
    for method, path in (("POST", "/status"), ("GET", "/watch")):
        response = await office.http(method, path, headers=headers)
        assert response.status_code == 426
        assert "same release" in response.json()["error"]


async def test_metrics_are_served_on_the_socket(office: Office) -> None:
    """Prometheus text without a key."""
    await office.gate.chat()
    response = await office.http("GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'gatelodge_exchanges_total{state="ok"} 1.0' in response.text


async def test_every_change_is_recorded_under_the_peers_account(office: Office) -> None:
    """T5: uid and name from the kernel, with the verb and its target; reading verbs leave no record."""
    before = len(office.recorded())
    await office.ask(protocol.USERS_LIST, UsersList())
    await office.ask(protocol.LIMITS_SHOW, LimitsShow())
    await office.ask(protocol.USERS_ADD, UsersAdd("joe@example.org"))
    await office.ask(protocol.USERS_NOTES, UsersNotes("joe@example.org", "from sales"))
    issued = await office.ask(protocol.KEYS_ISSUE, KeysIssue("joe@example.org", "laptop"))
    await office.ask(protocol.KEYS_ROTATE, KeysRotate(issued.id))
    await office.ask(protocol.KEYS_REVOKE, KeyTarget(issued.id))
    await office.ask(protocol.LIMITS_SET, LimitsSet("joe@example.org", LimitValues(concurrency=2)))
    await office.ask(protocol.LIMITS_CLEAR, LimitTarget("joe@example.org"))
    await office.ask(protocol.UPSTREAMS_SEATS, UpstreamsSeats("up", 3))
    await office.ask(protocol.MODELS_DELETE, ModelTarget("qwen3:4b"))
    await office.ask(protocol.USERS_DISABLE, UserTarget("joe@example.org"))
    records = office.recorded()[before:]
    assert len(records) == 10
    me = {"uid": os.getuid(), "name": account_name(os.getuid()), "via": "socket"}
    assert [record["actor"] for record in records] == [me] * 10
    assert all(record["verb"] and record["target"] for record in records)
    assert issued.key not in json.dumps(records)


PASSWORD = "correct horse battery"


async def test_a_change_is_carried_to_its_end_though_its_caller_leaves(office: Office) -> None:
    """Memory and store never part: what was committed holds on the next request, whoever is still there."""
    house = office.gate.house
    seats = house.registry.upstreams[0].seats
    hold = threading.Event()
    held = house.database.submit(lambda _: hold.wait(10))
    with paths.connect(office.socket, timeout=5) as caller:
        body = b'{"name":"up","seats":9}'
        caller.sendall(b"POST /upstreams/seats HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await until(lambda: house.database.pending_jobs >= 2)
    # Time for the daemon to notice that its caller left, while the change still waits for the disk.
    await holds(lambda: seats.size == 2)
    hold.set()
    await held
    await until(lambda: seats.size == 9)


async def test_a_change_that_is_stuck_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream that never answers a deletion: the daemon stops all the same, and leaves nothing behind."""
    monkeypatch.setattr(server, "PATIENCE_AT_STOP", 0.1)

    async def silent(turn: Any) -> None:
        await turn.until_client_leaves()

    async with open_office(tmp_path) as office:
        upstream = office.gate.upstream
        upstream.next(silent, route="/api/delete")
        asking = asyncio.create_task(office.ask(protocol.MODELS_DELETE, ModelTarget(MODEL)))
        await until(lambda: upstream.seen("/api/delete"))
    with pytest.raises(Unreachable):
        await asking
    await upstream.seen("/api/delete")[0].client_left.wait()


async def test_an_upstream_that_is_silent_about_what_is_loaded_does_not_hold_up_the_list(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded is then not known; the models are told all the same."""
    monkeypatch.setattr(models, "PATIENCE_FOR_LISTS", 0.1)

    async def silent(turn: Any) -> None:
        await turn.until_client_leaves()

    office.gate.upstream.next(silent, route="/api/ps")
    rows = await office.ask(protocol.MODELS_LIST, ModelsList())
    assert [(row.name, row.loaded) for row in rows] == [(MODEL, None), ("qwen3:4b", None)]


async def test_a_question_that_is_too_large_is_not_read(office: Office) -> None:
    """More than a mebibyte is refused before it is taken into memory."""
    body = json.dumps({"user": "ana@example.org", "notes": "x" * 1024 * 1024})
    response = await office.http("POST", "/users/notes", content=body)
    assert response.status_code in {400, 413}
    assert "notes" not in response.text, "it was read all the same"


async def test_seats_that_were_set_hold_over_a_restart_until_the_configuration_changes(tmp_path: Path) -> None:
    """What an administrator set comes back, as does what a probe found; a new value in the configuration wins."""
    async with open_office(tmp_path) as office:
        await office.ask(protocol.UPSTREAMS_SEATS, UpstreamsSeats("up", 7))
        await office.gate.house.database.write(lambda conn: set_setting(conn, f"{PROBED}:up", "6"))
    async with open_office(tmp_path) as office:
        (row,) = await office.ask(protocol.UPSTREAMS_LIST, Nothing())
        assert (row.seats, row.probed_seats) == (7, 6)
    async with ScriptedUpstream() as upstream:
        changed = [{"name": "up", "url": upstream.url, "seats": 3}]
        async with gatehouse(tmp_path, upstream, upstreams=changed) as gate:
            (row,) = await Office(gate).ask(protocol.UPSTREAMS_LIST, Nothing())
            assert row.seats == 3


# -- users ------------------------------------------------------------------------------------------------------------


async def register(office: Office, email: str, password: str = PASSWORD) -> str:
    """Register over HTTP; the entry's code."""
    response = await office.gate.http.post(
        office.gate.url + "/auth/register", json={"email": email, "password": password}
    )
    assert response.status_code == 202, response.text
    return str(response.json()["code"])


async def login(office: Office, email: str, password: str = PASSWORD) -> httpx.Response:
    """Log in over HTTP."""
    return await office.gate.http.post(office.gate.url + "/auth/login", json={"email": email, "password": password})


async def test_who_registers_waits_first_and_is_let_in_by_address(office: Office) -> None:
    """Rows 49, 51: pending first in the list, with code and address; approved, the password works at once."""
    code = await register(office, "joe@example.org")
    rows = await office.ask(protocol.USERS_LIST, UsersList())
    assert [(row.email, row.status, row.code) for row in rows] == [
        ("joe@example.org", "pending", code),
        ("ana@example.org", "active", None),
    ]
    assert rows[0].address == "127.0.0.1"
    assert [row.email for row in await office.ask(protocol.USERS_LIST, UsersList("active"))] == ["ana@example.org"]
    assert (await login(office, "joe@example.org")).status_code == 403
    row = await office.ask(protocol.USERS_APPROVE, UsersApprove("joe@example.org"))
    assert (row.status, row.must_change_password) == ("active", False)
    assert (await login(office, "joe@example.org")).status_code == 200


async def test_several_entries_of_one_address_need_a_code(office: Office) -> None:
    """Refused with the codes; approving one discards the others, and only its password counts."""
    first = await register(office, "joe@example.org", "the first password")
    second = await register(office, "joe@example.org", "the second password")
    refused = await office.refused(protocol.USERS_APPROVE, UsersApprove("joe@example.org"))
    assert first in str(refused) and second in str(refused)
    await office.ask(protocol.USERS_APPROVE, UsersApprove(second.lower()))
    assert await office.ask(protocol.USERS_LIST, UsersList("pending")) == []
    assert (await login(office, "joe@example.org", "the first password")).status_code == 401
    assert (await login(office, "joe@example.org", "the second password")).status_code == 200


async def test_an_added_user_has_a_one_time_password_and_a_service_account_none(office: Office) -> None:
    """The one-time password opens nothing but the setting of a new one."""
    added = await office.ask(protocol.USERS_ADD, UsersAdd("joe@example.org", role="admin"))
    assert added.one_time_password and added.one_time_expires
    assert added.role == "admin"
    response = await login(office, "joe@example.org", added.one_time_password)
    assert (response.status_code, response.json()["code"]) == (403, "password_change_required")
    service = await office.ask(protocol.USERS_ADD, UsersAdd("robot@example.org", service=True))
    assert (service.one_time_password, service.one_time_expires, service.service) == (None, None, True)


async def test_a_reset_replaces_the_password_at_once(office: Office) -> None:
    """Row 52: random, shown once, must be changed."""
    await register(office, "joe@example.org")
    await office.ask(protocol.USERS_APPROVE, UsersApprove("joe@example.org"))
    answer = await office.ask(protocol.USERS_RESET_PASSWORD, UserTarget("joe@example.org"))
    assert (await login(office, "joe@example.org")).status_code == 401
    assert (await login(office, "joe@example.org", answer.one_time_password)).status_code == 403
    assert (await office.ask(protocol.USERS_SHOW, UserTarget("joe@example.org"))).user.must_change_password
    again = await office.ask(protocol.USERS_RESET_PASSWORD, UserTarget("joe@example.org"))
    assert again.one_time_password != answer.one_time_password


async def test_disabling_acts_on_the_next_request_and_suspends_keys(office: Office) -> None:
    """Row 51: 401 from now on; enabling brings the same key back."""
    assert (await office.gate.chat()).status_code == 200
    row = await office.ask(protocol.USERS_DISABLE, UserTarget("ana@example.org"))
    assert row.status == "disabled"
    assert (await office.gate.chat()).status_code == 401
    assert [key.state for key in await office.ask(protocol.KEYS_LIST, KeysList())] == ["suspended"]
    await office.ask(protocol.USERS_ENABLE, UserTarget("ana@example.org"))
    assert (await office.gate.chat()).status_code == 200


async def test_role_and_notes_change_and_a_stale_version_is_refused(office: Office) -> None:
    """`version` guards against changing what somebody else changed since one looked."""
    seen = (await office.ask(protocol.USERS_SHOW, UserTarget("ana@example.org"))).user
    row = await office.ask(protocol.USERS_ROLE, UsersRole("ana@example.org", "admin"))
    assert (row.role, row.version) == ("admin", seen.version + 1)
    refused = await office.refused(protocol.USERS_NOTES, UsersNotes("ana@example.org", "x", version=seen.version))
    assert (refused.status, refused.code) == (409, "changed_meanwhile")
    row = await office.ask(protocol.USERS_NOTES, UsersNotes("ana@example.org", "likes cats", version=row.version))
    assert row.notes == "likes cats"


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_is_issued_listed_rotated_and_revoked(office: Office) -> None:
    """Rows 26, 78: shown once, with what it is for; rotation leaves the id and a time of grace."""
    issued = await office.ask(
        protocol.KEYS_ISSUE,
        KeysIssue("ana@example.org", "n8n", expires_seconds=3600, models=["smol*"], addresses=["127.0.0.0/8"]),
    )
    assert issued.key.startswith(f"glk_{issued.id}_")
    row = next(key for key in await office.ask(protocol.KEYS_LIST, KeysList("ana@example.org")) if key.id == issued.id)
    assert (row.label, row.models, row.addresses, row.state) == ("n8n", ["smol*"], ["127.0.0.0/8"], "active")
    assert row.expires and not hasattr(row, "secret_hash")
    assert (await office.gate.chat(key=issued.key)).status_code == 200
    rotated = await office.ask(protocol.KEYS_ROTATE, KeysRotate(issued.id, grace_seconds=60))
    assert (rotated.id, bool(rotated.previous_until)) == (issued.id, True)
    assert (await office.gate.chat(key=issued.key)).status_code == 200
    assert (await office.gate.chat(key=rotated.key)).status_code == 200
    row = await office.ask(protocol.KEYS_REVOKE, KeyTarget(issued.id))
    assert row.state == "revoked"
    assert (await office.gate.chat(key=rotated.key)).status_code == 401
    assert issued.id not in {key.id for key in await office.ask(protocol.KEYS_LIST, KeysList())}
    assert issued.id in {key.id for key in await office.ask(protocol.KEYS_LIST, KeysList(all=True))}


@pytest.mark.parametrize(
    "request_",
    [
        KeysIssue("nobody@example.org", "x"),
        KeysIssue("ana@example.org", ""),
        KeysIssue("ana@example.org", "x", expires_seconds=0),
        KeysIssue("ana@example.org", "x", addresses=["elsewhere"]),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(office: Office, request_: KeysIssue) -> None:
    """Nothing is issued."""
    assert (await office.refused(protocol.KEYS_ISSUE, request_)).status in {400, 404}
    assert len(await office.ask(protocol.KEYS_LIST, KeysList(all=True))) == 1


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_a_limit_acts_on_the_next_request(office: Office) -> None:
    """Row 63: set, shown with what is in force, cleared; no restart."""
    row = await office.ask(protocol.LIMITS_SET, LimitsSet("ana@example.org", LimitValues(requests_per_minute=1)))
    assert (row.target, row.requests_per_minute, row.tokens_per_day) == ("user:ana@example.org", 1, None)
    assert row.effective is not None
    assert (row.effective.requests_per_minute, row.effective.tokens_per_day) == (1, "unlimited")
    assert [(await office.gate.chat()).status_code for _ in range(2)] == [200, 429]
    rows = await office.ask(protocol.LIMITS_SHOW, LimitsShow())
    assert [row.target for row in rows] == ["default", "user:ana@example.org"]
    row = await office.ask(protocol.LIMITS_CLEAR, LimitTarget("user:ana@example.org"))
    assert row.requests_per_minute is None
    assert (await office.gate.chat()).status_code == 200


async def test_an_unlimited_limit_is_a_word_and_not_a_missing_one(office: Office) -> None:
    """`unlimited` replaces the default; None leaves it in force."""
    await office.ask(protocol.LIMITS_SET, LimitsSet("default", LimitValues(requests_per_minute=5, concurrency=2)))
    row = await office.ask(
        protocol.LIMITS_SET, LimitsSet("ana@example.org", LimitValues(requests_per_minute="unlimited"))
    )
    assert (row.requests_per_minute, row.concurrency) == ("unlimited", None)
    assert row.effective is not None
    assert (row.effective.requests_per_minute, row.effective.concurrency) == ("unlimited", 2)


async def test_a_target_that_is_not_there_is_refused(office: Office) -> None:
    """Unknown users and keys, and what is no target at all."""
    for target in ("nobody@example.org", "key:zzz", "planet:earth", "address:here"):
        refused = await office.refused(protocol.LIMITS_SET, LimitsSet(target, LimitValues(concurrency=1)))
        assert refused.status in {400, 404}


# -- live -------------------------------------------------------------------------------------------------------------


async def test_a_running_request_is_seen_and_can_be_cancelled(office: Office) -> None:
    """Its upstream is closed, its client gets an explicit error, and who did it is recorded."""
    gate = asyncio.Event()
    office.gate.upstream.next(stall_after(1, gate))
    async with office.gate.streaming() as response:
        lines = response.aiter_lines()
        await anext(lines)
        (row,) = await office.ask(protocol.LIVE, Nothing())
        assert (row.state, row.user, row.model, row.chunks_out) == ("run", "ana@example.org", MODEL, 1)
        assert row.request_id == response.headers["x-request-id"]
        answer = await office.ask(protocol.CANCEL, CancelRequest(row.request_id))
        assert answer.cancelled
        assert "cancelled by an administrator" in [line async for line in lines][-1]
    await office.gate.upstream.inference[-1].client_left.wait()
    assert await office.ask(protocol.LIVE, Nothing()) == []
    assert office.recorded()[-1]["target"] == f"request:{row.request_id}"
    (found,) = await office.items(protocol.AUDIT_SEARCH, AuditSearch(AuditFilter(state="cancelled_by_admin")))
    assert found.request_id == row.request_id
    assert (await office.refused(protocol.CANCEL, CancelRequest(row.request_id))).status == 404


# -- models and upstreams ---------------------------------------------------------------------------------------------


async def test_models_are_listed_shown_and_deleted(office: Office) -> None:
    """Row 14, on the upstream behind the gate."""
    rows = await office.ask(protocol.MODELS_LIST, ModelsList())
    assert [(row.name, row.upstream) for row in rows] == [(MODEL, "up"), ("qwen3:4b", "up")]
    detail = await office.ask(protocol.MODELS_SHOW, ModelTarget("qwen3:4b"))
    assert (detail.name, detail.upstream) == ("qwen3:4b", "up")
    assert "details" in detail.information
    gone = await office.ask(protocol.MODELS_DELETE, ModelTarget("qwen3:4b"))
    assert (gone.name, gone.deleted) == ("qwen3:4b", True)
    assert [row.name for row in await office.ask(protocol.MODELS_LIST, ModelsList())] == [MODEL]
    assert (await office.refused(protocol.MODELS_DELETE, ModelTarget("qwen3:4b"))).status == 404


async def test_a_pull_streams_its_progress(office: Office) -> None:
    """Each step as the upstream tells it; the last one is success, and the model is there."""
    steps = await office.items(protocol.MODELS_PULL, ModelTarget("phi4:14b"))
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    assert "phi4:14b" in [row.name for row in await office.ask(protocol.MODELS_LIST, ModelsList())]
    assert office.recorded()[-1]["verb"] == "models pull"


async def test_leaving_a_pull_stops_it_at_the_upstream(office: Office) -> None:
    """Ctrl-C: the daemon notices that its client left and closes the upstream's connection."""

    async def endless(turn: Any) -> None:
        await turn.head()
        await turn.send(b'{"status":"pulling manifest"}\n')
        await turn.until_client_leaves()

    office.gate.upstream.next(endless, route="/api/pull")

    def pull() -> str:
        steps = office.client.items(protocol.MODELS_PULL, ModelTarget("phi4:14b"))
        first = next(steps)
        steps.close()
        return first.status

    assert await asyncio.to_thread(pull) == "pulling manifest"
    (seen,) = office.gate.upstream.seen("/api/pull")
    await asyncio.wait_for(seen.client_left.wait(), 5)


async def test_a_model_that_leaves_the_network_is_not_pulled(office: Office) -> None:
    """Cloud models are refused by name, before the upstream hears of them (H7)."""
    with pytest.raises(Refused, match="outside of this network"):
        await office.items(protocol.MODELS_PULL, ModelTarget("gpt-oss:120b-cloud"))
    assert office.gate.upstream.seen("/api/pull") == []


async def test_a_pull_that_ends_without_success_is_a_failure(office: Office) -> None:
    """A connection that ends well in the middle of a download is no success."""

    async def half(turn: Any) -> None:
        await turn.head()
        await turn.send(b'{"status":"pulling manifest"}\n')
        await turn.finish()

    office.gate.upstream.next(half, route="/api/pull")
    with pytest.raises(Refused, match="without success"):
        await office.items(protocol.MODELS_PULL, ModelTarget("phi4"))


async def test_a_pull_that_fails_is_a_failure(office: Office) -> None:
    """Ollama tells of it under status 200; it never looks like a success here."""

    async def missing(turn: Any) -> None:
        await turn.head()
        await turn.send(b'{"status":"pulling manifest"}\n')
        await turn.send(b'{"error":"pull model manifest: file does not exist"}\n')
        await turn.finish()

    office.gate.upstream.next(missing, route="/api/pull")
    with pytest.raises(Refused, match="file does not exist"):
        await office.items(protocol.MODELS_PULL, ModelTarget("nosuch"))


async def test_upstreams_are_listed_with_health_and_seats(office: Office) -> None:
    """Name, kind, state in a word, seats; a change of seats acts at once."""
    (row,) = await office.ask(protocol.UPSTREAMS_LIST, Nothing())
    assert (row.name, row.kind, row.state, row.seats) == ("up", "ollama", "ok", 2)
    row = await office.ask(protocol.UPSTREAMS_SEATS, UpstreamsSeats("up", 5))
    assert row.seats == 5
    assert office.gate.house.registry.upstreams[0].seats.size == 5
    assert (await office.refused(protocol.UPSTREAMS_SEATS, UpstreamsSeats("down", 5))).code == "upstream_unknown"


async def test_a_probe_finds_how_many_run_at_once(office: Office) -> None:
    """With an upstream that really has three places; what was found is kept for the doctor."""
    office.gate.upstream.seats = asyncio.Semaphore(3)
    office.gate.upstream.default = stall_after(1, asyncio.Event())
    answer = await office.ask(protocol.UPSTREAMS_PROBE, UpstreamTarget("up"))
    assert (answer.measured, answer.seats) == (3, 2)
    (row,) = await office.ask(protocol.UPSTREAMS_LIST, Nothing())
    assert row.probed_seats == 3
    findings = await office.ask(protocol.DOCTOR, Nothing())
    assert not [each for each in findings if "nobody has found out" in each.message]


# -- audit ------------------------------------------------------------------------------------------------------------


async def test_an_exchange_is_found_shown_and_that_is_recorded(office: Office) -> None:
    """Rows 40, 60: prompt and full answer; who looked at it stands in the audit."""
    response = await office.gate.chat()
    request_id = response.headers["x-request-id"]
    (row,) = await office.items(protocol.AUDIT_SEARCH, AuditSearch(AuditFilter(user="ana@example.org", state="ok")))
    assert (row.request_id, row.prompt) == (request_id, "Why?")
    assert await office.items(protocol.AUDIT_SEARCH, AuditSearch(AuditFilter(text="no such words"))) == []
    before = len(office.recorded())
    for name in (request_id, str(row.log_id)):
        exchange = await office.ask(protocol.AUDIT_SHOW, AuditShow(name))
        assert (exchange.prompt, exchange.response) == ("Why?", "Why not?")
    viewed = office.recorded()[before:]
    assert [(each["verb"], each["target"]) for each in viewed] == [("audit show", f"request:{request_id}")] * 2
    assert viewed[0]["actor"]["uid"] == os.getuid()
    assert (await office.refused(protocol.AUDIT_SHOW, AuditShow("nosuch"))).status == 404
    assert len(office.recorded()) == before + 2


async def test_an_export_counts_as_verified_only_if_what_lies_there_is_what_was_sent(office: Office) -> None:
    """The daemon compares digests; a wrong one is refused, and only the right one lets the user be deleted."""
    await office.gate.chat()
    await office.gate.house.limits.set(ADMIN, "ana@example.org", {"requests_per_minute": 3})
    await office.ask(protocol.USERS_DISABLE, UserTarget("ana@example.org"))
    assert (await office.refused(protocol.USERS_DELETE, UserTarget("ana@example.org"))).code == "not_exported"

    def export() -> tuple[str, bytes]:
        with office.client.download(protocol.AUDIT_EXPORT, AuditExport(user="ana@example.org")) as download:
            return download.export, b"".join(download)

    import hashlib

    export_id, body = await asyncio.to_thread(export)
    assert body.startswith(b"log_id,prompt,response,timestamp,request_id,user,")
    assert b"Why?,Why not?" in body
    digest = hashlib.sha256(body).hexdigest()
    wrong = AuditExported(export_id, hashlib.sha256(b"").hexdigest(), len(body), "/x")
    assert (await office.refused(protocol.AUDIT_EXPORTED, wrong)).status == 409
    assert (await office.refused(protocol.USERS_DELETE, UserTarget("ana@example.org"))).code == "not_exported"
    report = await office.ask(protocol.AUDIT_EXPORTED, AuditExported(export_id, digest, len(body), "/home/x/ana.csv"))
    assert (report.verified, report.sha256) == (True, digest)
    gone = await office.ask(protocol.USERS_DELETE, UserTarget("ana@example.org"))
    assert gone.deleted
    assert await office.ask(protocol.USERS_LIST, UsersList()) == []
    assert [each.target for each in office.gate.house.limits.show()] == ["default"], "nobody inherits her limits"
    assert (await office.ask(protocol.AUDIT_VERIFY, AuditVerify())).intact


async def test_the_journal_is_verified(office: Office) -> None:
    """Intact as it is; a wrong expectation is unmet, a senseless one refused."""
    await office.gate.chat()
    report = await office.ask(protocol.AUDIT_VERIFY, AuditVerify())
    assert (report.intact, report.problems) == (True, [])
    assert report.records >= 2
    kept = f"{report.head_seq}:{report.head_hash}"
    assert (await office.ask(protocol.AUDIT_VERIFY, AuditVerify(kept))).intact
    assert not (await office.ask(protocol.AUDIT_VERIFY, AuditVerify(f"{report.head_seq}:{'0' * 64}"))).intact
    assert (await office.refused(protocol.AUDIT_VERIFY, AuditVerify("rubbish"))).status == 400


# -- the daemon as a whole --------------------------------------------------------------------------------------------


async def test_status_tells_the_daemon_at_a_glance(office: Office) -> None:
    """What runs where, who is in, how much room is left."""
    answer = await office.ask(protocol.STATUS, Nothing())
    assert answer.pid == os.getpid()
    assert answer.addresses == [office.gate.url]
    assert answer.data == str(office.gate.data)
    assert answer.default_model == MODEL
    assert (answer.users.active, answer.running, answer.queued, answer.stopping) == (1, 0, 0, False)
    assert answer.disk.free > 0 and answer.disk.database > 0
    assert [row.name for row in answer.upstreams] == ["up"]


async def test_the_doctor_looks_at_the_running_daemon(office: Office) -> None:
    """Its own upstreams and configuration; nothing is wrong with a fresh one but what the test made so."""
    findings = await office.ask(protocol.DOCTOR, Nothing())
    assert not [finding for finding in findings if finding.severity == "error"]
    assert {"versions", "data", "disk", "clock", "upstream up"} <= {finding.subject for finding in findings}


async def test_the_selftest_goes_the_whole_way_and_leaves_no_key_behind(office: Office) -> None:
    """Row 27: a real streamed chat through the own port, found in the audit; the key is revoked."""
    steps = await office.items(protocol.SELFTEST, SelftestRequest())
    assert [(step.step, step.ok) for step in steps] == [
        ("service account", True),
        ("issue a key", True),
        ("reach the HTTP port", True),
        ("stream a chat", True),
        ("find it in the audit", True),
        ("revoke the key", True),
    ]
    assert office.gate.upstream.inference[-1].document["model"] == MODEL
    keys = await office.ask(protocol.KEYS_LIST, KeysList("selftest@gatelodge.internal", all=True))
    assert [key.state for key in keys] == ["revoked"]


async def test_a_selftest_that_fails_says_where_and_still_revokes_the_key(office: Office) -> None:
    """The step that failed is the last but for the key's end."""
    await office.gate.upstream.stop()
    steps = await office.items(protocol.SELFTEST, SelftestRequest())
    assert [(step.step, step.ok) for step in steps][-2:] == [("stream a chat", False), ("revoke the key", True)]
    assert "502" in steps[-2].message
    keys = await office.ask(protocol.KEYS_LIST, KeysList("selftest@gatelodge.internal", all=True))
    assert [key.state for key in keys] == ["revoked"]


async def test_leaving_a_selftest_revokes_its_key(office: Office) -> None:
    """Ctrl-C in the middle of the chat leaves no live key behind."""
    gate = asyncio.Event()
    office.gate.upstream.next(stall_after(1, gate))

    def leave() -> None:
        steps = office.client.items(protocol.SELFTEST, SelftestRequest())
        for step in steps:
            if step.step == "reach the HTTP port":
                break
        steps.close()

    await asyncio.to_thread(leave)
    directory = office.gate.house.directory
    await until(lambda: all(key.revoked_us is not None for key in directory.keys.values() if key.label == "selftest"))


async def test_half_an_export_is_not_taken_for_a_whole_one(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of many items without its last line, and an export without its last chunk, are errors to the client."""
    await office.gate.chat()

    async def pieces(*_: object) -> AsyncIterator[bytes]:
        yield b"log_id\r\n"
        raise RuntimeError("the disk went away")

    monkeypatch.setattr("daemon.audit.export.read_chunks", pieces)

    def export() -> bytes:
        with office.client.download(protocol.AUDIT_EXPORT, AuditExport()) as download:
            return b"".join(download)

    with pytest.raises(Unreachable):
        await asyncio.to_thread(export)
