"""Identity at the whole gate: from registration to a streamed answer, and sessions whose end cuts what runs in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
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


@pytest.mark.parametrize("end", ["revoke", "reuse", "password"])
async def test_the_end_of_a_session_cuts_what_runs_in_it(tmp_path: Path, upstream: ScriptedUpstream, end: str) -> None:
    """J5: within two seconds, as `credential_revoked`, with an error in the stream; what runs under a key goes on."""
    async with gatehouse(tmp_path, upstream) as gate:
        await a_person(gate)
        session = await tokens(gate)
        bea = gate.house.directory.find(BEA)
        assert bea is not None
        _, key = await gate.house.directory.issue_key(ADMIN, bea.id, "laptop")
        go_on = asyncio.Event()
        upstream.next(stall_after(1, go_on), stall_after(1, go_on))
        async with gate.streaming(key=session["access_token"]) as cut, gate.streaming(key=key) as kept:
            lines, others = cut.aiter_lines(), kept.aiter_lines()
            await anext(lines)
            await anext(others)
            if end == "password":
                body = {"email": BEA, "old": PASSWORD, "new": OTHER}
                await gate.http.post(f"{gate.url}/auth/password", json=body)
            elif end == "revoke":
                await gate.http.post(f"{gate.url}/oauth/revoke", data={"token": session["refresh_token"]})
            else:
                form = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
                for _ in range(2):
                    await gate.http.post(f"{gate.url}/oauth/token", data=form)
            rest = [json.loads(line) async for line in lines]
            assert "error" in rest[-1]
            assert not any(line.get("done") for line in rest)
            go_on.set()
            assert [json.loads(line) async for line in others][-1]["done"] is True
        await until(lambda: not gate.house.gate.live())
        assert sorted(str(row.state) for row in await gate.records()) == ["credential_revoked", "ok"]
        assert (await gate.chat(key=session["access_token"])).status_code == 401


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
