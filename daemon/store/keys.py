"""API keys: their rows. Only hashes of secrets are here. Every function runs inside a job of `Database`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from common.errors import Conflict

Purpose = Literal["inference", "metrics"]


@dataclass(frozen=True, slots=True)
class Key:
    """One API key. Times are Unix microseconds; `version` rises with every change but its last use."""

    id: str
    user_id: int
    label: str
    purpose: Purpose
    models: tuple[str, ...]  # patterns; empty = all
    addresses: tuple[str, ...]  # networks; empty = everywhere
    in_path: bool  # whether it may stand in the path, /k/KEY
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    previous_until_us: int | None
    last_used_us: int | None
    last_address: str
    version: int
    secret_hash: bytes = field(repr=False)
    previous_hash: bytes | None = field(repr=False)
    imported_hash: bytes | None = field(default=None, repr=False)  # of the secret that another gateway issued, for good

    def is_live(self, now_us: int) -> bool:
        """Neither revoked nor expired. (Whether its user is active is another question.)"""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)

    def accepted_hashes(self, now_us: int) -> tuple[bytes, bytes | None]:
        """The hashes of the secrets that open it now: its own, and during a rotation's grace the one before."""
        in_grace = self.previous_until_us is not None and now_us < self.previous_until_us
        return self.secret_hash, self.previous_hash if in_grace else None


_COLUMNS = (
    "id, user_id, label, purpose, models, addresses, in_path, created_us, expires_us, revoked_us, previous_until_us,"
    " last_used_us, last_address, version, secret_hash, previous_hash, imported_hash"
)


def load(conn: sqlite3.Connection) -> list[Key]:
    """All keys, revoked and expired ones too."""
    return [_key(row) for row in conn.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_us, id")]


def add(conn: sqlite3.Connection, key: Key) -> None:
    """Store a new key."""
    conn.execute(
        f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.id,
            key.user_id,
            key.label,
            key.purpose,
            _json(key.models),
            _json(key.addresses),
            int(key.in_path),
            key.created_us,
            key.expires_us,
            key.revoked_us,
            key.previous_until_us,
            key.last_used_us,
            key.last_address,
            key.version,
            key.secret_hash,
            key.previous_hash,
            key.imported_hash,
        ),
    )


def rotate(
    conn: sqlite3.Connection,
    key_id: str,
    version: int,
    *,
    secret_hash: bytes,
    previous_hash: bytes | None,
    previous_until_us: int | None,
) -> Key:
    """Give the key a new secret; Conflict if it was changed since `version`."""
    rows = conn.execute(
        "UPDATE keys SET secret_hash = ?, previous_hash = ?, previous_until_us = ?, version = version + 1"
        f" WHERE id = ? AND version = ? AND revoked_us IS NULL RETURNING {_COLUMNS}",
        (secret_hash, previous_hash, previous_until_us, key_id, version),
    ).fetchall()
    return _changed(rows)


def revoke(conn: sqlite3.Connection, key_id: str, version: int, now_us: int) -> Key:
    """End the key for good; Conflict if it was changed since `version`."""
    rows = conn.execute(
        "UPDATE keys SET revoked_us = ?, previous_hash = NULL, previous_until_us = NULL, version = version + 1"
        f" WHERE id = ? AND version = ? AND revoked_us IS NULL RETURNING {_COLUMNS}",
        (now_us, key_id, version),
    ).fetchall()
    return _changed(rows)


def used(conn: sqlite3.Connection, uses: Iterable[tuple[str, int, str]]) -> None:
    """Note the last use (key id, Unix microseconds, address) of some keys."""
    conn.executemany(
        "UPDATE keys SET last_used_us = ?, last_address = ? WHERE id = ?",
        [(at_us, address, key_id) for key_id, at_us, address in uses],
    )


def _changed(rows: list[tuple[Any, ...]]) -> Key:
    if not rows:
        raise Conflict("the key was changed in the meantime; look again", code="changed_meanwhile")
    return _key(rows[0])


def _key(row: tuple[Any, ...]) -> Key:
    values = list(row)
    values[4:6] = (tuple(msgspec.json.decode(text, type=list[str])) for text in row[4:6])
    values[6] = bool(row[6])
    return Key(*values)


def _json(words: tuple[str, ...]) -> str:
    return msgspec.json.encode(words).decode()
