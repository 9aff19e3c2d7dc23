"""Access tokens: `at+jwt` after RFC 9068, signed with EdDSA, at most ten minutes long.

Rule: a token is looked at only if it has the shape of one of ours, and its header is compared as a whole with the few
headers that we write; nothing a stranger put into a header is ever parsed, so nothing in it can choose algorithm, key
or address (RFC 8725). Whether its user, session or key still counts is decided on each use, in `identity.py`.
"""

from __future__ import annotations

import re
import secrets
import socket

import jwt
import msgspec

from daemon.access.signing import LONGEST_TOKEN_US, SigningKey, SigningKeys, decode, encode
from daemon.clock import MICROSECONDS, Clock
from daemon.config import Config

LOGIN_CLIENT = "gatelodge-login"  # `client_id` of the tokens of people

_LONGEST = 4096
_SHAPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", re.ASCII)
_CLOCK_SKEW = 60  # seconds that a token may seem to come from the future, after the wall clock was set back a little
_jws = jwt.PyJWS(algorithms=["EdDSA"])


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a token says: RFC 9068's required claims, the user's epoch, and for people their session.

    `sub` is the user's number, or for automation its client (`glk_<id>`); times are Unix seconds.
    """

    iss: str
    aud: str
    sub: str
    client_id: str
    iat: int
    exp: int
    jti: str
    epoch: int
    sid: str = ""

    def good_at(self, now: int) -> bool:
        """Whether the token is neither over nor from the future at `now`, in Unix seconds: where the wall clock was set
        back it does not live longer, but waits to be issued again."""
        return self.iat - _CLOCK_SKEW <= now < self.exp


class InvalidToken(Exception):
    """The token is none of ours, or over. The text is for tests and the log, never for who presented it."""


class Tokens:
    """Issues and verifies access tokens. `lifetime` in seconds; `issuer` is the same in tokens and metadata."""

    def __init__(self, keys: SigningKeys, clock: Clock, *, issuer: str, lifetime: float) -> None:
        self.keys = keys
        self.issuer = issuer
        self.lifetime = min(int(lifetime), LONGEST_TOKEN_US // MICROSECONDS)
        self._clock = clock

    def issue(
        self, *, sub: str, client_id: str, epoch: int, sid: str = "", until_us: int | None = None
    ) -> tuple[str, Claims]:
        """A new token, good for `lifetime` seconds but not beyond `until_us` (Unix microseconds)."""
        now = self._clock.wall() // MICROSECONDS
        expires = now + self.lifetime
        if until_us is not None:
            expires = min(expires, until_us // MICROSECONDS)
        claims = Claims(
            iss=self.issuer,
            aud=self.issuer,
            sub=sub,
            client_id=client_id,
            iat=now,
            exp=expires,
            jti=secrets.token_urlsafe(16),
            epoch=epoch,
            sid=sid,
        )
        key = self.keys.signer
        token = _jws.encode(
            msgspec.json.encode(claims), key.private, algorithm="EdDSA", headers={"kid": key.kid, "typ": "at+jwt"}
        )
        return token, claims

    def verify(self, token: str) -> Claims:
        """The claims of a token that is ours and not over; InvalidToken otherwise. Costs an Ed25519 verification."""
        if len(token) > _LONGEST or not _SHAPE.fullmatch(token):
            raise InvalidToken("not the shape of a token")
        header, payload, signature = token.split(".")
        key = next((key for key in self.keys if header == header_of(key)), None)
        if key is None:
            raise InvalidToken("not a header of ours")
        try:
            # One spelling a token: a second one would pass for another token wherever tokens are told apart.
            decode(payload), decode(signature)
        except ValueError as error:
            raise InvalidToken("not canonical base64url") from error
        try:
            content = _jws.decode(token, key.public, algorithms=["EdDSA"])
            claims = msgspec.json.decode(content, type=Claims)
        except (jwt.InvalidTokenError, msgspec.DecodeError) as error:
            raise InvalidToken(str(error)) from error
        if claims.iss != self.issuer or claims.aud != self.issuer:
            raise InvalidToken("for another gateway")
        if not claims.good_at(self._clock.wall() // MICROSECONDS):
            raise InvalidToken("over, or from the future")
        if claims.exp - claims.iat > LONGEST_TOKEN_US // MICROSECONDS:
            raise InvalidToken("longer than ours are")
        return claims


def header_of(key: SigningKey) -> str:
    """The first part of every token that `key` signs: exactly alg, kid and typ."""
    return encode(f'{{"alg":"EdDSA","kid":"{key.kid}","typ":"at+jwt"}}'.encode("ascii"))


def issuer_of(config: Config) -> str:
    """The address that names this gateway as the issuer of tokens (RFC 8414), from its configuration.

    It is not taken from a request's Host, which whoever asks may choose.
    """
    server = config.server
    scheme = "https" if server.certificate else "http"
    if server.allowed_hosts:
        return f"{scheme}://{server.allowed_hosts[0]}" + ("" if ":" in server.allowed_hosts[0] else _port(config))
    host = socket.gethostname() if server.host in {"0.0.0.0", "::", ""} else server.host  # noqa: S104 (compared, not bound)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{_port(config)}"


def _port(config: Config) -> str:
    usual = 443 if config.server.certificate else 80
    return "" if config.server.port == usual else f":{config.server.port}"
