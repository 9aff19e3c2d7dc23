"""Verbs about API keys. A secret leaves here once, in the answer of the verb that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import BadRequest
from common.protocol import (
    ImportedKey,
    IssuedKey,
    KeyRow,
    KeysImport,
    KeysIssue,
    KeysList,
    KeysRotate,
    KeyTarget,
    RotatedKey,
)
from common.times import iso_or_none
from daemon.access.actor import Actor
from daemon.admin.rows import key_row
from daemon.clock import MICROSECONDS

if TYPE_CHECKING:
    from daemon.house import House


async def listed(house: House, _: Actor, request: KeysList) -> list[KeyRow]:
    """The keys of everybody or of one user; revoked and expired ones only if asked for."""
    if request.user is None:
        keys = list(house.directory.keys.values())
    else:
        keys = house.directory.keys_of(house.directory.user_named(request.user).id)
    now_us = house.clock.wall()
    return [key_row(house, key) for key in keys if request.all or key.is_live(now_us)]


async def issue(house: House, actor: Actor, request: KeysIssue) -> IssuedKey:
    """A new key of the user."""
    user = house.directory.user_named(request.user)
    expires_us = None
    if request.expires_seconds is not None:
        if request.expires_seconds < 1:
            raise BadRequest("a key must live for at least a second", code="expiry_invalid")
        expires_us = house.clock.wall() + request.expires_seconds * MICROSECONDS
    key, written = await house.directory.issue_key(
        actor,
        user.id,
        request.label,
        expires_us=expires_us,
        models=request.models,
        addresses=request.addresses,
        metrics=request.metrics,
        in_path=request.in_path,
    )
    return IssuedKey(id=key.id, key=written)


async def rotate(house: House, actor: Actor, request: KeysRotate) -> RotatedKey:
    """A new secret for the key; the one before works on for the time of grace."""
    written = await house.directory.rotate_key(actor, request.id, request.grace_seconds, request.version)
    until = house.directory.keys[request.id].previous_until_us
    return RotatedKey(id=request.id, key=written, previous_until=iso_or_none(until))


async def revoke(house: House, actor: Actor, request: KeyTarget) -> KeyRow:
    """End the key for good."""
    return key_row(house, await house.directory.revoke_key(actor, request.id, request.version))


async def import_tokens(house: House, actor: Actor, request: KeysImport) -> list[ImportedKey]:
    """Another gateway's tokens as keys, under the users that they were for."""
    found = [(each.name, each.token) for each in request.tokens]
    imported = await house.directory.import_tokens(actor, found, source=request.source, domain=request.domain)
    return [
        ImportedKey(
            name=each.name,
            user=each.user.email,
            id=each.key.id,
            state=each.state,
            new_user=each.new_user,
            weak=each.weak,
        )
        for each in imported
    ]
