"""Secrets that upstreams want to see: read from a credential's file, or kept sealed in the database.

    DATA/secrets/providers.key    32 random bytes, 0600: seals what the database keeps (AES-256-GCM)

Rules: the database alone opens nothing, and neither does a backup of it without this file. A sealed secret is bound to
the upstream's name and address: configured to point elsewhere, an upstream is not shown the secret of the place before.
Nothing here tells a secret in a representation, an error or a log.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import BadRequest, StartError
from daemon.config import UpstreamConfig
from daemon.store.filesystem import sync_folder

_NONCE = 12
_KEY = 32
LONGEST = 4096  # characters of a secret


class Seal:
    """Seals and opens with the key of DATA/secrets."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def load_or_create(cls, file: Path) -> Seal:
        """The key in `file`, made where it is not there. StartError where it cannot be used."""
        try:
            if not file.exists():
                _create(file)
            key = file.read_bytes()
        except OSError as error:
            raise StartError(f"cannot use the key in {file}: {error.strerror}") from error
        if len(key) != _KEY:
            raise StartError(f"{file} is no key of {_KEY} bytes: restore it from a backup, or move it away")
        return cls(key)

    def sealed(self, secret: str, upstream: UpstreamConfig) -> bytes:
        """What may lie in the database."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, secret.encode("ascii"), _bound_to(upstream))

    def opened(self, sealed: bytes, upstream: UpstreamConfig) -> str | None:
        """The secret; None where it was sealed for another address, or by another key."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound_to(upstream)).decode("ascii")
        except (InvalidTag, ValueError):
            return None


def checked(secret: str) -> str:
    """`secret` as it can stand in a header, white space around it removed. BadRequest where it cannot be one."""
    secret = secret.strip()
    if not secret or len(secret) > LONGEST or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise BadRequest(f"a key has 1 to {LONGEST} printable ASCII characters and no space", code="key_invalid")
    return secret


def from_file(upstream: UpstreamConfig, environment: Mapping[str, str] = os.environ) -> str:
    """The secret in the upstream's `key_file`. StartError where there is none, or others may read it."""
    path = Path(upstream.key_file)
    if not path.is_absolute() and len(path.parts) == 1 and environment.get("CREDENTIALS_DIRECTORY"):
        path = Path(environment["CREDENTIALS_DIRECTORY"]) / path
    try:
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise StartError(f"the key of upstream {upstream.name} in {path} may be read by others: chmod o= {path}")
        return checked(path.read_text(encoding="ascii"))
    except OSError as error:
        raise StartError(f"cannot read the key of upstream {upstream.name} in {path}: {error.strerror}") from error
    except (UnicodeDecodeError, BadRequest) as error:
        raise StartError(f"the key of upstream {upstream.name} in {path} is none: one line of ASCII") from error


def _bound_to(upstream: UpstreamConfig) -> bytes:
    return f"{upstream.name}\n{upstream.kind}\n{upstream.url}".encode()


def _create(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(secrets.token_bytes(_KEY))
        opened.flush()
        os.fsync(descriptor)
    sync_folder(file.parent)  # before anything is sealed with it
