"""What makes the journal tamper-evident: the hashes of records and bodies, and what a checkpoint signs.

    hash(n)       = SHA-256( hash(n-1) || JSON array of every column of record n but its hash )
    commitment    = SHA-256( salt || text )            of each part of a body; 16 random bytes of salt lie with the text
    body_digest   = SHA-256( commitment || commitment || … )
    signed        = "gatelodge audit checkpoint 1\\n" || JSON array [seq, hash, at_us, kid, signature before]

So a text can be erased, salt and all, without breaking the chain, and what remains cannot be guessed.
Pure, and imports nothing of ours, so that the store may use it. A change here makes every journal unreadable.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

import msgspec

GENESIS = bytes(32)  # what stands before the first record
SALT_BYTES = 16

_encode = msgspec.json.Encoder().encode
_CHECKPOINT = b"gatelodge audit checkpoint 1\n"


class Record(msgspec.Struct, array_like=True, kw_only=True, gc=False):
    """One journal record: the columns of the table in their order, without the hash. NULL is None."""

    seq: int = 0
    event: str
    at_us: int
    clock_us: int
    request_id: str | None = None
    opened_seq: int | None = None
    user_id: int | None = None
    user: str | None = None
    key_id: str | None = None
    client_label: str | None = None
    address: str | None = None
    user_agent: str | None = None
    route: str | None = None
    model_asked: str | None = None
    model: str | None = None
    upstream: str | None = None
    stream: int | None = None
    state: str | None = None
    error: str | None = None
    sent_upstream: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    bytes_out: int | None = None
    received_us: int | None = None
    admitted_us: int | None = None
    seated_us: int | None = None
    first_byte_us: int | None = None
    ended_us: int | None = None
    body: bytes | None = None
    body_digest: bytes | None = None
    detail: str | None = None


COLUMNS = Record.__struct_fields__


def record_hash(previous: bytes, record: Record | tuple[object, ...]) -> bytes:
    """The hash of `record` (or its columns, in order) after the record whose hash is `previous`."""
    return hashlib.sha256(previous + _encode(record)).digest()


def new_salt() -> bytes:
    """A salt for one part."""
    return secrets.token_bytes(SALT_BYTES)


def commitment(salt: bytes, text: bytes) -> bytes:
    """What binds a part into the chain without telling it."""
    return hashlib.sha256(salt + text).digest()


def body_digest(commitments: Iterable[bytes]) -> bytes:
    """What a record says of its body."""
    return hashlib.sha256(b"".join(commitments)).digest()


def checkpoint_message(seq: int, hash_: bytes, at_us: int, kid: str, signature_before: bytes) -> bytes:
    """What the signature of a checkpoint covers. The one before is in it, so that none can go missing in between."""
    return _CHECKPOINT + _encode([seq, hash_.hex(), at_us, kid, signature_before.hex()])
