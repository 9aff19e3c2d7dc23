"""Opening SQLite: where it may lie, which modes must hold, and what to tell whoever cannot open it.

Rule: nothing is acknowledged on a file that could lose it: a local disk, WAL, synchronous=FULL, or no start at all.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import StartError
from daemon.clock import Moment
from daemon.store.filesystem import is_network, sync_folder
from daemon.store.migrate import known_migrations, migrate
from daemon.store.moments import last_moment
from daemon.store.transactions import BUSY_PATIENCE, empty_log
from daemon.store.writer import WritingConnection

WAL_LIMIT = 64 * 1024 * 1024  # bytes that the log keeps on the disk after it grew behind a long reader


def prepare_folder(path: Path, file_system: Callable[[Path], str]) -> None:
    """The database's folder exists, on a disk of this machine."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in made:
            # SQLite syncs its files; that they are to be found after a power cut is for whoever made the folders.
            sync_folder(folder.parent)
    except OSError as error:
        raise StartError(f"cannot create the data folder {path.parent}: {error.strerror}") from error
    kind = file_system(path.parent)
    if is_network(kind):
        raise StartError(
            f"{path.parent} lies on a network file system ({kind}), where a database is not safe: "
            "put storage.data on a local disk"
        )


def prepare_file(path: Path) -> None:
    """The file exists and only the owner may read it (log and index take its mode)."""
    try:
        new = not path.exists()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if new:
            sync_folder(path.parent)
    except OSError as error:
        raise StartError(f"cannot write the database {path}: {error.strerror}") from error


def connect_to_write(path: Path) -> sqlite3.Connection:
    """The writer's connection; `make_ready` sets it up."""
    return sqlite3.connect(
        path, isolation_level=None, timeout=BUSY_PATIENCE, cached_statements=256, factory=WritingConnection
    )


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for the readers here and for the child processes of `daemon/audit`."""
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_PATIENCE)
    # A damaged text is shown as far as it goes; only `audit verify` must tell every byte.
    conn.text_factory = lambda text: text.decode("utf-8", "replace")
    conn.execute("PRAGMA query_only = ON")
    conn.execute("PRAGMA cache_size = -2048")
    conn.execute("PRAGMA temp_store = MEMORY")
    return conn


def make_ready(conn: sqlite3.Connection, path: Path) -> Moment | None:
    """Set the writer's modes, check that they hold, bring the schema up to date."""
    # So that retention can make the file smaller, page by page. Only a file without a page yet takes this up.
    conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (journal_mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
    conn.execute("PRAGMA synchronous = FULL")
    (synchronous,) = conn.execute("PRAGMA synchronous").fetchone()
    if journal_mode != "wal" or synchronous != 2:
        raise StartError(
            f"{path}: SQLite would not use its write-ahead log with synchronous=FULL here "
            f"(journal_mode={journal_mode}, synchronous={synchronous}); put the data on a local disk"
        )
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute("PRAGMA temp_store = MEMORY")
    conn.execute("PRAGMA cache_size = -8192")
    conn.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    # What is deleted is overwritten where that costs no extra write; erasing bodies turns it fully on.
    conn.execute("PRAGMA secure_delete = FAST")
    migrate(conn, known_migrations(), time.time_ns() // 1000)
    if conn.execute("PRAGMA application_id").fetchone() == (0,):
        # By which the log of another database is known (daemon/store/examining.py).
        conn.execute(f"PRAGMA application_id = {1 + secrets.randbelow((1 << 31) - 1)}")
    # What a crash tore stands no longer behind what is written from now on.
    empty_log(conn)
    return last_moment(conn)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what SQLite wrote."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def not_started(path: Path, failure: Exception) -> StartError:
    """What people are told where the start met a failure of the database behind its opening."""
    cause = failure.__cause__
    return StartError(why_not_open(path, cause) if isinstance(cause, sqlite3.Error) else str(failure))


def why_not_open(path: Path, error: sqlite3.Error) -> str:
    """One line for people."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if is_damage(error):
        return (
            f"the database {path} is damaged ({error}): stop the daemon, keep a copy, and restore a backup, "
            "or move the file away to start empty"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"the database {path} is held by another program: close it and start again"
    if code == sqlite3.SQLITE_FULL:
        return f"no room left on the disk of {path}"
    return f"cannot open the database {path}: {error}"
