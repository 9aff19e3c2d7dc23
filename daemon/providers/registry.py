"""Which upstream serves which model, and what the models are called.

Rules: a name is resolved from what the upstreams last said; a miss asks them again, at most once a second, so that a
model pulled a moment ago is found and a typo costs nothing. Names that leave the LAN do not exist here. An untagged
name means its `:latest`, else the only installed tag; more than one is an error that names them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from common.errors import BadRequest, NotFound, UpstreamFailed
from daemon.clock import Clock
from daemon.config import Deadlines, Queue, UpstreamConfig
from daemon.providers.ollama import OllamaUpstream, is_remote_name
from daemon.providers.openai import OpenAiUpstream
from daemon.providers.upstream import Upstream

LOOK_EVERY = 30.0  # seconds between two looks at every upstream
MISS_EVERY = 1.0  # seconds between two looks because of names that were not found
LISTS_AGE = 2.0  # seconds that a list of models may be old when a client asks for it

_KINDS: dict[str, type[Upstream]] = {"ollama": OllamaUpstream, "openai": OpenAiUpstream}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the upstream, and the model's name there."""

    upstream: Upstream
    model: str


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
    ) -> None:
        """`default` is the configured default model; empty: the only or first installed chat model."""
        self.upstreams = [
            _KINDS[each.kind](each, queue=queue, connect_timeout=deadlines.connect, clock=clock) for each in upstreams
        ]
        self._default = default
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -LOOK_EVERY

    def __repr__(self) -> str:
        return f"<Registry {self.upstreams!r}>"

    def upstream(self, name: str) -> Upstream:
        """The upstream of that name; NotFound without one."""
        for upstream in self.upstreams:
            if upstream.name == name:
                return upstream
        names = ", ".join(each.name for each in self.upstreams)
        raise NotFound(f"there is no upstream {name!r}; there is {names}", code="upstream_unknown")

    async def resolve(self, name: str) -> Route:
        """Who serves the model of that name. NotFound, BadRequest where it is ambiguous, UpstreamFailed (502) where
        nobody can tell because no upstream answers."""
        if is_remote_name(name):
            raise _unknown(name)
        route = self._find(name)
        if route is None:
            await self._refresh_older_than(MISS_EVERY)
            route = self._find(name)
        if route is not None:
            return route
        silent = [each for each in self.upstreams if each.models is None]
        if silent:
            raise UpstreamFailed(f"the upstream {silent[0].name} does not answer: {silent[0].error}")
        raise _unknown(name)

    async def tags(self) -> list[dict[str, Any]]:
        """The installed models, in Ollama's form. UpstreamFailed where no upstream ever told them."""
        await self._refresh_older_than(LISTS_AGE)
        entries: dict[str, dict[str, Any]] = {}
        for upstream in self._telling():
            for model in (upstream.models or {}).values():
                entries.setdefault(model.name, model.entry)
        return list(entries.values())

    async def running(self) -> list[dict[str, Any]]:
        """What is loaded, in Ollama's form; an upstream that does not answer has nothing loaded."""
        answers = await asyncio.gather(*(each.running() for each in self.upstreams), return_exceptions=True)
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

        Empty where there is none.
        """
        if self._default:
            return self._default
        if not any(each.models for each in self.upstreams):
            await self._refresh_older_than(MISS_EVERY)
        for upstream in self.upstreams:
            for model in (upstream.models or {}).values():
                if model.chats:
                    return model.name
        return ""

    async def refresh(self) -> None:
        """Ask every upstream what it has, now; who comes meanwhile waits for the same answers."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="look at the upstreams")
        # Shielded: the first of a crowd to leave must not spoil it for the others.
        await asyncio.shield(self._looking)

    async def why_not_ready(self) -> str:
        """Empty where some upstream answers; else how the first one fails."""
        await self.refresh()
        if any(each.healthy for each in self.upstreams):
            return ""
        return "; ".join(f"upstream {each.name}: {each.error or 'not asked yet'}" for each in self.upstreams)

    async def run(self) -> None:
        """Look at the upstreams now and then, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_EVERY)

    async def close(self) -> None:
        """Close every connection."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        for upstream in self.upstreams:
            await upstream.close()

    # --- within ---

    def _find(self, name: str) -> Route | None:
        exact = self._having(name)
        if exact is not None:
            return exact
        if ":" in name.rpartition("/")[2]:
            return None
        latest = self._having(f"{name}:latest")
        if latest is not None:
            return latest
        tags = sorted({each for upstream in self.upstreams for each in upstream.models or () if _base(each) == name})
        if len(tags) > 1:
            raise BadRequest(f"model '{name}' is ambiguous: name one of {', '.join(tags)}", code="model_ambiguous")
        return self._having(tags[0]) if tags else None

    def _having(self, model: str) -> Route | None:
        """The upstream to serve `model`: of those that have it a healthy one before others, then the least busy."""
        having = [each for each in self.upstreams if model in (each.models or ())]
        if not having:
            return None
        best = min(having, key=lambda each: (each.state == "down", each.seats.running + each.seats.waiting))
        return Route(best, model)

    def _telling(self) -> list[Upstream]:
        telling = [each for each in self.upstreams if each.models is not None and each.state != "down"]
        if not telling:
            first = self.upstreams[0]
            raise UpstreamFailed(f"the upstream {first.name} does not answer: {first.error or 'not asked yet'}")
        return telling

    async def _refresh_older_than(self, seconds: float) -> None:
        if asyncio.get_running_loop().time() - self._looked_at >= seconds:
            await self.refresh()
        elif self._looking is not None and not self._looking.done():
            await asyncio.shield(self._looking)

    async def _look(self) -> None:
        await asyncio.gather(*(each.look() for each in self.upstreams))
        self._looked_at = asyncio.get_running_loop().time()


def on_state_change(registry: Registry, listener: Callable[[str], None]) -> None:
    """Have `listener` told the name of each upstream whose state or seats changed."""
    for upstream in registry.upstreams:
        upstream.changed = upstream.seats.changed = partial(listener, upstream.name)


def _base(model: str) -> str:
    before, colon, tag = model.rpartition(":")
    return before if colon and "/" not in tag else model


def _unknown(name: str) -> NotFound:
    return NotFound(f"model '{name}' not found", code="model_not_found")
