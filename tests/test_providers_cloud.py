"""Providers outside of the LAN, seen from the registry: when they are asked for models, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from common.errors import BadRequest, NotFound, UpstreamFailed
from daemon.clock import SystemClock
from daemon.config import Alias, Deadlines, Queue, UpstreamConfig
from daemon.providers import registry as registry_module
from daemon.providers.registry import Registry
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.scripted_upstream import ScriptedUpstream, Turn

Opener = Callable[..., Registry]


@pytest.fixture
async def house() -> AsyncIterator[Opener]:
    """Makes registries over scripted upstreams: the first is on the LAN, the others are outside and enabled."""
    async with AsyncExitStack() as stack:

        def make(*upstreams: ScriptedUpstream, aliases: tuple[Alias, ...] = ()) -> Registry:
            configured = [
                UpstreamConfig(name=name, kind=each.kind, url=f"{each.url}/v1", cloud=name != "near")  # type: ignore[arg-type]
                if each.kind != "ollama"
                else UpstreamConfig(name=name, url=each.url, cloud=name != "near")
                for name, each in zip(("near", "far", "other"), upstreams, strict=False)
            ]
            registry = Registry(
                configured,
                queue=Queue(),
                deadlines=Deadlines(),
                clock=SystemClock.continued(None),
                aliases=aliases,
                keys={"far": "pelargonium"},
            )
            for upstream in registry.upstreams:
                upstream.enabled = upstream.cloud
            stack.push_async_callback(registry.close)
            return registry

        yield make


@pytest.fixture
async def near() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(models=("phi:2.7b",)) as server:
        yield server


@pytest.fixture
async def far() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(kind="anthropic", models=("claude-a", "phi:14b")) as server:
        yield server


async def test_it_is_asked_for_its_models_now_and_then_only(
    house: Opener, near: ScriptedUpstream, far: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever misses what: a typo of a user's must not knock at a provider every second."""
    monkeypatch.setattr(registry_module, "MISS_EVERY", 0.0)
    registry = house(near, far)
    for _ in range(3):
        with pytest.raises(NotFound):
            await registry.resolve("no-such-model", cloud=True)
        await registry.refresh()
    assert (len(near.seen("/api/tags")), len(far.requests)) == (6, 1)
    (asked,) = far.requests
    assert (asked.path, asked.query) == ("/v1/models", "limit=1000")
    assert (asked.headers["x-api-key"], asked.headers["anthropic-version"]) == ("pelargonium", "2023-06-01")
    monkeypatch.setattr(registry_module, "LOOK_OUTSIDE_EVERY", 0.0)
    await registry.refresh()
    assert len(far.requests) == 2


async def test_names_on_the_lan_come_first_and_alone(
    house: Opener, near: ScriptedUpstream, far: ScriptedUpstream
) -> None:
    """`phi` is the one that is installed here, for everybody; the one outside has to be named in full."""
    registry = house(near, far)
    for cloud in (True, False):
        routes = await registry.routes("phi", cloud=cloud)
        assert [str(route) for route in routes] == ["near/phi:2.7b"]
    assert str(await registry.resolve("far/phi", cloud=True)) == "far/phi:14b"
    assert str(await registry.resolve("claude-a", cloud=True)) == "far/claude-a"
    for name in ("far/phi", "phi:14b", "claude-a", "far/claude-a"):
        with pytest.raises(NotFound):
            await registry.resolve(name)
    near.add_model("phi:3b")
    await registry.refresh()
    with pytest.raises(BadRequest, match=r"name one of phi:2\.7b, phi:3b"):
        await registry.resolve("phi", cloud=True)


async def test_an_alias_may_fall_back_to_the_outside(
    house: Opener, near: ScriptedUpstream, far: ScriptedUpstream
) -> None:
    """Where the administrator wrote it down, and for who may; for others it is an alias of what is here."""
    aliases = (Alias(name="best", models=("phi", "far/claude-a")), Alias(name="far-one", models=("claude-a",)))
    registry = house(near, far, aliases=aliases)
    await registry.refresh()
    assert [str(each) for each in await registry.routes("best", cloud=True)] == ["near/phi:2.7b", "far/claude-a"]
    assert [str(each) for each in await registry.routes("best")] == ["near/phi:2.7b"]
    with pytest.raises(NotFound):
        await registry.resolve("far-one")
    assert [row["name"] for row in await registry.tags()] == ["phi:2.7b", "best"]
    shown = [row["name"] for row in await registry.tags(cloud=True)]
    assert shown == ["phi:2.7b", "claude-a", "phi:14b", "best", "far-one"]
    await near.stop()
    await registry.refresh()
    assert [str(each) for each in await registry.routes("best", cloud=True)] == ["far/claude-a", "near/phi:2.7b"]


async def test_a_default_is_never_outside_by_itself(house: Opener, far: ScriptedUpstream) -> None:
    """Nor is what is loaded asked for there."""
    async with ScriptedUpstream(models=()) as empty:
        registry = house(empty, far)
        await registry.refresh()
        assert await registry.default_model() == ""
        assert await registry.running() == []
        assert [seen.path for seen in far.requests] == ["/v1/models"]


async def test_a_provider_that_is_away_is_no_business_of_who_may_not_use_it(
    house: Opener, near: ScriptedUpstream, far: ScriptedUpstream
) -> None:
    """For them an unknown model stays a 404; for who may, nobody can tell."""
    registry = house(near, far)
    await far.stop()
    await registry.refresh()
    with pytest.raises(NotFound):
        await registry.resolve("claude-a")
    with pytest.raises(UpstreamFailed, match="far cannot be reached"):
        await registry.resolve("claude-a", cloud=True)


async def test_models_of_anthropics_list_come_page_by_page(
    house: Opener, near: ScriptedUpstream, far: ScriptedUpstream
) -> None:
    """All of them, each shown as Ollama would; a list without an end is not believed."""

    def page(turn: Turn, name: str, more: bool) -> bytes:
        row = {"type": "model", "id": name, "display_name": "x", "created_at": "2026-01-02T00:00:00Z"}
        return json.dumps({"data": [row], "has_more": more, "last_id": name}).encode()

    async def first(turn: Turn) -> None:
        await turn.whole(200, page(turn, "claude a", True))

    async def second(turn: Turn) -> None:
        assert turn.seen.query == "limit=1000&after_id=claude%20a"
        await turn.whole(200, page(turn, "claude-b", False))

    far.next(first, second, route="/v1/models")
    registry = house(near, far)
    await registry.refresh()
    upstream = registry.upstream("far")
    assert list(upstream.models or {}) == ["claude a", "claude-b"]
    status, body = await upstream.show("claude-b", {})
    shown: dict[str, Any] = json.loads(body)
    assert (status, shown["modified_at"], "completion" in shown["capabilities"]) == (200, "2026-01-02T00:00:00Z", True)
    assert (await upstream.show("none", {}))[0] == 404
    assert await upstream.count_tokens("claude-b", {"messages": [{"role": "user", "content": "a b c"}]}) == 3
    assert (await upstream.ask_version(), await upstream.running()) == (None, [])

    for wrong in (behaviours.error(200, b"[]"), behaviours.error(200, {"data": [{}]}), behaviours.error(401, "key")):
        far.next(wrong, route="/v1/models")
        await upstream.look()
        assert upstream.state == "down"
        assert list(upstream.models or {}) == ["claude a", "claude-b"], "what was known stays known"

    async def endless(turn: Turn) -> None:
        await turn.whole(200, page(turn, "again", True))

    far.next(*[endless] * 20, route="/v1/models")
    await upstream.look()
    assert "without an end" in upstream.error


async def test_who_disables_it_ends_every_question(
    house: Opener, near: ScriptedUpstream, far: ScriptedUpstream
) -> None:
    """Whoever asks, from wherever in the program: the one way out is closed."""
    registry = house(near, far)
    await registry.refresh()
    upstream = registry.upstream("far")
    upstream.enabled = False
    connections = far.connections
    with pytest.raises(UpstreamFailed, match="outside of this network and not enabled"):
        upstream.request("POST", "/v1/messages", body=b"{}")
    with pytest.raises(UpstreamFailed, match="not enabled"):
        await upstream.fetch("GET", "/v1/models")
    await upstream.look()
    assert (upstream.models, far.connections) == ({}, connections)
