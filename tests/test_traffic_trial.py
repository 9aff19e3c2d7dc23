"""Limits tried against recorded traffic: the replay says what plain counting says, and what it costs is bounded."""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from common import protocol
from common.protocol import LimitsSet, LimitsTried, LimitsTry, LimitTarget, LimitValues
from daemon.traffic.trial import Question, replay
from tests.rigs.journals import ANA, BEN, desk_in
from tests.rigs.office import Office, open_office

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOW = 1_800_000_000 * SECOND
APART = 77 * SECOND  # the gateway's clock is so far ahead of the wall clock


class Came(NamedTuple):
    """One request of the past, on the wall clock."""

    at: int
    user: str
    model: str
    tokens: int
    ended: int
    kept: bool


def traffic(count: int, seed: int = 3) -> list[Came]:
    """Requests of two users over five hours, some of which gave their place back."""
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(NOW - 5 * HOUR, NOW, 1000), count))
    return [
        Came(
            at=at,
            user=chance.choice((ANA, BEN)),
            model=chance.choice(("llama3.2:latest", "phi4:3b")),
            tokens=chance.randrange(0, 40),
            ended=at + chance.randrange(1, 200) * SECOND,
            kept=chance.random() < 0.9,
        )
        for at in moments
    ]


def record(conn: sqlite3.Connection, came: list[Came]) -> None:
    """The journal of it, unchained: only moments are looked at."""
    events: list[tuple[int, int, Came | None]] = [(each.at, number, each) for number, each in enumerate(came)]
    events += [(each.ended, number, None) for number, each in enumerate(came)]
    seqs: dict[int, int] = {}
    for seq, (at, number, opened) in enumerate(sorted(events, key=lambda event: (event[0], event[1])), 1):
        each = came[number]
        if opened is not None:
            seqs[number] = seq
            conn.execute(
                'INSERT INTO journal (seq, event, at_us, clock_us, request_id, user_id, "user", key_id, model, address,'
                " received_us, admitted_us, hash) VALUES (?, 'opened', ?, ?, ?, ?, ?, 'k1', ?, '192.0.2.7', ?, ?, x'')",
                (seq, at, at + APART, f"r{number}", 1 + (each.user == BEN), each.user, each.model, at, at),
            )
        else:
            conn.execute(
                "INSERT INTO journal (seq, event, at_us, clock_us, opened_seq, state, sent_upstream, tokens_in,"
                " received_us, hash) VALUES (?, 'closed', ?, ?, ?, 'ok', ?, ?, ?, x'')",
                (seq, at, at + APART, seqs[number], int(each.kept), each.tokens if each.kept else None, each.at),
            )


def counted(
    came: list[Came], since: int, *, requests: tuple[int, int] | None, tokens: tuple[int, int] | None, of: str
) -> Counter[str]:
    """Who would be refused, by looking at everything each time: limits are (max, period); `of` user or model."""
    refused: Counter[str] = Counter()
    admitted: list[Came] = []
    history = max(limit[1] for limit in (requests, tokens) if limit is not None)
    for each in came:
        if each.at <= since - history:  # its tokens enter, its place is long free
            admitted.append(each)
            continue
        same = [other for other in admitted if getattr(other, of) == getattr(each, of)]
        full = False
        if requests is not None:
            most, period = requests
            taken = [other for other in same if (other.kept or other.ended > each.at) and other.at > since - history]
            full = len([other for other in taken if other.at > each.at - period]) >= most
        if tokens is not None:
            most, period = tokens
            spent = [other for other in same if other.kept and each.at - period < other.ended <= each.at]
            full = full or sum(other.tokens for other in spent) >= most
        if not full:
            admitted.append(each)
        elif each.at >= since:
            refused[each.user] += 1
    return refused


def question(target: str, since: int, **values: int | None) -> Question:
    return Question(target, dict(values), since, NOW, NOW + APART)


def refused_of(tried: LimitsTried) -> dict[str, int]:
    return {each.user: each.refused for each in tried.users if each.refused}


@pytest.mark.parametrize("since", [NOW - 2 * HOUR, NOW - 5 * HOUR])
async def test_the_replay_says_what_counting_says(tmp_path: Path, since: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Request windows and token windows, of users and of a model that they share; places given back; warm windows."""
    monkeypatch.setattr("daemon.traffic.trial.PAGE", 50)
    came = traffic(700)
    async with desk_in(tmp_path) as desk:
        await desk.database.write(lambda conn: record(conn, came))

        async def tried(target: str, **values: int | None) -> LimitsTried:
            return await desk.database.read(lambda conn: replay(conn, question(target, since, **values)))

        minute = await tried("default", requests_per_minute=2)
        assert refused_of(minute) == counted(came, since, requests=(2, MINUTE), tokens=None, of="user") != {}
        assert minute.requests == sum(each.at >= since for each in came) and minute.refused_now == 0
        assert minute.concerned == minute.requests
        assert [(each.target, each.limit) for each in minute.limits] == [("default", "requests_per_minute")]
        hour = await tried("default", requests_per_hour=40, tokens_per_minute=30)
        assert refused_of(hour) == counted(came, since, requests=(40, HOUR), tokens=(30, MINUTE), of="user")
        model = await tried("model:phi4:3b", requests_per_hour=20)
        phi = [each for each in came if each.model == "phi4:3b"]
        assert refused_of(model) == counted(phi, since, requests=(20, HOUR), tokens=None, of="model") != {}
        ben = await tried(f"user:{BEN}", requests_per_minute=0)
        assert refused_of(ben) == {BEN: sum(each.user == BEN and each.at >= since for each in came)}
        assert (await tried("default", requests_per_minute=None)).refused == 0
        assert ben.concerned == refused_of(ben)[BEN]
        assert model.concerned == sum(each.at >= since for each in phi)
        assert (await tried("key:k1", requests_per_hour=9999)).concerned == minute.requests
        assert (await tried("address:192.0.2.0/24", requests_per_hour=9999)).concerned == minute.requests
        for nobody in ("user:joe@example.org", "model:other", "key:k2", "address:198.51.100.0/24"):
            nothing = await tried(nobody, requests_per_minute=0)
            assert (nothing.requests, nothing.concerned, nothing.refused) == (minute.requests, 0, 0)
        await desk.database.write(
            lambda conn: conn.execute(f"INSERT INTO limits VALUES ('user:{BEN}', 'requests_per_minute', 99)")
        )
        own = await tried("default", requests_per_minute=2)  # Ben's own value stands instead
        assert own.concerned == own.requests - refused_of(ben)[BEN]
        assert (await tried("default", requests_per_minute=2, requests_per_day=9)).concerned == own.requests


async def test_what_met_a_full_window_then_is_tried_again(tmp_path: Path) -> None:
    """Refusals are attempts: a wider limit lets them in, the limits in force refuse them again."""
    async with desk_in(tmp_path) as desk:

        def write(conn: sqlite3.Connection) -> None:
            record(conn, [Came(NOW - 30 * MINUTE, ANA, "m", 0, NOW - 29 * MINUTE, True)])
            for seq, (reason, times) in enumerate((("requests_per_hour", 9), ("queue_full", 50)), 10):
                conn.execute(
                    'INSERT INTO journal (seq, event, at_us, clock_us, user_id, "user", key_id, model, address,'
                    " state, received_us, detail, hash)"
                    " VALUES (?, 'refused', ?, 0, 1, ?, 'k1', 'm', '', 'refused', ?, ?, x'')",
                    (seq, NOW - 20 * MINUTE, ANA, NOW - 20 * MINUTE, json.dumps({"reason": reason, "count": times})),
                )
            conn.execute("INSERT INTO limits VALUES ('default', 'requests_per_hour', 1)")

        await desk.database.write(write)
        tried = await desk.database.read(
            lambda conn: replay(conn, question("default", NOW - HOUR, requests_per_hour=6))
        )
    assert (tried.requests, tried.refused, tried.refused_now, tried.refused_then) == (10, 4, 9, 9)
    assert [(each.user, each.requests, each.refused, each.refused_now) for each in tried.users] == [(ANA, 10, 4, 9)]


async def test_a_replay_that_takes_too_long_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded in time: what was replayed is told, and that it is not all. `each_page` may stop it, too."""
    monkeypatch.setattr("daemon.traffic.trial.PAGE", 20)
    async with desk_in(tmp_path) as desk:
        await desk.database.write(lambda conn: record(conn, traffic(200)))
        asked = question("default", NOW - 5 * HOUR, requests_per_minute=1)
        asked.longest = 0.0
        tried = await desk.database.read(lambda conn: replay(conn, asked))
        assert not tried.complete and tried.requests < 200 and tried.until < "2027-01-15T08:00:00"

        def stop() -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            await desk.database.read(lambda conn: replay(conn, asked, each_page=stop))


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        yield office


async def test_limits_are_tried_over_the_socket_without_a_change(office: Office) -> None:
    """In a child process: who would have been refused. Nothing is set, and nonsense is refused in words."""
    for _ in range(4):
        assert (await office.gate.chat()).status_code == 200
    before = await office.ask(protocol.LIMITS_SHOW, protocol.LimitsShow())
    tried = await office.ask(protocol.LIMITS_TRY, LimitsTry("default", LimitValues(requests_per_hour=3)))
    assert (tried.requests, tried.refused, tried.refused_now, tried.complete) == (4, 1, 0, True)
    assert [(each.user, each.refused) for each in tried.users] == [("ana@example.org", 1)]
    assert await office.ask(protocol.LIMITS_SHOW, protocol.LimitsShow()) == before
    assert (await office.refused(protocol.LIMITS_TRY, LimitsTry("default", LimitValues()))).status == 400
    none = LimitsTry("user:who@example.org", LimitValues(requests_per_hour=1))
    assert (await office.refused(protocol.LIMITS_TRY, none)).status == 404
    shown = await office.done("limits", "try", "ana@example.org", "--requests-per-minute", "1", "--since", "1h")
    assert "3 of 4 requests refused" in shown.stderr and "ana@example.org" in shown.stdout
    words: Any = await office.json("limits", "try", "default", "--requests-per-hour", "unlimited")
    assert words["refused"] == 0


async def test_a_stale_edit_of_limits_is_refused(office: Office) -> None:
    """Old values that are no longer there: somebody else was faster, and the change is not made."""
    seen = LimitValues()
    values = LimitValues(requests_per_minute=5)
    await office.ask(protocol.LIMITS_SET, LimitsSet("ana@example.org", values, seen=seen))
    refused = await office.refused(
        protocol.LIMITS_SET, LimitsSet("ana@example.org", LimitValues(concurrency=1), seen=seen)
    )
    assert (refused.status, refused.code) == (409, "changed_meanwhile")
    row = await office.ask(protocol.LIMITS_SET, LimitsSet("ana@example.org", LimitValues(concurrency=1), seen=values))
    assert (row.requests_per_minute, row.concurrency) == (5, 1)
    refused = await office.refused(protocol.LIMITS_CLEAR, LimitTarget("ana@example.org", seen=values))
    assert refused.status == 409
    row = await office.ask(
        protocol.LIMITS_CLEAR, LimitTarget("ana@example.org", seen=LimitValues(requests_per_minute=5, concurrency=1))
    )
    assert row.requests_per_minute is None
