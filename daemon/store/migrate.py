"""The schema's steps: `migrations/NNNN_what.sql`, applied in order, each in one transaction, each once.

Rule: a released step is never edited; a later one changes what it made. A database that knows steps which we do not is
from a newer release and is left alone.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import NamedTuple

from common.errors import StartError

FOLDER = Path(__file__).with_name("migrations")


class Migration(NamedTuple):
    """One step: its number, its name, its SQL."""

    number: int
    name: str
    sql: str


def known_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The steps that this release knows, in order."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_(\w+)", file.stem)
        if match is None:
            raise ValueError(f"{file.name} is not named NNNN_what.sql")
        found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return found


def migrate(conn: sqlite3.Connection, migrations: list[Migration], at_us: int) -> list[int]:
    """Bring the schema up to date; returns the numbers applied now. StartError where a newer release wrote it."""
    conn.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_us BIGINT NOT NULL)"
    )
    applied = refuse_newer(conn, migrations)
    missing = [migration for migration in migrations if migration.number not in applied]
    for migration in missing:
        conn.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements(migration.sql):
                conn.execute(statement)
            conn.execute(
                "INSERT INTO migrations (number, name, applied_us) VALUES (?, ?, ?)",
                (migration.number, migration.name, at_us),
            )
            conn.execute("COMMIT")
        except BaseException:
            conn.execute("ROLLBACK")
            raise
    return [migration.number for migration in missing]


def refuse_newer(conn: sqlite3.Connection, migrations: list[Migration]) -> set[int]:
    """The numbers of the steps applied so far; StartError where one of them is of a newer release."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
        return set()
    applied = {number for (number,) in conn.execute("SELECT number FROM migrations")}
    newer = applied - {migration.number for migration in migrations}
    if newer:
        raise StartError(
            f"the database was written by a newer release (schema step {max(newer)}): "
            "install that release again, or restore a backup made before it"
        )
    return applied


def statements(sql: str) -> list[str]:
    """The single statements of a script. `executescript` would commit between them."""
    found, current = [], ""
    *pieces, rest = sql.split(";")
    for piece in pieces:
        current += piece + ";"
        if sqlite3.complete_statement(current):  # else the semicolon was in a string, a comment or a trigger
            found.append(current.strip())
            current = ""
    unfinished = [line for line in (current + rest).splitlines() if line.strip() and not line.startswith("--")]
    if unfinished:
        raise ValueError(f"an unfinished statement: {unfinished[0]}")
    return found
