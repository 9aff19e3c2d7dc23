"""One upstream: how it is doing, as its requests tell; what it says that makes no sense; how much it runs at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.errors import UpstreamFailed
from daemon.clock import SystemClock
from daemon.config import Queue, UpstreamConfig
from daemon.providers import upstream as upstream_module
from daemon.providers.http import ConnectFailed, UpstreamBroken
from daemon.providers.ollama import OllamaUpstream
from daemon.providers.openai import OpenAiUpstream
from daemon.providers.probing import measure_seats
from daemon.providers.upstream import Upstream
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.scripted_upstream import ScriptedUpstream, Turn
from tests.rigs.until import until

MODEL = "smollm2:135m"
CHAT = b'{"model":"smollm2:135m","messages":[]}'


def over(server: ScriptedUpstream, url: str = "") -> Upstream:
    """An upstream of the server's kind."""
    kind = OpenAiUpstream if server.kind == "openai" else OllamaUpstream
    config = UpstreamConfig(name="there", kind="openai" if server.kind == "openai" else "ollama", url=url or server.url)
    return kind(config, queue=Queue(), connect_timeout=5.0, clock=SystemClock.continued(None))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def upstream(server: ScriptedUpstream) -> AsyncIterator[Upstream]:
    upstream = over(server)
    yield upstream
    await upstream.close()


async def chat(upstream: Upstream) -> bytes:
    async with upstream.request("POST", "/api/chat", body=CHAT) as response:
        return await response.read(10**6)


async def test_a_look_tells_models_version_and_how_long_it_took(upstream: Upstream) -> None:
    """Unknown before, ok after."""
    assert (upstream.state, upstream.healthy, upstream.models) == ("unknown", False, None)
    await upstream.look()
    assert (upstream.state, upstream.healthy, upstream.version) == ("ok", True, "0.9.3")
    assert list(upstream.models or ()) == [MODEL]
    assert upstream.latency is not None
    assert 0 < upstream.latency < 5
    assert repr(upstream).startswith("<Upstream there ollama ok, <Seats there 0/1 running")


async def test_requests_carry_nothing_that_was_not_given(upstream: Upstream, server: ScriptedUpstream) -> None:
    """H7: the upstream's own Host; no credential, cookie or origin; JSON said to be JSON."""
    await chat(upstream)
    headers = server.inference[0].headers
    assert set(headers) == {"host", "user-agent", "accept-encoding", "content-type", "content-length"}
    assert headers["content-type"] == "application/json"
    assert headers["host"] == server.url.removeprefix("http://")


async def test_one_refused_connection_is_down_and_one_answer_is_up_again(
    upstream: Upstream, server: ScriptedUpstream
) -> None:
    """Passive health: nobody has to ask. What went wrong stays readable."""
    told: list[str] = []
    upstream.changed = lambda: told.append(upstream.state)
    await chat(upstream)
    await server.stop()
    with pytest.raises(ConnectFailed):
        await chat(upstream)
    assert (upstream.state, upstream.healthy) == ("down", False)
    await server.start()
    await chat(upstream)
    assert told == ["ok", "down", "ok"]
    assert "connection refused" in upstream.error


async def test_three_broken_answers_in_a_row_are_down(upstream: Upstream, server: ScriptedUpstream) -> None:
    """One may have been the request's fault; an upstream that breaks off every time is not healthy, although it accepts
    every connection and begins every answer."""
    await chat(upstream)
    server.default = behaviours.close_after(1)
    for expected in ("ok", "ok", "down"):
        with pytest.raises(UpstreamBroken):
            await chat(upstream)
        assert upstream.state == expected
    server.next(behaviours.saying("well"))
    await chat(upstream)
    assert upstream.state == "ok"
    with pytest.raises(UpstreamBroken):
        await chat(upstream)
    assert upstream.state == "ok", "it is counted from the last whole answer"


async def test_error_answers_and_departures_are_no_failures_of_the_upstream(
    upstream: Upstream, server: ScriptedUpstream
) -> None:
    """What it says is not how it is doing; nor is who leaves."""
    await chat(upstream)
    for _ in range(5):
        server.next(behaviours.error(500))
        await chat(upstream)
        server.next(behaviours.stall_after(1, asyncio.Event()))
        async with upstream.request("POST", "/api/chat", body=CHAT) as response:
            await anext(response)
    assert upstream.state == "ok"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, "no"),
        (200, b"not json"),
        (200, []),
        (200, {"models": {}}),
        (200, {"models": [1]}),
        (200, {"models": [{"size": 1}]}),
        (200, b'{"models":[' + b" " * (17 * 2**20)),
    ],
)
async def test_a_list_that_makes_no_sense_is_down_and_the_old_one_stays(
    upstream: Upstream, server: ScriptedUpstream, status: int, answer: Any
) -> None:
    """Whatever it says, a look does not raise; what was known stays known."""
    await upstream.look()
    server.next(behaviours.error(status, answer), route="/api/tags")
    await upstream.look()
    assert (upstream.state, bool(upstream.error), list(upstream.models or ())) == ("down", True, [MODEL])
    await upstream.look()
    assert upstream.healthy


async def test_an_empty_ollama_tells_null_for_its_models(upstream: Upstream, server: ScriptedUpstream) -> None:
    """Go's nil slice is no error."""
    server.next(behaviours.error(200, {"models": None}), route="/api/tags")
    await upstream.look()
    assert (upstream.state, upstream.models) == ("ok", {})


async def test_a_look_at_a_silent_upstream_ends(
    upstream: Upstream, server: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts and says nothing: down after its patience, and the connection is closed."""
    monkeypatch.setattr(upstream_module, "PATIENCE", 0.02)
    server.next(behaviours.stall_before_headers(asyncio.Event()), route="/api/tags")
    await upstream.look()
    assert (upstream.state, upstream.error) == (
        "down",
        "the upstream there did not tell its models within 0.02 seconds",
    )
    await until(server.seen("/api/tags")[0].client_left.is_set)


async def test_a_small_answer_that_never_comes_is_504(upstream: Upstream, server: ScriptedUpstream) -> None:
    """Nobody waits for ever for a model's details."""
    server.next(behaviours.stall_before_headers(asyncio.Event()), route="/api/show")
    with pytest.raises(UpstreamFailed, match="did not answer /api/show within") as failed:
        await upstream.fetch("POST", "/api/show", {"model": MODEL}, patience=0.02)
    assert failed.value.status == 504
    await until(server.seen("/api/show")[0].client_left.is_set)


async def test_an_openai_address_may_end_in_v1(server: ScriptedUpstream) -> None:
    """People write the base URL that the SDKs want."""
    async with ScriptedUpstream(kind="openai") as engine:
        for suffix in ("/v1", "/v1/", "/"):
            upstream = over(engine, engine.url + suffix)
            await upstream.look()
            assert upstream.state == "ok", upstream.error
            await upstream.close()


# -- how much runs at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("really", [1, 3])
async def test_a_probe_finds_how_many_really_run_at_once(kind: str, really: int) -> None:
    """Further ones are held back without a word until the running ones end; afterwards nothing runs any more."""
    async with ScriptedUpstream(kind=kind) as server:
        server.seats = asyncio.Semaphore(really)
        server.default = behaviours.stall_after(1, asyncio.Event())
        upstream = over(server)
        assert await measure_seats(upstream, MODEL, most=6, settling=0.2) == really
        await until(lambda: server.running == 0)
        await upstream.close()
        prompts = [str(seen.document.get("prompt") or seen.document["messages"]) for seen in server.inference]
        assert len(set(prompts)) == len(prompts), "equal prompts may be answered from one cache"


async def test_one_that_begins_when_another_ends_does_not_count(server: ScriptedUpstream, upstream: Upstream) -> None:
    """One at a time, and each quickly done: the line behind it moves up, but never two run at once."""
    server.seats = asyncio.Semaphore(1)
    assert await measure_seats(upstream, MODEL, most=6, settling=0.2) == 1


async def test_as_many_as_asked_for_ends_the_probe_at_once(server: ScriptedUpstream, upstream: Upstream) -> None:
    """No settling where all have begun."""
    server.default = behaviours.stall_after(1, asyncio.Event())
    async with asyncio.timeout(5):
        assert await measure_seats(upstream, MODEL, most=4, settling=60) == 4
    assert server.most_running == 4


async def test_a_probe_that_nothing_answers_says_why(server: ScriptedUpstream, upstream: Upstream) -> None:
    """Its own words where there are any; else that nothing began."""
    server.default = behaviours.error(500, "model requires more system memory")
    with pytest.raises(UpstreamFailed, match="model requires more system memory"):
        await measure_seats(upstream, MODEL, most=2)
    server.default = behaviours.stall_before_headers(asyncio.Event())
    with pytest.raises(UpstreamFailed, match="began no answer within 0"):
        await measure_seats(upstream, MODEL, most=2, patience=0.05)


async def test_a_probe_that_is_cancelled_leaves_nothing_running(server: ScriptedUpstream, upstream: Upstream) -> None:
    """The administrator presses Ctrl-C: no generation goes on for nobody."""

    async def forever(turn: Turn) -> None:
        await turn.head()
        await turn.send(turn.pieces()[0])
        await turn.until_client_leaves()

    server.default = forever
    task = asyncio.create_task(measure_seats(upstream, MODEL, most=20, settling=60))
    await until(lambda: server.running == 20 or task.done())
    task.cancel()
    await asyncio.wait({task})
    await until(lambda: server.running == 0)
