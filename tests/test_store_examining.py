"""What lies in the data folder at start may be damaged, cut, exchanged or too new: each is one clear refusal, and
nothing is written over it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StartError
from daemon.store import opening
from daemon.store.database import Database
from daemon.store.settings import get_setting, set_setting
from tests.rigs.process import ROOT
from tests.rigs.scripted_upstream import ScriptedUpstream

NAME = "gatelodge.db"
FRAME = 24 + 4096


def kept(folder: Path) -> dict[str, bytes]:
    """Every byte that counts; the index is SQLite's scratch, and an empty log is as good as none."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    return {name: data for name, data in files.items() if data or not name.endswith("-wal")}


async def crashed(folder: Path, writes: int = 12) -> Path:
    """A database as kill -9 leaves it: half of what was acknowledged lies in the log alone."""
    (folder / "lived").mkdir(parents=True)
    database = await Database.open(folder / "lived" / NAME)
    for number in range(writes):
        await database.write(lambda conn, n=number: set_setting(conn, f"n{n}", "x" * 1000))  # type: ignore[misc]
        if number == writes // 2:
            await database.empty_log()
    shutil.copytree(folder / "lived", folder / "crashed")
    await database.close()
    return folder / "crashed" / NAME


def without_log(path: Path) -> None:
    path.with_name(NAME + "-wal").unlink()
    path.with_name(NAME + "-shm").unlink()


def cut_in_half(path: Path) -> None:
    without_log(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwrite_the_beginning(path: Path) -> None:
    without_log(path)  # which may hold the first page
    with path.open("r+b") as file:
        file.write(b"not a database at all")


def as_a_newer_release(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("INSERT INTO migrations VALUES (9999, 'future', 0)")


def lose_the_log(path: Path) -> None:
    path.with_name(NAME + "-wal").unlink()


def lose_the_database(path: Path) -> None:
    path.unlink()


def empty_the_database(path: Path) -> None:
    path.write_bytes(b"")


def garble_the_logs_header(path: Path) -> None:
    with path.with_name(NAME + "-wal").open("r+b") as file:
        file.seek(16)
        file.write(b"\x55" * 8)


def garble_the_log_within(path: Path) -> None:
    with path.with_name(NAME + "-wal").open("r+b") as file:
        file.seek(32 + 2 * FRAME + 100)
        file.write(b"\x55" * 64)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (cut_in_half, r"the database .* is damaged .*restore a backup"),
    (overwrite_the_beginning, r"the database .* is damaged .*restore a backup"),
    (as_a_newer_release, r"newer release .*install that release again"),
    (lose_the_log, r"log .*-wal is missing.*put it back"),
    (lose_the_database, r"missing or empty, but its write-ahead log .*put the database back"),
    (empty_the_database, r"missing or empty, but its write-ahead log .*put the database back"),
    (garble_the_logs_header, r"log .* is damaged: its header.*Put a good copy back"),
    (garble_the_log_within, r"log .* is damaged behind frame \d+: \d+ commits"),
]


async def test_after_a_crash_the_log_is_taken(tmp_path: Path) -> None:
    """The control: nothing damaged, nothing refused, everything acknowledged is there, and the log is empty again."""
    path = await crashed(tmp_path)
    database = await Database.open(path)
    assert [await database.read(lambda conn, n=n: get_setting(conn, f"n{n}")) for n in range(12)] == ["x" * 1000] * 12
    assert path.with_name(NAME + "-wal").stat().st_size == 0
    await database.close()


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
async def test_what_is_not_right_is_refused_and_left_as_it_lies(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    """One line that says what, why and what to do; the files are byte for byte what they were."""
    path = await crashed(tmp_path)
    damage(path)
    before = kept(path.parent)
    for _ in range(2):  # and again: no state of the first attempt helps the second through
        with pytest.raises(StartError, match=words) as refusal:
            await Database.open(path)
        assert "\n" not in str(refusal.value)
        assert kept(path.parent) == before


async def test_the_log_of_another_database_is_refused(tmp_path: Path) -> None:
    """SQLite would write its pages over ours."""
    path = await crashed(tmp_path / "ours")
    other = await crashed(tmp_path / "theirs", writes=40)
    for ending in ("-wal", "-shm"):
        shutil.copy(other.with_name(NAME + ending), path.with_name(NAME + ending))
    before = kept(path.parent)
    with pytest.raises(StartError, match="belongs to another database"):
        await Database.open(path)
    assert kept(path.parent) == before


@pytest.mark.parametrize("cut", [1, FRAME // 2, FRAME, 3 * FRAME])
async def test_a_torn_end_of_the_log_is_what_a_crash_leaves(tmp_path: Path, cut: int) -> None:
    """The last transaction may be torn: it is left out, and the daemon starts."""
    path = await crashed(tmp_path)
    log = path.with_name(NAME + "-wal")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - cut)
    path.with_name(NAME + "-shm").unlink()
    database = await Database.open(path)
    assert await database.read(lambda conn: get_setting(conn, "n8")) == "x" * 1000
    await database.close()


async def test_a_torn_header_of_a_new_log_is_what_a_power_cut_leaves(tmp_path: Path) -> None:
    """Zeros where the header was about to be written: nothing of that log was acknowledged."""
    path = await crashed(tmp_path)
    log = path.with_name(NAME + "-wal")
    log.write_bytes(bytes(log.stat().st_size))
    path.with_name(NAME + "-shm").unlink()
    database = await Database.open(path)
    assert await database.read(lambda conn: get_setting(conn, "n3")) == "x" * 1000
    await database.close()


async def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that went read-only, an owner that changed: one line, whoever runs it."""

    def read_only(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(opening.os, "open", read_only)
    with pytest.raises(StartError, match=r"cannot write the database .*Read-only file system"):
        await Database.open(tmp_path / NAME)


def damage_a_table(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("table", ["users", "unfinished"])
async def test_damage_that_the_start_meets_later_is_one_line_too(tmp_path: Path, table: str) -> None:
    """A page that only recovery or the directory reads: exit 1, no traceback, what to do."""
    async with ScriptedUpstream() as upstream:
        data = tmp_path / "data"
        await (await Database.open(data / NAME)).close()
        damage_a_table(data / NAME, table)
        ended = subprocess.run(
            [sys.executable, "-m", "daemon", "--data", str(data), "--port", "0", "--ollama", upstream.url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert re.search(r"^gatelodged: the database .* is damaged .*restore a backup", ended.stderr, re.MULTILINE)
