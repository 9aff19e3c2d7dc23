"""Plays tests/vectors/smuggling/payloads.json against a gate, alone and behind nginx, and says what became of each.

What a payload is: `tests/rigs/payloads.py`. The verdict is what the
attacker was answered, what the upstream was asked, and what the next client was answered.

    .venv/bin/python -m tests.rigs.smuggling    play all, write the verdicts anew; then read the difference
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.web import bounds
from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.payloads import FILE, KEY_LENGTH, Payload, payloads
from tests.rigs.scripted_upstream import ScriptedUpstream

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
RECORDED_WITH = "nginx/1.22."  # another one answers a few of them otherwise; what must not happen is the same
WAYS = ("alone", "nginx", "nginx unbuffered")

_VICTIM = b"GET /api/version HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"
_CONFIGURATION = """
daemon off; worker_processes 1; pid %(folder)s/pid; error_log %(folder)s/error.log;
events { worker_connections 64; }
http {
    access_log off; client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/f; uwsgi_temp_path %(folder)s/u; scgi_temp_path %(folder)s/s;
    client_header_timeout 300ms; client_body_timeout 300ms; lingering_timeout 100ms; lingering_time 100ms;
    upstream gate { server 127.0.0.1:%(gate)d; keepalive 1; }
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host gate;
    server { listen 127.0.0.1:%(nginx)d; location / { proxy_pass http://gate; } }
    server {
        listen 127.0.0.1:%(nginx unbuffered)d;
        location / { proxy_request_buffering off; proxy_buffering off; proxy_pass http://gate; }
    }
}
"""


def as_recorded(way: str) -> bool:
    """Whether what is played here is what the verdicts were recorded with."""
    if way == "alone" or NGINX is None:
        return way == "alone"
    said = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True)
    return RECORDED_WITH in said.stderr


@dataclass(frozen=True)
class Stage:
    """A gate, and where it is reached by each way."""

    gate: Gatehouse
    ports: dict[str, int]

    async def play(self, payload: Payload, way: str) -> dict[str, Any]:
        """Send it, then let another client ask; the verdict."""
        self.gate.upstream.requests.clear()
        assert len(self.gate.key) == KEY_LENGTH
        said = payload.bytes(self.gate.key)
        answers = await exchange(self.ports[way], said + _VICTIM)
        following = await exchange(self.ports[way], _VICTIM)
        asked = [each.document["messages"][0]["content"] for each in self.gate.upstream.inference]
        return {"answers": statuses(answers, said.startswith(b"HEAD ")), "asked": asked, "next": statuses(following)}


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """A gate that is soon tired of waiting, and nginx before it where that is installed."""
    with _impatient():
        async with ScriptedUpstream() as upstream, gatehouse(folder, upstream) as gate:
            async with _nginx(folder, gate.port) if NGINX else contextlib.nullcontext({}) as ports:
                gate.house.admission.address_bound.admit = lambda _: None  # type: ignore[method-assign]
                yield Stage(gate, {"alone": gate.port, **ports})


async def exchange(port: int, said: bytes) -> bytes:
    """All that comes back for it, until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = asyncio.create_task(_read(reader))
    with contextlib.suppress(ConnectionError):
        writer.write(said)
        await writer.drain()
    try:
        return await asyncio.wait_for(heard, 20)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def statuses(said: bytes, of_head: bool = False) -> list[int]:
    """The statuses of the answers, one after the other, the first of them to a HEAD; 0 for what is not an answer."""
    found: list[int] = []
    while said:
        head, end, rest = said.partition(b"\r\n\r\n")
        first = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        if not first or not end:
            return [*found, 0]
        status = int(first[1])
        if status != 100:
            found.append(status)
            headers = head.lower()
            if of_head and len(found) == 1:
                pass  # as if, but without its body
            elif length := re.search(rb"\r\ncontent-length: (\d+)", headers):
                rest = rest[int(length[1]) :]
            elif b"\r\ntransfer-encoding: chunked" in headers:
                rest = rest.partition(b"0\r\n\r\n")[2]
        said = rest
    return found


async def _read(reader: asyncio.StreamReader) -> bytes:
    heard = b""
    with contextlib.suppress(ConnectionError):  # a reset after the answer takes nothing of it back
        while more := await reader.read(65536):
            heard += more
    return heard


@contextmanager
def _impatient() -> Iterator[None]:
    patience = {"LOOK_EVERY": 0.05, "HEAD_TIMEOUT": 0.3, "BODY_SILENCE": 0.3}
    before = {name: getattr(bounds, name) for name in patience}
    for name, value in patience.items():
        setattr(bounds, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(bounds, name, value)


@asynccontextmanager
async def _nginx(folder: Path, gate: int) -> AsyncIterator[dict[str, int]]:
    ports = {way: _free_port() for way in WAYS[1:]}
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION % {"folder": folder, "gate": gate, **ports})
    assert NGINX is not None
    server = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(folder), "-c", str(configuration), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for port in ports.values():
            await _listening(port, lambda: server.returncode is None)
        yield ports
    finally:
        if server.returncode is None:
            server.terminate()
        await server.wait()


async def _listening(port: int, alive: Callable[[], bool]) -> None:
    for _ in range(500):
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        assert alive(), "nginx ended at once"
        await asyncio.sleep(0.01)
    raise AssertionError("nginx does not listen")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def record() -> None:
    """Play all of them and write what became of each."""
    entries = json.loads(FILE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder)) as played:
            for entry, payload in zip(entries, payloads(), strict=True):
                now = {way: await played.play(payload, way) for way in played.ports}
                entry["verdicts"] = payload.verdicts | now
    lines = ",\n".join(json.dumps(entry, ensure_ascii=True) for entry in entries)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(record())
