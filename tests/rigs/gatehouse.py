"""A whole daemon in the test's own event loop: real database, real sockets on port 0, a scripted upstream behind it.

    async with gatehouse(tmp_path, upstream) as gate:
        answer = await gate.post("/api/chat", {"model": …}, key=gate.key)

`Gatehouse.http` is an independent client (httpx); `RawClient` is for what no well-behaved client would send.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from common.protocol import AuditExchange, AuditRow, AuditSearch
from daemon import config as configuration
from daemon.access.actor import Actor
from daemon.access.directory import Key, User
from daemon.app import running
from daemon.audit.search import search, show
from daemon.house import House
from tests.rigs.scripted_upstream import ScriptedUpstream

ADMIN = Actor(uid=0, name="root", via="socket")
MODEL = "smollm2:135m"
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}]}


@dataclass
class Gatehouse:
    """A running daemon, with a user `ana` and her key."""

    house: House
    upstream: ScriptedUpstream
    user: User
    key: str
    http: httpx.AsyncClient
    data: Path
    keys: dict[str, Key] = field(default_factory=dict)

    @property
    def url(self) -> str:
        host, port, tls = self.house.addresses[0]
        return f"{'https' if tls else 'http'}://{host}:{port}"

    @property
    def port(self) -> int:
        return self.house.addresses[0][1]

    def bearer(self, key: str | None = None) -> dict[str, str]:
        """The header that presents `key` (ana's)."""
        return {"Authorization": f"Bearer {key or self.key}"}

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **more: Any) -> httpx.Response:
        """POST JSON with a key (ana's)."""
        headers = self.bearer(key) | more.pop("headers", {})
        content = body if isinstance(body, bytes) else json.dumps(body)
        return await self.http.post(self.url + path, content=content, headers=headers, **more)

    async def get(self, path: str, *, key: str | None = None, **more: Any) -> httpx.Response:
        """GET with a key (ana's)."""
        return await self.http.get(self.url + path, headers=self.bearer(key) | more.pop("headers", {}), **more)

    async def chat(self, *, stream: bool = False, key: str | None = None, **more: Any) -> httpx.Response:
        """A small chat."""
        return await self.post("/api/chat", QUESTION | {"stream": stream} | more, key=key)

    async def member(self, email: str, role: str = "user", **key: Any) -> tuple[User, str]:
        """A further user with a key."""
        user, _ = await self.house.directory.add_user(ADMIN, email, role=role, service=True)
        issued, secret = await self.house.directory.issue_key(ADMIN, user.id, label=key.pop("label", "test"), **key)
        self.keys[secret] = issued
        return user, secret

    async def audit(self, request_id: str) -> AuditExchange:
        """The whole record of an exchange."""
        return await show(self.house.database, request_id)

    async def records(self) -> list[AuditRow]:
        """The recorded exchanges, newest first."""
        question = AuditSearch(limit=1000)
        return [row async for row in search(self.house.database, question, now_us=self.house.clock.wall())]

    async def admin_records(self) -> list[str]:
        """What the journal says of administrators' changes, oldest first."""
        return await self.house.database.read(
            lambda conn: [str(row) for row in conn.execute("SELECT * FROM journal WHERE event = 'admin' ORDER BY seq")]
        )

    @asynccontextmanager
    async def streaming(
        self, path: str = "/api/chat", body: Any = None, *, key: str | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer that is read piece by piece; leaving the context closes the connection."""
        async with httpx.AsyncClient(timeout=20) as alone:
            async with alone.stream(
                "POST", self.url + path, content=json.dumps(body or QUESTION), headers=self.bearer(key)
            ) as response:
                yield response


@asynccontextmanager
async def gatehouse(
    tmp_path: Path, upstream: ScriptedUpstream, *, environment: dict[str, str] | None = None, **flags: Any
) -> AsyncIterator[Gatehouse]:
    """A daemon over `upstream`; `flags` are dotted configuration keys with `__` for the dot."""
    data = tmp_path / "data"
    given = {key.replace("__", "."): value for key, value in flags.items()}
    config = configuration.load(
        environment=environment or {},
        flags={
            "storage.data": str(data),
            "storage.min_free": 0,
            "storage.ballast": 0,
            "server.port": 0,
            "upstreams": [{"name": "up", "kind": upstream.kind, "url": upstream.url, "seats": 2}],
            "limits.requests_per_minute": "unlimited",
        }
        | given,
    )
    async with running(config) as house, httpx.AsyncClient(timeout=20) as http:
        gate = Gatehouse(house, upstream, None, "", http, data)  # type: ignore[arg-type]
        users = [user for user in house.directory.users.values() if user.email == "ana@example.org"]
        if users:
            gate.user = users[0]
            _, gate.key = await house.directory.issue_key(ADMIN, users[0].id, label="again")
        else:
            gate.user, gate.key = await gate.member("ana@example.org")
        yield gate


class RawClient:
    """A bare TCP client that sends what it is told and keeps what it gets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_all(self) -> bytes:
        """Everything until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 20)

    async def read_head(self) -> bytes:
        """The head of an answer."""
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        self.writer.transport.abort()
