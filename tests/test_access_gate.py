"""Identity at the whole gate: from registration to a streamed answer, and sessions whose end cuts what runs in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.gatehouse import ADMIN, QUESTION, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after

BEA, PASSWORD, OTHER = "bea@example.org", "a good password", "another good one"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


async def a_person(gate: Gatehouse) -> None:
    """Bea, registered over HTTP and approved."""
    answer = await gate.http.post(f"{gate.url}/auth/register", json={"email": BEA, "password": PASSWORD})
    await gate.house.directory.approve(ADMIN, answer.json()["code"])


async def tokens(gate: Gatehouse, password: str = PASSWORD) -> dict[str, Any]:
    answer = await gate.http.post(f"{gate.url}/auth/login", json={"email": BEA, "password": password})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_from_registration_to_a_streamed_answer(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Register, be approved, log in, stream a chat by the token: the audit names the person, no secret is kept (P8)."""
    async with gatehouse(tmp_path, upstream) as gate:
        await a_person(gate)
        session = await tokens(gate)
        async with gate.streaming(key=session["access_token"]) as answer:
            assert answer.status_code == 200
            lines = [json.loads(line) async for line in answer.aiter_lines()]
        assert lines[-1]["done"] is True
        await until(lambda: not gate.house.gate.live())
        (row,) = [row for row in await gate.records() if row.state is not None]
        assert (row.user, row.key, row.state) == (BEA, None, "ok")
        ended = await tokens(gate)
        await gate.http.post(f"{gate.url}/oauth/revoke", data={"token": ended["refresh_token"]})
        secrets = [PASSWORD, gate.key, gate.key.rpartition("_")[2], *ended.values(), *session.values()]
    kept = b"".join(file.read_bytes() for file in gate.data.rglob("*") if file.is_file())
    assert BEA.encode() in kept
    assert [text for text in secrets if isinstance(text, str) and len(text) > 10 and text.encode() in kept] == []
    async with gatehouse(tmp_path, upstream) as gate:
        assert (await gate.chat(key=session["access_token"])).status_code == 200
        assert (await gate.chat(key=ended["access_token"])).status_code == 401
        refresh = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
        again = await gate.http.post(f"{gate.url}/oauth/token", data=refresh)
        assert (await gate.chat(key=again.json()["access_token"])).status_code == 200


ENDS = {  # what somebody does -> whose streams end, and as what; tokens made from a key end with it and with the epoch
    "revoke": ({"session"}, "credential_revoked"),
    "reuse": ({"session"}, "credential_revoked"),
    "password": ({"session", "token"}, "credential_revoked"),
    "reset": ({"session", "token"}, "credential_revoked"),
    "disable": ({"session", "key", "token"}, "user_disabled"),
    "key": ({"key", "token"}, "credential_revoked"),
    "token": ({"token"}, "credential_revoked"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_the_end_of_a_credential_cuts_what_runs_under_it(
    tmp_path: Path, upstream: ScriptedUpstream, end: str
) -> None:
    """J5: streams end with an error in them, those of other credentials go on, the next request is refused, and so it
    stays after a restart. (Within two seconds: bounded at twenty here, measured by tests/bench/logins.py.)"""
    ended, state = ENDS[end]
    seats = [{"name": "up", "kind": upstream.kind, "url": upstream.url, "seats": 3}]
    async with gatehouse(tmp_path, upstream, upstreams=seats) as gate:
        await a_person(gate)
        session = await tokens(gate)
        bea = gate.house.directory.find(BEA)
        assert bea is not None
        key, text = await gate.house.directory.issue_key(ADMIN, bea.id, "laptop")
        made = gate.house.sessions.issue_to_client(key).access_token
        credentials = {"session": session["access_token"], "key": text, "token": made}
        go_on = asyncio.Event()
        async with AsyncExitStack() as stack:
            streams = {}
            for name, credential in credentials.items():
                upstream.next(stall_after(1, go_on))
                answer = await stack.enter_async_context(gate.streaming(key=credential))
                streams[name] = answer.aiter_lines()
                await anext(streams[name])
            async with asyncio.timeout(20):
                await ending(gate, end, session, key.id, made)
                for name in ended:
                    rest = [json.loads(line) async for line in streams[name]]
                    assert "error" in rest[-1]
                    assert not any(line.get("done") for line in rest)
            go_on.set()
            for name in credentials.keys() - ended:
                assert [json.loads(line) async for line in streams[name]][-1]["done"] is True
        await until(lambda: not gate.house.gate.live())
        states = sorted(str(row.state) for row in await gate.records())
        assert states == sorted([state] * len(ended) + ["ok"] * (3 - len(ended)))
        for name, credential in credentials.items():
            assert (await gate.chat(key=credential)).status_code == (401 if name in ended else 200)
    async with gatehouse(tmp_path, upstream) as gate:
        for name, credential in credentials.items():
            assert (await gate.chat(key=credential)).status_code == (401 if name in ended else 200)


async def ending(gate: Gatehouse, end: str, session: dict[str, Any], key_id: str, token: str) -> None:
    """End a credential of Bea's, as people, thieves and administrators do."""
    bea = gate.house.directory.find(BEA)
    assert bea is not None
    if end == "password":
        body = {"email": BEA, "old": PASSWORD, "new": OTHER}
        await gate.http.post(f"{gate.url}/auth/password", json=body)
    elif end == "revoke":
        await gate.http.post(f"{gate.url}/oauth/revoke", data={"token": session["refresh_token"]})
    elif end == "reuse":
        form = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
        for _ in range(2):
            await gate.http.post(f"{gate.url}/oauth/token", data=form)
    elif end == "reset":
        await gate.house.directory.reset_password(ADMIN, bea.id)
    elif end == "disable":
        await gate.house.directory.disable(ADMIN, bea.id)
    elif end == "key":
        await gate.house.directory.revoke_key(ADMIN, key_id)
    else:
        await gate.http.post(f"{gate.url}/oauth/revoke", data={"token": token})


async def test_a_token_of_automation_has_the_keys_bounds(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A model that the key is not for is refused to its token, too; its exchanges are recorded under the key."""
    async with gatehouse(tmp_path, upstream) as gate:
        key, text = await gate.house.directory.issue_key(ADMIN, gate.user.id, "robot", models=["other*"])
        form = {
            "grant_type": "client_credentials",
            "client_id": f"glk_{key.id}",
            "client_secret": text.rpartition("_")[2],
        }
        answer = await gate.http.post(f"{gate.url}/oauth/token", data=form)
        token = answer.json()["access_token"]
        refused = await gate.post("/api/chat", QUESTION, key=token)
        assert refused.status_code == 403
        free, free_text = await gate.house.directory.issue_key(ADMIN, gate.user.id, "free")
        form |= {"client_id": f"glk_{free.id}", "client_secret": free_text.rpartition("_")[2]}
        token = (await gate.http.post(f"{gate.url}/oauth/token", data=form)).json()["access_token"]
        assert (await gate.chat(key=token)).status_code == 200
        assert [row.key for row in await gate.records() if row.state == "ok"] == [free.id]


async def test_many_logins_at_once_are_served_or_told_to_wait(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """P1: what is beyond the pool gets 503 with Retry-After; an answer of the model meanwhile comes as ever."""
    async with gatehouse(tmp_path, upstream) as gate:
        await a_person(gate)
        people = [f"person{n}@example.org" for n in range(60)]
        for email in people:
            await gate.house.directory.add_user(ADMIN, email, service=True)
        body = {"password": "wrong password"}
        logins = [
            asyncio.ensure_future(gate.http.post(f"{gate.url}/auth/login", json=body | {"email": email}))
            for email in people
        ]
        assert (await gate.chat()).status_code == 200
        answers = await asyncio.gather(*logins)
        assert {answer.status_code for answer in answers} <= {401, 429, 503}
        assert all("Retry-After" in answer.headers for answer in answers if answer.status_code in {429, 503})
