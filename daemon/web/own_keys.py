"""What people do about their own API keys: see, make, rotate, revoke them.

Rule: a person's own keys are made, rotated and revoked only in a session of theirs. An API key cannot make another one:
a stolen or restricted key would otherwise outlive its revocation, or shed its restrictions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from common.errors import Forbidden, NotFound
from common.times import iso, iso_or_none
from daemon.access.actor import Actor
from daemon.access.directory import Key
from daemon.access.identity import Caller
from daemon.access.key_changes import LONGEST_GRACE
from daemon.access.keys import PREFIX
from daemon.clock import MICROSECONDS
from daemon.web.accounts import AccountHandler
from daemon.web.base import Handler
from daemon.web.described import described


class OwnKey(msgspec.Struct):
    """POST /auth/keys"""

    label: str
    expires_in: Annotated[
        int | None, Meta(description="Seconds; null: it does not expire.", extra_json_schema={"minimum": 1})
    ] = None
    models: Annotated[list[str], Meta(description="Patterns of names; none: all models.")] = []
    addresses: Annotated[list[str], Meta(description="Addresses or networks; none: from anywhere.")] = []


class KeyRow(msgspec.Struct, kw_only=True):
    """A key as its owner sees it."""

    id: str
    prefix: str
    label: str
    state: Literal["active", "expired", "revoked"]
    purpose: str
    models: list[str]
    addresses: list[str]
    created: str
    expires: str | None
    revoked: str | None
    previous_until: Annotated[str | None, Meta(description="Until then the secret of before works, too.")]
    last_used: str | None
    last_address: str | None
    in_path: Annotated[bool, Meta(description="Whether it may stand in the path, /k/KEY/…; an administrator decides.")]


class IssuedKey(KeyRow, kw_only=True):
    """The same with the whole key, shown this once."""

    key: str


class OwnKeys(AccountHandler):
    """GET /auth/keys: one's own keys, without their secrets. POST: a new one, 201, shown this once."""

    @described("Your keys, without their secrets", answers=list[KeyRow])
    async def get(self) -> None:
        caller = self.caller()
        now_us = self.house.clock.wall()
        self.answer(200, [key_answer(key, now_us) for key in self.house.directory.keys_of(caller.user.id)])

    @described(
        "Make a key; it is shown this once",
        takes=OwnKey,
        answers=IssuedKey,
        status=201,
        errors=(403, 409),
        credential="session",
        example={"label": "nightly report", "expires_in": 7776000},
    )
    async def post(self) -> None:
        caller = in_session(self.caller())
        if not self.house.config.registration.self_issued_keys:
            raise Forbidden("keys are issued by the administrator here", code="self_issue_off")
        asked = self.read_json(OwnKey)
        now_us = self.house.clock.wall()
        key, written = await self.house.directory.issue_key(
            themselves(caller),
            caller.user.id,
            asked.label,
            expires_us=None if asked.expires_in is None else now_us + asked.expires_in * MICROSECONDS,
            models=asked.models,
            addresses=asked.addresses,
        )
        self.answer(201, issued_key(key, now_us, written))


class Rotation(msgspec.Struct):
    """POST /auth/keys/{id}/rotate"""

    grace_seconds: Annotated[
        int,
        Meta(
            description="So long the secret of before works, too.",
            extra_json_schema={"minimum": 0, "maximum": LONGEST_GRACE},
        ),
    ] = 0


class RotateOwnKey(AccountHandler):
    """POST /auth/keys/{id}/rotate: 200 with the new secret, shown this once."""

    @described(
        "Give a key a new secret; it is shown this once",
        takes=Rotation,
        optional=True,
        answers=IssuedKey,
        errors=(403, 404, 409),
        credential="session",
        example={"grace_seconds": 3600},
    )
    async def post(self, key_id: str) -> None:
        caller = in_session(self.caller())
        key = own_key(self, caller, key_id)
        asked = self.read_json(Rotation) if self.request.body.strip() else Rotation()
        written = await self.house.directory.rotate_key(themselves(caller), key.id, asked.grace_seconds)
        rotated = self.house.directory.keys[key.id]
        self.answer(200, issued_key(rotated, self.house.clock.wall(), written))


class RevokeOwnKey(AccountHandler):
    """DELETE /auth/keys/{id}: 204; the key, its tokens and what runs under it end."""

    @described("Revoke a key; what runs under it ends", status=204, errors=(403, 404, 409), credential="session")
    async def delete(self, key_id: str) -> None:
        caller = in_session(self.caller())
        key = own_key(self, caller, key_id)
        await self.house.directory.revoke_key(themselves(caller), key.id)
        self.clear_header("Content-Type")
        self.set_status(204)
        self.finish()


def in_session(caller: Caller) -> Caller:
    """The caller, who must have logged in as a person."""
    if caller.key is not None:
        raise Forbidden("log in for this: an API key can neither make nor end keys", code="session_needed")
    return caller


def own_key(handler: Handler, caller: Caller, key_id: str) -> Key:
    """The caller's key with that id; of others' keys one does not learn that they exist."""
    key = handler.house.directory.keys.get(key_id.removeprefix(PREFIX))
    if key is None or key.user_id != caller.user.id:
        raise NotFound(f"you have no key {key_id}", code="key_unknown")
    return key


def themselves(caller: Caller) -> Actor:
    """The caller as the one who made a change."""
    return Actor(uid=None, name=caller.user.email, via="http")


def key_answer(key: Key, now_us: int) -> KeyRow:
    """A key as its owner sees it."""
    return KeyRow(**_fields(key, now_us))


def issued_key(key: Key, now_us: int, written: str) -> IssuedKey:
    """A key whose secret is new, with it."""
    return IssuedKey(key=written, **_fields(key, now_us))


def _fields(key: Key, now_us: int) -> dict[str, Any]:
    if key.revoked_us is not None:
        state = "revoked"
    else:
        state = "active" if key.is_live(now_us) else "expired"
    return {
        "id": key.id,
        "prefix": PREFIX + key.id,
        "label": key.label,
        "state": state,
        "purpose": key.purpose,
        "models": key.models,
        "addresses": key.addresses,
        "created": iso(key.created_us),
        "expires": iso_or_none(key.expires_us),
        "revoked": iso_or_none(key.revoked_us),
        "previous_until": iso_or_none(key.previous_until_us),
        "last_used": iso_or_none(key.last_used_us),
        "last_address": key.last_address or None,
        "in_path": key.in_path,
    }


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/auth/keys", OwnKeys),
    (r"/auth/keys/([0-9A-Za-z_]+)/rotate", RotateOwnKey),
    (r"/auth/keys/([0-9A-Za-z_]+)", RevokeOwnKey),
)
