"""Limits as a client meets them: exact, explained, free for the refused, alive across restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.clock import SystemClock
from tests.rigs.gatehouse import ADMIN, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import reset_before_headers, stall_after, stall_before_headers


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


async def test_the_eleventh_request_in_a_minute_is_429_and_says_everything(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Rows 56 and 74: the default, which limit, used and max, when it frees; the upstream hears nothing."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=10) as gate:
        answers = [await gate.chat() for _ in range(11)]
        assert [answer.status_code for answer in answers] == [200] * 10 + [429]
        refused = answers[-1]
        body = refused.json()
        assert (body["used"], body["max"]) == (10, 10)
        assert body["limit"]
        assert body["frees_at"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "r=0" in refused.headers["ratelimit"]
        assert "q=10;w=60" in refused.headers["ratelimit-policy"]
        assert "q=10;w=60" in answers[0].headers["ratelimit-policy"]
        assert "r=9" in answers[0].headers["ratelimit"]
        assert len(upstream.inference) == 10


async def test_sixty_four_at_once_against_fifty_admit_fifty(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """R1 through the whole gate."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=50) as gate:
        answers = await asyncio.gather(*(gate.chat() for _ in range(64)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (50, 14)


async def test_one_who_waits_as_long_as_told_is_served(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """R4 through the whole gate: of each request window, the Retry-After is enough, and a second less was not."""
    async with gatehouse(tmp_path, upstream) as gate:
        clock = gate.house.clock
        assert isinstance(clock, SystemClock)
        windows = ("requests_per_minute", "requests_per_hour", "requests_per_day")
        for window in windows:
            await gate.house.limits.set(ADMIN, "ana@example.org", dict.fromkeys(windows) | {window: 2})
            assert [(await gate.chat()).status_code for _ in range(2)] == [200, 200]
            refused = await gate.chat()
            assert (refused.status_code, refused.json()["limit"]) == (429, window)
            wait = int(refused.headers["retry-after"])
            clock.offset += (wait - 2) * 1_000_000  # a second is for what this test itself takes
            assert (await gate.chat()).status_code == 429
            clock.offset += 2 * 1_000_000
            assert (await gate.chat()).status_code == 200
            clock.offset += 90_000 * 1_000_000  # more than a day: the next window is not full of these


async def test_a_change_acts_on_the_next_request(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """No restart, no waiting: what was used before counts under the new limit."""
    async with gatehouse(tmp_path, upstream) as gate:
        for _ in range(3):
            await gate.chat()
        await gate.house.limits.set(ADMIN, "ana@example.org", {"requests_per_minute": 3})
        assert (await gate.chat()).status_code == 429
        await gate.house.limits.clear(ADMIN, "ana@example.org")
        assert (await gate.chat()).status_code == 200


async def test_a_window_survives_a_restart(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The journal remembers what the windows knew."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=5) as gate:
        for _ in range(4):
            await gate.chat()
    async with gatehouse(tmp_path, upstream) as gate:
        assert (await gate.chat()).status_code == 200
        assert (await gate.chat()).status_code == 429


async def test_a_failed_request_keeps_its_place_but_one_never_sent_does_not(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Contract, "What is counted": the upstream failed after it was asked: counted."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=2) as gate:
        upstream.next(reset_before_headers, reset_before_headers)
        assert (await gate.chat()).status_code == 502
        assert (await gate.chat()).status_code == 200
        assert (await gate.chat()).status_code == 429


async def test_concurrency_waits_and_never_refuses(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A user limited to one at a time waits in line though a seat is free; another user passes."""
    held = asyncio.Event()
    async with gatehouse(tmp_path, upstream) as gate:
        await gate.house.limits.set(ADMIN, "ana@example.org", {"concurrency": 1})
        _, other = await gate.member("joe@example.org")
        upstream.next(stall_before_headers(held))
        first = asyncio.ensure_future(gate.chat())
        await until(lambda: len(upstream.inference) == 1)
        second = asyncio.ensure_future(gate.chat())
        await until(lambda: len(gate.house.gate.live()) == 2)
        assert (await gate.chat(key=other)).status_code == 200
        assert not second.done()
        assert upstream.most_running == 2
        held.set()
        assert [(await first).status_code, (await second).status_code] == [200, 200]


async def test_token_windows_count_what_the_upstream_counted(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Admitted while used < max; the actual tokens enter at settlement."""
    async with gatehouse(tmp_path, upstream) as gate:
        await gate.house.limits.set(ADMIN, "default", {"tokens_per_minute": 1})
        assert (await gate.chat()).status_code == 200
        refused = await gate.chat()
        assert refused.status_code == 429
        assert "token" in refused.json()["error"]


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_usage_is_on_every_end_and_of_a_cut_answer_what_was_delivered(tmp_path: Path, kind: str) -> None:
    """Row 75: a whole stream says its counts, which are recorded and charged; a cut one costs a token a piece."""
    async with ScriptedUpstream(kind=kind) as upstream, gatehouse(tmp_path, upstream) as gate:
        await gate.house.limits.set(ADMIN, "default", {"tokens_per_minute": 1000})

        def charged() -> int:
            return sum(use.used for use in gate.house.admission.in_use() if use.limit == "tokens_per_minute")

        whole = await gate.chat(stream=True)
        end = json.loads(whole.content.splitlines()[-1])
        record = await gate.audit(whole.headers["x-request-id"])
        assert (record.tokens_in, record.tokens_out) == (end["prompt_eval_count"], end["eval_count"])
        counted = end["prompt_eval_count"] + end["eval_count"]
        assert charged() == counted > 0

        upstream.next(stall_after(3, asyncio.Event()))
        async with gate.streaming() as answer:
            lines = answer.aiter_lines()
            pieces = [await anext(lines) for _ in range(2)]
        assert all(not json.loads(piece)["done"] for piece in pieces)
        await until(lambda: not gate.house.gate.live())
        record = await gate.audit(answer.headers["x-request-id"])
        assert (record.state, record.tokens_in) == ("client_left", None)
        assert record.tokens_out in {2, 3}, "the third piece may or may not have left before the client did"
        assert charged() == counted + record.tokens_out


async def test_limits_of_key_model_and_address_apply_in_addition(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The tightest decides; an address's window is shared by all who come from there."""
    async with gatehouse(tmp_path, upstream) as gate:
        _, other = await gate.member("joe@example.org")
        await gate.house.limits.set(ADMIN, "address:127.0.0.0/8", {"requests_per_minute": 2})
        assert (await gate.chat()).status_code == 200
        assert (await gate.chat(key=other)).status_code == 200
        assert (await gate.chat()).status_code == 429
        await gate.house.limits.clear(ADMIN, "address:127.0.0.0/8")
        await gate.house.limits.set(ADMIN, "model:smollm2:135m", {"requests_per_minute": 2})
        assert (await gate.chat(key=other)).status_code == 429


async def test_lists_spend_no_limit_but_are_bounded_per_address(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """600 a minute of what is not inference; inference is not in it."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=1) as gate:
        statuses = [(await gate.http.get(gate.url + "/health")).status_code for _ in range(601)]
        assert statuses == [200] * 600 + [429]
        assert (await gate.chat()).status_code == 200


async def test_refusals_are_on_record_counted_by_reason(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Row 60: who was refused, why and how often; the records come each minute and when the daemon stops."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=1) as gate:
        await gate.chat()
        for _ in range(5):
            assert (await gate.chat()).status_code == 429
        _, narrow = await gate.member("joe@example.org", models=["other*"])
        assert (await gate.chat(key=narrow)).status_code == 403
        assert [row.state for row in await gate.records()] == ["ok"]
    async with gatehouse(tmp_path, upstream) as gate:
        refused = [row for row in await gate.records() if row.state == "refused"]
        assert {(row.user, row.model, row.error) for row in refused} == {
            ("ana@example.org", "smollm2:135m", "requests_per_minute, 5 times"),
            ("joe@example.org", "smollm2:135m", "model_not_allowed, once"),
        }


async def test_a_full_window_is_told_before_a_large_body_is_read(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Reading is what a refusal would cost the gate: nonsense of a caller whose window is full is 429, not 400."""
    nonsense = b"[" + b"x" * 100_000
    async with gatehouse(tmp_path, upstream) as gate:
        await gate.house.limits.set(ADMIN, "ana@example.org", {"requests_per_minute": 1})
        assert (await gate.post("/api/chat", nonsense)).status_code == 400
        assert (await gate.chat()).status_code == 200
        refused = await gate.post("/api/chat", nonsense)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["limit"] == "requests_per_minute"
