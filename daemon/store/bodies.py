"""Bodies: the texts of requests and answers, in parts, each stored once per user, compressed.

Rule: a record refers to its parts by their ids (the manifest, in the chained row) and binds their texts by their
commitments (the digest, in the chained row). A text is found again by an HMAC under the user's own key, so equal texts
of two users never meet, and with the key destroyed nothing tells what the texts were. How a body is cut into parts is
not known here (`daemon/audit/documents.py`).
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from daemon.audit.chain import body_digest, commitment, new_salt
from daemon.store.writer import remembered

T = TypeVar("T")
LOOKUP_BYTES = 16
LEVEL = 3  # measured on prose of 4 KiB: 61 us for 52 %, against 81 us for 51 % at level 6
WORTH_COMPRESSING = 256  # measured: setting up the compressor costs 14 us, however short the text
IDS_PER_QUERY = 500
FEW = 4  # parts that are looked up faster one by one than in one query

_FIND_ONE = "SELECT id, commitment FROM parts WHERE user_id = ? AND lookup = ?"


class Body(NamedTuple):
    """What a record keeps of a body: the ids of its parts, packed, and the digest over their commitments."""

    manifest: bytes
    digest: bytes


class Packed(NamedTuple):
    """A text made ready to lie in the table."""

    salt: bytes
    commitment: bytes
    size: int
    compressed: int
    checksum: int
    data: bytes


class Ahead(NamedTuple):
    """The costly half of keeping a large body, done on a reader: the writer's thread is everybody's."""

    lookups: list[bytes]
    packed: Mapping[bytes, Packed]


class DamagedBody(Exception):
    """A part is missing, or is not what was stored."""


def keep_body(conn: sqlite3.Connection, user_id: int, texts: Sequence[bytes], ahead: Ahead | None = None) -> Body:
    """Store those of `texts` that the user has not stored before; returns what refers to them all."""
    lookups = ahead.lookups if ahead is not None else _lookups(body_key(conn, user_id), texts)
    packed = ahead.packed if ahead is not None else {}
    known = _find(conn, user_id, lookups)
    for lookup, text in zip(lookups, texts, strict=True):
        if lookup not in known:
            part = packed.get(lookup) or pack(text)
            cursor = conn.execute(
                "INSERT INTO parts (user_id, lookup, salt, commitment, size, compressed, checksum, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (user_id, lookup, *part),
            )
            assert cursor.lastrowid is not None
            known[lookup] = (cursor.lastrowid, part.commitment)
    found = [known[lookup] for lookup in lookups]
    return Body(pack_ids([id_ for id_, _ in found]), body_digest(bound for _, bound in found))


def prepare_body(conn: sqlite3.Connection, user_id: int, texts: Sequence[bytes]) -> Ahead | None:
    """Hash and compress what is new, on a reader; None where the user has no key yet."""
    row = conn.execute("SELECT body_key FROM users WHERE id = ?", (user_id,)).fetchone()
    if row is None or row[0] is None:
        return None
    lookups = _lookups(row[0], texts)
    known = _find(conn, user_id, lookups)
    fresh = {lookup: text for lookup, text in zip(lookups, texts, strict=True) if lookup not in known}
    return Ahead(lookups, {lookup: pack(text) for lookup, text in fresh.items()})


def body_key(conn: sqlite3.Connection, user_id: int) -> bytes:
    """The user's key for finding texts again; made at the first need. LookupError where the user is gone."""
    memory = remembered(conn)
    if memory is not None and user_id in memory.body_keys:
        return memory.body_keys[user_id]
    row = conn.execute("SELECT body_key, deleted_us FROM users WHERE id = ?", (user_id,)).fetchone()
    if row is None or row[1] is not None:
        raise LookupError(f"there is no user {user_id} to keep a body for")
    if row[0] is not None:
        key = bytes(row[0])
    else:
        key = secrets.token_bytes(32)
        conn.execute("UPDATE users SET body_key = ? WHERE id = ?", (key, user_id))
    if memory is not None:
        memory.body_keys[user_id] = key
    return key


def pack(text: bytes) -> Packed:
    """Salt, commit and compress one text."""
    salt = new_salt()
    small = zlib.compress(text, LEVEL) if len(text) >= WORTH_COMPRESSING else text
    compressed = len(small) < len(text)
    data = small if compressed else text
    return Packed(salt, commitment(salt, text), len(text), int(compressed), zlib.crc32(data), data)


def unpack(size: int, compressed: int, data: bytes) -> bytes:
    """The text of a part; DamagedBody where it is not one whole text of that size."""
    if type(data) is not bytes or type(size) is not int:
        raise DamagedBody("not of the type that was stored")
    if not compressed:
        text = data
    else:
        stream = zlib.decompressobj()
        try:
            # One byte more than was stored is enough to know: a forged row is no bomb.
            text = stream.decompress(data, size + 1)
        except (zlib.error, ValueError, OverflowError) as error:
            raise DamagedBody(str(error)) from error
        if not stream.eof or stream.unused_data:
            raise DamagedBody("not one whole compressed text")
    if len(text) != size:
        raise DamagedBody(f"{len(text)} bytes where {size} were stored")
    return text


def load_body(conn: sqlite3.Connection, manifest: bytes) -> list[bytes] | None:
    """The texts of a body in order; None where they were erased. DamagedBody where one is missing or broken."""
    ids = unpack_ids(manifest)
    rows: dict[int, tuple[int, int, bytes | None]] = {}
    for some in in_groups(ids, IDS_PER_QUERY):
        marks = ", ".join("?" * len(some))
        for id_, size, compressed, data in conn.execute(
            f"SELECT id, size, compressed, data FROM parts WHERE id IN ({marks})", some
        ):
            rows[id_] = (size, compressed, data)
    texts = []
    for id_ in ids:
        if id_ not in rows:
            raise DamagedBody(f"part {id_} is missing")
        size, compressed, data = rows[id_]
        if data is None:
            return None
        texts.append(unpack(size, compressed, data))
    return texts


def load_part(conn: sqlite3.Connection, id_: int) -> bytes | None:
    """The text of one part; None where it was erased. DamagedBody where it is missing or broken."""
    row = conn.execute("SELECT size, compressed, data FROM parts WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise DamagedBody(f"part {id_} is missing")
    return None if row[2] is None else unpack(*row)


def erase_parts(conn: sqlite3.Connection, user_id: int) -> int:
    """Overwrite every text, salt and lookup of a user and destroy the key; the skeleton stays. How many were erased."""
    conn.execute("PRAGMA secure_delete = ON")
    try:
        erased = conn.execute(
            "UPDATE parts SET lookup = NULL, salt = NULL, data = NULL, size = 0, compressed = 0, checksum = 0"
            " WHERE user_id = ? AND data IS NOT NULL",
            (user_id,),
        ).rowcount
        conn.execute("UPDATE users SET body_key = NULL WHERE id = ?", (user_id,))
        if (memory := remembered(conn)) is not None:
            memory.body_keys.pop(user_id, None)
    finally:
        conn.execute("PRAGMA secure_delete = FAST")
    return erased


# --- ids, packed: of each the difference to the one before, zigzag (small either way), in groups of seven bits ---


def pack_ids(ids: Sequence[int]) -> bytes:
    """Ids in few bytes: a long conversation names the same parts in every turn."""
    packed, before = bytearray(), 0
    for id_ in ids:
        step = id_ - before
        before = id_
        rest = step << 1 if step >= 0 else (-step << 1) - 1
        while rest > 0x7F:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
    return bytes(packed)


def unpack_ids(packed: bytes) -> list[int]:
    """The inverse; DamagedBody where it is none."""
    ids, before, rest, shift = [], 0, 0, 0
    for byte in packed:
        rest |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            continue
        before += rest >> 1 if rest % 2 == 0 else -(rest + 1 >> 1)
        ids.append(before)
        rest = shift = 0
    if shift or not ids or any(not 0 < id_ < 1 << 63 for id_ in ids):
        raise DamagedBody("not a list of parts")
    return ids


def in_groups(values: Sequence[T], size: int) -> Iterator[list[T]]:
    """`values` in lists of at most `size`, each value once."""
    rest = iter(dict.fromkeys(values))
    while group := list(islice(rest, size)):
        yield group


def _lookups(key: bytes, texts: Sequence[bytes]) -> list[bytes]:
    return [hmac.digest(key, text, "sha256")[:LOOKUP_BYTES] for text in texts]


def _find(conn: sqlite3.Connection, user_id: int, lookups: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
    found = {}
    if len(lookups) <= FEW:
        for lookup in lookups:
            row = conn.execute(_FIND_ONE, (user_id, lookup)).fetchone()
            if row is not None:
                found[lookup] = row
        return found
    for some in in_groups(lookups, IDS_PER_QUERY):
        marks = ", ".join("?" * len(some))
        for lookup, id_, bound in conn.execute(
            f"SELECT lookup, id, commitment FROM parts WHERE user_id = ? AND lookup IN ({marks})", (user_id, *some)
        ):
            found[lookup] = (id_, bound)
    return found
