"""Who is asking: from a request's headers to a user, synchronously and from memory.

Rule: a verified token is remembered under its digest and an API key's hash lies in memory, so that the hot path costs
no signature, no SQL, no argon2. What may have changed since is looked at on every use: the user, the epoch, the key,
the session, the token's end. Whatever is wrong with a credential, the answer is the same (RFC 6750, `invalid_token`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from tornado.httputil import HTTPHeaders

from common.errors import BadRequest, Forbidden, Unauthenticated
from daemon.access import keys
from daemon.access.directory import Directory, Key, User
from daemon.access.sessions import Sessions
from daemon.access.tokens import Claims, InvalidToken
from daemon.clock import MICROSECONDS, Clock
from daemon.store.keys import Purpose

CHALLENGE = 'Bearer realm="gatelodge"'
# Where the head's reader puts a key that stood in the path (`daemon/web/heads.py`): a name that no client can send.
PATH_KEY = "/k/"
INLINE = "inline"  # the session of whoever sent a password along; ended by a new epoch, as any session
_REMEMBERED_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. `key` is the API key presented, or the one that a client's token was made with.

    `session` is the refresh family of a person's token, for a client's token the token itself, None under a bare key.
    """

    user: User
    key: Key | None
    session: str | None
    scheme: Literal["jwt", "key", "inline"]

    def may_use(self, *names: str) -> bool:
        """Whether the key is for a model of one of these names; its patterns are shell-like, none of them means all."""
        patterns = self.key.models if self.key is not None else ()
        return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def no_credential() -> Unauthenticated:
    """The refusal of whoever does not say who they are (RFC 6750: a bare challenge)."""
    return Unauthenticated(
        "a credential is needed: send 'Authorization: Bearer …' or 'X-API-KEY: …'",
        headers={"WWW-Authenticate": CHALLENGE},
        detail={"detail": "no credential"},
    )


def not_for_this_key(caller: Caller, model: str) -> Forbidden:
    """The refusal of a model that `caller.may_use` denies."""
    allowed = ", ".join(caller.key.models if caller.key is not None else ())
    return Forbidden(f"this key may not use the model {model!r}; it is for {allowed}", code="model_not_allowed")


class Access:
    """Identifies callers."""

    def __init__(self, directory: Directory, sessions: Sessions, clock: Clock) -> None:
        self._directory = directory
        self._sessions = sessions
        self._clock = clock
        self._verified: dict[bytes, Claims] = {}  # SHA-256 of the token -> what it says; oldest first

    def __repr__(self) -> str:
        return f"<Access {len(self._verified)} tokens verified>"

    def identify(self, headers: HTTPHeaders, *, address: str, purpose: Purpose = "inference") -> Caller:
        """The caller. Unauthenticated without a credential that counts; BadRequest where two different ones are sent.

        Forbidden where the credential is right but not from this address, or not for this purpose.
        """
        presented = self._presented(headers)
        if presented is None:
            raise no_credential()
        scheme, text = presented
        if scheme == "key" or text.startswith(keys.PREFIX):
            caller = self._by_key(text)
        elif scheme == "path":
            raise _invalid()
        else:
            caller = self._by_import(text) or self._by_token(text)
        key = caller.key
        if scheme == "path" and (key is None or not key.in_path):
            raise Forbidden(
                "this key may not stand in the path, where logs may show it; an administrator can issue one that may",
                code="not_in_path",
            )
        if key is not None:
            self._check_use(key, address, purpose)
            self._directory.note_use(key.id, address)
        elif purpose != "inference":
            raise _insufficient("this needs a key issued for it: gatelodge keys issue EMAIL --metrics")
        return caller

    def presents(self, headers: HTTPHeaders) -> bool:
        """Whether the headers (or the path) bring a credential, whatever it is worth."""
        return self._presented(headers) is not None

    def still_counts(self, caller: Caller) -> bool:
        """Whether `caller`, identified a moment ago, would still be: to be asked when an exchange becomes visible to
        a `Cut`, since one that came in between did not see it."""
        user = self._directory.users.get(caller.user.id)
        if user is None or user.status != "active":
            return False
        if caller.session is not None and user.epoch != caller.user.epoch:
            return False
        if caller.session is not None and self._sessions.is_ended(caller.session):
            return False
        key = None if caller.key is None else self._directory.keys.get(caller.key.id)
        return caller.key is None or (key is not None and key.is_live(self._clock.wall()))

    def key_of_client(self, client_id: str, secret: str, *, address: str) -> Key | None:
        """The key that an OAuth client presents as `client_id` and `client_secret`; None where it does not count."""
        key_id = keys.read_client_id(client_id)
        try:
            caller = self._by_key(keys.written(key_id or "", secret))
        except Unauthenticated:
            return None
        key = caller.key
        if key is None or key.purpose != "inference" or not _is_allowed_from(key, address):
            return None
        self._directory.note_use(key.id, address)
        return key

    # -- parts --------------------------------------------------------------------------------------------------------

    def _presented(self, headers: HTTPHeaders) -> tuple[Literal["bearer", "key", "path"], str] | None:
        authorizations = headers.get_list("Authorization")
        if len(authorizations) > 1:
            raise BadRequest("send one Authorization header", code="several_credentials")
        found: dict[str, Literal["bearer", "key", "path"]] = {}
        for name in ("X-API-KEY", "x_api_key"):
            for value in headers.get_list(name):
                if value.strip():
                    found[value.strip()] = "key"
        for value in authorizations:
            scheme, _, text = value.strip().partition(" ")
            if scheme.lower() == "bearer":
                found[text.strip()] = "bearer"
        for value in headers.get_list(PATH_KEY):
            if value:
                found[value] = "path"
        if len(found) > 1:
            raise BadRequest("two different credentials were sent; send one", code="several_credentials")
        for text, scheme in found.items():
            return scheme, text
        return None

    def _by_key(self, text: str) -> Caller:
        parts = keys.read(text)
        if parts is None:
            caller = self._by_import(text)
            if caller is None:
                raise _invalid()
            return caller
        key_id, secret = parts
        now_us = self._clock.wall()
        key = self._directory.keys.get(key_id)
        # Compared even where there is no such key: an id is not told from a secret by time.
        right = keys.is_secret(secret, *(key.accepted_hashes(now_us) if key is not None else (None, None)))
        if key is None or not right or not key.is_live(now_us):
            raise _invalid()
        return Caller(self._active(key.user_id), key, None, "key")

    def _by_import(self, token: str) -> Caller | None:
        """Whose token of another gateway it is; None where nobody's.

        Such a token names no key, so it is looked up by its digest. How long that takes depends on the digest alone,
        which nobody can steer towards that of a token they do not have; what was found is then compared in constant
        time, as any key is, so that a rotated or revoked one is refused.
        """
        imported = self._directory.imported
        if not imported:
            return None
        key = self._directory.keys.get(imported.get(keys.secret_hash(token), ""))
        if key is None:
            return None
        now_us = self._clock.wall()
        if not keys.is_secret(token, *key.accepted_hashes(now_us)) or not key.is_live(now_us):
            raise _invalid()
        return Caller(self._active(key.user_id), key, None, "key")

    def _by_token(self, token: str) -> Caller:
        claims = self._claims(token)
        if not claims.good_at(self._clock.wall() // MICROSECONDS) or self._sessions.is_revoked(claims):
            raise _invalid()
        key = None
        if claims.sid:
            user = self._active(int(claims.sub))
        else:
            key = self._directory.keys.get(claims.client_id.removeprefix(keys.PREFIX))
            if key is None or not key.is_live(self._clock.wall()):
                raise _invalid()
            user = self._active(key.user_id)
        if user.epoch != claims.epoch:
            raise _invalid()
        return Caller(user, key, claims.sid or claims.jti, "jwt")

    def _claims(self, token: str) -> Claims:
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            try:
                claims = self._sessions.tokens.verify(token)
            except InvalidToken as error:
                raise _invalid() from error
            if len(self._verified) >= _REMEMBERED_TOKENS:
                self._forget()
            self._verified[digest] = claims
        return claims

    def _forget(self) -> None:
        """Make room: first by what is over, then by the oldest tenth."""
        now = self._clock.wall() // MICROSECONDS
        kept = [(digest, claims) for digest, claims in self._verified.items() if claims.exp > now]
        if len(kept) >= _REMEMBERED_TOKENS:
            kept = kept[_REMEMBERED_TOKENS // 10 :]
        self._verified = dict(kept)

    def _active(self, user_id: int) -> User:
        user = self._directory.users.get(user_id)
        if user is None or user.status != "active":
            raise _invalid()
        return user

    def _check_use(self, key: Key, address: str, purpose: Purpose) -> None:
        if not _is_allowed_from(key, address):
            raise Forbidden(f"this key may not be used from {address}", code="address_not_allowed")
        if key.purpose != purpose:
            raise _insufficient(
                "this key is for /metrics alone"
                if key.purpose == "metrics"
                else "this needs a key issued for it: gatelodge keys issue EMAIL --metrics"
            )


def _is_allowed_from(key: Key, address: str) -> bool:
    return not key.addresses or keys.is_within(address, key.addresses)


def _invalid() -> Unauthenticated:
    # One sentence for everything that can be wrong: which it was is nobody's business who has no right credential.
    message = "the credential is unknown, expired or revoked"
    return Unauthenticated(
        message,
        code="invalid_token",
        headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token", error_description="{message}"'},
        detail={"detail": message},
    )


def _insufficient(message: str) -> Forbidden:
    return Forbidden(
        message,
        code="insufficient_scope",
        headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope"'},
    )
