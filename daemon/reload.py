"""SIGHUP: the configuration is read again, and what can change while requests run is taken up.

Rule: all or nothing. Whatever is wrong with what was read, the daemon goes on with what it had, and says why: in the
log, in `status` and in `doctor`. Which keys wait for a restart: `ON_RELOAD` in `daemon/config.py`. Exchanges that run
keep what they began with; an upstream that is configured no longer serves its own to their end.
"""

from __future__ import annotations

import ipaddress
import logging
import sqlite3
import ssl
from collections.abc import Callable
from functools import partial

from common.errors import GatewayError, StartError
from daemon import logs
from daemon.access.actor import DAEMON
from daemon.admin.cloud import keys_in_files, recall_cloud
from daemon.admin.upstreams import recall
from daemon.config import Config, taken_up
from daemon.house import House, LastReload
from daemon.providers.prices import Prices
from daemon.store.journal import append_admin
from daemon.web.server import tls_context

log = logging.getLogger("gatelodge.daemon")

Pair = tuple[str, str]  # certificate and key of a listener, empty where it speaks no TLS


def pairs(config: Config) -> list[Pair]:
    """The TLS pair of each listener, in the order in which they are opened."""
    server = config.server
    return [(server.certificate, server.key), *((each.certificate, each.key) for each in config.listen)]


async def reload(house: House, read: Callable[[], Config]) -> None:
    """Take up what `read` says now. A configuration that is wrong changes nothing but `house.reloaded`."""
    at = house.clock.wall()
    try:
        config, changed, waiting = taken_up(house.config, read())
        contexts = [_context(pair) for pair in pairs(config)]
        prices = Prices.of(config)
        keys = keys_in_files(config.upstreams)
        changed += _in_files(house, config, prices, keys)
        await house.database.write(partial(_record, house, changed, waiting))
    except (StartError, GatewayError) as error:
        problem = str(error)
        log.warning("the configuration was not taken up, and everything is as it was: %s", problem)
        house.reloaded = LastReload(at, problem=problem, waiting=house.reloaded.waiting if house.reloaded else ())
        return
    house.gate.prices = prices
    await _take_up(house, config, contexts, keys)
    house.reloaded = LastReload(at, waiting=tuple(waiting))
    unchanged = "certificates were read anew, nothing else changed" if any(contexts) else "nothing changed"
    log.info("the configuration was read again: %s", f"changed {', '.join(changed)}" if changed else unchanged)
    if waiting:
        log.warning("these keys take effect at the next restart only: %s", ", ".join(waiting))


async def _take_up(house: House, config: Config, contexts: list[ssl.SSLContext | None], keys: dict[str, str]) -> None:
    """In one step, up to the await: nobody sees half of it."""
    upstreams_changed = config.upstreams != house.config.upstreams
    house.config = config
    house.trusted_proxies[:] = [ipaddress.ip_network(text, strict=False) for text in config.server.trusted_proxies]
    house.gate.deadlines = config.deadlines
    house.disk.min_free = config.storage.min_free
    for server, context in zip(house.servers, contexts, strict=True):
        server.take_up(config.server)
        # Handshakes under way go on with the context they began with.
        server.ssl_options = context
    logs.set_level(config.log.level)
    registry = house.registry
    registry.rebound(
        queue=config.queue,
        deadlines=config.deadlines,
        default=config.models.default,
        aliases=config.aliases,
    )
    if upstreams_changed:
        new = registry.replace(config.upstreams)
        # Seats that an administrator set for one of that name are its again.
        await recall(registry, house.database, tuple(each for each in config.upstreams if each.name in new))
    if config.upstreams:
        # Also where nothing changed: a key's file may hold another one now.
        await recall_cloud(registry, house.database, house.seal, config.upstreams, keys)
    if upstreams_changed:
        await registry.refresh()


def _in_files(house: House, config: Config, prices: Prices, keys: dict[str, str]) -> list[str]:
    """What changed though no key of the configuration did: in files that it names."""
    registry = {each.name: each for each in house.registry.upstreams}
    fresh = [name for name, key in keys.items() if name in registry and not registry[name].discretion.is_of(key)]
    return [
        *(["the prices"] if prices != house.gate.prices else []),
        *(f"the key of {name}" for name in fresh),
    ]


def _record(house: House, changed: list[str], waiting: list[str], conn: sqlite3.Connection) -> None:
    append_admin(
        conn,
        actor=DAEMON,
        verb="reload",
        target="configuration",
        detail={"changed": changed, "waiting_for_restart": waiting},
        at_us=house.clock.wall(),
        clock_us=house.clock.now(),
    )


def _context(pair: Pair) -> ssl.SSLContext | None:
    certificate, key = pair
    try:
        return tls_context(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror or str(error)
        raise StartError(f"the certificate {certificate} with the key {key} cannot be used: {why}") from error
