"""The writer remembers rows within a transaction, and runs jobs without savepoints where they may be repeated."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from daemon.audit.chain import GENESIS, Record, record_hash
from daemon.store.bodies import body_key
from daemon.store.database import Database
from daemon.store.journal import append


def appended(conn: sqlite3.Connection) -> int:
    return append(conn, Record(event="admin", at_us=1, clock_us=1))


def appended_in_vain(conn: sqlite3.Connection) -> int:
    body_key(conn, 1)
    appended(conn)
    raise LookupError("in vain")


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_job_that_fails_takes_back_its_record_and_nobody_elses(tmp_path: Path, repeatable: bool) -> None:
    """Three jobs in one commit, the middle one fails: the stored chain has no gap, and no memory of it."""
    database = await Database.open(tmp_path / "gatelodge.db")
    try:
        await database.write(
            lambda conn: conn.execute("INSERT INTO users (id, email, created_us) VALUES (1, 'ana@example.org', 0)")
        )
        jobs = [database.submit(job, repeatable=repeatable) for job in (appended, appended_in_vain, appended)]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [outcomes[0], outcomes[2]] == [1, 2]
        assert isinstance(outcomes[1], LookupError)
        assert database.commits == 2, "one transaction for all three"
        hash_ = GENESIS
        rows = await database.read(lambda conn: conn.execute("SELECT * FROM journal ORDER BY seq").fetchall())
        for *columns, stored in rows:
            hash_ = record_hash(hash_, tuple(columns))
            assert hash_ == stored
        key = await database.write(lambda conn: body_key(conn, 1), repeatable=repeatable)
        assert await database.read(lambda conn: conn.execute("SELECT body_key FROM users").fetchall()) == [(key,)]
    finally:
        await database.close()


async def test_what_one_transaction_remembered_the_next_one_reads_again(tmp_path: Path) -> None:
    """The end of the chain is what the file says, also where somebody else wrote to it in between."""
    database = await Database.open(tmp_path / "gatelodge.db")
    try:
        assert await database.write(appended) == 1
        with sqlite3.connect(database.path) as other:
            appended(other)
        assert await database.write(appended) == 3
    finally:
        await database.close()
