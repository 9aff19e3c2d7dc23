"""Rows 3, 6, 7, 8, 10, 13, 35: which upstream serves which model; and what is told when none does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from common.errors import BadRequest, NotFound, UpstreamFailed
from daemon.clock import SystemClock
from daemon.config import Deadlines, Queue, UpstreamConfig
from daemon.providers import registry as registry_module
from daemon.providers.registry import Registry
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream, Turn
from tests.rigs.until import holds, until

Opener = Callable[..., Registry]


@pytest.fixture
async def house() -> AsyncIterator[Opener]:
    """Makes registries over scripted upstreams, named a, b, c in the order given; closes them at the end."""
    async with AsyncExitStack() as stack:

        def make(*upstreams: ScriptedUpstream, default: str = "", connect: float = 5.0) -> Registry:
            configured = [
                UpstreamConfig(name=name, kind="openai" if each.kind == "openai" else "ollama", url=each.url)
                for name, each in zip("abc", upstreams, strict=False)
            ]
            registry = Registry(
                configured,
                queue=Queue(),
                deadlines=Deadlines(connect=connect),
                clock=SystemClock.continued(None),
                default=default,
            )
            stack.push_async_callback(registry.close)
            return registry

        yield make


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(models=("llama2:latest", "phi:2.7b", "qwen3:0.6b", "qwen3:8b")) as server:
        yield server


def looks(upstream: ScriptedUpstream) -> int:
    """How often the upstream was asked for its models."""
    return len(upstream.seen("/api/tags")) + len(upstream.seen("/v1/models"))


async def test_names_are_resolved_to_installed_models(house: Opener, upstream: ScriptedUpstream) -> None:
    """Rows 3, 7, 13: the named local model; untagged `:latest` or the only tag; ambiguity names the choices."""
    registry = house(upstream)
    assert (await registry.resolve("llama2")).model == "llama2:latest"
    route = await registry.resolve("phi")
    assert (route.model, route.upstream.name) == ("phi:2.7b", "a")
    with pytest.raises(BadRequest, match=r"ambiguous: name one of qwen3:0\.6b, qwen3:8b") as refused:
        await registry.resolve("qwen3")
    assert (refused.value.status, refused.value.code) == (400, "model_ambiguous")
    assert looks(upstream) == 1, "what is known is not asked again"


async def test_an_unknown_model_is_404_and_costs_one_look_a_second(
    house: Opener, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 8: a typo in a loop is answered from memory."""
    registry = house(upstream)
    for _ in range(20):
        with pytest.raises(NotFound, match="model 'mistral' not found") as refused:
            await registry.resolve("mistral")
        assert refused.value.status == 404
    assert looks(upstream) == 1
    monkeypatch.setattr(registry_module, "MISS_EVERY", 0.0)
    with pytest.raises(NotFound):
        await registry.resolve("mistral")
    assert looks(upstream) == 2


async def test_a_model_pulled_a_moment_ago_is_found(
    house: Opener, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 7: cached, refreshed on a miss."""
    monkeypatch.setattr(registry_module, "MISS_EVERY", 0.0)
    registry = house(upstream)
    await registry.refresh()
    upstream.add_model("mistral:7b")
    assert (await registry.resolve("mistral")).model == "mistral:7b"


async def test_a_crowd_of_misses_waits_for_one_look(house: Opener, upstream: ScriptedUpstream) -> None:
    """And whoever leaves the crowd does not spoil it for the others."""
    gate = asyncio.Event()
    upstream.next(behaviours.stall_before_headers(gate), route="/api/tags")
    registry = house(upstream)
    crowd = [asyncio.create_task(registry.resolve("phi")) for _ in range(20)]
    await until(lambda: looks(upstream) == 1)
    crowd[0].cancel()
    await asyncio.gather(crowd[0], return_exceptions=True)
    gate.set()
    assert {(await task).model for task in crowd[1:]} == {"phi:2.7b"}
    assert looks(upstream) == 1


async def test_refresh_sees_what_changed_before_it_was_called(house: Opener, upstream: ScriptedUpstream) -> None:
    """A look that began before a pull ended does not count as one after it."""
    pace, answered = asyncio.Event(), asyncio.Event()
    old = json.dumps({"models": list(upstream.models.values())}).encode()

    async def slow(turn: Turn) -> None:
        answered.set()
        await pace.wait()
        await turn.whole(200, old)

    upstream.next(slow, route="/api/tags")
    registry = house(upstream)
    early = asyncio.create_task(registry.refresh())
    await answered.wait()
    upstream.add_model("new:1b")
    late = asyncio.create_task(registry.refresh())
    await holds(lambda: looks(upstream) == 1, what="two looks at once: the older answer might arrive last")
    pace.set()
    await early
    await late
    assert "new:1b" in (registry.upstreams[0].models or {})


async def test_remote_models_do_not_exist_here(house: Opener, upstream: ScriptedUpstream) -> None:
    """Row 10, H7: neither by their entry nor by their name, neither listed nor served."""
    upstream.add_model("glm-4.6:cloud", remote_host="https://ollama.com:443")
    upstream.add_model("innocent:latest", remote_host="https://ollama.com:443")
    upstream.add_model("qwen3-coder:480b-cloud")  # an entry that does not say where it runs
    upstream.loaded = ["innocent:latest", "phi:2.7b"]
    registry = house(upstream)
    assert {row["name"] for row in await registry.tags()} == {"llama2:latest", "phi:2.7b", "qwen3:0.6b", "qwen3:8b"}
    assert [row["name"] for row in await registry.running()] == ["phi:2.7b"]
    for name in ("glm-4.6:cloud", "glm-4.6", "qwen3-coder:480b-cloud", "qwen3-coder", "phi:CLOUD"):
        with pytest.raises(NotFound):
            await registry.resolve(name)
    for name in ("innocent", "innocent:latest", "Innocent:LATEST"):
        with pytest.raises(NotFound):
            await registry.resolve(name)


async def test_remote_models_do_not_exist_behind_an_openai_face(house: Opener) -> None:
    """An Ollama configured as an OpenAI-like server lists its cloud models without saying what they are."""
    async with ScriptedUpstream(kind="openai", models=("gpt-oss:120b-cloud", "phi:2.7b")) as upstream:
        registry = house(upstream)
        assert [row["name"] for row in await registry.tags()] == ["phi:2.7b"]
        assert [row["name"] for row in await registry.running()] == ["phi:2.7b"]
        with pytest.raises(NotFound):
            await registry.resolve("gpt-oss:120b-cloud")


async def test_an_upstream_that_is_offline_is_502_in_words(house: Opener, upstream: ScriptedUpstream) -> None:
    """Row 6: whether a model exists nobody can tell then; the lists say so as well. Back again, it serves."""
    registry = house(upstream)
    await upstream.stop()
    for ask in (registry.resolve("phi"), registry.tags()):
        with pytest.raises(UpstreamFailed, match="the upstream a cannot be reached: connection refused") as failed:
            await ask
        assert failed.value.status == 502
    assert registry.upstreams[0].state == "down"
    assert "connection refused" in await registry.why_not_ready()
    await upstream.start()
    assert await registry.why_not_ready() == ""
    assert (await registry.resolve("phi")).model == "phi:2.7b"


async def test_known_models_stay_known_while_their_upstream_is_down(
    house: Opener, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are routed there, and its failing is the answer (502); an unknown one is not called non-existent."""
    monkeypatch.setattr(registry_module, "MISS_EVERY", 0.0)
    registry = house(upstream)
    await registry.refresh()
    await upstream.stop()
    await registry.refresh()
    assert (await registry.resolve("phi")).model == "phi:2.7b"
    with pytest.raises(UpstreamFailed):
        await registry.resolve("mistral")
    await upstream.start()


async def test_several_upstreams_share_and_stand_in(house: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model goes to one that has it: a healthy one before a dead one, the less busy before the busier one."""
    async with ScriptedUpstream(models=("phi:2.7b", "only-a:1b")) as a, ScriptedUpstream(models=("phi:2.7b",)) as b:
        registry = house(a, b)
        await registry.refresh()
        assert (await registry.resolve("phi")).upstream.name == "a"
        assert (await registry.resolve("only-a")).upstream.name == "a"
        assert [row["name"] for row in await registry.tags()] == ["phi:2.7b", "only-a:1b"]
        await a.stop()
        await registry.refresh()
        assert (await registry.resolve("phi")).upstream.name == "b"
        assert [row["name"] for row in await registry.tags()] == ["phi:2.7b"]
        await a.start()


async def test_the_default_model_is_the_configured_one(house: Opener, upstream: ScriptedUpstream) -> None:
    """Configuration first, whatever is installed."""
    assert await house(upstream, default="mistral").default_model() == "mistral"


async def test_the_default_model_is_the_first_installed_that_chats(house: Opener) -> None:
    """Rows 17, 59: not an embedding model, by family, by name, or by its capabilities alone; and a model that is pulled
    later does not take its place."""
    async with ScriptedUpstream(models=()) as upstream:
        registry = house(upstream)
        assert await registry.default_model() == ""
        for day, (name, family) in enumerate(
            [("minilm:latest", "bert"), ("qwen3-embedding:8b", "qwen3"), ("vectors:1b", "qwen3"), ("chat:1b", "llama")]
        ):
            upstream.add_model(name, family=family)
            upstream.models[name]["modified_at"] = f"2026-01-0{day + 1}T00:00:00.123456789-07:00"
        shown = {"details": {}, "capabilities": ["embedding"]}
        upstream.next(behaviours.error(200, shown), route="/api/show")  # vectors:1b is the first one asked about
        await registry.refresh()
        assert await registry.default_model() == "chat:1b"
        upstream.add_model("newer:1b")
        upstream.models = dict(reversed(upstream.models.items()))  # Ollama lists the latest first
        upstream.models["newer:1b"]["modified_at"] = "2026-02-01T00:00:00Z"
        await registry.refresh()
        assert await registry.default_model() == "chat:1b"
        assert len(upstream.seen("/api/show")) == 2, "what a model can do is asked once"


@pytest.mark.parametrize(
    "behaviour",
    [behaviours.error(500), behaviours.error(200, {}), behaviours.error(200, b"no"), behaviours.close_before_headers],
)
async def test_a_default_is_found_where_nothing_tells_capabilities(
    house: Opener, upstream: ScriptedUpstream, behaviour: Behaviour
) -> None:
    """An old Ollama, or one that cannot show a model: the looks decide."""
    registry = house(upstream)
    await registry.refresh()
    upstream.next(behaviour, behaviour, route="/api/show")
    assert await registry.default_model() == "llama2:latest"


async def test_an_openai_server_s_models_look_like_ollama_s(house: Opener) -> None:
    """The built-in engine: names, details and what is loaded, in Ollama's form; no version."""
    async with ScriptedUpstream(kind="openai", models=("bge-small", "smollm2:135m")) as upstream:
        registry = house(upstream)
        rows = await registry.tags()
        assert [row["name"] for row in rows] == ["bge-small", "smollm2:135m"]
        assert {"model", "modified_at", "size", "digest", "details"} <= set(rows[0])
        assert {row["name"] for row in await registry.running()} == {"bge-small", "smollm2:135m"}
        assert await registry.version() is None
        assert await registry.default_model() == "smollm2:135m"
        route = await registry.resolve("smollm2:135m")
        status, body = await route.upstream.show(route.model, {})
        assert (status, "details" in json.loads(body)) == (200, True)
        status, body = await route.upstream.show("gone", {})
        assert (status, json.loads(body)) == (404, {"error": "model 'gone' not found"})
        assert {seen.path for seen in upstream.requests} == {"/v1/models"}


async def test_an_ollama_shows_a_model_in_its_own_words(house: Opener, upstream: ScriptedUpstream) -> None:
    """The client's further fields are passed on, under the model's installed name."""
    registry = house(upstream)
    route = await registry.resolve("phi")
    status, body = await route.upstream.show(route.model, {"name": "phi", "verbose": True})
    assert (status, json.loads(body)["details"]["family"]) == (200, "llama")
    assert upstream.seen("/api/show")[0].document == {"verbose": True, "model": "phi:2.7b"}
    assert await registry.version() == "0.9.3"


async def test_lists_are_asked_again_when_they_are_old(
    house: Opener, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ollama pull` behind the gate's back shows within seconds, and a crowd of lists costs one look."""
    registry = house(upstream)
    for _ in range(10):
        await registry.tags()
    assert looks(upstream) == 1
    monkeypatch.setattr(registry_module, "LISTS_AGE", 0.0)
    upstream.add_model("new:1b")
    assert "new:1b" in {row["name"] for row in await registry.tags()}


async def test_run_looks_now_and_then(
    house: Opener, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner's background task; it survives a dead upstream."""
    monkeypatch.setattr(registry_module, "LOOK_EVERY", 0.005)
    registry = house(upstream)
    told: list[str] = []
    registry.changed = told.append
    task = asyncio.create_task(registry.run())
    await until(lambda: looks(upstream) >= 3)
    assert told == ["a"]
    await upstream.stop()
    await until(lambda: registry.upstreams[0].state == "down")
    await upstream.start()
    await until(lambda: registry.upstreams[0].healthy)
    assert told == ["a"] * 3
    task.cancel()
    await asyncio.wait({task})


async def test_without_upstreams_everything_says_so(house: Opener) -> None:
    """No traceback where nothing is configured."""
    registry = house()
    with pytest.raises(UpstreamFailed, match="no upstream is configured"):
        await registry.tags()
    with pytest.raises(NotFound):
        await registry.resolve("phi")
    assert await registry.default_model() == ""
    assert await registry.why_not_ready() == "no upstream is configured"


async def test_an_upstream_is_found_by_name(house: Opener, upstream: ScriptedUpstream) -> None:
    """What the administrator's verbs ask."""
    registry = house(upstream)
    assert registry.upstream("a").url == upstream.url
    with pytest.raises(NotFound, match="there is no upstream 'z'; there is a"):
        registry.upstream("z")


async def test_an_upstreams_secret_goes_to_it_alone(upstream: ScriptedUpstream) -> None:
    """Row 43: each request to the upstream shows it, no request to another does, and no representation tells it."""
    async with ScriptedUpstream(kind="openai") as other:
        configured = [
            UpstreamConfig(name="a", kind="ollama", url=upstream.url),
            UpstreamConfig(name="b", kind="openai", url=other.url),
        ]
        clock = SystemClock.continued(None)
        registry = Registry(configured, queue=Queue(), deadlines=Deadlines(), clock=clock, keys={"b": "pelargonium"})
        await registry.refresh()
        assert {seen.headers.get("authorization") for seen in other.requests} == {"Bearer pelargonium"}
        assert {seen.headers.get("authorization") for seen in upstream.requests} == {None}
        assert "pelargonium" not in repr(registry) + repr([each.pool for each in registry.upstreams])
        await registry.close()
