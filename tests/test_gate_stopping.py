"""SIGTERM, SIGINT and a second one, a second daemon, and what systemd is told: shown on a daemon of its own process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.rigs.gatehouse import QUESTION, gatehouse
from tests.rigs.process import DaemonProcess, daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import chunks, stall_after


@asynccontextmanager
async def daemon_with_key(
    tmp_path: Path, upstream: ScriptedUpstream, **environment: str
) -> AsyncIterator[tuple[DaemonProcess, httpx.AsyncClient]]:
    """A daemon over a folder with a user, and a client that shows the key."""
    async with gatehouse(tmp_path, upstream) as gate:
        data, key = gate.data, gate.key
    async with daemon_process(data, "--ollama", upstream.url, **environment) as daemon:
        await daemon.listening()
        bearer = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(timeout=20, base_url=daemon.url, headers=bearer) as client:
            yield daemon, client


def ends(tmp_path: Path) -> list[str]:
    """How the recorded exchanges ended."""
    conn = sqlite3.connect(tmp_path / "data" / "gatelodge.db")
    try:
        return [row[0] for row in conn.execute("SELECT state FROM journal WHERE event = 'closed' ORDER BY seq")]
    finally:
        conn.close()


async def test_sigterm_refuses_the_new_and_lets_the_running_end_by_itself(tmp_path: Path) -> None:
    """On a connection of its own the newcomer gets 503 with Retry-After; the stream comes to its `done`."""
    async with ScriptedUpstream() as upstream:
        pace = asyncio.Semaphore(1)
        upstream.next(chunks(3, pace=pace))
        async with daemon_with_key(tmp_path, upstream) as (daemon, client):
            async with client.stream("POST", "/api/chat", json=QUESTION) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                daemon.send(signal.SIGTERM)
                await until(lambda: daemon.said("stopping: SIGTERM; 1 running requests may go on for 20 s"))
                async with httpx.AsyncClient(timeout=20, headers=client.headers) as newcomer:
                    for path in ("/api/chat", "/api/generate"):
                        refused = await newcomer.post(f"{daemon.url}{path}", json=QUESTION)
                        assert (refused.status_code, refused.json()["code"]) == (503, "shutdown")
                        assert int(refused.headers["retry-after"]) >= 1
                    assert (await newcomer.get(f"{daemon.url}/ready")).status_code == 503
                assert len(upstream.inference) == 1
                for _ in range(3):
                    pace.release()
                rest = [json.loads(line) async for line in lines]
            assert rest[-1]["done"] is True
            assert await daemon.stop() == 0
    assert ends(tmp_path) == ["ok"]


async def test_after_the_patience_the_stream_ends_with_an_error_in_it(tmp_path: Path) -> None:
    """`deadlines.shutdown`: the client is told in the stream, the record says shutdown, the exit code is 0."""
    async with ScriptedUpstream() as upstream:
        upstream.next(stall_after(1, asyncio.Event()))
        async with daemon_with_key(tmp_path, upstream, GATELODGE_DEADLINES__SHUTDOWN="0.1") as (daemon, client):
            async with client.stream("POST", "/api/chat", json=QUESTION) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                daemon.send(signal.SIGTERM)
                rest = [json.loads(line) async for line in lines]
            assert rest == [{"error": "the gateway is shutting down"}]
            assert await daemon.process.wait() == 0
    assert ends(tmp_path) == ["shutdown"]


async def test_a_second_signal_ends_at_once_and_still_records(tmp_path: Path) -> None:
    """Whatever the patience was: the stream is told, the end is recorded, the process ends well."""
    async with ScriptedUpstream() as upstream:
        upstream.next(stall_after(1, asyncio.Event()))
        async with daemon_with_key(tmp_path, upstream, GATELODGE_DEADLINES__SHUTDOWN="600") as (daemon, client):
            async with client.stream("POST", "/api/chat", json=QUESTION) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                daemon.send(signal.SIGTERM)
                await until(lambda: daemon.said("may go on for 600 s"))
                daemon.send(signal.SIGHUP)
                daemon.send(signal.SIGINT)
                rest = [json.loads(line) async for line in lines]
            assert rest == [{"error": "the gateway is shutting down"}]
            assert await asyncio.wait_for(daemon.process.wait(), 20) == 0
            await daemon.stop()
            assert daemon.said("stopped")
            assert not daemon.said("the configuration was read again"), "a daemon that stops reads nothing again"
    assert ends(tmp_path) == ["shutdown"]


async def test_systemd_is_told_of_each_step(tmp_path: Path) -> None:
    """sd_notify(3): READY once it serves, RELOADING with the time of it and READY again, STOPPING with its patience."""
    told: list[str] = []
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.setblocking(False)
        asyncio.get_running_loop().add_reader(channel, lambda: told.append(channel.recv(4096).decode()))
        async with ScriptedUpstream() as upstream:
            async with daemon_process(
                tmp_path / "data",
                "--ollama",
                upstream.url,
                NOTIFY_SOCKET=str(address),
                GATELODGE_DEADLINES__SHUTDOWN="7",
            ) as daemon:
                await daemon.listening()
                await until(lambda: told == ["READY=1"])
                daemon.send(signal.SIGHUP)
                await until(lambda: len(told) == 3)
                reloading, since = told[1].split("\n")
                assert (reloading, told[2]) == ("RELOADING=1", "READY=1")
                assert since.startswith("MONOTONIC_USEC=") and int(since.partition("=")[2]) > 0
                assert await daemon.stop() == 0
        asyncio.get_running_loop().remove_reader(channel)
    assert told[3].split("\n") == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=37000000"]
    assert len(told) == 4


async def test_a_second_daemon_on_the_same_data_is_refused_and_told_whose_it_is(tmp_path: Path) -> None:
    """The lock names the process; the first one goes on undisturbed, its socket still its own."""
    async with ScriptedUpstream() as upstream:
        async with daemon_with_key(tmp_path, upstream) as (first, client):
            async with daemon_process(tmp_path / "data", "--ollama", upstream.url) as second:
                assert await asyncio.wait_for(second.process.wait(), 20) == 1
                await until(lambda: second.said(f"process {first.process.pid}, already runs on the data folder"))
            assert (await client.post("/api/chat", json=QUESTION | {"stream": False})).status_code == 200
            assert (tmp_path / "data" / "gatelodge.sock").is_socket()


async def test_the_log_is_no_reason_to_hang_or_to_end(tmp_path: Path) -> None:
    """stderr a full pipe that nobody reads, or closed altogether: requests are served, and a stop is a stop."""
    async with ScriptedUpstream() as upstream:
        async with gatehouse(tmp_path, upstream) as gate:
            data, key = gate.data, gate.key
        for closed in (False, True):
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            try:
                while not closed and os.write(writing, b"x" * 4096):
                    pass
            except BlockingIOError:
                pass
            os.set_blocking(writing, True)
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", 'exec "$@" 2>&- >&-' if closed else 'exec "$@"', "sh"),
                *(sys.executable, "-m", "daemon", "--data", str(data), "--port", str(port)),
                *("--ollama", upstream.url),
                env=os.environ | {"GATELODGE_STORAGE__MIN_FREE": "0", "GATELODGE_STORAGE__BALLAST": "0"},
                stderr=writing,
            )
            try:
                async with httpx.AsyncClient(timeout=20, headers={"Authorization": f"Bearer {key}"}) as client:
                    await until(lambda: _answers(client, port), timeout=30)  # noqa: B023
                    for _ in range(3):
                        url = f"http://127.0.0.1:{port}/api/chat"
                        assert (await client.post(url, json=QUESTION | {"stream": False})).status_code == 200
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 30) == 0
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                os.close(reading)
                os.close(writing)
    assert ends(tmp_path) == ["ok"] * 6


async def _answers(client: httpx.AsyncClient, port: int) -> Any:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
    except httpx.HTTPError:
        return False


async def test_a_terminal_that_is_closed_ends_the_daemon_in_it(tmp_path: Path) -> None:
    """The kernel's SIGHUP of a terminal that hung up means a stop; while the terminal is there it means a reload."""
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *("env", "--default-signal=HUP", "setsid", "--ctty"),  # whoever runs the tests may run them under nohup
        *(sys.executable, "-m", "daemon", "--data", str(tmp_path / "data"), "--port", "0"),
        *("--ollama", "http://127.0.0.1:9"),
        env=os.environ
        | {"GATELODGE_STORAGE__MIN_FREE": "0", "GATELODGE_STORAGE__BALLAST": "0", "GATELODGE_LOG__FORMAT": "json"},
        stdin=theirs,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    daemon = DaemonProcess(process)
    try:
        await daemon.listening()
        daemon.send(signal.SIGHUP)
        await until(lambda: daemon.said("the configuration was read again"))
        os.close(ours)
        await until(lambda: daemon.said("stopping: SIGHUP"))
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        await daemon.kill()


async def test_a_first_start_whose_greeting_nobody_reads_is_a_start(tmp_path: Path) -> None:
    """Standard output a pipe that was left: the key lies in its file, requests are served, a stop ends with 0."""
    reading, writing = os.pipe()
    os.close(reading)
    async with ScriptedUpstream() as upstream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "daemon", "--data", str(tmp_path / "data"), "--port", "0"),
            *("--ollama", upstream.url),
            env=os.environ
            | {"GATELODGE_STORAGE__MIN_FREE": "0", "GATELODGE_STORAGE__BALLAST": "0", "GATELODGE_LOG__FORMAT": "json"},
            stdout=writing,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(writing)
        daemon = DaemonProcess(process)
        try:
            await daemon.listening()
            file = tmp_path / "data" / "first-key"
            await until(lambda: file.exists() and file.read_text().strip())
            key = file.read_text().strip()
            async with httpx.AsyncClient(timeout=20, headers={"Authorization": f"Bearer {key}"}) as client:
                answer = await client.post(f"{daemon.url}/api/chat", json=QUESTION | {"stream": False})
                assert answer.status_code == 200
            assert await daemon.stop() == 0
        finally:
            await daemon.kill()
