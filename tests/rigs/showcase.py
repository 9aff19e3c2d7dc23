"""One busy afternoon of a team's gate, always the same: what golden frames and the pictures in docs/ are drawn from.

    async with showcase(tmp_path, size=(80, 24)) as (app, pilot, daemon): …

Fixed are the clock (NOW, in UTC), every id and every figure. Names are invented, addresses are of the documentation.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from textual.pilot import Pilot

from common.protocol import (
    EndedRow,
    KeyRow,
    LimitUse,
    LiveExchange,
    LiveNews,
    LiveRow,
    Totals,
    UpstreamRow,
    UserRow,
)
from console.app import Lodge
from tests.rigs import showcase_records as records
from tests.rigs.console import console_at
from tests.rigs.scripted_daemon import ScriptedDaemon
from tests.rigs.showcase_records import CODER, FROM, KEYS, LLAMA, NOW, QWEN, ago, request_id
from tests.rigs.until import until

SEAT = "alice@gw1"


@contextmanager
def utc() -> Iterator[None]:
    """The clock in the head is the machine's: here it is UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


@asynccontextmanager
async def showcase(folder: Path, *, size: tuple[int, int]) -> AsyncIterator[tuple[Lodge, Pilot[None], ScriptedDaemon]]:
    """The console before a daemon that has all of it, at that moment."""
    with utc():
        async with ScriptedDaemon(folder / "s") as daemon:
            furnish(daemon)
            given: dict[str, Any] = {"now": lambda: NOW / 1e6, "monotonic": lambda: 1000.0, "seat": SEAT}
            async with console_at(daemon.path, size=size, **given) as (app, pilot):
                app.head.speeds.extend(records.wave(n, 1900, 700) for n in range(240))
                await until(lambda: app.link.is_live)
                app.link.started, app.address = NOW - 12 * 86400 * 10**6, "http://192.0.2.10:7000"
                app.main.tick()
                await pilot.pause()
                yield app, pilot, daemon


def furnish(daemon: ScriptedDaemon) -> None:
    """Put it all there."""
    for user in (*_users(), *registrations()):
        daemon.put("registration" if user.code else "user", user.code or str(user.id), user)
    for key in _keys():
        daemon.put("key", key.id, key)
    for upstream in _upstreams():
        daemon.put("upstream", upstream.name, upstream)
    for live in _live():
        daemon.put("live", live.request_id, live)
    for ended in _ended():
        daemon.put("ended", ended.id, ended)
    for job in records.jobs():
        daemon.put("job", str(job.id), job)
    daemon.totals = Totals(
        running=7,
        seats=12,
        queued=3,
        oldest_queued=ago(41),
        tokens_per_second=1934.0,
        refused_last_minute=3,
        ended_lately=250,
        errors_lately=1,
    )
    daemon.answers["upstreams/list"] = _upstreams()
    daemon.answers["models/list"] = records.models()
    daemon.answers["models/access"] = records.access()
    limits, uses = records.limits()
    daemon.answers["limits/show"] = lambda question: [
        row for row in limits if question.get("target") in (None, row.target)
    ]
    daemon.answers["limits/use"] = uses
    daemon.answers["limits/try"] = records.tried()
    daemon.answers["usage"] = records.usage
    daemon.answers["audit/search"] = lambda question: [] if question["before"] else records.audit()
    daemon.answers["audit/show"] = records.exchange()
    daemon.answers["audit/position"] = records.position()
    daemon.answers["live/follow"] = lambda question: [_followed(question["request_id"])]


def _user(number: int, email: str, **given: Any) -> UserRow:
    defaults: dict[str, Any] = {
        "status": "active",
        "role": "user",
        "service": False,
        "code": None,
        "address": None,
        "created": ago(86400 * (40 - 3 * number)),
        "approved": ago(86400 * (40 - 3 * number) - 3600),
        "must_change_password": False,
        "keys": 1,
        "notes": "",
        "version": 3,
    }
    return UserRow(id=number, email=email, **(defaults | given))


def _users() -> list[UserRow]:
    return [
        _user(1, "alice@example.org", role="admin", keys=2),
        _user(2, "ana.lopez@example.org", keys=2, notes="thesis until June"),
        _user(3, "joe@example.org"),
        _user(4, "yuki.小林@example.org", notes="研究室"),
        _user(5, "ci-runner@example.org", service=True, notes="nightly evaluation"),
        _user(6, "n8n@example.org", service=True),
        _user(7, "priya.ramanathan@physics.example.org", notes="very long runs on Fridays, agreed with alice"),
        _user(8, "max@example.org", must_change_password=True, keys=0),
        _user(9, "old.student@example.org", status="disabled", keys=0, notes="left in February"),
    ]


def registrations() -> list[UserRow]:
    """Who waits to be let in."""
    more = {"status": "pending", "approved": None, "keys": 0}
    return [
        msgspec.structs.replace(
            _user(0, "sofia@example.org", code="7K-2MQX", address="192.0.2.77", created=ago(2520), **more), id=None
        ),
        msgspec.structs.replace(
            _user(0, "tom@example.org", code="P4-WD9R", address="192.0.2.143", created=ago(260), **more), id=None
        ),
    ]


def _key(user: str, label: str, **given: Any) -> KeyRow:
    defaults: dict[str, Any] = {
        "id": KEYS.get(label, ""),
        "state": "active",
        "purpose": "inference",
        "models": [],
        "addresses": [],
        "created": ago(86400 * 30),
        "expires": None,
        "revoked": None,
        "previous_until": None,
        "last_used": ago(12),
        "last_address": FROM.get(label, "192.0.2.7"),
        "version": 1,
    }
    return KeyRow(user=user, label=label, **(defaults | given))


def _keys() -> list[KeyRow]:
    return [
        _key("ana.lopez@example.org", "laptop", last_used=ago(41)),
        _key("joe@example.org", "editor", last_used=ago(4)),
        _key("ana.lopez@example.org", "notebook", models=["qwen3:*"], last_used=ago(86400 * 3)),
        _key("ci-runner@example.org", "ci", addresses=["192.0.2.0/28"], expires=ago(-86400 * 5), last_used=ago(17)),
        _key("n8n@example.org", "workflows", previous_until=ago(-1800), last_used=ago(3)),
        _key("yuki.小林@example.org", "ノート", last_used=ago(6)),
        _key("priya.ramanathan@physics.example.org", "cluster", last_used=ago(905)),
        _key("alice@example.org", "prometheus", purpose="metrics", last_used=ago(9)),
        _key(
            "old.student@example.org", "laptop", id="oLd4x7Zk0Q", state="suspended", last_used=None, last_address=None
        ),
        _key("joe@example.org", "old phone", id="dEa7Rp31hN", state="revoked", revoked=ago(86400 * 8)),
    ]


def _upstreams() -> list[UpstreamRow]:
    return [
        UpstreamRow(
            name="gpu1",
            kind="ollama",
            url="http://192.0.2.21:11434",
            state="ok",
            error=None,
            version="0.12.3",
            seats=4,
            running=4,
            queued=3,
            models=9,
            probed_seats=4,
            latency_ms=12.4,
            loaded=2,
            vram=44_300_000_000,
        ),
        UpstreamRow(
            name="gpu2",
            kind="openai",
            url="http://192.0.2.22:8080",
            state="ok",
            error=None,
            version=None,
            seats=8,
            running=3,
            queued=0,
            models=1,
            probed_seats=None,
            latency_ms=3.1,
            loaded=1,
            vram=0,
        ),
        UpstreamRow(
            name="attic",
            kind="ollama",
            url="http://192.0.2.29:11434",
            state="down",
            error="the upstream attic cannot be reached: connection refused",
            version=None,
            seats=2,
            running=0,
            queued=0,
            models=None,
            probed_seats=None,
            last_error="the upstream attic cannot be reached: connection refused",
        ),
    ]


def _live() -> list[LiveRow]:
    rows = []
    for number, (state, user, label, model, upstream, since, tokens, speed, piece) in enumerate(
        (
            ("run", "ana.lopez@example.org", "laptop", LLAMA, "gpu1", 72.4, 1830, 41.2, 0.1),
            ("run", "joe@example.org", "editor", LLAMA, "gpu1", 123.0, 77, 0.0, 9.2),
            ("run", "priya.ramanathan@physics.example.org", "cluster", LLAMA, "gpu1", 905.0, 31_704, 38.0, 0.0),
            ("run", "ci-runner@example.org", "ci", CODER, "gpu2", 18.0, 1204, 88.4, 0.0),
            ("run", "ci-runner@example.org", "ci", CODER, "gpu2", 17.2, 1131, 87.9, 0.0),
            ("run", "yuki.小林@example.org", "ノート", QWEN, "gpu1", 6.5, 322, 104.0, 0.0),
            ("prefill", "n8n@example.org", "workflows", CODER, "gpu2", 3.1, 0, None, None),
            ("queued", "ana.lopez@example.org", "laptop", LLAMA, "gpu1", 41.0, 0, None, None),
            ("queued", "yuki.小林@example.org", "", LLAMA, "gpu1", 22.0, 0, None, None),
            ("queued", "joe@example.org", "editor", LLAMA, "gpu1", 4.0, 0, None, None),
        )
    ):
        queued = state == "queued"
        rows.append(
            LiveRow(
                request_id=request_id(number),
                state=state,  # type: ignore[arg-type]
                position=number - 6 if queued else None,
                user=user,
                key=KEYS.get(label),
                client_label=label,
                address=FROM.get(label, "192.0.2.95"),
                route="/api/chat" if number % 3 else "/v1/chat/completions",
                model=model,
                upstream=upstream,
                stream=True,
                received=ago(since),
                seated=None if queued else ago(since - 0.2),
                first_byte=None if speed is None else ago(since - 1.1),
                chunks_out=tokens,
                bytes_out=tokens * 140,
                tokens_out=tokens,
                tokens_per_second=speed,
                piece_age=piece,
                estimated_wait=(12.0, 41.0, 66.0)[number - 7] if queued else None,
            )
        )
    return rows


def _ended() -> list[EndedRow]:
    def row(name: str, state: Any, since: float, **given: Any) -> EndedRow:
        defaults: dict[str, Any] = {
            "error": None,
            "count": 1,
            "user": "joe@example.org",
            "key": KEYS["editor"],
            "client_label": "editor",
            "address": FROM["editor"],
            "route": "/api/chat",
            "model": QWEN,
            "upstream": "gpu1",
            "received": ago(since + 12.0),
            "ended": ago(since),
            "elapsed": 12.0,
            "tokens_in": 210,
            "tokens_out": 480,
            "tokens_per_second": 44.0,
        }
        return EndedRow(id=name, request_id="" if state == "refused" else name, state=state, **(defaults | given))

    return [
        row(request_id(100), "ok", 2.0),
        row(
            "refused-1",
            "refused",
            4.0,
            count=3,
            error="requests_per_minute",
            user="ci-runner@example.org",
            key=KEYS["ci"],
            client_label="ci",
            address=FROM["ci"],
            route="/api/chat",
            model=CODER,
            upstream="",
            received=ago(42.0),
            tokens_in=None,
            tokens_out=None,
            tokens_per_second=None,
            elapsed=38.0,
        ),
    ]


def _followed(request_id: str) -> LiveNews:
    row = next(each for each in _live() if each.request_id == request_id)
    return LiveNews(
        exchange=LiveExchange(
            row=row,
            prompt="Summarise the attached minutes in five bullet points.",
            messages=None,
            request_bytes=4096,
            options={"temperature": 0.2, "num_ctx": 8192},
            answer="- the budget is agreed\n- the lab moves in May\n- 宿題は金曜日まで",
            thinking="Five bullets are asked for; the minutes name seven matters.",
            answer_cut=False,
            user_agent="ollama-python/0.6.0",
            model_asked=row.model,
            log_id=48_240,
            admitted=row.received,
            limits=[
                LimitUse(f"user:{row.user}", "concurrency", 1, 2, None),
                LimitUse(f"user:{row.user}", "requests_per_minute", 8, 60, ago(-41)),
            ],
        )
    )
