"""Looking at what runs: the view of one exchange as it streams, and the rows of what ended a moment ago."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from common import protocol
from common.protocol import LimitsSet, LimitsUse, LimitValues, LiveNews, LiveTarget, Nothing
from console.client import Refused
from daemon.access.actor import Actor
from daemon.admin import view
from daemon.exchange import EndState, Exchange
from daemon.pace import Pace
from daemon.recent import MOST_ENDED, MOST_REFUSED, Lately, Recent
from tests.rigs.gatehouse import MODEL, QUESTION
from tests.rigs.office import Office, open_office
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after

ADMIN = Actor(uid=0, name="root", via="socket")
STREAMED = QUESTION | {"stream": True, "options": {"temperature": 0.5}}


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        office.gate.house.hub.period = 0.02
        yield office


async def running_id(office: Office, pieces: int = 1) -> str:
    """The one request that runs, once so many pieces of its answer came."""
    gate = office.gate.house.gate
    await until(lambda: [each for each in gate.live() if gate.pieces(each.request_id) >= pieces])
    return gate.live()[0].request_id


async def test_a_running_exchange_is_shown_and_the_look_is_recorded_first(office: Office) -> None:
    """Prompt, options, limits with their use and the answer so far; who looked is in the audit."""
    await office.ask(protocol.LIMITS_SET, LimitsSet("ana@example.org", LimitValues(requests_per_minute=7)))
    office.gate.upstream.next(stall_after(3, asyncio.Event()))
    async with office.gate.streaming(body=STREAMED):
        request_id = await running_id(office, 3)
        shown = await office.ask(protocol.LIVE_SHOW, LiveTarget(request_id[:8]))
        answer = shown.answer
        assert (shown.prompt, shown.options, shown.row.state) == ("Why?", {"temperature": 0.5}, "run")
        assert shown.messages["messages"] == QUESTION["messages"]
        assert [(use.limit, use.used, use.max) for use in shown.limits] == [("requests_per_minute", 1, 7)]
        assert shown.limits[0].frees_at is not None
        assert shown.log_id and shown.row.tokens_out == 3 and shown.row.piece_age is not None
        # What was set down in the store is shown with what was not.
        await office.gate.house.gate.flush_partials()
        again = await office.ask(protocol.LIVE_SHOW, LiveTarget(request_id))
        assert answer and again.answer == answer and not again.answer_cut
    looks = [each for each in office.recorded() if each["verb"] == "live show"]
    assert [each["target"] for each in looks] == [f"request:{request_id}"] * 2
    assert looks[0]["user"] == "ana@example.org"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_view_that_follows_gets_the_whole_answer(office: Office, stream: bool) -> None:
    """Beginning and gains together are the answer that the audit has, also across the moments of setting down."""
    house = office.gate.house
    going = asyncio.Event()
    office.gate.upstream.next(stall_after(12, going))
    asking = asyncio.create_task(office.gate.chat(stream=stream))
    request_id = await running_id(office)
    news: list[LiveNews] = []
    async with aclosing(view.followed(house, ADMIN, LiveTarget(request_id))) as following:
        async for each in following:
            news.append(each)
            await house.gate.flush_partials()
            going.set()
    await asking
    record = await office.gate.audit(request_id)
    assert news[0].exchange is not None and news[-1].ended is not None
    assert news[0].exchange.answer + "".join(each.gained for each in news) == record.response != ""
    assert (news[-1].ended.state, news[-1].ended.tokens_out) == ("ok", record.tokens_out)
    assert not any(each.skipped for each in news)
    assert house.views == 0


async def test_a_view_of_a_request_that_waits_tells_its_place_and_who_leaves_it_is_forgotten(office: Office) -> None:
    """Queued: no answer yet; cancelled: the state and the words of its end."""
    house = office.gate.house
    house.registry.upstreams[0].seats.resize(1)
    office.gate.upstream.next(stall_after(1, asyncio.Event()))
    async with office.gate.streaming():
        await running_id(office)
        waiting = asyncio.create_task(office.gate.chat())
        await until(lambda: len(house.gate.live()) == 2)
        request_id = house.gate.live()[1].request_id
        async with aclosing(view.followed(house, ADMIN, LiveTarget(request_id))) as following:
            first = await anext(following)
            assert first.exchange is not None
            assert (first.exchange.row.state, first.exchange.row.position, first.exchange.answer) == ("queued", 1, "")
            house.gate.cancel(request_id)
            last = [each async for each in following][-1]
        assert last.ended is not None and last.ended.state == "cancelled_by_admin"
        assert (await waiting).status_code == 503
        request_id = house.gate.live()[0].request_id
        async with aclosing(view.followed(house, ADMIN, LiveTarget(request_id))) as following:
            await anext(following)
            assert len(house.gate._running[request_id].followers) == 1
        assert house.gate._running[request_id].followers == []


async def test_a_viewer_that_does_not_fetch_is_bounded_and_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a viewer has a bound; what is lost beyond is told, once."""
    monkeypatch.setattr("daemon.following.LARGEST", 100)
    office.gate.upstream.next(stall_after(8, asyncio.Event()))
    async with office.gate.streaming():
        request_id = await running_id(office, 8)
        following = office.gate.house.gate.follow(request_id)
        assert following is not None
        await office.gate.house.gate.flush_partials()
        assert len(following.take()) == 100 and following.lost() and not following.lost()
        following.close()


async def test_a_request_that_is_gone_has_no_view(office: Office) -> None:
    """It is refused in words, and nothing is recorded."""
    refused = await office.refused(protocol.LIVE_SHOW, LiveTarget("00000000"))
    assert refused.status == 404
    assert not [each for each in office.recorded() if each["verb"] == "live show"]


async def test_what_ended_and_what_was_refused_is_shown_a_moment_longer(office: Office) -> None:
    """One row an exchange, one a caller and reason for refusals; the head line counts them."""
    await office.gate.chat()
    await office.ask(protocol.LIMITS_SET, LimitsSet("ana@example.org", LimitValues(requests_per_minute=1)))
    for _ in range(3):
        assert (await office.gate.chat()).status_code == 429
    refused, ended = await office.ask(protocol.LIVE_ENDED, Nothing())
    assert (ended.state, ended.model, ended.user, ended.count) == ("ok", MODEL, "ana@example.org", 1)
    assert ended.tokens_out and ended.elapsed >= 0
    assert (refused.state, refused.error, refused.count) == ("refused", "requests_per_minute", 3)
    totals = office.gate.house.hub.totals()
    assert (totals.refused_last_minute, totals.ended_lately, totals.errors_lately) == (3, 1, 0)
    used = await office.ask(protocol.LIMITS_USE, LimitsUse())
    assert [(use.target, use.used, use.max) for use in used] == [("user:ana@example.org", 1, 1)]
    rows = await office.json("ended")
    assert [row["state"] for row in rows] == ["refused", "ok"]
    assert "requests_per_minute" in (await office.done("ended")).stdout
    assert (await office.json("limits", "use"))[0]["max"] == 1
    assert "user:ana@example.org" in (await office.done("limits", "use", "ana@example.org")).stdout


async def test_the_command_line_shows_and_follows(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """`view` prints what was asked and answered; `--follow` goes on until the end and says how it ended."""
    going = asyncio.Event()
    gains = view._news

    def begun(*arguments: Any) -> Any:
        going.set()  # only once the beginning was shown: an exchange that ends before is "has just ended"
        return gains(*arguments)

    monkeypatch.setattr(view, "_news", begun)
    office.gate.upstream.next(stall_after(4, going))
    asking = asyncio.create_task(office.gate.chat(stream=True))
    request_id = await running_id(office)
    shown = await office.done("view", request_id[:8])
    assert "Why?" in shown.stdout and request_id in shown.stdout
    assert (await office.json("view", request_id))["row"]["user"] == "ana@example.org"
    followed = await office.done("view", request_id, "--follow", "--json")
    lines = [json.loads(line) for line in followed.stdout.splitlines()]
    assert lines[0]["exchange"]["prompt"] == "Why?" and lines[-1]["ended"]["state"] == "ok"
    await asking


def exchange(request_id: str, state: EndState = EndState.OK) -> Exchange:
    return Exchange(
        request_id=request_id,
        user_id=1,
        user="ana@example.org",
        key_id=None,
        session=None,
        client_label="",
        address="10.0.0.1",
        user_agent="",
        route="/api/chat",
        model_asked=MODEL,
        model=MODEL,
        upstream="up",
        stream=True,
        document={"messages": ["large"]},
        received=1_000_000,
        ended=3_000_000,
        state=state,
    )


def refuse(recent: Recent, at_us: int, **more: Any) -> None:
    about = {"reason": "requests_per_minute", "user": "ana@example.org", "key": None}
    recent.refused(at_us, **(about | more), client_label="", address="", route="", model="")


def test_recent_rows_are_bounded_and_every_change_shows_in_their_counts() -> None:
    """The oldest goes; of an exchange its request is not kept."""
    recent = Recent()
    for number in range(MOST_ENDED + 1):
        recent.ended(exchange(f"r{number}"))
    assert len(list(recent.rows())) == MOST_ENDED and recent.row("r0") is None
    assert "r0" not in recent.counts() and f"r{MOST_ENDED}" in recent.counts()
    for number in range(MOST_REFUSED + 1):
        refuse(recent, 0, user=f"u{number}")
    assert len([row for _, row in recent.rows() if row.state == "refused"]) == MOST_REFUSED
    assert "refused-1" not in recent.counts() and recent.counts()[f"refused-{MOST_REFUSED + 1}"] == 1
    refuse(recent, 0, user=f"u{MOST_REFUSED}")
    assert recent.counts()[f"refused-{MOST_REFUSED + 1}"] == 2
    # A later minute is another row.
    refuse(recent, 70_000_000, user="u5")
    assert recent.row("refused-6") is None
    row = recent.row(f"refused-{MOST_REFUSED + 2}")
    assert row is not None and row.count == 1


def test_failures_are_counted_over_five_minutes_and_refusals_over_one() -> None:
    """What is older is out; a departure is no failure."""
    now = 1000.0
    recent = Recent(seconds=lambda: now)
    for state in (EndState.OK, EndState.CLIENT_LEFT, EndState.UPSTREAM_ERROR, EndState.TIMEOUT_IDLE):
        recent.ended(exchange(state.value, state))
    refuse(recent, 0)
    assert (recent.ended_lately, recent.errors_lately, recent.refused_last_minute) == (4, 2, 1)
    now += 100
    assert (recent.ended_lately, recent.errors_lately, recent.refused_last_minute) == (4, 2, 0)
    now += 10_000
    assert (recent.ended_lately, recent.errors_lately) == (0, 0)
    counts = Lately(60, 60)
    for second in range(200):
        counts.count(float(second))
    assert counts.total(199.0) == 60
    counts.count(199.0, ago=59.0, number=5)
    counts.count(199.0, ago=60.0, number=7)  # too long ago
    assert (counts.total(199.0), counts.total(200.0)) == (65, 59)


def test_a_pace_is_that_of_the_last_seconds() -> None:
    """It follows the answer, falls to nothing where it stalls, and forgets what ended."""
    pace = Pace()
    pace.look(10.0, [("a", 1.0, 50), ("b", 0.0, 1)])
    assert (pace.of("a"), pace.of("b"), pace.of("c")) == (50.0, None, None)
    for tick in range(1, 40):
        pace.look(10 + tick * 0.25, [("a", 1 + tick * 0.25, 50 + tick * 5)])
    assert pace.of("a") == pytest.approx(20.0, abs=0.5) and pace.of("b") is None
    for tick in range(40, 80):
        pace.look(10 + tick * 0.25, [("a", 0.0, 250)])
    assert pace.of("a") == 0.0 and pace.total() == 0.0


@pytest.mark.parametrize(
    ("tokens", "seconds", "pace"),
    [(40, 2.0, 20.0), (12, 0.002, None), (7, 3.0, None), (8, 0.5, 16.0), (None, 9.0, None)],
)
def test_an_ended_exchange_has_a_pace_only_where_it_means_something(
    tokens: int | None, seconds: float, pace: float | None
) -> None:
    """A few tokens in one piece would give thousands a second: that is the network's pace, not the model's."""
    recent = Recent()
    ended = exchange("a", EndState.OK)
    ended.first_byte = ended.received
    ended.ended = ended.received + round(seconds * 1e6)
    ended.usage.tokens_out = tokens
    recent.ended(ended)
    ((_, row),) = recent.rows()
    assert row.tokens_per_second == pace


async def test_a_viewer_that_leaves_is_forgotten_and_one_too_many_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that closes in mid-answer ends its view; the number of views has a bound."""
    house = office.gate.house
    office.gate.upstream.next(stall_after(1, asyncio.Event()))
    async with office.gate.streaming():
        request_id = await running_id(office)
        news = office.client.items(protocol.LIVE_FOLLOW, LiveTarget(request_id))
        first = await asyncio.to_thread(next, news)
        assert first.exchange is not None and house.views == 1
        monkeypatch.setattr(view, "MOST_VIEWS", 1)
        with pytest.raises(Refused) as refused:
            await office.items(protocol.LIVE_FOLLOW, LiveTarget(request_id))
        assert (refused.value.status, refused.value.code) == (503, "too_many_views")
        await asyncio.to_thread(news.close)
        await until(lambda: house.views == 0)
        assert house.gate._running[request_id].followers == []
