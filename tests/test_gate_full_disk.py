"""A full disk (A8): nothing is admitted, what runs ends explicitly, and the way out of it works.

On a real, small disk where the machine allows one (tests/rigs/small_disk.py); else what SQLite says is injected.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from common.errors import Unavailable
from common.times import SECOND
from daemon import config as configuration
from daemon.ballast import NAME, Ballast
from daemon.disk import Disk
from daemon.forecast import DAY, EVERY, KEPT, Forecast, Use, growth
from daemon.jobs import retaining
from daemon.store.database import Database, StoreFailed
from tests.rigs import small_disk
from tests.rigs.keeping import keeper_in
from tests.rigs.traffic import HOUR, MovedClock

MIB = 1 << 20


@pytest.mark.parametrize("scenario", ["streams", "keeping"])
def test_a_disk_that_is_really_full(tmp_path: Path, scenario: str) -> None:
    """In mid-stream: the client is told, 503 for newcomers, the journal recovers and is intact. Then an export to the
    disk fails and leaves nothing, one to elsewhere works, and retention of what it holds makes room."""
    if small_disk.why_not():
        pytest.skip(small_disk.why_not())
    assert small_disk.on_small_disk(scenario, tmp_path / "disk", megabytes=32)


def disk_in(folder: Path, **storage: int) -> Disk:
    flags: dict[str, Any] = {"storage.data": str(folder)} | {f"storage.{k}": v for k, v in storage.items()}
    return Disk(configuration.load(environment={}, flags=flags))


class Free:
    """What `shutil.disk_usage` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free, self.total = free, 1 << 40
        self.used = self.total - free
        monkeypatch.setattr("shutil.disk_usage", lambda _: self)


def test_the_reserve_is_real_is_given_up_at_the_first_failure_and_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks, not a hole, 0600; released when a write finds no room: nobody is admitted until there is plenty."""
    free = Free(monkeypatch, 100 * MIB)
    disk = disk_in(tmp_path, min_free=10 * MIB, ballast=2 * MIB)
    disk.look()
    file = tmp_path / NAME
    assert file.stat().st_blocks * 512 >= 2 * MIB
    assert file.stat().st_mode & 0o777 == 0o600
    disk.check()
    disk.full()
    assert not file.exists()
    with pytest.raises(Unavailable, match="nearly full"):
        disk.check()
    free.free = 3 * MIB
    disk.look()
    with pytest.raises(Unavailable):
        disk.check()
    free.free = 13 * MIB  # enough to admit, not enough to set the reserve aside again
    disk.look()
    disk.check()
    assert not file.exists()
    free.free = 15 * MIB
    disk.look()
    assert file.exists()
    free.free = MIB // 4
    disk.look()
    assert not file.exists()
    with pytest.raises(Unavailable):
        disk.check()


def test_a_reserve_is_a_decent_part_of_the_disk_or_none(tmp_path: Path) -> None:
    """At most a sixteenth; 0 keeps none and takes away one that was kept; a half one is taken anew."""
    total = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert Ballast(tmp_path, 1 << 60).size == total // 16
    (tmp_path / NAME).write_bytes(b"half")
    ballast = Ballast(tmp_path, MIB)
    assert not ballast.is_held
    ballast.look(100 * MIB, 0)
    assert (tmp_path / NAME).stat().st_size == MIB
    Ballast(tmp_path, 0).look(100 * MIB, 0)
    assert not (tmp_path / NAME).exists()


def full(*_: object) -> None:
    """What SQLite says."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


async def test_a_write_without_room_is_told_to_whoever_can_make_some(tmp_path: Path) -> None:
    """SQLITE_FULL, injected: the job fails as such, and the database says so at once."""
    database = await Database.open(tmp_path / "gatelodge.db")
    try:
        told: list[str] = []
        database.when_full = lambda: told.append("full")
        with pytest.raises(StoreFailed):
            await database.write(full)
        assert told == ["full"]
        await database.write(lambda conn: conn.execute("SELECT 1").fetchone())
    finally:
        await database.close()


async def test_retention_goes_on_once_the_reserve_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step finds no room; the reserve goes; the same step is tried again and the job comes to its end."""
    async with keeper_in(tmp_path, clock=MovedClock()) as keeper:
        await keeper.desk.converse("x")
        released: list[str] = []
        keeper.desk.database.when_full = lambda: released.append("now")
        real = retaining._erase_some

        def erase(*arguments: Any) -> int:
            if not released:
                full()
            return real(*arguments)

        monkeypatch.setattr(retaining, "_erase_some", erase)
        assert isinstance(keeper.desk.clock, MovedClock)
        keeper.desk.clock.advance(HOUR)
        row = await keeper.retain()
        assert (row.state, released) == ("done", ["now"])
        assert await keeper.desk.rows("SELECT id FROM parts WHERE data IS NOT NULL") == []


async def test_the_forecast_is_that_of_the_last_days_and_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten gigabytes a day and twenty left above `min_free`: two days."""
    clock = MovedClock()
    free = Free(monkeypatch, 100 << 30)
    database = await Database.open(tmp_path / "gatelodge.db", clock=clock)
    try:
        forecast = await Forecast.load(database, clock, tmp_path)
        await forecast.look()
        assert (forecast.growth_per_day(), forecast.days_left(0)) == (None, None)
        clock.advance(DAY)
        free.free, free.used = free.free - (10 << 30), free.used + (10 << 30)
        await forecast.look()
        again = await Forecast.load(database, clock, tmp_path)
        assert again.history == forecast.history
        assert again.growth_per_day() == 10 << 30
        assert again.days_left(70 << 30) == pytest.approx(2)
        assert again.days_left(90 << 30) == 0
        for _ in range(KEPT + 10):
            clock.advance(EVERY)
            await again.look()
        assert len(again.history) == KEPT
    finally:
        await database.close()


def test_what_shrinks_or_is_too_young_has_no_date() -> None:
    """No number that nobody measured."""
    assert growth([], Use(0, 5)) is None
    assert growth([Use(0, 5)], Use(59 * 60 * SECOND, 9)) is None
    assert growth([Use(0, 9)], Use(DAY, 5)) == -4
