"""Accounts over HTTP: shapes and statuses of the contract, and nothing that tells more than it should."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.access import keys
from tests.rigs.lodge import ADMIN, HERE, SECOND, lodge, served

ANA, PASSWORD, OTHER = "ana@example.org", "a good password", "another good one"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def logged_in(http: httpx.AsyncClient, email: str = ANA, password: str = PASSWORD) -> dict[str, str]:
    """The headers of a new session."""
    answer = await http.post("/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    return bearer(answer.json()["access_token"])


def told(answer: httpx.Response) -> tuple[Any, ...]:
    """What an answer tells, without what differs in every answer."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
    return answer.status_code, answer.content, headers


async def test_from_registration_to_a_key_of_ones_own(tmp_path: Path) -> None:
    """Row 49 and on: register, wait, be approved, log in, make a key, use it."""
    async with lodge(tmp_path) as it, served(it) as http:
        answer = await http.post("/auth/register", json={"email": ANA, "password": PASSWORD})
        assert answer.status_code == 202
        assert answer.json().keys() == {"status", "code"}
        assert answer.json()["status"] == "pending"
        (entry,) = it.directory.registrations.values()
        assert (entry.code, entry.email, entry.address) == (answer.json()["code"], ANA, "127.0.0.1")

        waiting = await http.post("/auth/login", json={"email": ANA, "password": PASSWORD})
        assert waiting.status_code == 403
        assert waiting.json()["code"] == "pending_approval"
        assert "approval" in waiting.json()["error"]

        await it.directory.approve(ADMIN, entry.code)
        answer = await http.post("/auth/login", json={"email": ANA, "password": PASSWORD})
        assert answer.status_code == 200
        assert answer.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
        assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 600)
        assert answer.headers["Cache-Control"] == "no-store"
        session = bearer(answer.json()["access_token"])

        me = await http.get("/auth/me", headers=session)
        assert (me.status_code, me.json()["email"], me.json()["role"]) == (200, ANA, "user")

        made = await http.post("/auth/keys", json={"label": "laptop"}, headers=session)
        assert made.status_code == 201
        assert made.json()["key"].startswith(f"glk_{made.json()['id']}_")
        by_key = await http.get("/auth/me", headers={"X-API-KEY": made.json()["key"]})
        assert (by_key.json()["email"], by_key.json()["key"]) == (ANA, made.json()["id"])


async def test_registering_answers_the_same_for_known_addresses(tmp_path: Path) -> None:
    """Row 49: status, shape and headers, and what the login says afterwards."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        answers = []
        for email in (ANA, "nobody@example.org"):
            answer = await http.post("/auth/register", json={"email": email, "password": OTHER})
            code = answer.json()["code"]
            assert len(code) == 7
            after = await http.post("/auth/login", json={"email": email, "password": OTHER})
            answers.append((answer.status_code, answer.content.replace(code.encode(), b""), told(after)))
        assert answers[0] == answers[1]


async def test_registrations_from_this_machine_are_not_counted_unless_forwarded(tmp_path: Path) -> None:
    """Ten an hour from an address; loopback is exempt only where no proxy can stand before it."""
    async with lodge(tmp_path, registration__per_address_per_hour=1) as it, served(it) as http:
        for number in range(3):
            answer = await http.post("/auth/register", json={"email": f"a{number}@x.org", "password": PASSWORD})
            assert answer.status_code == 202
        for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            answers = [
                await http.post(
                    "/auth/register",
                    json={"email": f"{header}@x.org", "password": PASSWORD},
                    headers={header: "1.2.3.4"},
                )
                for _ in range(2)
            ]
            assert answers[-1].status_code == 429
            assert int(answers[-1].headers["Retry-After"]) <= 3600
    async with (
        lodge(
            tmp_path / "proxied", registration__per_address_per_hour=1, server__trusted_proxies=["127.0.0.1/32"]
        ) as it,
        served(it) as http,
    ):
        statuses = []
        for number in range(4):
            headers = {"X-Forwarded-For": "10.0.0.1" if number < 2 else "10.0.0.2"}
            answer = await http.post(
                "/auth/register", json={"email": f"a{number}@x.org", "password": PASSWORD}, headers=headers
            )
            statuses.append(answer.status_code)
        assert statuses == [202, 429, 202, 429]
        statuses = [
            (await http.post("/auth/register", json={"email": f"b{number}@x.org", "password": PASSWORD})).status_code
            for number in range(2)
        ]
        assert statuses == [202, 429]
        addresses = {entry.address for entry in it.directory.registrations.values()}
        assert addresses == {"10.0.0.1", "10.0.0.2", "127.0.0.1"}


async def test_every_refused_login_has_the_same_bytes(tmp_path: Path) -> None:
    """P2: unknown, disabled, wrong, service: status, body and headers."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        disabled = await it.person("disabled@example.org", PASSWORD)
        await it.directory.disable(ADMIN, disabled.id)
        await it.directory.add_user(ADMIN, "robot@example.org", service=True)
        answers = set()
        for email, password in (
            (ANA, "wrong password"),
            (disabled.email, PASSWORD),
            ("nobody@example.org", PASSWORD),
            ("robot@example.org", PASSWORD),
        ):
            answer = await http.post("/auth/login", json={"email": email, "password": password})
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.headers["Cache-Control"] == "no-store"
            answers.add(str(told(answer)))
        assert len(answers) == 1
        assert "401" in answers.pop()


async def test_a_one_time_password_only_sets_a_new_one(tmp_path: Path) -> None:
    """Rows 52 and 55: 403 `password_change_required` at the login, 204 at /auth/password, then in."""
    async with lodge(tmp_path) as it, served(it) as http:
        _, one_time = await it.directory.add_user(ADMIN, ANA)
        refused = await http.post("/auth/login", json={"email": ANA, "password": one_time})
        assert (refused.status_code, refused.json()["code"]) == (403, "password_change_required")
        changed = await http.post("/auth/password", json={"email": ANA, "old": one_time, "new": PASSWORD})
        assert (changed.status_code, changed.content) == (204, b"")
        assert "Content-Type" not in changed.headers
        await logged_in(http)
        again = await http.post("/auth/password", json={"email": ANA, "old": one_time, "new": OTHER})
        assert again.status_code == 401


async def test_a_changed_password_ends_the_sessions(tmp_path: Path) -> None:
    """Row 50: whoever knows the old one; the old token is refused on the next request."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        session = await logged_in(http)
        answer = await http.post("/auth/password", json={"old": PASSWORD, "new": OTHER}, headers=session)
        assert answer.status_code == 204
        assert (await http.get("/auth/me", headers=session)).status_code == 401
        assert (await http.post("/auth/login", json={"email": ANA, "password": PASSWORD})).status_code == 401
        await logged_in(http, password=OTHER)
        record = (await it.audit())[-2]
        assert (record["verb"], record["actor"]["name"], record["actor"]["via"]) == ("users password", ANA, "http")


async def test_whose_password_it_is(tmp_path: Path) -> None:
    """By address or by credential; both must agree; neither is 401; a credential that has ended is not needed."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        await it.person("bea@example.org", PASSWORD)
        session = await logged_in(http)
        for body, headers, status in (
            ({}, {}, 401),
            ({"email": "bea@example.org"}, session, 400),
            ({"email": ANA}, bearer("a.b.c"), 204),
            ({"email": " ANA@example.org"}, {}, 401),  # by now it is another password
        ):
            answer = await http.post("/auth/password", json={"old": PASSWORD, "new": OTHER} | body, headers=headers)
            assert answer.status_code == status, body


@pytest.mark.parametrize(("password", "code"), [("tiny123", "password_too_short"), ("Password1", "password_common")])
async def test_an_unfit_password_is_refused_in_words(tmp_path: Path, password: str, code: str) -> None:
    """P5: 400 with the reason, not with the password."""
    async with lodge(tmp_path) as it, served(it) as http:
        for path, body in (
            ("/auth/register", {"email": ANA, "password": password}),
            ("/auth/password", {"email": ANA, "old": PASSWORD, "new": password}),
        ):
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, code)
            assert password not in answer.text
        assert it.directory.registrations == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"email":1,"password":"x"}',
        b'{"email":"a@b","email":"c@d","password":"x"}',
        b"email=a&password=b",
    ],
)
async def test_a_body_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    """400 in words, whatever the content type says; never a traceback."""
    async with lodge(tmp_path) as it, served(it) as http:
        for path in ("/auth/register", "/auth/login", "/auth/password"):
            answer = await http.post(path, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
            assert answer.status_code == 400
            assert answer.json()["error"]
        huge = await http.post("/auth/login", json={"email": ANA, "password": "x" * 70_000})
        assert huge.status_code == 413
        assert await it.audit() == []


async def test_a_wrong_type_is_named_without_the_value(tmp_path: Path) -> None:
    """An error must not carry what was typed into a password field."""
    async with lodge(tmp_path) as it, served(it) as http:
        answer = await http.post("/auth/login", json={"email": ANA, "password": {"secret": "hunter two"}})
        assert answer.status_code == 400
        assert "hunter" not in answer.text


async def test_too_many_wrong_passwords_are_429_with_a_time(tmp_path: Path) -> None:
    """P3 at the door, for login and password change together."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        for number in range(5):
            path = ("/auth/login", "/auth/password")[number % 2]
            body = {"email": ANA, "password": "wrong password", "old": "wrong password", "new": OTHER}
            assert (await http.post(path, json=body)).status_code == 401
        answer = await http.post("/auth/login", json={"email": ANA, "password": PASSWORD})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        it.clock.advance(SECOND)
        await logged_in(http)


# -- one's own keys ---------------------------------------------------------------------------------------------------


async def test_a_keys_life_at_its_owners_hands(tmp_path: Path) -> None:
    """Issue with every restriction, list without secrets, rotate with grace, revoke: rows 11 and 78."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        session = await logged_in(http)
        wish = {
            "label": "laptop",
            "expires_in": 3600,
            "models": ["llama3*"],
            "addresses": ["127.0.0.1"],
        }
        made = (await http.post("/auth/keys", json=wish, headers=session)).json()
        key_id, first = made["id"], made["key"]
        assert made["prefix"] == f"glk_{key_id}"
        assert keys.read(first) is not None

        (row,) = (await http.get("/auth/keys", headers=session)).json()
        assert first.rpartition("_")[2] not in json.dumps(row)
        assert row.keys() == made.keys() - {"key"}
        assert (row["label"], row["state"], row["models"], row["addresses"]) == (
            "laptop",
            "active",
            ["llama3*"],
            ["127.0.0.1/32"],
        )
        assert row["in_path"] is False, "that it may stand in the path is for an administrator to say"
        assert row["expires"] > row["created"]

        rotated = await http.post(f"/auth/keys/{key_id}/rotate", json={"grace_seconds": 60}, headers=session)
        second = rotated.json()["key"]
        assert (rotated.status_code, rotated.json()["id"]) == (200, key_id)
        assert rotated.json()["previous_until"]
        for secret in (first, second):
            assert (await http.get("/auth/me", headers=bearer(secret))).status_code == 200
        third = (await http.post(f"/auth/keys/{key_id}/rotate", headers=session)).json()["key"]
        assert (await http.get("/auth/me", headers=bearer(second))).status_code == 401

        revoked = await http.delete(f"/auth/keys/{key_id}", headers=session)
        assert (revoked.status_code, revoked.content) == (204, b"")
        assert (await http.get("/auth/me", headers=bearer(third))).status_code == 401
        (row,) = (await http.get("/auth/keys", headers=session)).json()
        assert row["state"] == "revoked"
        assert row["revoked"]
        actors = {record["actor"]["name"] for record in await it.audit() if record["verb"].startswith("keys")}
        assert actors == {ANA}


async def test_anothers_key_is_no_key(tmp_path: Path) -> None:
    """404, as for one that does not exist; it goes on working."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        bea = await it.person("bea@example.org", PASSWORD)
        key, text = await it.directory.issue_key(ADMIN, bea.id, "bea's")
        session = await logged_in(http)
        assert (await http.get("/auth/keys", headers=session)).json() == []
        answers = set()
        for key_id in (key.id, "a1b2c3d4e5"):
            rotated = await http.post(f"/auth/keys/{key_id}/rotate", headers=session)
            revoked = await http.delete(f"/auth/keys/{key_id}", headers=session)
            answers.add((rotated.status_code, revoked.status_code, rotated.text.replace(key_id, "ID")))
        assert {answer[:2] for answer in answers} == {(404, 404)}
        assert len(answers) == 1
        assert (await http.get("/auth/me", headers=bearer(text))).status_code == 200


async def test_a_key_can_neither_make_nor_end_keys(tmp_path: Path) -> None:
    """Else a stolen or restricted one would outlive its revocation; a token made from it likewise."""
    async with lodge(tmp_path) as it, served(it) as http:
        user = await it.person(ANA, PASSWORD)
        key, text = await it.directory.issue_key(ADMIN, user.id, "stolen", models=["tiny*"])
        for credential in (text, it.sessions.issue_to_client(key).access_token):
            headers = bearer(credential)
            assert len((await http.get("/auth/keys", headers=headers)).json()) == 1
            for answer in (
                await http.post("/auth/keys", json={"label": "another"}, headers=headers),
                await http.post(f"/auth/keys/{key.id}/rotate", headers=headers),
                await http.delete(f"/auth/keys/{key.id}", headers=headers),
            ):
                assert (answer.status_code, answer.json()["code"]) == (403, "session_needed")
        assert list(it.directory.keys) == [key.id]


async def test_self_issue_can_be_switched_off(tmp_path: Path) -> None:
    """Then only rotating and revoking are left to users."""
    async with lodge(tmp_path, registration__self_issued_keys=False) as it, served(it) as http:
        user = await it.person(ANA, PASSWORD)
        session = await logged_in(http)
        answer = await http.post("/auth/keys", json={"label": "laptop"}, headers=session)
        assert (answer.status_code, answer.json()["code"]) == (403, "self_issue_off")
        key, _ = await it.directory.issue_key(ADMIN, user.id, "laptop")
        assert (await http.post(f"/auth/keys/{key.id}/rotate", headers=session)).status_code == 200


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"label": ""},
        {"label": "x", "expires_in": 0},
        {"label": "x", "expires_in": -5},
        {"label": "x", "expires_in": 10**18},
        {"label": "x", "addresses": ["office"]},
        {"label": "x", "models": "llama"},
    ],
)
async def test_a_wish_that_makes_no_sense_is_400(tmp_path: Path, wish: dict[str, Any]) -> None:
    """In words."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        session = await logged_in(http)
        answer = await http.post("/auth/keys", json=wish, headers=session)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/auth/me"),
        ("GET", "/auth/keys"),
        ("POST", "/auth/keys"),
        ("POST", "/auth/keys/abc/rotate"),
        ("DELETE", "/auth/keys/abc"),
    ],
)
async def test_ones_own_things_need_a_credential(tmp_path: Path, method: str, path: str) -> None:
    """401 with both `error` and `detail`; a bare challenge without, `invalid_token` with a wrong credential."""
    async with lodge(tmp_path) as it, served(it) as http:
        bare = await http.request(method, path)
        assert bare.status_code == 401
        assert bare.headers["WWW-Authenticate"] == 'Bearer realm="gatelodge"'
        wrong = await http.request(method, path, headers=bearer("glk_a_b"))
        assert wrong.status_code == 401
        assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]
        for answer in (bare, wrong):
            assert {"error", "detail"} <= answer.json().keys()
        two = await http.request(method, path, headers=bearer("glk_a_b") | {"X-API-KEY": "glk_c_d"})
        assert two.status_code == 400


async def test_a_metrics_key_is_good_for_nothing_else(tmp_path: Path) -> None:
    """Contract, "Routes and credentials": RFC 6750's 403."""
    async with lodge(tmp_path) as it, served(it) as http:
        user = await it.person(ANA, PASSWORD)
        _, text = await it.directory.issue_key(ADMIN, user.id, "prometheus", metrics=True)
        answer = await http.get("/auth/me", headers=bearer(text))
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("vectors", ["signature", "key"])
async def test_no_foreign_token_passes_the_door(tmp_path: Path, vectors: str, caplog: pytest.LogCaptureFixture) -> None:
    """J1 over HTTP: every Wycheproof token that a header can carry is 401, and nothing is logged as a failure."""
    content = json.loads(
        (Path(__file__).with_name("vectors") / f"wycheproof_json_web_{vectors}_test.json").read_text(encoding="utf-8")
    )
    async with lodge(tmp_path) as it, served(it) as http:
        statuses = {}
        for group in content["testGroups"]:
            for test in group["tests"]:
                jws = test["jws"]
                if isinstance(jws, str) and jws.isascii() and jws.isprintable() and jws and jws == jws.strip():
                    answer = await http.get("/auth/me", headers=bearer(jws))
                    statuses[test["tcId"]] = answer.status_code
        assert set(statuses.values()) == {401}
        assert len(statuses) > 20
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_disabling_acts_on_the_next_request(tmp_path: Path) -> None:
    """Row 51: session and key alike; enabling brings the key back."""
    async with lodge(tmp_path) as it, served(it) as http:
        user = await it.person(ANA, PASSWORD)
        session = await logged_in(http)
        _, text = await it.directory.issue_key(ADMIN, user.id, "laptop")
        await it.directory.disable(ADMIN, user.id)
        for headers in (session, bearer(text)):
            assert (await http.get("/auth/me", headers=headers)).status_code == 401
        await it.directory.enable(ADMIN, user.id)
        assert (await http.get("/auth/me", headers=session)).status_code == 401
        assert (await http.get("/auth/me", headers=bearer(text))).status_code == 200


async def test_no_secret_stands_in_a_claim(tmp_path: Path) -> None:
    """Anybody can read a token: it names numbers, not people."""
    async with lodge(tmp_path) as it, served(it) as http:
        await it.person(ANA, PASSWORD)
        token = (await logged_in(http))["Authorization"].partition(" ")[2]
        payload = base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()
        assert ANA not in payload
        assert json.loads(payload)["client_id"] == "gatelodge-login"


async def test_the_address_of_a_key_is_the_clients(tmp_path: Path) -> None:
    """A key for 10.0.0.1 is refused from here: 403 that says from where."""
    async with lodge(tmp_path) as it, served(it) as http:
        user = await it.person(ANA, PASSWORD)
        _, text = await it.directory.issue_key(ADMIN, user.id, "laptop", addresses=[HERE])
        answer = await http.get("/auth/me", headers=bearer(text))
        assert (answer.status_code, answer.json()["code"]) == (403, "address_not_allowed")
        assert "127.0.0.1" in answer.json()["error"]
