"""Sessions: refresh families and their tokens (hashes only), and revoked access tokens.

A family is one login; each refresh uses up a token and gives the next. Every function runs inside a job of `Database`,
so that what it decides and what it writes are one transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One refresh token with what matters of its family. Times are Unix microseconds."""

    family_id: str
    user_id: int
    expires_us: int
    used_us: int | None
    family_revoked_us: int | None


def start(
    conn: sqlite3.Connection,
    *,
    family_id: str,
    user_id: int,
    client_id: str,
    token_hash: bytes,
    now_us: int,
    expires_us: int,
) -> None:
    """A new family with its first token."""
    conn.execute(
        "INSERT INTO refresh_families (id, user_id, client_id, created_us) VALUES (?, ?, ?, ?)",
        (family_id, user_id, client_id, now_us),
    )
    add_token(conn, family_id=family_id, token_hash=token_hash, now_us=now_us, expires_us=expires_us)


def add_token(conn: sqlite3.Connection, *, family_id: str, token_hash: bytes, now_us: int, expires_us: int) -> None:
    """The family's next token."""
    conn.execute(
        "INSERT INTO refresh_tokens (token_hash, family_id, issued_us, expires_us) VALUES (?, ?, ?, ?)",
        (token_hash, family_id, now_us, expires_us),
    )


def find(conn: sqlite3.Connection, token_hash: bytes) -> RefreshToken | None:
    """The refresh token with that hash."""
    row = conn.execute(
        "SELECT family_id, user_id, expires_us, used_us, revoked_us FROM refresh_tokens"
        " JOIN refresh_families ON refresh_families.id = family_id WHERE token_hash = ?",
        (token_hash,),
    ).fetchone()
    return RefreshToken(*row) if row else None


def use(conn: sqlite3.Connection, token_hash: bytes, now_us: int) -> None:
    """Note that the token has been used; a second use is theft."""
    conn.execute("UPDATE refresh_tokens SET used_us = ? WHERE token_hash = ?", (now_us, token_hash))


def revoke_family(conn: sqlite3.Connection, family_id: str, now_us: int) -> bool:
    """End one session; whether it was running."""
    changed = conn.execute(
        "UPDATE refresh_families SET revoked_us = ? WHERE id = ? AND revoked_us IS NULL", (now_us, family_id)
    )
    return changed.rowcount > 0


def revoke_families_of(conn: sqlite3.Connection, user_id: int, now_us: int) -> None:
    """End all sessions of a user."""
    conn.execute(
        "UPDATE refresh_families SET revoked_us = ? WHERE user_id = ? AND revoked_us IS NULL", (now_us, user_id)
    )


def families_revoked_since(conn: sqlite3.Connection, since_us: int) -> list[tuple[str, int]]:
    """(family, when) of those whose access tokens may not all be over yet."""
    return conn.execute("SELECT id, revoked_us FROM refresh_families WHERE revoked_us >= ?", (since_us,)).fetchall()


def revoke_token(conn: sqlite3.Connection, jti: str, expires_us: int) -> None:
    """Refuse one access token until it is over anyway."""
    conn.execute("INSERT INTO revoked_tokens (jti, expires_us) VALUES (?, ?) ON CONFLICT DO NOTHING", (jti, expires_us))


def revoked_tokens(conn: sqlite3.Connection, now_us: int) -> list[tuple[str, int]]:
    """(jti, Unix microseconds of its end) of the revoked access tokens that are not over."""
    return conn.execute("SELECT jti, expires_us FROM revoked_tokens WHERE expires_us > ?", (now_us,)).fetchall()


def forget_old(conn: sqlite3.Connection, now_us: int, *, revoked_before_us: int) -> None:
    """Drop what can no longer decide anything: tokens that are over, families without tokens."""
    conn.execute("DELETE FROM revoked_tokens WHERE expires_us <= ?", (now_us,))
    conn.execute("DELETE FROM refresh_tokens WHERE expires_us <= ?", (now_us,))
    conn.execute(
        "DELETE FROM refresh_tokens WHERE family_id IN (SELECT id FROM refresh_families WHERE revoked_us < ?)",
        (revoked_before_us,),
    )
    # A family that was revoked just now stays: its access tokens are refused by it.
    conn.execute(
        "DELETE FROM refresh_families WHERE (revoked_us IS NULL OR revoked_us < ?)"
        " AND NOT EXISTS (SELECT 1 FROM refresh_tokens WHERE family_id = refresh_families.id)",
        (revoked_before_us,),
    )
