"""The Ed25519 keys that sign access tokens: files in DATA/secrets/signing/, one JWK each, readable by the daemon alone.

Rule: a key is published ten minutes before it first signs, and stays published until nothing that it signed can be
valid; so whoever caches the key set always knows the key of a valid token. What a token says is `tokens.py`'s matter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import StartError
from daemon.clock import MICROSECONDS, Clock

PUBLISHED_AHEAD_US = 600 * MICROSECONDS
LONGEST_TOKEN_US = 600 * MICROSECONDS  # contract: an access token lives at most ten minutes
_KEPT_AFTER_US = LONGEST_TOKEN_US + 60 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair. `kid` is its RFC 7638 thumbprint, `created_us` Unix microseconds."""

    kid: str
    private: Ed25519PrivateKey
    public: Ed25519PublicKey
    created_us: int

    @classmethod
    def generate(cls, created_us: int) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        public = private.public_key()
        return cls(_thumbprint(encode(public.public_bytes_raw())), private, public, created_us)

    def public_jwk(self) -> dict[str, str]:
        """What /.well-known/jwks.json shows of it (RFC 8037)."""
        x = encode(self.public.public_bytes_raw())
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig", "alg": "EdDSA"}

    def file_content(self) -> bytes:
        """The private JWK, as its file keeps it."""
        d = encode(self.private.private_bytes_raw())
        return msgspec.json.encode({**self.public_jwk(), "d": d, "created_us": self.created_us})


class _Jwk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    d: str
    kid: str
    use: Literal["sig"]
    alg: Literal["EdDSA"]
    created_us: int


def read_signing_key(content: bytes) -> SigningKey:
    """The key in `content`; ValueError unless it is exactly what `file_content` writes: an Ed25519 pair that belongs
    together, under its own thumbprint, for signatures."""
    jwk = msgspec.json.decode(content, type=_Jwk)  # its errors are ValueErrors
    private = Ed25519PrivateKey.from_private_bytes(decode(jwk.d))  # ValueError unless they are 32
    public = private.public_key()
    if public.public_bytes_raw() != decode(jwk.x):
        raise ValueError("its public part is another key's")
    if jwk.kid != _thumbprint(jwk.x):
        raise ValueError("its kid is not its thumbprint")
    return SigningKey(jwk.kid, private, public, jwk.created_us)


class SigningKeys:
    """The keys in use. `rotate` is called now and then by `Sessions.run`; everything else answers from memory."""

    def __init__(self, folder: Path, clock: Clock, *, lifetime_us: int) -> None:
        self._folder = folder
        self._clock = clock
        self._lifetime_us = lifetime_us
        self._keys: list[SigningKey] = []  # oldest first

    @classmethod
    def open(cls, folder: Path, clock: Clock, *, lifetime: float) -> SigningKeys:
        """The keys in `folder`, of which a new one makes its first; `lifetime` in seconds. StartError if unusable."""
        keys = cls(folder, clock, lifetime_us=int(lifetime * MICROSECONDS))
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            keys._keys = sorted((_read(path) for path in folder.glob("*.json")), key=lambda key: key.created_us)
            keys.rotate()
        except OSError as error:
            raise StartError(f"cannot use the signing keys in {folder}: {error.strerror or error}") from error
        return keys

    def __repr__(self) -> str:
        return f"<SigningKeys {[key.kid[:8] for key in self._keys]}, {self.signer.kid[:8]} signs>"

    def __iter__(self) -> Iterator[SigningKey]:
        return iter(self._keys)

    @property
    def signer(self) -> SigningKey:
        """The key that signs now: the newest that has been published long enough."""
        known_since = self._clock.wall() - PUBLISHED_AHEAD_US
        known = [key for key in self._keys if key.created_us <= known_since]
        return known[-1] if known else self._keys[0]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key set (RFC 7517)."""
        return {"keys": [key.public_jwk() for key in self._keys]}

    def rotate(self) -> bool:
        """Make a successor for a key whose time is over, drop what nothing valid is signed by. Whether either was done.

        Writes at most one small file, durably, before the key is published.
        """
        now = self._clock.wall()
        changed = False
        if not self._keys or now - self._keys[-1].created_us >= self._lifetime_us:
            key = SigningKey.generate(now)
            _write(self._folder / f"{key.kid}.json", key.file_content())
            self._keys.append(key)
            changed = True
        while len(self._keys) > 1 and now - self._keys[1].created_us >= PUBLISHED_AHEAD_US + _KEPT_AFTER_US:
            retired = self._keys.pop(0)
            (self._folder / f"{retired.kid}.json").unlink(missing_ok=True)
            changed = True
        return changed


def encode(data: bytes) -> str:
    """base64url without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of `text`; ValueError unless `text` is the one way to write them, so that no second token equals it."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
    if encode(data) != text:
        raise ValueError("not canonical base64url")
    return data


def _thumbprint(x: str) -> str:
    """RFC 7638 over the required members of an OKP key, in their order."""
    return encode(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())


def _read(path: Path) -> SigningKey:
    if path.stat().st_mode & 0o077:
        raise StartError(f"the signing key {path} may be read by others; run: chmod 600 {path}")
    try:
        key = read_signing_key(path.read_bytes())
    except ValueError as error:
        raise StartError(f"the signing key {path} is damaged: {error}; delete it, a new one is made") from error
    if path.stem != key.kid:
        raise StartError(f"the signing key {path} is not under its own name, {key.kid}.json; delete or rename it")
    return key


def _write(path: Path, content: bytes) -> None:
    """Appear whole or not at all, also across a power cut."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
