"""The OAuth face: RFC 6749, 7009, 8414, 7517, as clients written by others expect them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import jwt
import pytest

from tests.rigs.lodge import ADMIN, SECOND, Lodge, lodge, served

ANA, PASSWORD = "ana@example.org", "a good password"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(name: str, secret: str) -> dict[str, str]:
    text = base64.b64encode(f"{quote_plus(name)}:{quote_plus(secret)}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


async def client(it: Lodge, **restrictions: Any) -> tuple[str, str]:
    """(client_id, client_secret) of a service account's key."""
    user, _ = await it.directory.add_user(ADMIN, "robot@example.org", service=True)
    _, text = await it.directory.issue_key(ADMIN, user.id, "robot", **restrictions)
    name, _, secret = text.rpartition("_")
    return name, secret


async def refresh_token(it: Lodge, http: httpx.AsyncClient) -> str:
    await it.person(ANA, PASSWORD)
    answer = await http.post("/auth/login", json={"email": ANA, "password": PASSWORD})
    return str(answer.json()["refresh_token"])


def is_error(answer: httpx.Response, status: int, word: str) -> None:
    """RFC 6749, 5.2."""
    assert (answer.status_code, answer.json()["error"]) == (status, word), answer.text
    assert answer.json()["error_description"]
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_automation_gets_a_token_by_basic_or_form(tmp_path: Path) -> None:
    """RFC 6749, 4.4: no refresh token; the token names the client; it is good at once."""
    async with lodge(tmp_path) as it, served(it) as http:
        name, secret = await client(it)
        grant = {"grant_type": "client_credentials"}
        for answer in (
            await http.post("/oauth/token", data=grant, headers=basic(name, secret)),
            await http.post("/oauth/token", data=grant | {"client_id": name, "client_secret": secret}),
            await http.post("/oauth/token", data=grant | {"client_id": name}, headers=basic(name, secret)),
        ):
            assert answer.status_code == 200, answer.text
            assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Pragma"] == "no-cache"
            token = answer.json()["access_token"]
            claims = jwt.decode(token, options={"verify_signature": False})
            assert claims["client_id"] == claims["sub"] == name
            me = await http.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
            assert me.json()["email"] == "robot@example.org"


@pytest.mark.parametrize(
    "wrong", ["secret", "client", "revoked", "disabled", "expired", "metrics", "address", "garbage"]
)
async def test_a_client_that_does_not_count_is_invalid(tmp_path: Path, wrong: str) -> None:
    """One answer for everything that can be wrong: 401 `invalid_client` with a challenge."""
    async with lodge(tmp_path) as it, served(it) as http:
        restrictions: dict[str, Any] = {
            "expired": {"expires_us": it.clock.wall() + SECOND},
            "metrics": {"metrics": True},
            "address": {"addresses": ["10.0.0.1"]},
        }.get(wrong, {})
        name, secret = await client(it, **restrictions)
        (key,) = it.directory.keys.values()
        if wrong == "revoked":
            await it.directory.revoke_key(ADMIN, key.id)
        if wrong == "disabled":
            await it.directory.disable(ADMIN, key.user_id)
        it.clock.advance(SECOND)
        headers = basic("glk_unknown" if wrong == "client" else name, "x" * 43 if wrong == "secret" else secret)
        if wrong == "garbage":
            headers = {"Authorization": "Basic !!!!"}
        answer = await http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers)
        is_error(answer, 401, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert answer.json()["error_description"] == (
            "the client is unknown, its secret wrong, or it may not ask from here"
        )


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=password&username=a&password=b", "unsupported_grant_type"),
        ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=x", "invalid_grant"),
        ("grant_type=refresh_token&refresh_token=glr_" + "a" * 43, "invalid_grant"),
        ("grant_type=refresh_token&refresh_token=x&client_id=glk_other", "invalid_grant"),
        ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        ("grant_type=client_credentials&client_id=a&client_id=b", "invalid_request"),
        ("&".join(f"a{n}=1" for n in range(30)), "invalid_request"),
        ("grant_type=%ff", "invalid_request"),
        ("grant_type=\u00e4", "invalid_request"),
    ],
)
async def test_token_requests_that_are_wrong_are_400_in_oauths_words(tmp_path: Path, body: str, word: str) -> None:
    """RFC 6749, 5.2; a parameter twice is an error (3.2)."""
    async with lodge(tmp_path) as it, served(it) as http:
        is_error(await http.post("/oauth/token", content=body.encode(), headers=FORM), 400, word)


async def test_the_body_must_be_a_form(tmp_path: Path) -> None:
    """JSON, nothing, or more than is reasonable: an OAuth error all the same; a GET is none of ours."""
    async with lodge(tmp_path) as it, served(it) as http:
        is_error(await http.post("/oauth/token", json={"grant_type": "client_credentials"}), 400, "invalid_request")
        is_error(await http.post("/oauth/token"), 400, "invalid_request")
        name, secret = await client(it)
        body = f"grant_type=client_credentials&client_id={name}&client_secret={secret}".encode()
        is_error(
            await http.post("/oauth/token", content=body, headers={"Content-Type": "text/plain"}),
            400,
            "invalid_request",
        )
        assert (await http.post("/oauth/token", content=body, headers=FORM)).status_code == 200
        huge = await http.post("/oauth/token", content=b"a=" + b"x" * 70_000, headers=FORM)
        is_error(huge, 413, "invalid_request")
        is_error(await http.get("/oauth/token"), 405, "invalid_request")


async def test_the_secret_is_taken_from_one_place(tmp_path: Path) -> None:
    """RFC 6749, 2.3: not more than one method a request; and one client."""
    async with lodge(tmp_path) as it, served(it) as http:
        name, secret = await client(it)
        grant = {"grant_type": "client_credentials"}
        both = await http.post(
            "/oauth/token", data=grant | {"client_id": name, "client_secret": secret}, headers=basic(name, secret)
        )
        is_error(both, 400, "invalid_request")
        two = await http.post("/oauth/token", data=grant | {"client_id": "glk_other"}, headers=basic(name, secret))
        is_error(two, 400, "invalid_request")


async def test_a_refresh_needs_no_client_and_rotates(tmp_path: Path) -> None:
    """J4 over HTTP: each token once; the second use ends the session."""
    async with lodge(tmp_path) as it, served(it) as http:
        first = await refresh_token(it, http)
        grant = {"grant_type": "refresh_token", "refresh_token": first}
        answer = await http.post("/oauth/token", data=grant)
        assert answer.status_code == 200
        assert answer.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
        second = answer.json()["refresh_token"]
        named = await http.post(
            "/oauth/token",
            data={"grant_type": "refresh_token", "refresh_token": second, "client_id": "gatelodge-login"},
        )
        assert named.status_code == 200
        is_error(await http.post("/oauth/token", data=grant), 400, "invalid_grant")
        last = {"grant_type": "refresh_token", "refresh_token": named.json()["refresh_token"]}
        is_error(await http.post("/oauth/token", data=last), 400, "invalid_grant")
        me = await http.get("/auth/me", headers={"Authorization": f"Bearer {named.json()['access_token']}"})
        assert me.status_code == 401


async def test_revocation_answers_200_whatever_the_token(tmp_path: Path) -> None:
    """RFC 7009, 2.2: known, unknown, over, of either kind, with a hint or without."""
    async with lodge(tmp_path) as it, served(it) as http:
        refresh = await refresh_token(it, http)
        login = await http.post("/auth/login", json={"email": ANA, "password": PASSWORD})
        access = login.json()["access_token"]
        for token, hint in (
            (refresh, "refresh_token"),
            (refresh, "access_token"),
            (access, "access_token"),
            (access, "nonsense"),
            ("unknown", ""),
        ):
            answer = await http.post("/oauth/revoke", data={"token": token, "token_type_hint": hint})
            assert answer.status_code == 200, answer.text
        assert (await http.get("/auth/me", headers={"Authorization": f"Bearer {access}"})).status_code == 401
        is_error(
            await http.post("/oauth/token", data={"grant_type": "refresh_token", "refresh_token": refresh}),
            400,
            "invalid_grant",
        )
        is_error(await http.post("/oauth/revoke", data={"hint": "x"}), 400, "invalid_request")
        wrong = {"token": access, "client_id": "glk_a", "client_secret": "b"}
        is_error(await http.post("/oauth/revoke", data=wrong), 401, "invalid_client")


async def test_the_metadata_advertises_what_works(tmp_path: Path) -> None:
    """RFC 8414: every address in it answers, every grant in it is one; `iss` is the issuer."""
    async with lodge(tmp_path) as it, served(it) as http:
        name, secret = await client(it)
        document = (await http.get("/.well-known/oauth-authorization-server")).json()
        assert document["grant_types_supported"] == ["client_credentials", "refresh_token"]
        assert document["response_types_supported"] == []
        answer = await http.post(
            document["token_endpoint"], data={"grant_type": "client_credentials"}, headers=basic(name, secret)
        )
        token = answer.json()["access_token"]
        key_set = jwt.PyJWKSet.from_dict((await http.get(document["jwks_uri"])).json())
        key = key_set[jwt.get_unverified_header(token)["kid"]]
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            issuer=document["issuer"],
            audience=document["issuer"],
            options=options,
        )
        assert claims["client_id"] == name
        revoked = await http.post(document["revocation_endpoint"], data={"token": token})
        assert revoked.status_code == 200


async def test_the_issuer_is_not_what_a_client_writes_into_host(tmp_path: Path) -> None:
    """The addresses follow the Host, so that they work where the client stands; the issuer does not."""
    async with lodge(tmp_path) as it, served(it) as http:
        document = (await http.get("/.well-known/oauth-authorization-server", headers={"Host": "evil.example"})).json()
        assert document["issuer"] == "http://127.0.0.1:7000"


async def test_behind_a_proxy_that_ends_tls_the_addresses_are_https(tmp_path: Path) -> None:
    """Only a configured proxy is believed."""
    path = "/.well-known/oauth-authorization-server"
    said = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https", "Host": "gate.example.org"}
    async with lodge(tmp_path / "a") as it, served(it) as http:
        assert (await http.get(path, headers=said)).json()["token_endpoint"].startswith("http://gate")
    async with lodge(tmp_path / "b", server__trusted_proxies=["127.0.0.1/32"]) as it, served(it) as http:
        document = (await http.get(path, headers=said)).json()
        assert document["token_endpoint"] == "https://gate.example.org/oauth/token"


async def test_the_key_set_may_be_cached_and_has_no_private_part(tmp_path: Path) -> None:
    """For five minutes: a key is published ten before it signs."""
    async with lodge(tmp_path) as it, served(it) as http:
        answer = await http.get("/.well-known/jwks.json")
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        for jwk in answer.json()["keys"]:
            assert jwk.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
