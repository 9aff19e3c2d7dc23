"""The key that signs the journal's checkpoints, and the public keys that verify trusts.

    DATA/secrets/audit/KID.key    the private key, PEM, 0600
    DATA/secrets/audit/KID.pub    its public half, PEM: verify reads only these

Rule: trust comes from this folder and never from the database, or whoever can write the one could sign for the other.
Root, who can read the private key, is out of scope. KID: the first 16 hex digits of the SHA-256 of the public key.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import StartError
from daemon.store.filesystem import sync_folder


class Sealer:
    """Signs checkpoints."""

    def __init__(self, key: Ed25519PrivateKey, folder: Path) -> None:
        self.folder = folder  # where verify finds the public half
        self._key = key
        self.kid = kid_of(key.public_key())

    @classmethod
    def load_or_create(cls, folder: Path) -> Sealer:
        """The key of `folder`, made at the first start. StartError where the folder cannot be used."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            files = sorted(folder.glob("*.key"), key=lambda file: file.stat().st_mtime_ns)
            return cls(_private(files[-1]), folder) if files else cls._created(folder)
        except OSError as error:
            raise StartError(f"cannot use the audit's signing key in {folder}: {error.strerror}") from error

    @classmethod
    def _created(cls, folder: Path) -> Sealer:
        sealer = cls(Ed25519PrivateKey.generate(), folder)
        public = sealer._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = sealer._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # The public half first: after a power cut between the two there is no key that nobody could verify.
        for name, text in ((f"{sealer.kid}.pub", public), (f"{sealer.kid}.key", private)):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        sync_folder(folder)  # a checkpoint must never be older than the key that it is verified with
        sync_folder(folder.parent)
        return sealer

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (RFC 8032), 64 bytes."""
        return self._key.sign(message)


class TrustedKeys:
    """The public keys of a folder."""

    def __init__(self, folder: Path) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        for file in sorted(folder.glob("*.pub")):
            key = serialization.load_pem_public_key(file.read_bytes())
            if isinstance(key, Ed25519PublicKey):
                self._keys[kid_of(key)] = key

    def __contains__(self, kid: object) -> bool:
        return kid in self._keys

    def is_signed(self, kid: str, signature: bytes, message: bytes) -> bool:
        """Whether the key of that id, if it is trusted, signed `message`."""
        key = self._keys.get(kid)
        if key is None:
            return False
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def kid_of(key: Ed25519PublicKey) -> str:
    """The id of a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _private(file: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except ValueError as error:
        raise StartError(f"{file} is no private key: restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StartError(f"{file} is not an Ed25519 key: restore it from a backup")
    return key
