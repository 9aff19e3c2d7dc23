"""kill -9 at any moment: nothing acknowledged is missing, nothing is counted twice, nothing stays open (A4, R3)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import httpx

from common import paths, protocol
from console.client import Client, watch
from tests.rigs.gatehouse import QUESTION, gatehouse
from tests.rigs.process import daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import chunks, stall_after, stall_before_headers

CYCLES = 10
AT_ONCE = 6


async def prepared(tmp_path: Path, upstream: ScriptedUpstream) -> tuple[Path, str]:
    """A data folder with a user, and their key."""
    async with gatehouse(tmp_path, upstream) as gate:
        return gate.data, gate.key


async def test_ten_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Each cycle is killed after a different number of pieces; the journal is checked after the last."""
    async with ScriptedUpstream() as upstream:
        data, key = await prepared(tmp_path, upstream)
        seen_whole: set[str] = set()
        begun: set[str] = set()

        async def ask(url: str, pieces_seen: list[int]) -> None:
            async with httpx.AsyncClient(timeout=20) as http:
                try:
                    async with http.stream(
                        "POST", url + "/api/chat", json=QUESTION, headers={"Authorization": f"Bearer {key}"}
                    ) as answer:
                        begun.add(answer.headers["x-request-id"])
                        async for line in answer.aiter_lines():
                            pieces_seen[0] += 1
                            if json.loads(line).get("done"):
                                seen_whole.add(answer.headers["x-request-id"])
                except httpx.HTTPError:
                    pass  # the daemon was killed under it

        for cycle in range(CYCLES):
            pace = asyncio.Semaphore(0)
            upstream.default = chunks(3, pace=pace)
            pieces_seen = [0]
            async with daemon_process(data, "--ollama", upstream.url, "--seats", "4") as daemon:
                url = (await daemon.listening()).url
                asking = [asyncio.ensure_future(ask(url, pieces_seen)) for _ in range(AT_ONCE)]
                for _ in range(cycle * 3):
                    pace.release()
                # As many pieces as the seated ones can get with that many releases: an end counts as one.
                await until(lambda: pieces_seen[0] >= min(cycle * 3, 4 * AT_ONCE), timeout=20)  # noqa: B023
                await daemon.kill()
                await asyncio.gather(*asking)
        async with daemon_process(data, "--ollama", upstream.url) as daemon:
            await daemon.listening()
            await daemon.stop()

    conn = sqlite3.connect(data / "gatelodge.db")
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    opened = {row[0] for row in conn.execute("SELECT request_id FROM journal WHERE event = 'opened'")}
    ends = conn.execute(
        "SELECT o.request_id, c.state FROM journal o JOIN journal c ON c.opened_seq = o.seq WHERE o.event = 'opened'"
    ).fetchall()
    conn.close()
    assert len(ends) == len(opened), "every opened exchange has exactly one end"
    states = dict(ends)
    assert begun <= opened
    assert {states[request_id] for request_id in seen_whole} <= {"ok"}
    assert seen_whole
    assert "crashed" in states.values()


def counted(data: Path) -> bool:
    """Whether refusals that are still being counted are set down."""
    with closing(sqlite3.connect(f"file:{data}/gatelodge.db?mode=ro", uri=True)) as conn:
        return bool(conn.execute("SELECT SUM(number) FROM refusing").fetchone() == (1,))


async def test_the_window_survives_kill_minus_nine(tmp_path: Path) -> None:
    """R3: the requests of before the kill are in the window after it, the crashed one too; so is who was refused."""
    async with ScriptedUpstream() as upstream:
        async with gatehouse(tmp_path, upstream, limits__requests_per_minute=3) as gate:
            data, key = gate.data, gate.key
        bearer = {"Authorization": f"Bearer {key}"}
        async with daemon_process(data, "--ollama", upstream.url) as daemon, httpx.AsyncClient(timeout=20) as http:
            url = (await daemon.listening()).url
            whole = await http.post(url + "/api/chat", json=QUESTION, headers=bearer)
            assert whole.status_code == 200
            upstream.next(stall_after(1, asyncio.Event()))
            async with http.stream("POST", url + "/api/chat", json=QUESTION, headers=bearer) as cut:
                await anext(cut.aiter_lines())
                crashed = cut.headers["x-request-id"]
                await daemon.kill()
        async with daemon_process(data, "--ollama", upstream.url) as daemon, httpx.AsyncClient(timeout=20) as http:
            url = (await daemon.listening()).url
            statuses = [
                (await http.post(url + "/api/chat", json=QUESTION, headers=bearer)).status_code for _ in range(2)
            ]
            assert statuses == [200, 429]
            await until(lambda: counted(data))
            await daemon.kill()
        async with daemon_process(data, "--ollama", upstream.url) as daemon:
            await daemon.listening()
            client = Client(paths.admin_socket(data, {}), timeout=20)
            used = await asyncio.to_thread(client.ask, protocol.USAGE, protocol.UsageRequest())
            assert (used.total.requests, used.total.refusals) == (3, 1)
            async with aclosing(watch(paths.admin_socket(data, {}))) as messages:
                seen = await anext(each async for each in messages if isinstance(each, protocol.Snapshot))
            assert seen.totals.refused_last_minute == 1, "the head of the console agrees"
        conn = sqlite3.connect(data / "gatelodge.db")
        state = conn.execute(
            "SELECT c.state FROM journal o JOIN journal c ON c.opened_seq = o.seq WHERE o.request_id = ?", (crashed,)
        ).fetchone()
        conn.close()
        assert state == ("crashed",)


async def test_stopping_ends_running_streams_explicitly(tmp_path: Path) -> None:
    """SIGINT in mid-stream: the client gets an error line, the record says shutdown, the exit code is 0."""
    import signal

    async with ScriptedUpstream() as upstream:
        data, key = await prepared(tmp_path, upstream)
        upstream.next(stall_after(1, asyncio.Event()))
        async with daemon_process(data, "--ollama", upstream.url) as daemon, httpx.AsyncClient(timeout=20) as http:
            url = (await daemon.listening()).url
            async with http.stream(
                "POST", url + "/api/chat", json=QUESTION, headers={"Authorization": f"Bearer {key}"}
            ) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                stopping = asyncio.ensure_future(daemon.stop(signal.SIGINT))
                rest = [json.loads(line) async for line in lines]
            assert list(rest[-1]) == ["error"]
            assert await stopping == 0
        conn = sqlite3.connect(data / "gatelodge.db")
        assert conn.execute("SELECT state FROM journal WHERE event = 'closed'").fetchall() == [("shutdown",)]
        conn.close()


async def test_stopping_before_the_first_byte_is_503_and_says_when_to_come_again(tmp_path: Path) -> None:
    """In prefill or in line: nothing was answered, so the status tells it, with Retry-After."""
    import signal

    async with ScriptedUpstream() as upstream:
        data, key = await prepared(tmp_path, upstream)
        upstream.next(stall_before_headers(asyncio.Event()))
        bearer = {"Authorization": f"Bearer {key}"}
        async with daemon_process(data, "--ollama", upstream.url) as daemon, httpx.AsyncClient(timeout=20) as http:
            url = (await daemon.listening()).url

            async def places() -> list[int | None]:
                return [row["position"] for row in (await http.get(url + "/v1/queue", headers=bearer)).json()]

            asking = [
                asyncio.ensure_future(http.post(url + "/api/chat", json=QUESTION, headers=bearer)) for _ in range(2)
            ]

            async def one_runs_one_waits() -> bool:
                return bool(upstream.inference) and sorted(map(str, await places())) == ["1", "None"]

            await until(one_runs_one_waits)
            assert await daemon.stop(signal.SIGINT) == 0
            for answer in await asyncio.gather(*asking):
                assert (answer.status_code, answer.json()["code"]) == (503, "shutdown")
                assert int(answer.headers["retry-after"]) >= 1
