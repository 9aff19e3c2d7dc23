"""What is measured, each in processes of its own: the upstream spoken to directly, nginx, and Gatelodge.

Gatelodge runs as `python -m daemon` on a real disk with everything on that costs: a key checked at each request, all
six limits of its user (too high to be reached), the durable journal. nginx is a plain proxy without buffering, one
worker, pooled connections upstream: the least that a gateway can cost.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from daemon import config as configuration
from daemon.access.actor import Actor
from daemon.app import running
from tests.bench import proc
from tests.rigs.process import ROOT, daemon_process

STREAMS = 500
AT_ONCE = 500  # users or keys that are added at once
_LIMITS = {
    "requests_per_minute": 10**7,
    "requests_per_hour": 10**8,
    "requests_per_day": 10**9,
    "tokens_per_minute": 10**10,
    "tokens_per_day": 10**12,
    "concurrency": 10**5,
}
_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream bench {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_read_timeout 3600s;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Target:
    """Something that listens; `pid` is charged. `started`: seconds from its start until it listened."""

    name: str
    port: int
    pid: int
    key: str = "none"
    started: float = 0.0


@dataclass(frozen=True)
class Cores:
    """Where the gateway runs, and where everything else; None on a machine with one core."""

    gateway: int | None
    others: int | None

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The last two that this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[-1], allowed[-2]) if len(allowed) > 1 else cls(None, None)


def allow_many_sockets() -> None:
    """Two for each stream, in this process and in those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@asynccontextmanager
async def upstream(cores: Cores) -> AsyncIterator[Target]:
    """The upstream, as a target: what an answer costs where nothing stands between."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.upstream"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        _pin(process.pid, cores.others)
        assert process.stdout is not None
        yield Target("upstream", int(await process.stdout.readline()), process.pid)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def gatelodge(
    data: Path,
    behind: Target,
    cores: Cores,
    *,
    users: int = 1,
    keys: int = 1,
    fill: Callable[[Path], None] | None = None,
    program: str = "daemon",
) -> AsyncIterator[Target]:
    """Gatelodge over `behind`, with so many users and keys, the first of which is the target's.

    `fill` is given the database before the daemon starts; `program` is the module that becomes the daemon.
    """
    url = f"http://127.0.0.1:{behind.port}"
    key = await _key_in(data, url, users, keys)
    if fill is not None:
        await asyncio.to_thread(fill, paths.database_file(data))
    wide = {"GATELODGE_SERVER__CONNECTIONS_PER_ADDRESS": str(2 * STREAMS)}
    named = "\n".join(
        f'[[upstreams]]\nname = "{each["name"]}"\nkind = "{each["kind"]}"\nurl = "{url}"\nseats = {each["seats"]}\n'
        for each in _upstreams(url)
    )
    file = data.with_suffix(".toml")
    file.write_text(named, encoding="utf-8")
    since = time.monotonic()
    async with daemon_process(data, "--config", str(file), program=program, **wide) as daemon:
        _pin(daemon.process.pid, cores.gateway)
        await daemon.listening()
        took = time.monotonic() - since
        yield Target("gatelodge", int(daemon.url.rpartition(":")[2]), daemon.process.pid, key, took)
        if program != "daemon":
            await daemon.stop()  # it has something to write at its end


@asynccontextmanager
async def nginx(folder: Path, behind: Target, cores: Cores, port: int) -> AsyncIterator[Target]:
    """nginx over `behind`."""
    binary = nginx_binary()
    assert binary is not None
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, upstream=behind.port, port=port))
    process = await asyncio.create_subprocess_exec(
        *(binary, "-c", str(file), "-p", str(folder)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        _pin(process.pid, cores.gateway)
        await _accepting(port)
        yield Target("nginx", port, process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def nginx_binary() -> str | None:
    """nginx's program, where it is installed; `NGINX` names one elsewhere."""
    return os.environ.get("NGINX") or shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def _upstreams(url: str) -> list[dict[str, Any]]:
    """The one upstream as both kinds that it is."""
    return [{"name": kind, "kind": kind, "url": url, "seats": 2 * STREAMS} for kind in ("ollama", "openai")]


async def _key_in(data: Path, url: str, users: int, keys: int) -> str:
    """The first key of so many, of so many users, in a data folder that is made for them."""
    flags = {
        "storage.data": str(data),
        "storage.min_free": 0,
        "storage.ballast": 0,
        "server.port": 0,
        "upstreams": _upstreams(url),
        "limits": _LIMITS,
    }
    actor = Actor(uid=os.geteuid(), name="bench", via="start")
    async with running(configuration.load(environment={}, flags=flags)) as house:
        user, _ = await house.directory.add_user(actor, "bench@example.org", service=True)
        _, key = await house.directory.issue_key(actor, user.id, "bench")
        ids = [user.id]
        for start in range(1, users, AT_ONCE):
            emails = [f"user{number}@example.org" for number in range(start, min(start + AT_ONCE, users))]
            added = await asyncio.gather(*(house.directory.add_user(actor, each, service=True) for each in emails))
            ids += [each.id for each, _ in added]
        for start in range(1, keys, AT_ONCE):
            of = [ids[number % len(ids)] for number in range(start, min(start + AT_ONCE, keys))]
            await asyncio.gather(*(house.directory.issue_key(actor, each, "notebook") for each in of))
    return key


async def _accepting(port: int) -> None:
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    raise AssertionError(f"nothing listens on port {port}")


def _pin(pid: int, core: int | None) -> None:
    """Keep a process, and what it will start, on one core; its threads that run already, too."""
    if core is not None:
        for each in proc.tree(pid):
            for task in Path(f"/proc/{each}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})
