"""Verbs about upstreams: the inference servers behind the gate, and how much they run at once.

Rule: a drain holds until it is taken back, also over restarts; seats that an administrator set hold over restarts as
long as the configuration says what it said then; a new value there wins.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from common.errors import BadRequest, UpstreamFailed
from common.protocol import Nothing, ProbeResult, UpstreamRow, UpstreamsSeats, UpstreamTarget
from daemon.access.actor import Actor
from daemon.admin.rows import upstream_row
from daemon.config import UpstreamConfig
from daemon.doctor import PROBED
from daemon.providers.probing import measure_seats
from daemon.providers.registry import Registry
from daemon.providers.upstream import Upstream
from daemon.store.database import Database
from daemon.store.journal import append_admin
from daemon.store.settings import get_setting, set_setting

if TYPE_CHECKING:
    from daemon.house import House

DRAINED = "drained"  # + ":" + the upstream's name: yes or no
SEATS = "seats"  # + ":" + the upstream's name: a SeatsSet


class SeatsSet(msgspec.Struct):
    """What an administrator set, and what the configuration said then."""

    seats: int
    configured: int


async def listed(house: House, _: Actor, __: Nothing) -> list[UpstreamRow]:
    """All of them, in the order of the configuration."""
    return [upstream_row(upstream) for upstream in house.registry.upstreams]


async def probe(house: House, actor: Actor, request: UpstreamTarget) -> ProbeResult:
    """Find out how many requests it really runs at once, and remember it."""
    upstream = house.registry.upstream(request.name)
    if upstream.cloud:
        raise BadRequest(f"{upstream.name} is outside of this network: its seats are what you agreed on with it")
    model = await _model_for(house, upstream)
    measured = await measure_seats(upstream, model)
    detail = {"model": model, "measured": measured, "seats": upstream.seats.size}
    kept = (f"{PROBED}:{upstream.name}", str(measured))
    await _set(house, actor, "upstreams probe", upstream, setting=kept, detail=detail)
    upstream.probed_seats = measured
    upstream.changed()
    return ProbeResult(name=upstream.name, model=model, measured=measured, seats=upstream.seats.size)


async def set_seats(house: House, actor: Actor, request: UpstreamsSeats) -> UpstreamRow:
    """From now on, and after a restart."""
    upstream = house.registry.upstream(request.name)
    chosen = msgspec.json.encode(SeatsSet(request.seats, upstream.configured_seats)).decode()
    detail = {"old": upstream.seats.size, "new": request.seats}
    kept = (f"{SEATS}:{upstream.name}", chosen)
    await _set(house, actor, "upstreams seats", upstream, setting=kept, detail=detail)
    upstream.seats.resize(request.seats)
    return upstream_row(upstream)


async def drain(house: House, actor: Actor, request: UpstreamTarget) -> UpstreamRow:
    """It takes nothing new; what runs there goes on, who waits there waits. Also after a restart."""
    return await _drained(house, actor, request.name, drained=True)


async def undrain(house: House, actor: Actor, request: UpstreamTarget) -> UpstreamRow:
    """It takes requests again."""
    return await _drained(house, actor, request.name, drained=False)


async def _drained(house: House, actor: Actor, name: str, *, drained: bool) -> UpstreamRow:
    upstream = house.registry.upstream(name)
    if upstream.seats.draining != drained:
        kept = (f"{DRAINED}:{upstream.name}", "yes" if drained else "no")
        detail = {"running": upstream.seats.running, "queued": upstream.seats.waiting}
        verb = "upstreams drain" if drained else "upstreams undrain"
        await _set(house, actor, verb, upstream, setting=kept, detail=detail)
        if drained:
            upstream.seats.drain()
        else:
            upstream.seats.undrain()
    return upstream_row(upstream)


async def recall(registry: Registry, database: Database, configured: tuple[UpstreamConfig, ...]) -> None:
    """Take up what administrators set and found out before the last restart. Once, at the start."""

    def read(conn: sqlite3.Connection) -> dict[str, list[str | None]]:
        names = (SEATS, PROBED, DRAINED)
        return {each.name: [get_setting(conn, f"{name}:{each.name}") for name in names] for each in configured}

    kept = await database.read(read)
    for each in configured:
        seats, probed, drained = kept[each.name]
        upstream = registry.upstream(each.name)
        if drained == "yes":
            upstream.seats.drain()
        if seats is not None:
            chosen = msgspec.json.decode(seats, type=SeatsSet)
            if chosen.configured == each.seats:
                upstream.seats.resize(chosen.seats)
        if probed is not None:
            upstream.probed_seats = int(probed)


async def _model_for(house: House, upstream: Upstream) -> str:
    """The default model where the upstream has it, else its first one that chats."""
    await house.registry.refresh()
    models = upstream.models or {}
    default = await house.registry.default_model()
    if default in models:
        return default
    for model in upstream.models_of(False).values():
        if model.chats:
            return model.name
    raise UpstreamFailed(
        f"the upstream {upstream.name} has no model to probe with: {upstream.error or 'none is there'}"
    )


async def _set(
    house: House, actor: Actor, verb: str, upstream: Upstream, *, setting: tuple[str, str], detail: dict[str, Any]
) -> None:
    """A setting and its audit record, in one transaction."""
    appended = partial(
        append_admin,
        actor=actor,
        verb=verb,
        target=f"upstream:{upstream.name}",
        detail=detail,
        at_us=house.clock.wall(),
        clock_us=house.clock.now(),
    )

    def job(conn: sqlite3.Connection) -> None:
        set_setting(conn, *setting)
        appended(conn)

    await house.database.write(job)
