"""Row 63, hybrid routing: several upstreams, aliases, and what becomes of a request whose upstream fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from common.protocol import UpstreamTarget
from daemon import config as configuration
from daemon.admin import upstreams as upstream_verbs
from daemon.failover import retry_after
from daemon.providers import circuit
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.gatehouse import ADMIN, MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream, Turn
from tests.rigs.until import until

Opener = Callable[..., Any]


@asynccontextmanager
async def gate_before(
    tmp_path: Path, *servers: ScriptedUpstream, seats: int = 2, **flags: Any
) -> AsyncIterator[Gatehouse]:
    """A gate before servers that are named a, b, c; what they have is in memory, unless something else is."""
    upstreams = [
        {"name": name, "kind": each.kind, "url": each.url, "seats": seats}
        for name, each in zip("abc", servers, strict=False)
    ]
    async with gatehouse(tmp_path, servers[0], upstreams=upstreams, **flags) as gate:
        await gate.house.registry.refresh()
        if not any(each.loaded for each in servers):
            for each in servers:
                each.loaded = list(each.models)
        for upstream in gate.house.registry.upstreams:
            await upstream.look_at_memory()
        yield gate


@pytest.fixture
async def a() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def b() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(kind="openai") as server:
        yield server


# --- which one ---


async def test_the_least_busy_one_with_a_free_seat_serves(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream
) -> None:
    """And whoever finds all seats taken waits where the line is shorter."""
    hold = asyncio.Event()
    a.default = b.default = behaviours.stall_before_headers(hold)
    async with gate_before(tmp_path, a, b, seats=1) as gate:
        chats = [asyncio.create_task(gate.chat()) for _ in range(4)]
        await until(lambda: len(gate.house.gate.live()) == 4)
        seats = [each.seats for each in gate.house.registry.upstreams]
        await until(lambda: [(each.running, each.waiting) for each in seats] == [(1, 1), (1, 1)])
        hold.set()
        assert {answer.status_code for answer in await asyncio.gather(*chats)} == {200}
    assert (len(a.inference), len(b.inference)) == (2, 2)


async def test_a_model_in_memory_is_preferred(tmp_path: Path, a: ScriptedUpstream) -> None:
    """No second server loads what the first one has loaded, as long as that has a seat."""
    async with ScriptedUpstream() as second:
        second.loaded = [MODEL]
        async with gate_before(tmp_path, a, second) as gate:
            assert [(await gate.chat()).status_code for _ in range(3)] == [200] * 3
            assert (len(a.inference), len(second.inference)) == (0, 3)
            await upstream_verbs.drain(gate.house, ADMIN, UpstreamTarget("b"))
            assert (await gate.chat()).status_code == 200
            assert len(a.inference) == 1


async def test_a_full_name_asks_that_upstream(tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream) -> None:
    """`upstream/model`, with the tag or without; the other one never, not even when this one fails."""
    b.add_model("llama3.2:3b")
    async with gate_before(tmp_path, a, b) as gate:
        for name in (f"b/{MODEL}", "b/llama3.2", "b/smollm2"):
            assert (await gate.chat(model=name)).status_code == 200
        assert [seen.document["model"] for seen in b.inference] == [MODEL, "llama3.2:3b", MODEL]
        for name in ("a/llama3.2", "b/none", "c/smollm2", "b/"):
            answer = await gate.chat(model=name)
            assert (answer.status_code, answer.json()["error"]) == (404, f"model '{name}' not found")
        b.next(behaviours.error(500))
        assert (await gate.chat(model=f"b/{MODEL}")).status_code == 502
        assert a.inference == []


ALIASES = [{"name": "fast", "models": ["llama3.2:3b", "b/big"]}, {"name": "far", "models": ["nowhere"]}]


async def test_an_alias_stands_for_its_models_in_their_order(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream
) -> None:
    """The first that can be had; where none can, it is a model that there is not."""
    b.add_model("big")
    async with gate_before(tmp_path, a, b, aliases=ALIASES) as gate:
        first = await gate.chat(model="fast")
        assert (first.status_code, b.inference[-1].document["model"]) == (200, "big")
        a.add_model("llama3.2:3b")
        await gate.house.registry.refresh()
        second = await gate.chat(model="fast")
        assert a.inference[-1].document["model"] == "llama3.2:3b"
        record = await gate.audit(second.headers["X-Request-Id"])
        assert (record.model_asked, record.model, record.upstream) == ("fast", "llama3.2:3b", "a")
        assert (await gate.chat(model="far")).status_code == 404
        shown = {row["name"] for row in (await gate.get("/api/tags")).json()["models"]}
        assert shown == {MODEL, "big", "llama3.2:3b", "fast"}
        assert (await gate.get("/v1/models/fast")).json()["id"] == "fast"


async def test_a_key_for_an_alias_may_use_what_it_stands_for(tmp_path: Path, a: ScriptedUpstream) -> None:
    """And nothing else under its own name."""
    a.add_model("llama3.2:3b")
    async with gate_before(tmp_path, a, aliases=ALIASES) as gate:
        _, key = await gate.member("ben@example.org", models=["fast"])
        assert (await gate.chat(model="fast", key=key)).status_code == 200
        assert (await gate.chat(model="llama3.2:3b", key=key)).status_code == 403


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ([{"name": "x", "models": []}], "names no model"),
        ([{"name": "x", "models": ["m"]}, {"name": "x", "models": ["n"]}], "two aliases have this name"),
        ([{"name": "x", "models": ["m"]}, {"name": "y", "models": ["x"]}], "stands for the alias 'x'"),
    ],
)
def test_an_alias_that_makes_no_sense_is_refused_at_the_start(aliases: list[Any], words: str) -> None:
    """In words."""
    with pytest.raises(configuration.StartError, match=words):
        configuration.load(environment={}, flags={"aliases": aliases})


# --- failing over ---

FAILURES: dict[str, list[Behaviour]] = {
    "500": [behaviours.error(500)],
    "503": [behaviours.error(503)],
    "429": [behaviours.error(429)],
    # Twice: once may be a connection that was closed while it lay idle, which is nobody's failure.
    "reset": [behaviours.reset_before_headers, behaviours.reset_before_headers],
    "no HTTP": [behaviours.garble()],
    "an empty answer": [behaviours.without_end(0)],
    "an error for a beginning": [behaviours.error_in_stream(0)],
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_first_byte_another_upstream_takes_over(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream, how: str, stream: bool
) -> None:
    """In another dialect, too. The client sees one good answer; the record names who was tried, and has one end."""
    a.next(*FAILURES[how])
    async with gate_before(tmp_path, a, b) as gate:
        answer = await gate.chat(stream=stream)
        assert answer.status_code == 200, answer.text
        last = json.loads(answer.text.splitlines()[-1])
        assert last["done"] and "error" not in last
        assert (len(a.inference), len(b.inference)) == (len(FAILURES[how]), 1)
        (row,) = await gate.records()
        whole = await gate.audit(row.request_id)
        assert (whole.state, whole.upstream, whole.response) == ("ok", "b", "Why not?")
        assert [(each.upstream, each.model) for each in whole.tried] == [("a", MODEL)]
        assert whole.tried[0].error
        ends = await gate.house.database.read(
            lambda conn: conn.execute(
                "SELECT event, COUNT(*) FROM journal WHERE request_id = ? GROUP BY 1", (row.request_id,)
            ).fetchall()
        )
        assert dict(ends) == {"opened": 1, "closed": 1}
        assert (await gate.house.journal.verify()).intact
        assert [each.seats.running for each in gate.house.registry.upstreams] == [0, 0]


async def test_a_dead_upstream_gives_way(tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream) -> None:
    """The first request notices, the next ones do not even try; when it is back, it serves again."""
    async with gate_before(tmp_path, a, b) as gate:
        await a.stop()
        answers = [await gate.chat() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        tried = [len((await gate.audit(answer.headers["X-Request-Id"])).tried) for answer in answers]
        assert tried == [1, 0, 0]
        await a.start()
        await gate.house.registry.refresh()
        assert (await gate.chat()).status_code == 200
        assert len(a.inference) == 1


async def test_after_the_first_byte_it_is_an_error(tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream) -> None:
    """An answer is never begun twice, streamed or not."""
    async with gate_before(tmp_path, a, b) as gate:
        for stream in (True, False):
            a.next(behaviours.reset_after(2))
            answer = await gate.chat(stream=stream)
            assert "error" in json.loads(answer.text.splitlines()[-1])
        assert [row.state for row in await gate.records()] == ["upstream_error"] * 2
        assert (len(a.inference), len(b.inference)) == (2, 0)


async def test_what_is_the_clients_fault_is_not_tried_elsewhere(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream
) -> None:
    """A 400 and the like stay what they are."""
    async with gate_before(tmp_path, a, b) as gate:
        for status in (400, 404, 413):
            a.next(behaviours.error(status, "no"))
            assert (await gate.chat()).status_code == status
        assert (len(a.inference), len(b.inference)) == (3, 0)


async def test_where_all_fail_the_last_word_counts(tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream) -> None:
    """One exchange, one end, each of them asked once; the place in the limit's window is kept, as it was sent."""
    a.next(behaviours.error(500, "first"))
    b.next(behaviours.error(500, "second"))
    async with gate_before(tmp_path, a, b) as gate:
        answer = await gate.chat()
        assert (answer.status_code, answer.json()["error"]) == (502, "second")
        (row,) = await gate.records()
        whole = await gate.audit(row.request_id)
        assert (whole.state, whole.upstream, whole.error) == ("upstream_error", "b", "second")
        assert [(each.upstream, each.error) for each in whole.tried] == [("a", "first")]


async def test_nothing_is_sent_anywhere_before_the_record(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream
) -> None:
    """A1 holds for the second upstream as for the first: one opening record, before either was asked."""
    opened: list[int] = []
    async with gate_before(tmp_path, a, b) as gate:

        async def look(turn: Turn) -> None:
            count = "SELECT COUNT(*) FROM journal WHERE event = 'opened'"
            opened.append(await gate.house.database.read(lambda conn: conn.execute(count).fetchone()[0]))
            await behaviours.error(500)(turn)

        a.next(look)
        b.next(look)
        await gate.chat()
    assert opened == [1, 1]


async def test_a_client_that_leaves_between_two_upstreams_is_gone(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream
) -> None:
    """While it waits for the second one's seat: the second one is never asked."""
    hold, failing = asyncio.Event(), asyncio.Event()

    async def fail_later(turn: Turn) -> None:
        await failing.wait()
        await behaviours.error(500)(turn)

    b.next(behaviours.stall_before_headers(hold))
    async with gate_before(tmp_path, a, b, seats=1) as gate:
        first = asyncio.create_task(gate.chat(model=f"b/{MODEL}"))
        await until(lambda: b.running == 1)
        a.next(fail_later)
        second = asyncio.create_task(gate.chat())
        await until(lambda: a.running == 1)
        failing.set()
        await until(lambda: gate.house.registry.upstream("b").seats.waiting == 1)
        (moved,) = [each for each in gate.house.gate.live() if each.tried]
        assert (moved.upstream, moved.phase, moved.position()) == ("b", "queued", 1)
        second.cancel()
        await until(lambda: gate.house.registry.upstream("b").seats.waiting == 0)
        hold.set()
        assert (await first).status_code == 200
        assert len(b.inference) == 1
        await until(lambda: gate.house.gate.live() == [])
        assert {row.state for row in await gate.records()} == {"ok", "client_left"}


async def test_a_model_that_keeps_failing_rests_and_one_request_tries_it(
    tmp_path: Path, a: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circuit opens after failures in a row, for that model alone, and for who met them: whose requests go well is
    not shut out by somebody's bad ones. Where it fails two, it rests for all. A refusal says when, and is free."""
    monkeypatch.setattr(circuit, "FIRST_REST", 1000.0)
    monkeypatch.setattr(circuit, "LONGEST_REST", 1000.0)
    a.add_model("other:1b")
    async with gate_before(tmp_path, a) as gate:
        a.next(*[behaviours.error(500)] * circuit.FAILURES)
        for _ in range(circuit.FAILURES):
            assert (await gate.chat()).status_code == 502
        resting = await gate.chat()
        assert (resting.status_code, resting.json()["code"]) == (503, "upstream_resting")
        assert 990 <= int(resting.headers["Retry-After"]) <= 1000
        assert len(a.inference) == circuit.FAILURES == len(await gate.records())
        assert (await gate.chat(model="other:1b")).status_code == 200
        upstream = gate.house.registry.upstream("a")
        keys = [(await gate.member(f"{name}@example.org"))[1] for name in ("bea", "carl")]
        assert (await gate.chat(key=keys[0])).status_code == 200
        assert upstream.resting() == []
        a.next(*[behaviours.error(500)] * circuit.FAILURES)
        for _ in range(circuit.FAILURES):
            assert (await gate.chat(key=keys[0])).status_code == 502
        assert upstream.resting() == [MODEL]
        assert (await gate.chat(key=keys[1])).status_code == 503
        for each in upstream._circuits._of[MODEL].values():
            each._until = 1.0  # their rest is over
        assert (await gate.chat()).status_code == 200
        assert upstream.resting() == []
        assert (await gate.chat(key=keys[1])).status_code == 200


async def test_of_those_that_wait_for_a_resting_model_one_tries(
    tmp_path: Path, a: ScriptedUpstream, b: ScriptedUpstream
) -> None:
    """The others go elsewhere, or are told; a try whose client leaves is not the last one."""
    hold = asyncio.Event()
    async with gate_before(tmp_path, a, b) as gate:
        upstream = gate.house.registry.upstream("a")
        for _ in range(circuit.FAILURES):
            upstream.went_wrong(MODEL, circuit.EVERYBODY)
        upstream._circuits._of[MODEL][circuit.EVERYBODY]._until = 1.0
        a.next(behaviours.stall_before_headers(hold))
        trying = asyncio.create_task(gate.chat(model=f"a/{MODEL}"))
        await until(lambda: a.running == 1)
        assert (await gate.chat(model=f"a/{MODEL}")).status_code == 503
        assert (await gate.chat()).status_code == 200
        assert (len(a.inference), len(b.inference)) == (1, 1)
        trying.cancel()
        await until(lambda: gate.house.gate.live() == [])
        assert (await gate.chat(model=f"a/{MODEL}")).status_code == 200
        assert upstream.resting() == []


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds, rounded up, or a date; what is neither is none."""
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "0.2"}) == 1
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    far = retry_after({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"})
    assert far is not None
    assert far > 10**9
    for text in ("", "soon", "-3", "nan", "1e999", "inf"):
        assert retry_after({"retry-after": text}) is None, text
