"""Which upstream serves which model, and what the models are called.

Rules: a name is resolved from what the upstreams last said (`choosing.py`); a miss asks them again, at most once a
second, so that a model pulled a moment ago is found and a typo costs nothing; what is outside of the LAN is asked at
most every half minute, whoever misses what. For who may not use the cloud its models do not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.errors import NotFound, UpstreamFailed
from daemon.clock import Clock
from daemon.config import Alias, Deadlines, Queue, UpstreamConfig
from daemon.providers.anthropic import AnthropicUpstream
from daemon.providers.choosing import Route, routes_to
from daemon.providers.ollama import OllamaUpstream
from daemon.providers.openai import OpenAiUpstream
from daemon.providers.upstream import Upstream

__all__ = ["Registry", "Route"]

LOOK_EVERY = 10.0  # seconds between two looks at every upstream: so long a change behind our back goes unnoticed
LOOK_OUTSIDE_EVERY = 300.0  # at a cloud provider, whose list rarely changes
MISS_OUTSIDE_EVERY = 30.0  # at a cloud provider, while it does not answer
MISS_EVERY = 1.0  # seconds between two looks because of names that were not found
LISTS_AGE = 2.0  # seconds that a list of models may be old when a client asks for it

_KINDS: dict[str, type[Upstream]] = {
    "ollama": OllamaUpstream,
    "openai": OpenAiUpstream,
    "anthropic": AnthropicUpstream,
}


class Registry:
    """The upstreams and their models."""

    def __init__(
        self,
        upstreams: Sequence[UpstreamConfig],
        *,
        queue: Queue,
        deadlines: Deadlines,
        clock: Clock,
        default: str = "",
        keys: Mapping[str, str] | None = None,
        aliases: Sequence[Alias] = (),
    ) -> None:
        """`default` is the configured default model; empty: the only or first installed chat model.

        `keys` are the secrets of upstreams that want one, by their names.
        """
        self._keys = dict(keys or {})
        self._aliases = {alias.name: alias.models for alias in aliases}
        self._queue = queue
        self._connect_timeout = deadlines.connect
        self._clock = clock
        self.upstreams = [self._made(each) for each in upstreams]
        self._retired: list[Upstream] = []  # no longer configured, but still answering
        self.changed: Callable[[str], None] = lambda _: None  # told the name of one whose state or seats changed
        self._default = default
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -LOOK_EVERY

    def __repr__(self) -> str:
        return f"<Registry {self.upstreams!r}>"

    @property
    def authorizations(self) -> Mapping[str, str]:
        """The header by which the gate shows itself to an upstream that wants one, by its name: a secret."""
        return {each.name: each.authorization for each in self.upstreams if each.authorization}

    def rebound(self, *, queue: Queue, deadlines: Deadlines, default: str, aliases: Sequence[Alias]) -> None:
        """Go on with these bounds and names; who waits already keeps the patience it came with."""
        self._queue, self._connect_timeout, self._default = queue, deadlines.connect, default
        self._aliases = {alias.name: alias.models for alias in aliases}
        for upstream in self.upstreams:
            upstream.pool.connect_timeout = deadlines.connect
            upstream.seats.rebound(queue_size=queue.size, per_user=queue.per_user, longest_wait=queue.longest_wait)

    def replace(self, upstreams: Sequence[UpstreamConfig]) -> list[str]:
        """Go on with these, in this order; the names of those that are new, or new at that address.

        One that is configured no longer, or elsewhere, gets no further request; what runs or waits there goes on.
        """
        before = {each.name: each for each in self.upstreams}
        kept: list[Upstream] = []
        new: list[str] = []
        for config in upstreams:
            upstream = before.get(config.name)
            if upstream is None or _elsewhere(upstream.config, config):
                upstream = self._made(config)
                new.append(config.name)
            elif upstream.configured_seats != config.seats:
                upstream.configured_seats = config.seats
                upstream.seats.resize(config.seats)
            upstream.config = config
            kept.append(upstream)
        self._retired += [each for each in self.upstreams if each not in kept]
        self.upstreams = kept
        for name in {*before, *new}:
            self.changed(name)
        return new

    def _made(self, config: UpstreamConfig) -> Upstream:
        upstream = _KINDS[config.kind](
            config,
            queue=self._queue,
            connect_timeout=self._connect_timeout,
            clock=self._clock,
        )
        if key := self._keys.get(config.name):
            upstream.use_key(key)
        upstream.changed = upstream.seats.changed = lambda: self.changed(config.name)
        return upstream

    def upstream(self, name: str) -> Upstream:
        """The upstream of that name; NotFound without one."""
        for upstream in self.upstreams:
            if upstream.name == name:
                return upstream
        names = ", ".join(each.name for each in self.upstreams)
        raise NotFound(f"there is no upstream {name!r}; there is {names}", code="upstream_unknown")

    async def resolve(self, name: str, *, cloud: bool = False) -> Route:
        """Who serves the model of that name best; see `routes`."""
        return (await self.routes(name, cloud=cloud))[0]

    async def routes(self, name: str, *, cloud: bool = False) -> list[Route]:
        """Who serves the model of that name, best first; at least one. NotFound, BadRequest where it is ambiguous,
        UpstreamFailed (502) where nobody can tell because no upstream answers. `cloud`: the caller may leave the LAN.
        """
        routes = routes_to(name, self.upstreams, self._aliases, cloud=cloud)
        if not routes:
            await self._refresh_older_than(MISS_EVERY)
            routes = routes_to(name, self.upstreams, self._aliases, cloud=cloud)
        if routes:
            return routes
        for upstream in self.upstreams:
            if upstream.state == "down" and (cloud or not upstream.cloud):
                raise _silent(upstream)  # it may have the model; nobody can tell
        raise _unknown(name)

    async def tags(self, *, cloud: bool = False) -> list[dict[str, Any]]:
        """The installed models and the aliases that can be had, in Ollama's form. UpstreamFailed where no upstream ever
        told them."""
        await self._refresh_older_than(LISTS_AGE)
        entries: dict[str, dict[str, Any]] = {}
        for remote in (False, True) if cloud else (False,):
            for upstream in self._telling(cloud):
                for model in upstream.models_of(remote).values():
                    entries.setdefault(model.name, model.entry)
        for alias in self._aliases:
            if routes := routes_to(alias, self.upstreams, self._aliases, cloud=cloud):
                known = (routes[0].upstream.models or {})[routes[0].model]
                entries.setdefault(alias, known.entry | {"name": alias, "model": alias})
        return list(entries.values())

    async def running(self) -> list[dict[str, Any]]:
        """What is loaded, in Ollama's form; an upstream that does not answer has nothing loaded."""
        near = [each for each in self.upstreams if not each.cloud]
        answers = await asyncio.gather(*(each.running() for each in near), return_exceptions=True)
        loaded: list[dict[str, Any]] = []
        for answer in answers:
            if isinstance(answer, list):
                loaded.extend(answer)
            elif not isinstance(answer, UpstreamFailed):
                raise answer
        return loaded

    async def version(self) -> str | None:
        """The version of the first Ollama that told one."""
        if any(each.models is None for each in self.upstreams):
            await self._refresh_older_than(MISS_EVERY)
        return next((each.version for each in self.upstreams if each.version), None)

    async def default_model(self) -> str:
        """The model where none is named: the configured one, else the only or first installed one that chats.

        The first installed is the oldest: pulling another one must not change what unnamed requests get. One that
        leaves the LAN must be configured. Empty where there is none.
        """
        if self._default:
            return self._default
        if not any(each.models for each in self.upstreams):
            await self._refresh_older_than(MISS_EVERY)
        for upstream in self.upstreams:
            for model in sorted(upstream.models_of(False).values(), key=lambda each: each.installed):
                if model.chats and await upstream.can_chat(model):
                    return model.name
        return ""

    async def refresh(self) -> None:
        """Ask every upstream what it has, now."""
        before = self._looking
        if before is not None and not before.done():
            # It began before this call, and may have missed what its caller has just changed.
            await asyncio.wait({before})
        if self._looking is before:
            self._begin_looking()
        await self._looked()

    async def why_not_ready(self) -> str:
        """Empty where some upstream answers; else how the first one fails."""
        await self.refresh()
        if any(each.healthy for each in self.upstreams):
            return ""
        return "; ".join(each.error for each in self.upstreams if each.error) or "no upstream is configured"

    async def run(self) -> None:
        """Look at the upstreams now and then, until cancelled."""
        while True:
            await self.refresh()
            if len(self.upstreams) > 1:
                await asyncio.gather(*(each.look_at_memory() for each in self.upstreams if each.is_asked))
            await self._let_go()
            await asyncio.sleep(LOOK_EVERY)

    async def close(self) -> None:
        """Close every connection."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for upstream in (*self.upstreams, *self._retired):
            await upstream.close()

    # --- within ---

    async def _let_go(self) -> None:
        """Close the retired ones at which nothing runs or waits any more."""
        for upstream in list(self._retired):
            if not (upstream.seats.running or upstream.seats.waiting or upstream.pool.busy):
                self._retired.remove(upstream)
                await upstream.close()

    def _telling(self, cloud: bool) -> list[Upstream]:
        visible = [each for each in self.upstreams if cloud or not each.cloud]
        telling = [each for each in visible if each.models is not None and each.state != "down"]
        if not telling and visible:
            raise _silent(visible[0])
        if not self.upstreams:
            raise UpstreamFailed("no upstream is configured")
        return telling

    async def _refresh_older_than(self, seconds: float) -> None:
        """Have a look that is at most so old; who comes while one is being had waits for its answers."""
        looking = self._looking is not None and not self._looking.done()
        if not looking and asyncio.get_running_loop().time() - self._looked_at >= seconds:
            self._begin_looking()
        await self._looked()

    def _begin_looking(self) -> None:
        self._looking = asyncio.create_task(self._look(), name="look at the upstreams")

    async def _looked(self) -> None:
        if self._looking is not None:
            # Shielded: the first of a crowd to leave must not spoil it for the others.
            await asyncio.shield(self._looking)

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.gather(*(each.look() for each in self.upstreams if not each.cloud or _is_due(each, now)))
        self._looked_at = asyncio.get_running_loop().time()


def _is_due(upstream: Upstream, now: float) -> bool:
    """Whether a cloud provider is to be looked at again."""
    return now - upstream.looked_at >= (LOOK_OUTSIDE_EVERY if upstream.healthy else MISS_OUTSIDE_EVERY)


def _elsewhere(before: UpstreamConfig, after: UpstreamConfig) -> bool:
    """Whether it is another server, or reached otherwise: only seats can change under one that runs."""
    same = ("kind", "url", "authority", "key_file", "proxy")
    return before.is_cloud != after.is_cloud or any(getattr(before, name) != getattr(after, name) for name in same)


def _unknown(name: str) -> NotFound:
    return NotFound(f"model '{name}' not found", code="model_not_found")


def _silent(upstream: Upstream) -> UpstreamFailed:
    return UpstreamFailed(upstream.error or f"the upstream {upstream.name} was not asked yet")
