"""API keys: how one is written, what is kept of it, and from where it may be used.

    glk_<id>_<secret>        id: 10, secret: 43 characters of [0-9A-Za-z], the secret 256 random bits

Rule: only SHA-256 of the secret is kept. That is enough for 256 random bits, which nobody can guess, and costs the hot
path a microsecond; a person's password would need more (`passwords.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache

PREFIX = "glk_"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"glk_([0-9A-Za-z]{1,32})_([0-9A-Za-z]{1,128})", re.ASCII)
_CLIENT_FORM = re.compile(r"glk_([0-9A-Za-z]{1,32})", re.ASCII)
_SECRET_LENGTH = 43  # 62^43 > 2^256
_NOBODYS = bytes(32)  # a hash that no secret is known to have: compared with where there is none


def new_key_id() -> str:
    """The public part of a new key; 59 random bits, so that ids are not counted through."""
    return _text(10)


def new_secret() -> str:
    """The secret part of a new key: 256 random bits."""
    return _text(_SECRET_LENGTH)


def written(key_id: str, secret: str) -> str:
    """The key as its owner keeps it."""
    return f"{PREFIX}{key_id}_{secret}"


def read(text: str) -> tuple[str, str] | None:
    """(id, secret) of what has the form of a key, else None."""
    match = _FORM.fullmatch(text)
    return (match[1], match[2]) if match else None


def read_client_id(text: str) -> str | None:
    """The key id within an OAuth `client_id` (`glk_<id>`), else None."""
    match = _CLIENT_FORM.fullmatch(text)
    return match[1] if match else None


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def is_secret(secret: str, *hashes: bytes | None) -> bool:
    """Whether `secret` is behind one of `hashes`; in the same time, whichever it is and if none."""
    presented = secret_hash(secret)
    right = False
    for kept in hashes:
        # No early way out: every comparison is made, also after the one that fits.
        right |= hmac.compare_digest(presented, kept or _NOBODYS)
    return right


def canonical_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Addresses and ranges in one spelling; ValueError, naming the text, where one is neither."""
    networks = []
    for text in texts:
        try:
            networks.append(str(ipaddress.ip_network(text.strip(), strict=False)))
        except ValueError as error:
            raise ValueError(f"{text!r} is neither an address nor a range such as 10.0.0.0/8") from error
    return tuple(networks)


def is_within(address: str, networks: tuple[str, ...]) -> bool:
    """Whether `address` lies in one of `networks`; an IPv4 client on an IPv6 socket counts as IPv4."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in _parsed(networks))


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


def _text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
