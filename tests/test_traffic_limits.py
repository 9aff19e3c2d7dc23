"""Limits in the database: seeded once, changed with their audit record, in force on the next request."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import BadRequest, NotFound, Unavailable
from daemon.access.actor import Actor
from daemon.config import Limits as Seed
from daemon.store.database import StoreFailed
from daemon.traffic.limits import Limits
from daemon.traffic.refusals import FIELDS
from tests.rigs.journals import ANA, Desk, desk_in
from tests.rigs.until import until

ROOT = Actor(uid=0, name="root", via="socket")
NONE: dict[str, int | None] = dict.fromkeys(FIELDS)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as opened:
        yield opened


async def limits_of(desk: Desk, seed: Seed | None = None) -> Limits:
    return await Limits.load(
        desk.database,
        desk.clock,
        seed=seed or Seed(),
        user_exists=lambda email: email == ANA,
        key_exists=lambda key_id: key_id == "k1",
    )


async def records(desk: Desk) -> list[dict[str, object]]:
    rows = await desk.rows("SELECT detail FROM journal WHERE event = 'admin' ORDER BY seq")
    return [json.loads(detail) for (detail,) in rows]


async def test_the_configuration_seeds_an_empty_store_and_never_again(desk: Desk) -> None:
    """Contract: limits in the file seed the database once; afterwards the database rules."""
    limits = await limits_of(desk)
    assert limits.show()[0].own == NONE | {"requests_per_minute": 10}
    await limits.set(ROOT, "default", {"requests_per_minute": None})
    later = await limits_of(desk, Seed(requests_per_minute=99, concurrency=3))
    assert later.show("default")[0].own == NONE
    assert [record["actor"] for record in await records(desk)] == [
        {"uid": None, "name": "gatelodged", "via": "start"},
        {"uid": 0, "name": "root", "via": "socket"},
    ]


async def test_set_show_and_clear(desk: Desk) -> None:
    """A user's own limits beside what is in force; what is not named stays; clear returns to the default."""
    limits = await limits_of(desk)
    await limits.set(ROOT, "Ana@Example.org", {"requests_per_minute": 5})
    row = await limits.set(ROOT, ANA, {"tokens_per_day": None, "concurrency": 1})
    assert row.target == f"user:{ANA}"
    assert row.own == {"requests_per_minute": 5, "tokens_per_day": None, "concurrency": 1}
    assert row.effective == NONE | {"requests_per_minute": 5, "concurrency": 1}
    assert [each.target for each in limits.show()] == ["default", f"user:{ANA}"]
    row = await limits.clear(ROOT, ANA)
    assert (row.own, row.effective) == ({}, NONE | {"requests_per_minute": 10})
    assert [each.target for each in limits.show()] == ["default"]
    row = await limits.set(ROOT, "address:10.0.0.0/8", {"requests_per_hour": 7})
    assert (row.own, row.effective) == ({"requests_per_hour": 7}, None)
    assert limits.show("key:k1")[0].own == {}


async def test_clearing_the_default_returns_to_the_configuration(desk: Desk) -> None:
    """There is always a default."""
    limits = await limits_of(desk, Seed(requests_per_minute=20))
    await limits.set(ROOT, "default", {"requests_per_minute": 1, "requests_per_day": 2})
    row = await limits.clear(ROOT, "default")
    assert row.own == NONE | {"requests_per_minute": 20}


async def test_a_change_is_recorded_with_who_what_before_and_after(desk: Desk) -> None:
    """One transaction: the change and its audit record; a refused change leaves neither."""
    limits = await limits_of(desk)
    await limits.set(ROOT, "model:Llama3", {"requests_per_minute": 5})
    await limits.set(ROOT, "model:llama3:latest", {"requests_per_minute": None})
    await limits.clear(ROOT, "model:llama3")
    with pytest.raises(BadRequest):
        await limits.set(ROOT, "model:llama3", {})
    with pytest.raises(BadRequest):
        await limits.set(ROOT, "nobody", {"concurrency": 1})
    assert [(r["verb"], r["target"], r["old"], r["new"]) for r in (await records(desk))[1:]] == [
        ("limits set", "model:llama3", {}, {"requests_per_minute": 5}),
        ("limits set", "model:llama3", {"requests_per_minute": 5}, {"requests_per_minute": "unlimited"}),
        ("limits clear", "model:llama3", {"requests_per_minute": "unlimited"}, {}),
    ]


async def test_what_does_not_exist_has_no_limits(desk: Desk) -> None:
    """A misspelt user or key is told at once; leftovers of one that is gone can be cleared."""
    limits = await limits_of(desk)
    for target in ("joe@example.org", "user:joe@example.org", "key:k2"):
        with pytest.raises(NotFound, match="there is no"):
            await limits.set(ROOT, target, {"concurrency": 1})
        with pytest.raises(NotFound):
            await limits.clear(ROOT, target)
        with pytest.raises(NotFound):
            limits.show(target)
    await limits.set(ROOT, ANA, {"concurrency": 1})
    limits._exists["user"] = lambda _: False
    assert limits.show(ANA)[0].own == {"concurrency": 1}
    assert (await limits.clear(ROOT, ANA)).own == {}


async def test_limits_are_what_they_were_after_a_restart(desk: Desk) -> None:
    """Unlimited included, which is not the same as nothing said."""
    limits = await limits_of(desk)
    await limits.set(ROOT, ANA, {"requests_per_minute": None, "concurrency": 4})
    await limits.set(ROOT, "key:k1", {"tokens_per_minute": 100})
    again = await limits_of(desk)
    assert again.show() == limits.show()
    assert again.rule(f"user:{ANA}") == limits.rule(f"user:{ANA}")


async def test_a_change_whose_caller_leaves_is_in_force_all_the_same(desk: Desk) -> None:
    """What is committed acts: memory never falls behind the database."""
    limits = await limits_of(desk)
    told: list[str] = []
    limits.changed.append(told.append)
    gate = threading.Event()
    desk.database.submit(lambda conn: gate.wait(20))
    caller = asyncio.ensure_future(limits.set(ROOT, ANA, {"requests_per_minute": 1}))
    await until(lambda: desk.database.pending_jobs == 2)
    caller.cancel()
    await until(caller.cancelled)
    gate.set()
    await until(lambda: told == [f"user:{ANA}"])
    assert limits.show(ANA)[0].own == {"requests_per_minute": 1}


async def test_a_change_that_cannot_be_written_is_not_in_force(desk: Desk) -> None:
    """Memory never runs ahead of the database either."""
    limits = await limits_of(desk)
    await desk.database.write(lambda conn: conn.execute("DROP TABLE limits"))
    with pytest.raises(sqlite3.OperationalError):
        await limits.set(ROOT, ANA, {"requests_per_minute": 1})
    assert limits.show(ANA)[0].own == {}


async def test_changes_at_once_end_as_the_database_does(desk: Desk) -> None:
    """However they interleave, memory shows what the last commit said."""
    limits = await limits_of(desk)
    await asyncio.gather(*(limits.set(ROOT, ANA, {"requests_per_minute": number}) for number in range(20)))
    assert limits.show() == (await limits_of(desk)).show()


async def test_only_a_longer_look_back_asks_for_the_past(desk: Desk) -> None:
    """And where the past cannot be read, that is said; the limit is in force."""
    limits = await limits_of(desk)
    asked: list[int] = []

    async def recall() -> None:
        asked.append(limits.needed_history())
        if len(asked) > 1:
            raise StoreFailed("the database could not be read: disk I/O error")

    limits.recall = recall
    await limits.set(ROOT, ANA, {"requests_per_minute": 3})
    assert asked == []
    await limits.set(ROOT, ANA, {"requests_per_hour": 3})
    assert asked == [3_600_000_000]
    with pytest.raises(Unavailable, match="in force, but counts only what is used from now on"):
        await limits.set(ROOT, "default", {"tokens_per_day": 3})
    assert limits.rule("default").tokens
