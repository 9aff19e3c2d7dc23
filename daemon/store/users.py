"""Users: their rows, and nothing about what the rows allow. Every function runs inside a job of `Database`.

A deleted user stays as a tombstone (`deleted_us`), so that numbers are never given twice and the audit keeps its names.
Password hashes leave this module only in `Credentials`, read at a login; `User`, which lives in memory, has none.
"""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from common.errors import Conflict

Role = Literal["user", "admin"]
Status = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class User:
    """A user as everybody may know them. `epoch` rises when all sessions end, `version` with every change."""

    id: int
    email: str
    role: Role
    status: Status
    service: bool
    epoch: int
    version: int
    notes: str
    inline_auth: bool
    created_us: int
    approved_us: int | None
    one_time_expires_us: int | None  # a one-time password waits to be replaced by one of the user's own
    cloud: bool = False  # whether requests may leave the LAN, to providers that are enabled

    @property
    def must_change(self) -> bool:
        """Whether the user has only a one-time password."""
        return self.one_time_expires_us is not None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is checked against. `epoch` and `version` are those that the hash belongs to."""

    user_id: int
    status: Status
    service: bool
    epoch: int
    version: int
    password_hash: str | None
    one_time_hash: str | None
    one_time_expires_us: int | None

    def __repr__(self) -> str:
        return f"<Credentials of user {self.user_id}>"


_COLUMNS = (
    "id, email, role, status, service, epoch, version, notes, inline_auth, created_us, approved_us,"
    " one_time_expires_us, cloud"
)
# The columns that `update` may set.
_CHANGEABLE = frozenset(
    {
        "role",
        "status",
        "epoch",
        "notes",
        "password_hash",
        "one_time_hash",
        "one_time_expires_us",
        "inline_auth",
        "cloud",
    }
)


def load(conn: sqlite3.Connection) -> list[User]:
    """All users that are not deleted."""
    return [_user(row) for row in conn.execute(f"SELECT {_COLUMNS} FROM users WHERE deleted_us IS NULL ORDER BY id")]


def add(
    conn: sqlite3.Connection,
    *,
    email: str,
    role: Role,
    service: bool,
    now_us: int,
    password_hash: str | None = None,
    one_time_hash: str | None = None,
    one_time_expires_us: int | None = None,
    created_us: int | None = None,
) -> User:
    """A new, active user; Conflict where the address is taken. `created_us`: when they registered, if they did."""
    try:
        # RETURNING must be read to its end before the transaction can commit.
        rows = conn.execute(
            "INSERT INTO users (email, role, status, service, password_hash, one_time_hash, one_time_expires_us, epoch,"
            " version, notes, inline_auth, body_key, created_us, approved_us)"
            f" VALUES (?, ?, 'active', ?, ?, ?, ?, 1, 1, '', 1, ?, ?, ?) RETURNING {_COLUMNS}",
            (
                email,
                role,
                int(service),
                password_hash,
                one_time_hash,
                one_time_expires_us,
                secrets.token_bytes(32),
                now_us if created_us is None else created_us,
                now_us,
            ),
        ).fetchall()
    except sqlite3.IntegrityError as error:
        raise Conflict(f"there is already a user {email}", code="user_exists") from error
    return _user(rows[0])


def update(conn: sqlite3.Connection, user_id: int, version: int, **columns: Any) -> User:
    """Set columns of the user if they are still at `version`; Conflict if somebody was faster."""
    if not columns.keys() <= _CHANGEABLE:
        raise ValueError(f"not changeable: {sorted(columns.keys() - _CHANGEABLE)}")
    assignments = ", ".join(f"{name} = ?" for name in columns)
    rows = conn.execute(
        f"UPDATE users SET {assignments}, version = version + 1"
        f" WHERE id = ? AND version = ? AND deleted_us IS NULL RETURNING {_COLUMNS}",
        (*columns.values(), user_id, version),
    ).fetchall()
    if not rows:
        raise Conflict("the user was changed in the meantime; look again", code="changed_meanwhile")
    return _user(rows[0])


def rehash(conn: sqlite3.Connection, user_id: int, old_hash: str, new_hash: str) -> None:
    """Replace a hash by a costlier one of the same password, unless the password was changed meanwhile."""
    conn.execute("UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?", (new_hash, user_id, old_hash))


def credentials(conn: sqlite3.Connection, email: str) -> Credentials | None:
    """What a login as `email` is checked against; None without such a user."""
    row = conn.execute(
        "SELECT id, status, service, epoch, version, password_hash, one_time_hash, one_time_expires_us"
        " FROM users WHERE email = ? AND deleted_us IS NULL",
        (email,),
    ).fetchone()
    if row is None:
        return None
    return Credentials(row[0], row[1], bool(row[2]), *row[3:])


def is_current(conn: sqlite3.Connection, user_id: int, epoch: int) -> bool:
    """Whether the user is active and still in that epoch."""
    row = conn.execute(
        "SELECT 1 FROM users WHERE id = ? AND epoch = ? AND status = 'active' AND deleted_us IS NULL", (user_id, epoch)
    ).fetchone()
    return row is not None


def exchanges_beyond_export(conn: sqlite3.Connection, user_id: int) -> str | None:
    """Why the user's exchanges are not all in a verified export, in words; None if they are.

    An exchange that is still open counts, too: its closing record is to come.
    """
    exported = conn.execute(
        "SELECT COALESCE(MAX(through_seq), 0) FROM exports"
        " WHERE (user_id = ? OR user_id IS NULL) AND since_us IS NULL AND until_us IS NULL AND filter IS NULL",
        (user_id,),
    ).fetchone()[0]
    last_closed = conn.execute(
        "SELECT COALESCE(MAX(seq), 0) FROM journal WHERE user_id = ? AND event = 'closed'", (user_id,)
    ).fetchone()[0]
    if last_closed > exported:
        return "the user's exchanges are not exported yet, or newer than the last verified export"
    open_ones = conn.execute(
        "SELECT COUNT(*) FROM unfinished JOIN journal ON journal.seq = unfinished.opened_seq WHERE journal.user_id = ?",
        (user_id,),
    ).fetchone()[0]
    return f"{open_ones} of the user's exchanges are still open" if open_ones else None


def bury(conn: sqlite3.Connection, user_id: int, now_us: int) -> None:
    """Erase the user's credentials and leave a tombstone. Bodies and the record of it: `append_user_deletion`."""
    conn.execute(
        "UPDATE users SET email = ?, status = 'disabled', password_hash = NULL, one_time_hash = NULL,"
        " one_time_expires_us = NULL, body_key = NULL, notes = '', epoch = epoch + 1, version = version + 1,"
        " deleted_us = ? WHERE id = ?",
        (f"deleted-{user_id}", now_us, user_id),
    )
    conn.execute("DELETE FROM keys WHERE user_id = ?", (user_id,))
    conn.execute(
        "DELETE FROM refresh_tokens WHERE family_id IN (SELECT id FROM refresh_families WHERE user_id = ?)", (user_id,)
    )
    conn.execute("DELETE FROM refresh_families WHERE user_id = ?", (user_id,))


def _user(row: tuple[Any, ...]) -> User:
    values = list(row)
    values[4], values[8], values[12] = bool(values[4]), bool(values[8]), bool(values[12])
    return User(*values)
