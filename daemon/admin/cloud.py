"""Verbs about what is outside of the LAN: enabling a provider, and the key that it wants to see.

Rules: enabling holds for the address that was enabled; configured to be elsewhere, an upstream is asked nothing until
it is enabled anew. A key is written and never read by anybody but its upstream; the audit tells that it was set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.errors import Conflict
from common.protocol import UpstreamRow, UpstreamsKey, UpstreamTarget
from daemon.access.actor import Actor
from daemon.admin.rows import upstream_row
from daemon.config import UpstreamConfig
from daemon.providers.registry import Registry
from daemon.providers.sealing import Seal, checked, from_file
from daemon.providers.upstream import Upstream
from daemon.store import provider_keys
from daemon.store.database import Database
from daemon.store.journal import append_admin
from daemon.store.settings import clear_setting, get_setting, set_setting

if TYPE_CHECKING:
    from daemon.house import House

ENABLED = "enabled"  # + ":" + the upstream's name: the address that was enabled


async def enable(house: House, actor: Actor, request: UpstreamTarget) -> UpstreamRow:
    """What leaves the LAN there may be used, by users who may."""
    return await _switch(house, actor, request.name, enabled=True)


async def disable(house: House, actor: Actor, request: UpstreamTarget) -> UpstreamRow:
    """Nothing more leaves the LAN there; what runs goes on."""
    return await _switch(house, actor, request.name, enabled=False)


async def set_key(house: House, actor: Actor, request: UpstreamsKey) -> UpstreamRow:
    """The secret that the upstream wants to see, from its next request on, and after a restart."""
    upstream = house.registry.upstream(request.name)
    config, seal = upstream.config, house.seal
    if config.key_file:
        raise Conflict(f"the key of {upstream.name} is in a file (key_file): change it there, and reload")
    secret = "" if request.key is None else checked(request.key)
    sealed = seal.sealed(secret, config) if secret else None

    def job(conn: sqlite3.Connection) -> None:
        if sealed is None:
            provider_keys.remove(conn, upstream.name)
        else:
            provider_keys.put(conn, upstream.name, sealed, house.clock.wall())
        _record(conn, house, actor, "upstreams key", upstream, url=upstream.url, cleared=sealed is None)

    await house.database.write(job)
    upstream.use_key(secret)
    await upstream.look()
    upstream.changed()
    return upstream_row(upstream)


async def recall_cloud(
    registry: Registry,
    database: Database,
    seal: Seal,
    configured: tuple[UpstreamConfig, ...],
    from_files: Mapping[str, str],
) -> None:
    """Take up what was enabled, and the keys; at the start, and after a reload. `from_files`: `keys_in_files`."""

    def read(conn: sqlite3.Connection) -> tuple[dict[str, str | None], dict[str, bytes]]:
        enabled = {each.name: get_setting(conn, f"{ENABLED}:{each.name}") for each in configured}
        return enabled, provider_keys.load(conn)

    enabled, sealed = await database.read(read)
    for each in configured:
        upstream = registry.upstream(each.name)
        upstream.enabled = enabled[each.name] == each.url
        secret = from_files.get(each.name)
        if secret is None and each.name in sealed:
            secret = seal.opened(sealed[each.name], each)
        if secret:
            upstream.use_key(secret)


def keys_in_files(configured: tuple[UpstreamConfig, ...]) -> dict[str, str]:
    """The secrets that lie in files, by the upstreams' names. StartError."""
    return {each.name: from_file(each) for each in configured if each.key_file}


async def _switch(house: House, actor: Actor, name: str, *, enabled: bool) -> UpstreamRow:
    upstream = house.registry.upstream(name)
    if upstream.enabled != enabled:

        def job(conn: sqlite3.Connection) -> None:
            if enabled:
                set_setting(conn, f"{ENABLED}:{upstream.name}", upstream.url)
            else:
                clear_setting(conn, f"{ENABLED}:{upstream.name}")
            verb = "upstreams enable" if enabled else "upstreams disable"
            _record(conn, house, actor, verb, upstream, url=upstream.url)

        await house.database.write(job)
        upstream.enabled = enabled
        await upstream.look()
        upstream.changed()
    return upstream_row(upstream)


def _record(conn: sqlite3.Connection, house: House, actor: Actor, verb: str, upstream: Upstream, **detail: Any) -> None:
    append_admin(
        conn,
        actor=actor,
        verb=verb,
        target=f"upstream:{upstream.name}",
        detail=detail,
        at_us=house.clock.wall(),
        clock_us=house.clock.now(),
    )
