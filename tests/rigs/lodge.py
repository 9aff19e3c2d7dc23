"""Identity without a gate: the real store, directory, sessions and accounts, on a clock that tests move.

async with lodge(tmp_path) as it:
    ana = await it.person("ana@example.org", "a good password")
    issued = await it.accounts.login("ana@example.org", "a good password", "10.0.0.1")
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from tornado.httputil import HTTPHeaders
from tornado.web import Application

from daemon import config as configuration
from daemon.access.accounts import Accounts
from daemon.access.actor import Actor
from daemon.access.directory import Change, Cut, Directory, User
from daemon.access.identity import Access, Caller
from daemon.access.passwords import PasswordPool
from daemon.access.sessions import Sessions
from daemon.config import Config, Passwords
from daemon.metrics import Metrics
from daemon.store.database import Database
from daemon.traffic.windows import AddressBound
from daemon.web import accounts, own_keys, tokens
from daemon.web.base import UnknownRoute
from daemon.web.server import GateServer, listen
from tests.rigs.traffic import MovedClock

ADMIN = Actor(uid=0, name="root", via="socket")
SECOND = 1_000_000
HERE = "10.0.0.1"


@dataclass
class Lodge:
    """The parts, and every event that the directory told."""

    clock: MovedClock
    database: Database
    passwords: PasswordPool
    directory: Directory
    sessions: Sessions
    accounts: Accounts
    access: Access
    data: Path
    config: Config
    events: list[Change | Cut] = field(default_factory=list)

    @property
    def cuts(self) -> list[Cut]:
        return [event for event in self.events if isinstance(event, Cut)]

    async def person(self, email: str, password: str) -> User:
        """An active user with a password of their own."""
        user, one_time = await self.directory.add_user(ADMIN, email)
        assert one_time is not None
        await self.accounts.change_password(email, one_time, password, HERE)
        return self.directory.users[user.id]

    def bearer(self, credential: str, address: str = HERE, **more: Any) -> Caller:
        """Who `Authorization: Bearer credential` is taken for."""
        return self.access.identify(HTTPHeaders({"Authorization": f"Bearer {credential}"}), address=address, **more)

    async def audit(self) -> list[dict[str, Any]]:
        """The records of changes, oldest first."""

        def read(conn: sqlite3.Connection) -> list[dict[str, Any]]:
            rows = conn.execute("SELECT detail FROM journal WHERE event = 'admin' ORDER BY seq")
            return [json.loads(row[0]) for row in rows]

        return await self.database.read(read)

    async def query(self, sql: str, *values: Any) -> list[Any]:
        """Rows of the store as it is."""
        return await self.database.read(lambda conn: conn.execute(sql, values).fetchall())


@asynccontextmanager
async def lodge(
    tmp_path: Path, *, clock: MovedClock | None = None, cost: Passwords | None = None, **flags: Any
) -> AsyncIterator[Lodge]:
    """The parts over the store in `tmp_path`; `flags` are dotted configuration keys with `__` for the dot.

    `cost` of password hashes, where a test may have less than the configuration allows.
    """
    given = {key.replace("__", "."): value for key, value in flags.items()}
    config = configuration.load(environment={}, flags={"storage.data": str(tmp_path)} | given)
    clock = clock or MovedClock()
    database = await Database.open(tmp_path / "gatelodge.db", clock=clock)
    passwords = PasswordPool(cost or config.passwords)
    directory = await Directory.load(database, clock, passwords)
    sessions = await Sessions.load(database, clock, directory, config, tmp_path / "secrets")
    accounts = Accounts(
        database,
        clock,
        directory=directory,
        sessions=sessions,
        passwords=passwords,
        registration=config.registration,
    )
    await accounts.take_up()
    access = Access(directory, sessions, clock)
    it = Lodge(clock, database, passwords, directory, sessions, accounts, access, tmp_path, config)
    directory.listeners.append(it.events.append)
    try:
        yield it
    finally:
        await sessions.close()
        await directory.close()
        passwords.close()
        await database.close()


@asynccontextmanager
async def served(it: Lodge) -> AsyncIterator[httpx.AsyncClient]:
    """The lodge's own routes on the gate's own server, and an independent client of it."""
    house = SimpleNamespace(
        config=it.config,
        clock=it.clock,
        directory=it.directory,
        sessions=it.sessions,
        accounts=it.accounts,
        access=it.access,
        metrics=Metrics(),
        admission=SimpleNamespace(address_bound=AddressBound(it.clock, max_requests=100_000)),
        stopping=False,
        trusted_proxies=[ip_network(text) for text in it.config.server.trusted_proxies],
        begin_answer=lambda: None,
        end_answer=lambda: None,
    )
    served = (*accounts.ROUTES, *own_keys.ROUTES, *tokens.ROUTES)
    routes = [(pattern, handler, {"house": house}) for pattern, handler in served]
    face = Application(routes, default_handler_class=UnknownRoute, default_handler_args={"house": house})
    server = GateServer(face, config=it.config)
    port = listen(server, "127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            yield http
    finally:
        server.stop()
        await server.close_all_connections()
