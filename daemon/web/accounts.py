"""What people do over HTTP about their own account: register, log in, change the password, see and make their keys.

Rule: a person's own keys are made, rotated and revoked only in a session of theirs. An API key cannot make another one:
a stolen or restricted key would otherwise outlive its revocation, or shed its restrictions.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.errors import BadRequest, Forbidden, NotFound, Unauthenticated
from common.times import iso, iso_or_none
from daemon.access.actor import Actor
from daemon.access.directory import Key, canonical_email
from daemon.access.identity import Caller
from daemon.access.key_changes import LONGEST_GRACE
from daemon.access.keys import PREFIX
from daemon.access.passwords import LONGEST, SHORTEST
from daemon.access.sessions import Issued
from daemon.clock import MICROSECONDS
from daemon.web.base import Handler
from daemon.web.described import described

LARGEST_BODY = 64 * 1024  # nothing here is longer, and a password is hashed as it comes
_FORWARDING = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class AccountHandler(Handler):
    """A route about accounts: small bodies, answers that no cache keeps."""

    group = "Accounts"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        super().prepare()
        if len(self.request.body) > LARGEST_BODY:
            raise BadRequest(f"the request body exceeds {LARGEST_BODY} bytes", status=413, code="too_large")


# What can be is decided, and told in words, where it is used; here it is only described.
Email = Annotated[str, Meta(extra_json_schema={"format": "email"})]
NewPassword = Annotated[str, Meta(extra_json_schema={"minLength": SHORTEST, "maxLength": LONGEST})]


class Registration(msgspec.Struct):
    """POST /auth/register"""

    email: Email
    password: NewPassword


class Registered(msgspec.Struct, kw_only=True):
    """The same for a known address; with the code the administrator knows which registration is yours."""

    status: Literal["pending"] = "pending"
    code: str


class Register(AccountHandler):
    """POST /auth/register: 202 with the code to tell the administrator, whoever asks."""

    public = True

    @described(
        "Ask for an account; an administrator approves it by the code",
        takes=Registration,
        answers=Registered,
        status=202,
        example={"email": "you@example.org", "password": "a long sentence of yours"},
    )
    async def post(self) -> None:
        asked = self.read_json(Registration)
        code = await self.house.accounts.register(
            asked.email, asked.password, self.client_address, counted=not self._is_local()
        )
        self.answer(202, Registered(code=code))

    def _is_local(self) -> bool:
        """Whether this came from this very machine, and not through a proxy on it."""
        if self.house.trusted_proxies or any(name in self.request.headers for name in _FORWARDING):
            return False
        try:
            return ipaddress.ip_address(self.client_address).is_loopback
        except ValueError:
            return False


class Credentials(msgspec.Struct):
    """POST /auth/login"""

    email: str
    password: str


class Tokens(msgspec.Struct, kw_only=True):
    """RFC 6749, 5.1; `expires_in` in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int
    refresh_token: Annotated[str | UnsetType, Meta(description="Good once; where a person logged in.")] = UNSET


class Login(AccountHandler):
    """POST /auth/login: 200 with tokens; 403 where a right password waits for approval or for a change; else 401."""

    public = True

    @described(
        "Log in with a password",
        takes=Credentials,
        answers=Tokens,
        errors=(401, 403),
        example={"email": "you@example.org", "password": "a long sentence of yours"},
    )
    async def post(self) -> None:
        asked = self.read_json(Credentials)
        self.answer(
            200, token_answer(await self.house.accounts.login(asked.email, asked.password, self.client_address))
        )


class PasswordChange(msgspec.Struct):
    """POST /auth/password"""

    old: str
    new: NewPassword
    email: Annotated[str, Meta(description="May be absent beside a Bearer token.")] = ""


class Password(AccountHandler):
    """POST /auth/password: 204; ends all sessions of the account. With a Bearer the address may be left out."""

    public = True

    @described(
        "Change a password; all sessions of the account end",
        takes=PasswordChange,
        status=204,
        errors=(401, 403),
        credential="optional",
        example={"email": "you@example.org", "old": "a long sentence of yours", "new": "another long sentence"},
    )
    async def post(self) -> None:
        asked = self.read_json(PasswordChange)
        email = self._email(asked.email)
        await self.house.accounts.change_password(email, asked.old, asked.new, self.client_address)
        self.clear_header("Content-Type")
        self.set_status(204)
        self.finish()

    def _email(self, email: str) -> str:
        try:
            caller = self.caller()
        except Unauthenticated:
            # A credential that has ended is no reason to refuse who brings address and password.
            if email:
                return email
            raise
        if email and canonical_email(email) != caller.user.email:
            raise BadRequest("the address is not that of the credential; send one of them")
        return caller.user.email


class Myself(msgspec.Struct, kw_only=True):
    """A user, and the key by which it calls."""

    id: int
    email: str
    role: str
    status: str
    service: Annotated[bool, Meta(description="Whether this is no person.")]
    created: str
    must_change_password: bool
    key: Annotated[str | None, Meta(description="The key's id; null in a login session.")]


class Me(AccountHandler):
    """GET /auth/me: who the gateway takes the caller for."""

    @described("Who you are to the gateway", answers=Myself)
    async def get(self) -> None:
        caller = self.caller()
        user = caller.user
        self.answer(
            200,
            Myself(
                id=user.id,
                email=user.email,
                role=user.role,
                status=user.status,
                service=user.service,
                created=iso(user.created_us),
                must_change_password=user.must_change,
                key=None if caller.key is None else caller.key.id,
            ),
        )


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
    }


def token_answer(issued: Issued) -> Tokens:
    """RFC 6749, 5.1."""
    return Tokens(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        refresh_token=UNSET if issued.refresh_token is None else issued.refresh_token,
    )


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/auth/register", Register),
    (r"/auth/login", Login),
    (r"/auth/password", Password),
    (r"/auth/me", Me),
    (r"/auth/keys", OwnKeys),
    (r"/auth/keys/([0-9A-Za-z_]+)/rotate", RotateOwnKey),
    (r"/auth/keys/([0-9A-Za-z_]+)", RevokeOwnKey),
)
