"""Verbs about the audit. Who looked at an exchange is in the audit, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from common import paths
from common.protocol import (
    EXPORT_HEADER,
    AdminRecord,
    AuditAdmin,
    AuditExchange,
    AuditExport,
    AuditExported,
    AuditFilter,
    AuditPosition,
    AuditRow,
    AuditSearch,
    AuditShow,
    AuditVerify,
    ChainPosition,
    ExportReport,
    VerifyReport,
)
from daemon.access.actor import Actor
from daemon.admin.bound import Download
from daemon.audit import positions, search

if TYPE_CHECKING:
    from daemon.house import House


async def searched(house: House, _: Actor, request: AuditSearch) -> AsyncGenerator[AuditRow, None]:
    """Rows, newest first, as they are found."""
    async with aclosing(search.search(house.database, request, now_us=house.clock.wall())) as rows:
        async for row in rows:
            yield row


async def find(house: House, request_id: str) -> AuditRow | None:
    """The row of one request."""
    question = AuditSearch(filter=AuditFilter(request_id=request_id), limit=1)
    async with aclosing(search.search(house.database, question, now_us=house.clock.wall())) as rows:
        return await anext(rows, None)


async def shown(house: House, actor: Actor, request: AuditShow) -> AuditExchange:
    """One exchange, prompt and answer; that it was looked at is on the disk before it is shown."""
    exchange = await search.show(house.database, request.id)
    user = house.directory.find(exchange.user)
    detail = {"user": exchange.user, "log_id": exchange.log_id}
    # Refusals are counted, not recorded one by one: they have no request id.
    target = f"request:{exchange.request_id}" if exchange.request_id else f"log:{exchange.log_id}"
    await house.journal.admin(actor, "audit show", target, detail, user_id=user.id if user else None)
    return exchange


async def position(house: House, _: Actor, request: AuditPosition) -> ChainPosition:
    """Where an exchange stands in the chain; hashes only, so nobody looked at anything."""
    return await positions.position(house.database, request.id, paths.secrets_folder(house.config.data) / "audit")


async def administered(house: House, _: Actor, request: AuditAdmin) -> list[AdminRecord]:
    """What administrators did."""
    return await positions.administered(house.database, request)


async def export(house: House, _: Actor, request: AuditExport) -> Download:
    """The bytes of an export; its id is in a header, for the report of what was written."""
    outgoing = await house.exports.begin(request)
    return Download(outgoing.content_type, aiter(outgoing), {EXPORT_HEADER: outgoing.id})


async def exported(house: House, actor: Actor, request: AuditExported) -> ExportReport:
    """Compare what lies on the caller's disk with what was sent; only the same counts as verified."""
    return await house.exports.confirm(request, actor)


async def verified(house: House, _: Actor, request: AuditVerify) -> VerifyReport:
    """Look through the whole journal, in a process of its own."""
    return await house.journal.verify(request.expect)
