"""Verbs about the daemon as a whole: status, doctor."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import msgspec

from common import paths
from common.protocol import PROTOCOL_VERSION, DiskState, Finding, Nothing, Reloaded, Status, UserCounts
from common.times import iso
from daemon.access.actor import Actor
from daemon.admin.rows import upstream_row
from daemon.clock import MICROSECONDS
from daemon.doctor import examine

if TYPE_CHECKING:
    from daemon.house import House


async def status(house: House, _: Actor, __: Nothing) -> Status:
    """The daemon at a glance."""
    data = house.config.data
    room = shutil.disk_usage(data)
    statuses = [user.status for user in house.directory.users.values()]
    phases = [exchange.phase for exchange in house.gate.live()]
    return Status(
        version=house.hub.version,
        protocol_version=PROTOCOL_VERSION,
        boot_id=house.hub.boot_id,
        pid=os.getpid(),
        started=iso(house.started_us),
        uptime_seconds=max(0, house.clock.wall() - house.started_us) // MICROSECONDS,
        data=str(data),
        addresses=[
            f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
            for host, port, tls in house.addresses
        ],
        users=UserCounts(
            active=statuses.count("active"),
            disabled=statuses.count("disabled"),
            pending=len(house.directory.registrations),
        ),
        running=len(phases) - phases.count("queued"),
        queued=phases.count("queued"),
        upstreams=[upstream_row(upstream) for upstream in house.registry.upstreams],
        default_model=await house.registry.default_model() or None,
        disk=DiskState(
            free=room.free,
            total=room.total,
            min_free=house.disk.min_free,
            database=_database_size(house),
            growth_per_day=house.forecast.growth_per_day(),
            days_left=house.forecast.days_left(house.disk.min_free),
        ),
        stopping=house.stopping,
        reloaded=None
        if house.reloaded is None
        else Reloaded(iso(house.reloaded.at_us), house.reloaded.problem, list(house.reloaded.waiting)),
    )


async def doctor(house: House, _: Actor, __: Nothing) -> list[Finding]:
    """What is wrong, and what to do; of the upstreams that this daemon really has."""
    upstreams = [msgspec.structs.replace(each.config, seats=each.seats.size) for each in house.registry.upstreams]
    return [
        *_of_the_last_reload(house),
        *await examine(house.config, upstreams=upstreams, authorizations=house.registry.authorizations),
    ]


def _of_the_last_reload(house: House) -> list[Finding]:
    """What SIGHUP could not take up."""
    last, found = house.reloaded, []
    if last is not None and last.problem:
        advice = "correct it (gatelodge config check FILE), then reload again"
        found.append(Finding("configuration", "error", f"the last reload was refused: {last.problem}", advice))
    if last is not None and last.waiting:
        words = f"{', '.join(last.waiting)}: set otherwise than it runs"
        found.append(Finding("configuration", "warning", words, "restart the daemon when it suits"))
    return found


def _database_size(house: House) -> int:
    """Bytes of the database with its log."""
    path = paths.database_file(house.config.data)
    names = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in names if file.exists())
