"""A5: the power fails. Nothing that was acknowledged is lost; where SQLite syncs less, the same rig sees the loss."""

from __future__ import annotations

import asyncio
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StartError
from daemon.audit.sealing import TrustedKeys
from daemon.audit.verify import verify
from tests.rigs.journals import desk_in
from tests.rigs.power_cuts import Cut, cut
from tests.rigs.power_driver import CANNOT
from tests.rigs.recording_vfs import Log

ROOT = Path(__file__).parents[1]


def recorded(folder: Path, exchanges: int, synchronous: str) -> Log:
    """What a journal did to its disk, and what it acknowledged, in order."""
    folder.mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.rigs.power_driver", str(folder), str(exchanges), synchronous],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if ran.returncode == CANNOT:
        pytest.skip(f"power cuts cannot be simulated here: {ran.stdout.strip()}")
    assert ran.returncode == 0, ran.stderr
    log: Log = pickle.loads((folder / "recording").read_bytes())  # noqa: S301 (of our own child)
    return log


async def recovered(failed: Cut, folder: Path, secrets: Path) -> tuple[set[str], dict[str, str]]:
    """Start on what the power cut left; what is on record as opened, and as ended and how.

    Whatever was lost: the file is whole, nothing is open, every exchange has one end, the chain holds.
    """
    failed.write_to(folder)
    shutil.copytree(secrets, folder / "secrets")
    async with desk_in(folder) as desk:
        await desk.journal.recover()
        opened = {row[0] for row in await desk.rows("SELECT request_id FROM journal WHERE event = 'opened'")}
        ends = await desk.rows("SELECT request_id, state FROM journal WHERE event = 'closed'")
        assert await desk.rows("SELECT (SELECT COUNT(*) FROM unfinished), (SELECT COUNT(*) FROM partial)") == [(0, 0)]
        assert sorted(request_id for request_id, _ in ends) == sorted(opened)
    with closing(sqlite3.connect(folder / "gatelodge.db", isolation_level=None)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert verify(conn, TrustedKeys(folder / "secrets" / "audit")).problems == []
    return opened, dict(ends)


async def losing(log: Log, cuts: int, folder: Path) -> list[str]:
    """Fail the power at so many moments of `log`; for each that lost something acknowledged, a line."""
    dice = random.Random(cuts)
    begun = next(n for n, entry in enumerate(log) if entry[0] == "opened")
    lost = []
    for number in range(cuts):
        # Every eighth during the very first start: there is nothing to lose then, but it must start again.
        moment = dice.randrange(begun) if number % 8 == 7 else dice.randrange(begun, len(log) + 1)
        failed = cut(log, moment, dice)
        there = folder / f"cut-{number}"
        try:
            opened, ends = await recovered(failed, there, folder / "secrets")
        except StartError as refusal:  # it sees for itself that more is missing than a power cut may take
            lost.append(f"cut {number} behind entry {moment}: {refusal}")
            continue
        missing = failed.opened - opened
        other = {request_id for request_id, state in failed.closed.items() if ends.get(request_id) != state}
        if missing or other:
            lost.append(f"cut {number} behind entry {moment}: lost {sorted(missing)}, ended otherwise {sorted(other)}")
        shutil.rmtree(there)
    return lost


async def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A5, bounded: sixteen moments of a run with four exchanges at once."""
    log = await asyncio.to_thread(recorded, tmp_path / "run", 40, "FULL")
    assert await losing(log, 16, tmp_path / "run") == []


async def test_the_rig_sees_the_loss_where_sqlite_syncs_less(tmp_path: Path) -> None:
    """The control: with synchronous=NORMAL, which the daemon refuses, the same cuts lose acknowledged exchanges."""
    log = await asyncio.to_thread(recorded, tmp_path / "run", 40, "NORMAL")
    assert await losing(log, 24, tmp_path / "run") != []


async def lost_in_a_second_cut(log: Log, folder: Path, dice: random.Random, again: int) -> list[str]:
    """Fail the power, start again on what is left, fail it again: in the recovery, or later."""
    first = cut(log, dice.randrange(len(log) + 1), dice)
    second_life = folder / "second"
    first.write_to(second_life)
    shutil.copytree(folder / "secrets", second_life / "secrets")
    (second_life / "recording").unlink(missing_ok=True)
    second_log = await asyncio.to_thread(recorded, second_life, 12, "FULL")
    lost = []
    for number in range(again):
        # Every other one in the first hundred operations: opening, recovery, the log cut to nothing.
        moment = dice.randrange(min(100, len(second_log)) if number % 2 else len(second_log) + 1)
        second = cut(second_log, moment, dice, first.files)
        opened, ends = await recovered(second, folder / f"third-{number}", second_life / "secrets")
        shutil.rmtree(folder / f"third-{number}")
        missing = (first.opened | second.opened) - opened
        closed = first.closed | second.closed
        if missing or any(ends.get(request_id) != state for request_id, state in closed.items()):
            lost.append(f"cut at {first.moment}, then at {moment}: lost {sorted(missing)}, or an end")
    shutil.rmtree(second_life)
    return lost


async def test_a_second_power_cut_after_the_first_loses_nothing_either(tmp_path: Path) -> None:
    """What the first cut tore is neither taken for damage nor left behind what is written after it."""
    log = await asyncio.to_thread(recorded, tmp_path / "run", 24, "FULL")
    dice = random.Random(2)
    for _ in range(3):
        assert await lost_in_a_second_cut(log, tmp_path / "run", dice, 4) == []


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A5, whole, with its control; the figures are printed (`-s`)."""
    full = await asyncio.to_thread(recorded, tmp_path / "full", 400, "FULL")
    kept = await losing(full, 200, tmp_path / "full")
    print(f"\nFULL: {200 - len(kept)} of 200 power cuts lost nothing; {len(full)} operations")
    assert kept == []
    dice = random.Random(200)
    for _ in range(20):
        assert await lost_in_a_second_cut(full, tmp_path / "full", dice, 10) == []
    print("FULL: 200 of 200 second power cuts lost nothing")
    normal = await asyncio.to_thread(recorded, tmp_path / "normal", 400, "NORMAL")
    lost = await losing(normal, 200, tmp_path / "normal")
    print(f"NORMAL: {len(lost)} of 200 power cuts lost acknowledged exchanges")
    assert lost
