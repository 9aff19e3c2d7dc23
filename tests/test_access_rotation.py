"""J6: keys are rotated under load, those of clients and those that sign tokens, and not one request fails."""

from __future__ import annotations

import asyncio
from asyncio import Task
from operator import gt
from pathlib import Path
from typing import Any

import httpx
import jwt

from tests.rigs.gatehouse import ADMIN, Gatehouse, gatehouse
from tests.rigs.lodge import SECOND, lodge, served
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until

CLIENTS = 4
ANA, PASSWORD = "ana@example.org", "a good password"


async def test_an_api_key_is_rotated_under_load_without_a_failed_request(tmp_path: Path) -> None:
    """Clients chat by the secret they know and by tokens made from it, and learn the next one a request later."""
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        (key,) = gate.house.directory.keys_of(gate.user.id)
        current = gate.key
        asked = [0] * CLIENTS
        failed: list[str] = []
        stop = asyncio.Event()

        async def use(number: int) -> None:
            known = current
            while not stop.is_set():
                credential = known if number % 2 else await token_of(gate, known)
                answer = await gate.chat(key=credential)
                if answer.status_code != 200:
                    failed.append(answer.text)
                known = current
                asked[number] += 1

        clients = [asyncio.create_task(use(number)) for number in range(CLIENTS)]
        for _ in range(8):
            seen = list(asked)
            await until(
                lambda seen=seen: failed or any(map(Task.done, clients)) or all(map(gt, asked, seen)), timeout=20
            )
            old, current = current, await gate.house.directory.rotate_key(ADMIN, key.id, 3600)
            late = await gate.chat(key=old)  # whoever was not told yet; the clients above may all be quick learners
            assert late.status_code == 200, late.text
        stop.set()
        await asyncio.gather(*clients)
        assert failed == []
        assert sum(asked) >= 8 * CLIENTS


async def token_of(gate: Gatehouse, key: str) -> str:
    """A token, as automation asks for it with its key."""
    name, _, secret = key.rpartition("_")
    answer = await gate.http.post(
        f"{gate.url}/oauth/token", data={"grant_type": "client_credentials"}, auth=(name, secret)
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


async def test_signing_keys_are_rotated_under_load_without_a_failed_request(tmp_path: Path) -> None:
    """Three hours, a new signing key each half an hour, a restart in between: sessions go on, and whoever caches the
    key set as long as it allows can verify every token at any time."""
    often = {"tokens__signing_key_lifetime": 1800}
    signers, requests = set(), 0
    async with lodge(tmp_path, **often) as it:
        clock = it.clock
        await it.person(ANA, PASSWORD)
        sessions = []
        for _ in range(CLIENTS):
            issued = await it.accounts.login(ANA, PASSWORD, "10.0.0.1")
            sessions.append({"access_token": issued.access_token, "refresh_token": issued.refresh_token})
    for half in range(2):
        async with lodge(tmp_path, clock=clock, **often) as it, served(it) as http:
            cached: Any = None
            for minute in range(half * 90, half * 90 + 90):
                if cached is None or minute % 5 == 3:  # Cache-Control: max-age=300; never just after a rotation
                    cached = jwt.PyJWKSet.from_dict((await http.get("/.well-known/jwks.json")).json())
                answers = await asyncio.gather(*(one(http, session, minute + n) for n, session in enumerate(sessions)))
                assert [answer.text for answer in answers if answer.status_code != 200] == [], f"minute {minute}"
                for session in sessions:
                    signers.add(verified_by(cached, str(session["access_token"])))
                requests += len(answers)
                clock.advance(60 * SECOND)
                await it.sessions.look_after()
    assert len(signers) >= 5
    assert requests == 2 * 90 * CLIENTS


async def one(http: httpx.AsyncClient, session: dict[str, Any], minute: int) -> httpx.Response:
    """A request of a client, which refreshes a minute before its token ends."""
    if minute % 9 == 0:
        form = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
        answer = await http.post("/oauth/token", data=form)
        if answer.status_code != 200:
            return answer
        session.update(answer.json())
    return await http.get("/auth/me", headers={"Authorization": f"Bearer {session['access_token']}"})


def verified_by(keys: Any, token: str) -> str:
    """The kid of the key in a cached key set that verifies the token; KeyError or an error of PyJWT's if none does."""
    kid = str(jwt.get_unverified_header(token)["kid"])
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    jwt.decode(token, keys[kid], algorithms=["EdDSA"], options=options)
    return kid
