"""Refusals that are still being counted (`daemon/audit/refusals.py`), set down so that a crash forgets few of them.

Rule: a count stands here or in the journal, never in both: it moves there in the transaction that appends its record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple


class Refusing(NamedTuple):
    """What was refused to one caller, for one reason, in one minute. The first six name it; `address` and `at_us` are
    those of the first. None and empty are the same: 0 and ''."""

    minute: int
    user_id: int
    key_id: str
    reason: str
    model: str
    client_label: str
    user: str
    address: str
    at_us: int
    number: int


_COLUMNS = 'minute, user_id, key_id, reason, model, client_label, "user", address, at_us, number'


def keep(conn: sqlite3.Connection, counts: Sequence[Refusing]) -> None:
    """Write counts as they are now."""
    conn.executemany(
        f"INSERT INTO refusing ({_COLUMNS}) VALUES ({', '.join('?' * 10)})"
        " ON CONFLICT (minute, user_id, key_id, reason, model, client_label) DO UPDATE SET number = excluded.number",
        counts,
    )


def kept(conn: sqlite3.Connection) -> list[Refusing]:
    """What the last run was counting when it ended."""
    return [Refusing(*row) for row in conn.execute(f"SELECT {_COLUMNS} FROM refusing")]


def since(conn: sqlite3.Connection, since_us: int) -> list[tuple[int, int]]:
    """Moment and number of what was refused since then, recorded or still being counted."""
    return conn.execute(
        "SELECT received_us, json_extract(detail, '$.count') FROM journal"
        # Word for word what the partial index says.
        " WHERE event IN ('opened', 'refused') AND event = 'refused' AND received_us >= ?"
        " UNION ALL SELECT at_us, number FROM refusing WHERE at_us >= ?",
        (since_us, since_us),
    ).fetchall()


def let_go(conn: sqlite3.Connection, counts: Sequence[Refusing]) -> None:
    """Forget counts that the journal holds from now on."""
    conn.executemany(
        "DELETE FROM refusing WHERE minute = ? AND user_id = ? AND key_id = ? AND reason = ? AND model = ?"
        " AND client_label = ?",
        [count[:6] for count in counts],
    )
