"""What people do over HTTP about their own account: register, log in, change the password. Keys: `own_keys.py`.

Rule: bodies are small, nothing of an answer is kept by a cache, and who is unknown is told what who is wrong is told.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.errors import BadRequest, Unauthenticated
from common.times import iso
from daemon.access.directory import canonical_email
from daemon.access.passwords import LONGEST, SHORTEST
from daemon.access.sessions import Issued
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
)
