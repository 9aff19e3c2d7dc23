"""A4: kill -9 at random points. What was acknowledged is there, whole, with exactly one end; nothing stays open."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from daemon.audit.journal import Journal
from tests.rigs.journals import desk_in

ROOT = Path(__file__).parents[1]


async def run_and_kill(folder: Path, lines: int) -> list[list[str]]:
    """The driver, killed when it has said so many lines; everything that it said, in words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.rigs.journal_driver", str(folder), stdout=PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(lines + 1)]
    process.kill()
    said += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    assert said[0] == b"ready\n"
    return [line.decode().split() for line in said[1:] if line.endswith(b"\n")]


async def crash(folder: Path, times: int, most: int) -> None:
    """Kill `times` times after up to `most` steps, and look at everything after each."""
    dice = random.Random(times)
    opened: set[str] = set()
    ended: dict[str, str] = {}
    for _ in range(times):
        for word, request_id, *state in await run_and_kill(folder, dice.randrange(1, most)):
            opened.add(request_id)
            if word == "end":
                ended[request_id] = state[0]
        check_file(folder / "gatelodge.db")
        async with desk_in(folder) as desk:
            await desk.journal.recover()
            await check_journal(desk.journal, desk.path, opened, ended)
    assert len(opened) > times


def check_file(path: Path) -> None:
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.close()


async def check_journal(journal: Journal, path: Path, opened: set[str], ended: dict[str, str]) -> None:
    conn = sqlite3.connect(path)
    known = {row[0] for row in conn.execute("SELECT request_id FROM journal WHERE event = 'opened'")}
    assert opened <= known, f"acknowledged and lost: {opened - known}"
    ends: dict[str, list[str]] = {request_id: [] for request_id in known}
    for request_id, state in conn.execute("SELECT request_id, state FROM journal WHERE event = 'closed'"):
        ends[request_id].append(state)
    assert not {request_id: states for request_id, states in ends.items() if len(states) != 1}
    assert not {request_id for request_id, state in ended.items() if ends[request_id] != [state]}
    assert conn.execute("SELECT COUNT(*) FROM unfinished").fetchone() == (0,)
    assert conn.execute("SELECT COUNT(*) FROM partial").fetchone() == (0,)
    conn.close()
    assert (await journal.verify()).problems == []


async def test_ten_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A4 as every run has it: ten cycles on one database."""
    await crash(tmp_path, 10, 250)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_a_thousand_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A4, whole. KILLS=300 makes it shorter."""
    await crash(tmp_path, int(os.environ.get("KILLS", "1000")), 400)
