"""Nothing left: no file descriptors, no memory for a body, a log that nobody reads. What runs goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import sqlite3
from pathlib import Path

import httpx
import pytest

from daemon import descriptors
from daemon.descriptors import Accepting, raise_limit
from daemon.providers.errors import OutOfDescriptors
from daemon.providers.http import Pool
from tests.rigs.gatehouse import MODEL, QUESTION, RawClient, gatehouse
from tests.rigs.process import daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import holds, until
from tests.rigs.upstream_behaviours import chunks

FEW = 128  # descriptors


async def test_without_descriptors_what_runs_goes_on_and_newcomers_wait(tmp_path: Path) -> None:
    """A crowd of idle connections takes what clients may have, and no more: the stream runs, whoever is in is served,
    the socket answers; the log says so once. When the crowd is gone, who waited is served."""
    async with ScriptedUpstream() as upstream:
        async with gatehouse(tmp_path, upstream) as gate:
            data, key = gate.data, gate.key
        pace = asyncio.Semaphore(1)
        upstream.next(chunks(3, pace=pace))
        bearer = {"Authorization": f"Bearer {key}"}
        async with (
            daemon_process(data, "--ollama", upstream.url, "--seats", "4", before=f"ulimit -n {FEW}") as daemon,
            httpx.AsyncClient(timeout=20, headers=bearer) as inside,
            httpx.AsyncClient(timeout=20, headers=bearer) as late,
        ):
            url = (await daemon.listening()).url
            assert (await inside.get(f"{url}/health")).status_code == 200
            async with inside.stream("POST", f"{url}/api/chat", json=QUESTION) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                assert (await inside.get(f"{url}/health")).status_code == 200
                port = int(url.rpartition(":")[2])
                crowd = [await RawClient.connect(port) for _ in range(FEW)]
                await until(lambda: daemon.said("no file descriptor is left"))
                waiting = asyncio.ensure_future(late.post(f"{url}/api/chat", json=QUESTION | {"stream": False}))
                for _ in range(3):
                    served = await inside.post(f"{url}/api/chat", json=QUESTION | {"stream": False})
                    assert served.status_code == 200
                assert not waiting.done()
                _, over_the_socket = await asyncio.open_unix_connection(data / "gatelodge.sock")
                over_the_socket.close()
                assert len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) <= FEW - FEW // 8 + 8
                for _ in range(3):
                    pace.release()
                assert json.loads([line async for line in lines][-1])["done"] is True
                for one in crowd:
                    one.close()
                assert (await waiting).status_code == 200
            await until(lambda: daemon.said("file descriptors are free again"))
            assert len(daemon.said("no file descriptor is left")) == 1
            assert await daemon.stop() == 0


class Listening:
    """A listening socket that is always readable and gives nothing away."""

    def __init__(self, real: socket.socket, error: int) -> None:
        self.real = real
        self.error = error
        self.asked = 0

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self.real.accept()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_an_accept_loop_without_descriptors_does_not_spin(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Somebody waits at the door all the time: it is looked at once a pause, not at every turn; later it opens."""
    monkeypatch.setattr(descriptors, "PAUSE", 600.0)
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as real:
        real.setblocking(False)
        listening = Listening(real, error)
        accepting = Accepting(listening, lambda connection, _: taken.append(connection))  # type: ignore[arg-type]
        with socket.create_connection(real.getsockname()):
            await until(lambda: listening.asked)
            await holds(lambda: listening.asked == 1)
            listening.error = 0
            accepting._look_again()
            await until(lambda: taken)
        accepting.stop()
        taken[0].close()


async def test_at_the_ceiling_one_is_the_last_until_others_are_free() -> None:
    """However often it looks: a connection a look would eat what is kept for those inside."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as real:
        real.setblocking(False)
        accepting = Accepting(real, lambda connection, _: taken.append(connection), ceiling=3)
        with socket.create_connection(real.getsockname()), socket.create_connection(real.getsockname()):
            await until(lambda: taken)
            for _ in range(5):
                accepting._look_again()
                await holds(lambda: len(taken) == 1, turns=3)
            accepting._ceiling = descriptors.NO_CEILING
            accepting._look_again()
            await until(lambda: len(taken) == 2)
        accepting.stop()
        for each in taken:
            each.close()


async def test_a_connection_that_was_lost_on_the_way_is_passed_over() -> None:
    """accept(2): pending network errors of the new socket say nothing about the listening one."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as real:
        real.setblocking(False)
        listening = Listening(real, errno.EPROTO)
        accepting = Accepting(listening, lambda connection, _: taken.append(connection))  # type: ignore[arg-type]
        with socket.create_connection(real.getsockname()):
            await until(lambda: listening.asked)
            listening.error = 0
            await until(lambda: taken)
        accepting.stop()
        taken[0].close()


async def test_who_stops_while_it_pauses_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause ends with it."""
    monkeypatch.setattr(descriptors, "PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as real:
        real.setblocking(False)
        listening = Listening(real, errno.EMFILE)
        accepting = Accepting(listening, lambda *_: None)  # type: ignore[arg-type]
        with socket.create_connection(real.getsockname()):
            await until(lambda: listening.asked)
            accepting.stop()
            asked = listening.asked
            await holds(lambda: listening.asked == asked)


async def test_an_upstream_is_not_down_because_we_have_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 of ours with Retry-After, and nothing is told of the upstream."""
    told: list[object] = []
    pool = Pool("http://127.0.0.1:1", outcome=told.append)

    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
    with pytest.raises(OutOfDescriptors) as raised:
        async with pool.request("GET", "/"):
            pass
    assert (raised.value.status, raised.value.retry_after, told) == (503, 5, [])
    await pool.close()


def test_the_soft_limit_is_raised_towards_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd and shells give a soft limit of 1,024; never beyond the hard one, nor to a number beyond reason."""
    for before, after in (
        ((1024, 524_288), 65_536),
        ((256, 4096), 4096),
        ((100_000, 524_288), 100_000),
        ((1024, resource.RLIM_INFINITY), 65_536),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY),
    ):
        now = [before]
        monkeypatch.setattr(resource, "getrlimit", lambda _, now=now: now[-1])
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits, now=now: now.append(limits))
        assert raise_limit() == after
        assert now[-1] == (after, before[1])


async def test_without_memory_for_a_body_the_answer_is_503_and_the_daemon_lives(tmp_path: Path) -> None:
    """RLIMIT_AS a little above what it has: a large body does not fit, nothing of it is recorded; small ones are."""
    async with ScriptedUpstream() as upstream:
        async with gatehouse(tmp_path, upstream) as gate:
            data, key = gate.data, gate.key
        bearer = {"Authorization": f"Bearer {key}"}
        small = QUESTION | {"stream": False}
        large = b'{"model":"%b","stream":false,"prompt":"%b"}' % (MODEL.encode(), b"x" * (30 * 1024 * 1024))
        async with (
            daemon_process(data, "--ollama", upstream.url) as daemon,
            httpx.AsyncClient(timeout=30, headers=bearer) as http,
        ):
            url = (await daemon.listening()).url
            assert (await http.post(f"{url}/api/chat", json=small)).status_code == 200
            room = size_of(daemon.process.pid) + 44 * 1024 * 1024
            resource.prlimit(daemon.process.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
            for _ in range(3):
                refused = await http.post(f"{url}/api/generate", content=large)
                assert refused.status_code == 503, refused.text
                assert refused.json()["code"] == "busy"
                assert "too little memory" in refused.json()["error"]
                assert int(refused.headers["retry-after"]) >= 1
                assert (await http.post(f"{url}/api/chat", json=small)).status_code == 200
            resource.prlimit(daemon.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            assert (await http.post(f"{url}/api/generate", content=large)).status_code == 200
            assert await daemon.stop() == 0
    conn = sqlite3.connect(data / "gatelodge.db")
    events = conn.execute("SELECT event, count(*) FROM journal WHERE event != 'admin' GROUP BY event").fetchall()
    conn.close()
    assert dict(events) == {"opened": 5, "closed": 5}


def size_of(pid: int) -> int:
    """Bytes of address space of a process."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
