"""Usage: exact against the journal, whatever has been added up, and quick whatever the journal's length."""

import asyncio
import csv
import io
import json
import random
import sqlite3
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from common.errors import BadRequest, Unavailable
from common.protocol import Usage, UsageBy, UsageRequest
from common.times import iso
from daemon import usage as page
from daemon.audit.recovery import close_crashed
from daemon.exchange import EndState
from daemon.store.partials import Progress
from daemon.store.usage import HOUR
from daemon.usage import add_up, usage
from tests.rigs.gatehouse import MODEL, QUESTION
from tests.rigs.journals import ANA, BEN, Desk, desk_in
from tests.rigs.office import Office, open_office
from tests.rigs.until import until

NOW = 1_800_000_000_000_000 + 17 * 60_000_000 + 3
MINUTE = 60_000_000
ENDS = [*EndState, None]


async def lived(desk: Desk, count: int, *, seed: int = 7) -> None:
    """Exchanges of two users over three days, every end among them, and some that still run; refusals between."""
    chance = random.Random(seed)
    for number in range(count):
        received = NOW - chance.randrange(72 * 60) * MINUTE
        user_id = chance.choice((1, 2))
        exchange = desk.exchange(
            user_id=user_id,
            user=(ANA, BEN)[user_id - 1],
            received=received,
            model=chance.choice(("llama3.2:latest", "phi4:latest")),
            key_id=chance.choice(("k1", "k2", None)),
            client_label=chance.choice(("", "notebook")),
        )
        await desk.journal.opened(exchange)
        state = ENDS[number % len(ENDS)]
        if state is None:
            continue
        exchange.state, exchange.sent_upstream = state, True
        exchange.seated = received + MINUTE if chance.random() < 0.8 else None
        exchange.ended = received + chance.randrange(1, 5) * MINUTE
        exchange.usage.tokens_in, exchange.usage.tokens_out = chance.choice(((11, 7), (None, None), (3, None)))
        await desk.journal.closed(exchange, [])
        if number == count // 2:
            await desk.journal._catch_up(desk.journal._refusals.all())
        if chance.random() < 0.3:
            for _ in range(chance.randrange(1, 4)):
                desk.journal._refusals.count(
                    received, reason="requests_per_minute", user_id=1, user=ANA, key_id="k1", address="", model="m"
                )
    await desk.journal.set_down_refusals()  # the later half of them is still being counted


def by_hand(path: Path, question: UsageRequest, since: int, until: int) -> Counter[tuple[str, str]]:
    """The same sums, row by row, in Python."""
    column = {"user": "user", "model": "model", "key": "key_id", "client": "client_label"}[question.by]
    found: Counter[tuple[str, str]] = Counter()
    conn = sqlite3.connect(path)
    conn.row_factory = sqlite3.Row
    rows = [dict(row) for row in conn.execute("SELECT * FROM journal ORDER BY seq")]
    for row in conn.execute("SELECT * FROM refusing"):
        counted = {"event": "refused", "received_us": row["at_us"], "detail": json.dumps({"count": row["number"]})}
        rows.append(dict(row) | counted)
    conn.close()
    ends = {row["opened_seq"]: row for row in rows if row["event"] == "closed"}
    errors = {state.value for state in EndState if state.value.startswith("timeout")}
    errors |= {"upstream_error", "queue_timeout", "shutdown", "crashed"}
    for row in rows:
        if row["event"] not in ("opened", "refused") or not since <= row["received_us"] < until:
            continue
        if question.user not in (None, row["user"]):
            continue
        name = row[column] or ""
        if row["event"] == "refused":
            found[name, "refusals"] += json.loads(row["detail"])["count"]
            continue
        found[name, "requests"] += 1
        end = ends.get(row["seq"])
        if end is None:
            continue
        found[name, "tokens_in"] += end["tokens_in"] or 0
        found[name, "tokens_out"] += end["tokens_out"] or 0
        if end["seated_us"] is not None:
            found[name, "gpu_seconds"] += max(0, end["ended_us"] - end["seated_us"]) // 1_000_000
        state = end["state"]
        kind = {"ok": "ok", "client_left": "departures", "refused": "refusals"}.get(state)
        found[name, kind or ("errors" if state in errors else "cut")] += 1
    return +found


def counted(answer: Usage) -> Counter[tuple[str, str]]:
    return +Counter(
        {
            (row.name, name): int(getattr(row, name))
            for row in answer.rows
            for name in row.__struct_fields__
            if name != "name"
        }
    )


async def test_the_sums_are_those_of_the_journal_whatever_was_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every grouping and span, with nothing, a part and everything added up."""
    monkeypatch.setattr(page, "AT_ONCE", 70)
    spans = [
        (NOW - 60 * MINUTE, NOW),
        (NOW - 24 * HOUR, NOW),
        (NOW - 72 * HOUR - 17 * MINUTE, NOW - 3 * HOUR + 1),
        (NOW // HOUR * HOUR - 30 * HOUR, NOW // HOUR * HOUR),
    ]
    groupings: tuple[UsageBy, ...] = ("user", "model", "key", "client")
    async with desk_in(tmp_path) as desk:
        await lived(desk, 120)
        for steps in (0, 1, 100):
            for _ in range(steps):
                await add_up(desk.database)
            for since, until in spans:
                for by in groupings:
                    question = UsageRequest(
                        since=iso(since), until=iso(until), by=by, user=BEN if by == "key" else None
                    )
                    answer = await usage(desk.database, question, now_us=NOW)
                    assert counted(answer) == by_hand(desk.path, question, since, until), (steps, since, until, by)
                    assert sum(each.requests for each in answer.series) == answer.total.requests
                    assert sum(each.tokens_out for each in answer.series) == answer.total.tokens_out
        # An exchange that ends after its hour was added up counts there.
        await desk.end(desk.exchange(received=NOW - HOUR), EndState.OK)
        question = UsageRequest(since=iso(NOW - 30 * HOUR), until=iso(NOW + HOUR))
        answer = await usage(desk.database, question, now_us=NOW)
        assert counted(answer) == by_hand(desk.path, question, NOW - 30 * HOUR, NOW + HOUR)


async def test_added_up_twice_is_added_once(tmp_path: Path) -> None:
    """Two that add up the same records: the second changes nothing."""
    async with desk_in(tmp_path) as desk:
        await lived(desk, 20)
        from daemon.store import usage as sums

        added = await desk.database.read(lambda conn: sums.add_up(conn, 1000))
        assert await desk.database.write(lambda conn: sums.put(conn, added))
        assert not await desk.database.write(lambda conn: sums.put(conn, added))
        rows = await desk.rows("SELECT SUM(requests) FROM usage_hours")
        assert rows == [(20,)] and await add_up(desk.database) == 0


async def test_a_journal_that_was_never_added_up_is_not_read_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once after an upgrade: the answer is refused in words until it is, in the background."""
    monkeypatch.setattr(page, "FAR_BEHIND", 10)
    async with desk_in(tmp_path) as desk:
        await lived(desk, 20)
        with pytest.raises(Unavailable, match="added up"):
            await usage(desk.database, UsageRequest(), now_us=NOW)
        monkeypatch.setattr(page, "OFTEN", 1)
        adding = asyncio.create_task(page.keep_added_up(desk.database))
        await until(lambda: added(desk))
        adding.cancel()
        assert (await usage(desk.database, UsageRequest(since=iso(NOW - 80 * HOUR)), now_us=NOW)).total.requests == 20


async def added(desk: Desk) -> bool:
    return await desk.rows("SELECT seq FROM usage_through") == await desk.rows("SELECT MAX(seq) FROM journal")


async def test_the_largest_come_first_and_the_others_are_one_row(tmp_path: Path) -> None:
    """`top` rows by tokens out; a point of the series for every stretch, also where nothing was used."""
    async with desk_in(tmp_path) as desk:
        for number in range(5):
            exchange = desk.exchange(received=NOW - HOUR, model=f"m{number}")
            await desk.journal.opened(exchange)
            exchange.state, exchange.ended = EndState.OK, NOW
            exchange.usage.tokens_out = number
            await desk.journal.closed(exchange, [])
        answer = await usage(desk.database, UsageRequest(by="model", top=2), now_us=NOW)
        assert [row.name for row in answer.rows] == ["m4", "m3"]
        assert answer.others is not None and (answer.others.requests, answer.others.tokens_out) == (3, 3)
        assert answer.total.tokens_out == 10
        assert answer.bucket_seconds == 3600 and len(answer.series) == 25
        for wrong in (UsageRequest(top=0), UsageRequest(since="yesterday"), UsageRequest(since=iso(NOW))):
            with pytest.raises(BadRequest):
                await usage(desk.database, wrong, now_us=NOW)


async def test_a_long_journal_is_answered_from_its_hours(tmp_path: Path) -> None:
    """30 days over 60,000 records, added up: well under the time that reading them takes."""
    async with desk_in(tmp_path) as desk:
        await desk.database.write(lambda conn: many(conn, 30_000))
        while await add_up(desk.database):
            pass
        started = time.process_time()  # not the clock's: other processes share the machine
        answer = await usage(desk.database, UsageRequest(since=iso(NOW - 720 * HOUR)), now_us=NOW)
        assert answer.total.requests == 30_000
        assert time.process_time() - started < 0.5


def many(conn: sqlite3.Connection, count: int) -> None:
    """So many exchanges over 30 days; unchained, as only sums are looked at."""
    span = 30 * 24 * HOUR
    for number in range(count):
        received = NOW - span + number * span // count
        who = (ANA if number % 3 else BEN, f"m{number % 4}", f"k{number % 10}", "")
        conn.execute(
            'INSERT INTO journal (seq, event, at_us, clock_us, request_id, "user", model, key_id, client_label,'
            " received_us, hash) VALUES (?, 'opened', 0, 0, ?, ?, ?, ?, ?, ?, x'')",
            (2 * number + 1, f"r{number}", *who, received),
        )
        conn.execute(
            "INSERT INTO journal (seq, event, at_us, clock_us, opened_seq, state, tokens_in, tokens_out, received_us,"
            " seated_us, ended_us, hash) VALUES (?, 'closed', 0, 0, ?, 'ok', 11, 7, ?, ?, ?, x'')",
            (2 * number + 2, 2 * number + 1, received, received, received + MINUTE),
        )


@pytest.fixture
async def office(tmp_path: Path):  # type: ignore[no-untyped-def]
    async with open_office(tmp_path) as office:
        yield office


async def test_usage_on_the_command_line(office: Office) -> None:
    """As a table, as JSON and as CSV."""
    for _ in range(3):
        await office.gate.chat()
    document = await office.json("usage", "--since", "1h")
    assert (document["by"], document["total"]["requests"], document["bucket_seconds"]) == ("user", 3, 60)
    assert document["rows"][0]["name"] == "ana@example.org"
    table = (await office.done("usage", "--by", "model", "--top", "1")).stdout
    assert "REQUESTS" in table and "(all)" in table
    rows = list(csv.DictReader(io.StringIO((await office.done("usage", "--csv", "--user", "ana@example.org")).stdout)))
    assert [(row["name"], row["requests"], row["ok"]) for row in rows] == [("ana@example.org", "3", "3")]
    assert (await office.cli("usage", "--top", "0")).exit_code == 2
    await office.done("limits", "set", "default", "--requests-per-minute", "3")
    for refused in (1, 2):  # at once, and by everything that is known of it
        assert (await office.gate.post("/api/chat", QUESTION)).status_code == 429
        for by, name in (("user", "ana@example.org"), ("model", MODEL), ("client", "test")):
            document = await office.json("usage", "--since", "1h", "--by", by)
            assert [(row["name"], row["requests"], row["refusals"]) for row in document["rows"]] == [(name, 3, refused)]
            assert sum(point["refusals"] for point in document["series"]) == refused


async def test_what_crashed_counts_though_nobody_knows_its_end(tmp_path: Path) -> None:
    """Where a group has nothing but crashed exchanges, too: an error, without GPU time, and the hours go on."""
    async with desk_in(tmp_path) as desk:
        exchange = desk.exchange(received=NOW - HOUR)
        await desk.journal.opened(exchange)
        await desk.journal.flush_partials([], [Progress(exchange.request_id, NOW - HOUR + 1, None)])
        crashed = partial(close_crashed, 10, at_us=NOW, clock_us=NOW)
        assert await desk.database.write(crashed) == 1
        question = UsageRequest(since=iso(NOW - 3 * HOUR), until=iso(NOW))
        for _ in range(2):  # from the records, then from the hours
            answer = await usage(desk.database, question, now_us=NOW)
            assert (answer.total.requests, answer.total.errors, answer.total.gpu_seconds) == (1, 1, 0)
            await add_up(desk.database)
