"""Registrations that wait for an administrator's word. Every function runs inside a job of `Database`."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Registration:
    """One entry; several may ask for the same address, and `code` tells them apart."""

    id: int
    code: str
    email: str
    address: str  # the client's
    created_us: int


_COLUMNS = "id, code, email, address, created_us"


def load(conn: sqlite3.Connection) -> list[Registration]:
    """All entries, oldest first."""
    return [Registration(*row) for row in conn.execute(f"SELECT {_COLUMNS} FROM registrations ORDER BY id")]


def add(
    conn: sqlite3.Connection, *, code: str, email: str, password_hash: str, address: str, now_us: int
) -> Registration:
    """A new entry; sqlite3.IntegrityError where the code is taken."""
    rows = conn.execute(
        "INSERT INTO registrations (code, email, password_hash, address, created_us) VALUES (?, ?, ?, ?, ?)"
        f" RETURNING {_COLUMNS}",
        (code, email, password_hash, address, now_us),
    ).fetchall()
    return Registration(*rows[0])


def password_hash(conn: sqlite3.Connection, registration_id: int) -> str | None:
    """The entry's password hash; None where the entry is gone."""
    row = conn.execute("SELECT password_hash FROM registrations WHERE id = ?", (registration_id,)).fetchone()
    return None if row is None else str(row[0])


def password_hashes(conn: sqlite3.Connection, email: str) -> list[str]:
    """The hashes of all entries that ask for `email`, oldest first. They share a salt (`Accounts.register`)."""
    rows = conn.execute("SELECT password_hash FROM registrations WHERE email = ? ORDER BY id", (email,))
    return [row[0] for row in rows]


def discard(conn: sqlite3.Connection, email: str) -> None:
    """Drop all entries that ask for `email`."""
    conn.execute("DELETE FROM registrations WHERE email = ?", (email,))


def discard_one(conn: sqlite3.Connection, registration_id: int) -> bool:
    """Drop one entry; whether it was there."""
    return conn.execute("DELETE FROM registrations WHERE id = ?", (registration_id,)).rowcount > 0
