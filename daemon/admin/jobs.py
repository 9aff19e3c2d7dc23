"""Verbs about jobs: what belongs to the daemon and goes on when whoever asked for it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.protocol import JobRow, JobsExport, JobsList, JobsRetention, JobsVerify, JobTarget
from daemon.access.actor import Actor

if TYPE_CHECKING:
    from daemon.house import House


async def listed(house: House, _: Actor, request: JobsList) -> list[JobRow]:
    """Newest first."""
    return house.keeping.jobs.rows(request.state, request.limit)


async def shown(house: House, _: Actor, request: JobTarget) -> JobRow:
    """One job."""
    return house.keeping.jobs.find(request.id).row()


async def cancel(house: House, actor: Actor, request: JobTarget) -> JobRow:
    """End a job that has not ended."""
    return (await house.keeping.jobs.cancel(actor, request.id)).row()


async def export(house: House, actor: Actor, request: JobsExport) -> JobRow:
    """Begin an export to the daemon's folder."""
    return (await house.keeping.export(actor, request)).row()


async def verify(house: House, actor: Actor, request: JobsVerify) -> JobRow:
    """Begin a look at the whole journal."""
    return (await house.keeping.verify(actor, request)).row()


async def retention(house: House, actor: Actor, request: JobsRetention) -> JobRow:
    """Begin to export, verify and erase."""
    return (await house.keeping.retention(actor, request)).row()
