"""What users see of their own: GET /v1/limits and GET /v1/usage (features.md, rows 23 and 63), and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.protocol import UsageRequest
from common.times import from_iso
from daemon.usage import usage as added_up
from tests.rigs.gatehouse import ADMIN, MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until

OTHER = "qwen3:4b"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(models=(MODEL, OTHER)) as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


async def limits(gate: Gatehouse, query: str = "", key: str | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    answer = await gate.get(f"/v1/limits{query}", key=key)
    assert answer.status_code == 200, answer.text
    return {(row["scope"], row["limit"]): row for row in answer.json()}


async def usage(gate: Gatehouse, query: str = "", key: str | None = None) -> dict[str, Any]:
    answer = await gate.get(f"/v1/usage{query}", key=key)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_limits_tell_what_is_used_and_when_some_of_it_comes_back(gate: Gatehouse) -> None:
    """Used, remaining and reset of each; the reset is that of a 429's Retry-After."""
    assert await limits(gate) == {}
    values = {"requests_per_minute": 2, "tokens_per_day": 1000, "concurrency": 3}
    await gate.house.limits.set(ADMIN, "user:ana@example.org", values)
    mine = "user ana@example.org"
    fresh = await limits(gate)
    assert fresh[mine, "requests_per_minute"] == {
        "limit": "requests_per_minute",
        "scope": mine,
        "max": 2,
        "used": 0,
        "remaining": 2,
        "window_seconds": 60,
        "frees_at": None,
        "reset_seconds": None,
    }
    assert (await gate.chat()).status_code == 200
    assert (await gate.chat()).status_code == 200
    refused = await gate.chat()
    used = (await limits(gate))[mine, "requests_per_minute"]
    assert (used["used"], used["remaining"]) == (2, 0)
    assert 0 <= int(refused.headers["Retry-After"]) - used["reset_seconds"] <= 1
    assert abs(from_iso(used["frees_at"]) - from_iso(refused.json()["frees_at"])) < 1_000_000
    spent = (await limits(gate))[mine, "tokens_per_day"]
    assert spent["used"] == 1000 - spent["remaining"] > 0
    assert (await limits(gate))[mine, "concurrency"]["window_seconds"] is None


async def test_limits_are_those_of_the_next_request(gate: Gatehouse) -> None:
    """The key's and the address's with the user's; a model's where it is named, and only models one may use."""
    (key,) = gate.house.directory.keys_of(gate.user.id)
    for target in (f"key:{key.id}", f"model:{OTHER}", "address:127.0.0.0/8", "user:joe@example.org"):
        if target.startswith("user:"):
            await gate.member("joe@example.org")
        await gate.house.limits.set(ADMIN, target, {"requests_per_hour": 9})
    assert {scope for scope, _ in await limits(gate)} == {f"key {key.id}", "address 127.0.0.0/8"}
    named = await limits(gate, f"?model={OTHER}")
    assert {scope for scope, _ in named} == {f"key {key.id}", "address 127.0.0.0/8", f"model {OTHER}"}
    assert (await gate.get("/v1/limits?model=nobody:1b")).status_code == 404
    _, narrow = await gate.member("ben@example.org", models=[MODEL])
    assert (await gate.get(f"/v1/limits?model={OTHER}", key=narrow)).status_code == 403


async def test_asking_spends_no_limit(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Neither is a request in the sense of limits."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=1) as gate:
        for path in ("/v1/limits", "/v1/usage", "/v1/queue", "/v1/limits"):
            answer = await gate.get(path)
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-store"
        assert (await gate.chat()).status_code == 200
        assert (await gate.chat()).status_code == 429


async def test_usage_is_the_callers_own_by_model_and_by_key(gate: Gatehouse) -> None:
    """All keys of the user together, nobody else's; sums, rows and series say the same."""
    issued, second = await gate.house.directory.issue_key(ADMIN, gate.user.id, label="nightly")
    _, joes = await gate.member("joe@example.org")
    await gate.chat()
    await gate.chat(key=second)
    await gate.chat(key=second, model=OTHER)
    for _ in range(4):
        await gate.chat(key=joes)

    async def told() -> bool:
        return bool((await usage(gate))["total"]["requests"] == 3)

    await until(told)
    by_model = await usage(gate)
    assert {row["name"]: row["requests"] for row in by_model["rows"]} == {MODEL: 2, OTHER: 1}
    assert by_model["total"]["tokens_out"] == sum(row["tokens_out"] for row in by_model["rows"]) > 0
    assert sum(point["requests"] for point in by_model["series"]) == 3
    by_key = await usage(gate, "?by=key", key=second)
    assert {row["requests"] for row in by_key["rows"]} == {1, 2}
    assert issued.id in {row["name"] for row in by_key["rows"]}
    assert (await usage(gate, key=joes))["total"]["requests"] == 4
    assert "example.org" not in (await gate.get("/v1/usage?by=key")).text


async def test_usage_is_added_up_for_one_after_the_other(gate: Gatehouse) -> None:
    """However many users ask for years at once: the store's other reader is left to everybody else."""
    async with gate.house.own_usage:
        asked = asyncio.ensure_future(gate.get("/v1/usage?since=3650d"))
        await until(lambda: gate.house.answering == 1)
        for _ in range(3):  # in the time of which it would be there
            await added_up(gate.house.database, UsageRequest(since="2020-01-01"), now_us=gate.house.clock.wall())
            assert (await gate.get("/v1/limits")).status_code == 200
        assert not asked.done()
    assert (await asked).status_code == 200


@pytest.mark.parametrize(("since", "points"), [("1h", 61), ("24h", 25), ("7d", 57), ("30d", 61)])
async def test_usage_of_a_span(gate: Gatehouse, since: str, points: int) -> None:
    """1h, 24h, 7d, 30d: the span ends now and has a point for each stretch of it, the first perhaps cut."""
    told = await usage(gate, f"?since={since}")
    assert points - 1 <= len(told["series"]) <= points
    assert told["total"]["requests"] == 0
    hours = {"1h": 1, "24h": 24, "7d": 168, "30d": 720}[since]
    assert from_iso(told["until"]) - from_iso(told["since"]) == hours * 3_600_000_000


async def test_usage_between_two_moments(gate: Gatehouse) -> None:
    """ISO 8601, with a zone or in UTC; a + that a client did not escape is understood."""
    told = await usage(gate, "?since=2026-01-01T00:00:00Z&until=2026-01-02T02:00:00+02:00")
    assert told["since"].startswith("2026-01-01T00:00:00")
    assert told["until"].startswith("2026-01-02T00:00:00")
    assert len(told["series"]) == 24


@pytest.mark.parametrize(
    "query",
    [
        "since=tomorrow",
        "since=1h&until=2h",
        "by=user",
        "top=0",
        "top=x",
        "since=1h&since=2h",
        "user=joe",
        "since=99999d",
    ],
)
async def test_a_question_that_cannot_be_is_a_400(gate: Gatehouse, query: str) -> None:
    """In words, and nobody is asked for by name."""
    answer = await gate.get(f"/v1/usage?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]
