"""The whole story with real parts: a daemon in a process of its own, HTTP over real sockets, the real command line.

Nothing here reaches into the daemon: whoever reads these tests sees what users and administrators type and get.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import math
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rigs.process import ROOT, DaemonProcess, daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after, stall_before_headers
from tests.rigs.upstream_shapes import words_of

ANA, PASSWORD = "ana@example.org", "a good password"
QUESTION = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


@dataclass
class Ran:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


class Installation:
    """A running daemon, from outside: its address, its data folder, the command line beside it."""

    def __init__(self, daemon: DaemonProcess, data: Path, upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
        self.daemon = daemon
        self.data = data
        self.upstream = upstream
        self.http = http

    async def cli(self, *arguments: str) -> Ran:
        """Run `gatelodge` with these arguments."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console", "--socket", str(self.data / "gatelodge.sock"), *arguments),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def done(self, *arguments: str) -> str:
        """As `cli`; it must succeed. What it printed."""
        ran = await self.cli(*arguments)
        assert ran.code == 0, (arguments, ran)
        return ran.out

    async def json(self, *arguments: str) -> Any:
        """What it prints with `--json`."""
        return json.loads(await self.done(*arguments, "--json"))

    async def post(self, path: str, body: Any, token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.post(self.daemon.url + path, json=body, headers=headers)

    async def chat(self, token: str) -> httpx.Response:
        """A whole chat, unstreamed."""
        return await self.post("/api/chat", QUESTION | {"stream": False}, token)

    @asynccontextmanager
    async def streaming(self, token: str) -> AsyncIterator[httpx.Response]:
        """A chat that is read piece by piece."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.stream("POST", self.daemon.url + "/api/chat", json=QUESTION, headers=headers) as answer:
            yield answer

    async def key(self, email: str = ANA) -> dict[str, str]:
        """A pipeline's account, and its key."""
        await self.done("users", "add", email, "--service")
        return dict(await self.json("keys", "issue", email, "--label", "nightly", "--expires", "90d"))


@asynccontextmanager
async def installation(data: Path, upstream: ScriptedUpstream, *arguments: str) -> AsyncIterator[Installation]:
    """A daemon on `data` over `upstream`, with the limits it has by default."""
    async with (
        daemon_process(data, "--ollama", upstream.url, "--seats", "2", *arguments) as daemon,
        httpx.AsyncClient(timeout=20) as http,
    ):
        yield Installation(await daemon.listening(), data, upstream, http)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


async def test_from_registration_to_a_verified_audit(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Register, approve, log in, stream; the eleventh is refused; the audit has it all; kill -9 leaves it `crashed`."""
    data = tmp_path / "data"
    async with installation(data, upstream) as it:
        registered = await it.post("/auth/register", {"email": ANA, "password": PASSWORD})
        assert registered.status_code == 202
        code = registered.json()["code"]
        assert (await it.post("/auth/login", {"email": ANA, "password": PASSWORD})).status_code == 403
        (waiting,) = await it.json("users", "list", "--status", "pending")
        assert (waiting["email"], waiting["code"], waiting["address"]) == (ANA, code, "127.0.0.1")
        await it.done("users", "approve", code)
        token = (await it.post("/auth/login", {"email": ANA, "password": PASSWORD})).json()["access_token"]

        before = time.monotonic()
        async with it.streaming(token) as answer:
            lines = [json.loads(line) async for line in answer.aiter_lines()]
        after = time.monotonic()
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        said = "".join(line["message"]["content"] for line in lines)
        first = answer.headers["x-request-id"]

        assert [(await it.chat(token)).status_code for _ in range(9)] == [200] * 9
        asked = time.monotonic()
        refused = await it.chat(token)
        answered = time.monotonic()
        assert refused.status_code == 429
        # True to the second: the first one's place frees a minute after it was admitted, between `before` and `after`.
        wait = int(refused.headers["retry-after"])
        assert math.ceil(before + 60 - answered) <= wait <= math.ceil(after + 60 - asked)
        assert {"limit", "used", "max", "frees_at", "retry_after"} <= refused.json().keys()
        assert len(upstream.inference) == 10, "a refused request costs the upstream nothing"

        rows = await it.json("audit", "search", f"user:{ANA}", "state:ok", "since:1h")
        assert len(rows) == 10
        assert rows[-1]["request_id"] == first
        shown = await it.json("audit", "show", first)
        assert (shown["prompt"], shown["response"]) == ("Why is the sky blue?", said)
        assert [row["request_id"] for row in await it.json("audit", "search", "text:sky blue", "--limit", "20")][
            -1
        ] == first
        file = tmp_path / "ana.csv"
        report = await it.json("audit", "export", "--user", ANA, "--output", str(file))
        assert report["verified"] is True
        assert report["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        exported = list(csv.DictReader(io.StringIO(file.read_text(), newline="")))
        assert len(exported) == 10
        assert next(row for row in exported if row["request_id"] == first)["response"] == said
        verified = await it.json("audit", "verify")
        assert verified["intact"] is True

        pipeline = await it.key("ci@example.org")
        upstream.next(stall_after(1, asyncio.Event()))
        async with it.streaming(pipeline["key"]) as cut:
            await anext(cut.aiter_lines())
            await it.daemon.kill()
        await upstream.inference[-1].client_left.wait()
    async with installation(data, upstream) as it:
        (crashed,) = await it.json("audit", "search", "state:crashed")
        assert (crashed["request_id"], crashed["user"]) == (cut.headers["x-request-id"], "ci@example.org")
        assert await it.json("live") == []
        assert len(await it.json("audit", "search", "state:ok")) == 10
        assert (await it.json("audit", "verify"))["intact"] is True
        assert (await it.chat(token)).status_code == 429, "the window survives kill -9"
        assert (await it.chat(pipeline["key"])).status_code == 200


async def test_a_key_is_issued_rotated_with_grace_and_revoked(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Row 78: during the grace period both secrets work, then the new one alone; revoked, none does."""
    async with installation(tmp_path / "data", upstream) as it:
        issued = await it.key()
        assert issued.keys() == {"id", "key"}
        rotated = await it.json("keys", "rotate", issued["id"], "--grace", "1h")
        assert rotated["id"] == issued["id"]
        assert [(await it.chat(key)).status_code for key in (issued["key"], rotated["key"])] == [200, 200]
        latest = await it.json("keys", "rotate", issued["id"])
        secrets = (issued["key"], rotated["key"], latest["key"])
        assert [(await it.chat(key)).status_code for key in secrets] == [401, 401, 200]
        (listed,) = await it.json("keys", "list", "--user", ANA)
        assert (listed["id"], listed["label"], listed["state"]) == (issued["id"], "nightly", "active")
        await it.done("keys", "revoke", issued["id"], "--yes")
        assert (await it.chat(latest["key"])).status_code == 401
        assert await it.json("keys", "list", "--user", ANA) == []


async def test_an_administrator_sees_limits_and_stops_what_runs(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """`live`, `cancel`, `users disable` and `limits set` act on what runs and on the next request."""
    async with installation(tmp_path / "data", upstream) as it:
        key = (await it.key())["key"]
        upstream.next(*[stall_after(1, asyncio.Event())] * 2)
        async with it.streaming(key) as cancelled, it.streaming(key) as cut:
            first, second = cancelled.aiter_lines(), cut.aiter_lines()
            await anext(first)
            await anext(second)
            live = await it.json("live")
            ids = [answer.headers["x-request-id"] for answer in (cancelled, cut)]
            assert sorted(row["request_id"] for row in live) == sorted(ids)
            assert {(row["user"], row["state"], row["upstream"]) for row in live} == {(ANA, "run", "ollama")}

            await it.done("cancel", ids[0])
            assert [list(json.loads(line)) async for line in first] == [["error"]]
            await it.done("users", "disable", ANA)
            assert [list(json.loads(line)) async for line in second] == [["error"]]
        assert (await it.chat(key)).status_code == 401
        for seen in upstream.inference:
            await seen.client_left.wait()
        await it.done("users", "enable", ANA)
        assert (await it.chat(key)).status_code == 200
        states = [row["state"] for row in await it.json("audit", "search", f"user:{ANA}")]
        assert states == ["ok", "user_disabled", "cancelled_by_admin"]

        await it.done("limits", "set", ANA, "--requests-per-minute", "4")
        assert [(await it.chat(key)).status_code for _ in range(2)] == [200, 429]
        await it.done("limits", "set", ANA, "--requests-per-minute", "unlimited")
        assert (await it.chat(key)).status_code == 200
        await it.done("limits", "set", ANA, "--concurrency", "1")
        gate = asyncio.Event()
        upstream.next(stall_before_headers(gate))
        asking = [asyncio.ensure_future(it.chat(key)) for _ in range(2)]

        async def one_waits() -> bool:
            status = await it.json("status")
            return bool((status["running"], status["queued"]) == (1, 1))

        await until(one_waits, timeout=20)
        gate.set()
        assert [(await answer).status_code for answer in asking] == [200, 200]


async def test_the_daemon_tells_how_it_is(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """status, upstreams, models, doctor, selftest: of a running daemon, and of one whose upstream is gone."""
    upstream.words = words_of(3)
    async with installation(tmp_path / "data", upstream) as it:
        status = await it.json("status")
        assert (status["addresses"], status["pid"]) == ([it.daemon.url], it.daemon.process.pid)
        assert status["default_model"] == "smollm2:135m"
        (row,) = await it.json("upstreams", "list")
        assert (row["name"], row["url"], row["seats"], row["state"]) == ("ollama", upstream.url, 2, "ok")
        assert [model["name"] for model in await it.json("models", "list")] == ["smollm2:135m"]
        assert not [finding for finding in await it.json("doctor") if finding["severity"] == "error"]
        steps = await it.json("selftest")
        assert all(step["ok"] for step in steps), steps
        assert "stream a chat" in [step["step"] for step in steps]

        await upstream.stop()
        broken = await it.cli("doctor")
        assert broken.code == 1
        assert upstream.url in broken.out
        assert (await it.cli("selftest")).code == 1
        assert (await it.http.get(it.daemon.url + "/health")).status_code == 200
        assert await it.daemon.stop() == 0
        assert (await it.cli("status")).code == 3, "who is not there cannot be reached"
        await upstream.start()
