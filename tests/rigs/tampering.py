"""Somebody with the database in hand: random changes to journal, parts and checkpoints, each a real change."""

from __future__ import annotations

import base64
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon.audit.chain import COLUMNS, checkpoint_message, record_hash
from daemon.audit.sealing import Sealer
from daemon.store.verifying import all_checkpoints, records_after

Change = Callable[[sqlite3.Connection, random.Random], str]  # returns what it did; "" where it found nothing to do


def copy_of(path: Path) -> sqlite3.Connection:
    """The database at `path` in memory, free to be changed."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as source:
        source.backup(conn)
    source.close()
    conn.execute("PRAGMA ignore_check_constraints = ON")
    return conn


def tamper(conn: sqlite3.Connection, dice: random.Random, changes: list[Change]) -> str:
    """One of `changes` that changes something."""
    while True:
        conn.execute("SAVEPOINT attempt")
        try:
            done = dice.choice(changes)(conn, dice)
        except sqlite3.IntegrityError:
            done = ""  # a number that was taken
        if done:
            conn.execute("RELEASE attempt")
            return done
        conn.execute("ROLLBACK TO attempt")
        conn.execute("RELEASE attempt")


def change_a_cell(table: str, columns: tuple[str, ...], key: str) -> Change:
    """Another value in one cell: a flipped bit, another number, another type, nothing, or something for nothing."""

    def change(conn: sqlite3.Connection, dice: random.Random) -> str:
        column = dice.choice(columns)
        row = dice.choice(conn.execute(f'SELECT {key}, "{column}" FROM {table}').fetchall())
        value = _another(row[1], dice)
        conn.execute(f'UPDATE {table} SET "{column}" = ? WHERE {key} = ?', (value, row[0]))
        (stored,) = conn.execute(f'SELECT "{column}" FROM {table} WHERE {key} = ?', (row[0],)).fetchone() or (value,)
        if type(stored) is type(row[1]) and stored == row[1]:
            return ""  # the column's affinity made it what it was
        return f"{table} {row[0]}: {column} {row[1]!r} -> {stored!r}"

    return change


def _another(value: Any, dice: random.Random) -> Any:
    match value:
        case None:
            return dice.choice([0, "", b"", "x", 1])
        case int():
            return dice.choice([value + 1, value ^ 1 << dice.randrange(40), None, f"{value}x", float(value) + 0.5])
        case str():
            place = dice.randrange(len(value) + 1)
            return dice.choice([value[:place] + "~" + value[place + 1 :], value + " ", None, value.encode(), ""])
        case bytes() if value:
            flipped = bytearray(value)
            flipped[dice.randrange(len(value))] ^= 1 << dice.randrange(8)
            return dice.choice(
                [bytes(flipped), bytes(flipped), value[:-1], value + b"\0", None, base64.b64encode(value).decode()]
            )
    return b"\1"


def delete_a_row(table: str, key: str, *, spare_last: bool = False) -> Change:
    def change(conn: sqlite3.Connection, dice: random.Random) -> str:
        keys = [row[0] for row in conn.execute(f"SELECT {key} FROM {table} ORDER BY {key}")]
        gone = dice.choice(keys[:-1] if spare_last else keys)
        conn.execute(f"DELETE FROM {table} WHERE {key} = ?", (gone,))
        return f"{table} {gone} deleted"

    return change


def swap_rows(table: str, key: str) -> Change:
    def change(conn: sqlite3.Connection, dice: random.Random) -> str:
        keys = [row[0] for row in conn.execute(f"SELECT {key} FROM {table}")]
        one, other = dice.sample(keys, 2)
        for old, new in ((one, -1), (other, one), (-1, other)):
            conn.execute(f"UPDATE {table} SET {key} = ? WHERE {key} = ?", (new, old))
        return f"{table} {one} and {other} swapped"

    return change


def insert_a_copy(table: str, key: str) -> Change:
    """A row more, at the end or in a gap."""

    def change(conn: sqlite3.Connection, dice: random.Random) -> str:
        names = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
        row = list(dice.choice(conn.execute(f"SELECT * FROM {table}").fetchall()))
        place = conn.execute(f"SELECT MAX({key}) FROM {table}").fetchone()[0] + dice.choice([1, 1, 7])
        row[names.index(key)] = place
        if "lookup" in names:
            row[names.index("lookup")] = dice.randbytes(16)
        if "event" in names:  # past the indexes that allow an exchange one beginning and one end
            row[names.index("event")] = "admin"
        conn.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        return f"{table} {place} inserted"

    return change


def cut_off_the_end(conn: sqlite3.Connection, dice: random.Random) -> str:
    """The last records gone, the checkpoints left."""
    last = conn.execute("SELECT MAX(seq) FROM checkpoints").fetchone()[0]
    first = dice.randrange(1, last + 1)
    conn.execute("DELETE FROM journal WHERE seq >= ?", (first,))
    return f"journal cut off from {first}"


def change_and_rechain(conn: sqlite3.Connection, dice: random.Random) -> str:
    """A record changed, and every hash behind it made to follow."""
    sealed = conn.execute("SELECT MAX(seq) FROM checkpoints").fetchone()[0]
    seq = dice.randrange(1, sealed + 1)
    column = dice.choice(["user", "address", "model", "state", "error", "key_id"])
    conn.execute(f"UPDATE journal SET \"{column}\" = 'forged' WHERE seq = ?", (seq,))
    rechain(conn, seq)
    return f"journal {seq}: {column} forged and re-chained"


def rechain(conn: sqlite3.Connection, first: int) -> None:
    """Make the hashes follow again from record `first` on."""
    before = conn.execute("SELECT hash FROM journal WHERE seq < ? ORDER BY seq DESC LIMIT 1", (first,)).fetchone()
    previous = before[0] if before else bytes(32)
    for row in records_after(conn, first - 1, 1 << 62, 1 << 30):
        previous = record_hash(previous, row[:-1])
        conn.execute("UPDATE journal SET hash = ? WHERE seq = ?", (previous, row[COLUMNS.index("seq")]))


def seal_again(forger: Sealer) -> Change:
    """As `change_and_rechain`, with every checkpoint signed anew, by a key of the forger's own."""

    def change(conn: sqlite3.Connection, dice: random.Random) -> str:
        done = change_and_rechain(conn, dice)
        before = b""
        for seq, _, at_us, _, _ in all_checkpoints(conn):
            (hash_,) = conn.execute("SELECT hash FROM journal WHERE seq = ?", (seq,)).fetchone()
            before = forger.sign(checkpoint_message(seq, hash_, at_us, forger.kid, before))
            conn.execute(
                "UPDATE checkpoints SET hash = ?, kid = ?, signature = ? WHERE seq = ?",
                (hash_, forger.kid, before, seq),
            )
        return f"{done}, and sealed by {forger.kid}"

    return change


def erase_a_part(conn: sqlite3.Connection, dice: random.Random) -> str:
    """As if its user had been deleted."""
    (id_,) = dice.choice(conn.execute("SELECT id FROM parts WHERE data IS NOT NULL").fetchall())
    conn.execute(
        "UPDATE parts SET lookup = NULL, salt = NULL, data = NULL, size = 0, compressed = 0, checksum = 0 WHERE id = ?",
        (id_,),
    )
    return f"part {id_} erased"


def swap_texts(conn: sqlite3.Connection, dice: random.Random) -> str:
    """The texts of two parts, salts and all, change places."""
    one, other = dice.sample(conn.execute("SELECT id, data FROM parts WHERE data IS NOT NULL").fetchall(), 2)
    if one[1] == other[1]:
        return ""
    columns = "salt, size, compressed, checksum, data"
    select = f"SELECT {columns} FROM parts WHERE id = ?"
    values = {id_: conn.execute(select, (id_,)).fetchone() for id_, _ in (one, other)}
    for target, source in ((one[0], other[0]), (other[0], one[0])):
        conn.execute(
            "UPDATE parts SET salt = ?, size = ?, compressed = ?, checksum = ?, data = ? WHERE id = ?",
            (*values[source], target),
        )
    return f"the texts of parts {one[0]} and {other[0]} swapped"


PART_COLUMNS = ("user_id", "lookup", "salt", "commitment", "size", "compressed", "checksum", "data")
CHECKPOINT_COLUMNS = ("hash", "at_us", "kid", "signature")


def all_changes(forger: Sealer) -> list[Change]:
    """Every kind. What they do to cells comes oftener than the rest."""
    return [
        *[change_a_cell("journal", (*COLUMNS, "hash"), "seq")] * 6,
        *[change_a_cell("parts", PART_COLUMNS, "id")] * 5,
        *[change_a_cell("checkpoints", CHECKPOINT_COLUMNS, "seq")] * 2,
        delete_a_row("journal", "seq"),
        delete_a_row("parts", "id"),
        # Without the last checkpoint the sealed range is shorter, and what is left of it is whole.
        delete_a_row("checkpoints", "seq", spare_last=True),
        swap_rows("journal", "seq"),
        swap_rows("parts", "id"),
        swap_rows("checkpoints", "seq"),
        insert_a_copy("journal", "seq"),
        insert_a_copy("parts", "id"),
        insert_a_copy("checkpoints", "seq"),
        cut_off_the_end,
        change_and_rechain,
        seal_again(forger),
        erase_a_part,
        swap_texts,
    ]
