"""Which upstreams may serve a model's name, best first: decided from what is known, without asking anybody.

Rules: `upstream/model` means that upstream's model; an alias stands for its models in their order; any other name means
the installed model of that name, its `:latest`, or the only installed tag, wherever it is. What a name means on the LAN
never leaves it: elsewhere is looked only where nobody on the LAN has it, and only for who may use the cloud. Of several
that have it: one that takes requests, then one with a free seat, then one that has it in memory, then the least busy.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import BadRequest
from daemon.providers.names import meant_by
from daemon.providers.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the upstream, and the model's name there."""

    upstream: Upstream
    model: str

    @property
    def leaves_lan(self) -> bool:
        """Whether the request goes out of the LAN there."""
        return self.upstream.leaves_lan(self.model)

    def __str__(self) -> str:
        return f"{self.upstream.name}/{self.model}"


def routes_to(
    name: str, upstreams: Sequence[Upstream], aliases: Mapping[str, Sequence[str]], *, cloud: bool
) -> list[Route]:
    """Who may serve `name`, best first; empty where nobody has it. BadRequest where it is ambiguous.

    `cloud`: whether the caller may use what leaves the LAN; else it is as if that were not there.
    """
    targets = aliases.get(name)
    if targets is None:
        return _routes(name, upstreams, cloud)
    routes: list[Route] = []
    for target in targets:
        routes += [route for route in _routes(target, upstreams, cloud) if route not in routes]
    # The order of the alias is kept, but for those that could not answer now.
    routes.sort(key=lambda route: _unfit(route)[:3])
    return routes


def _routes(name: str, upstreams: Sequence[Upstream], cloud: bool) -> list[Route]:
    prefix, slash, rest = name.partition("/")
    if slash:
        named = [upstream for upstream in upstreams if upstream.name == prefix]
        if routes := _found(rest, named, remote=False) or (_found(rest, named, remote=True) if cloud else []):
            return routes
    return _found(name, upstreams, remote=False) or (_found(name, upstreams, remote=True) if cloud else [])


def _found(name: str, upstreams: Sequence[Upstream], *, remote: bool) -> list[Route]:
    routes = [Route(upstream, name) for upstream in upstreams if name in upstream.models_of(remote)]
    if not routes:
        models = meant_by(name, ChainMap(*(upstream.models_of(remote) for upstream in upstreams)))
        if len(models) > 1:
            raise BadRequest(f"model '{name}' is ambiguous: name one of {', '.join(models)}", code="model_ambiguous")
        for model in models:
            routes = [Route(upstream, model) for upstream in upstreams if model in upstream.models_of(remote)]
    if len(routes) > 1:
        routes.sort(key=_unfit)
    return routes


def _unfit(route: Route) -> tuple[bool, bool, bool, bool, bool, float]:
    upstream, seats = route.upstream, route.upstream.seats
    return (
        seats.draining,
        upstream.rests(route.model) > 0,
        upstream.state == "down",
        seats.running >= seats.size,
        not upstream.has_loaded(route.model),
        (seats.running + seats.waiting) / seats.size,
    )
