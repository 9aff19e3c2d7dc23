"""A real journal over a real database, and exchanges to put into it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from daemon.audit.journal import PATIENCE, Journal
from daemon.audit.sealing import Sealer
from daemon.clock import Clock, SystemClock
from daemon.exchange import EndState, Exchange, Usage, new_request_id
from daemon.store.database import Database

ANA = "ana@example.org"
BEN = "ben@example.org"


@dataclass
class Desk:
    """Database and journal of one test, in `folder`."""

    folder: Path
    database: Database
    journal: Journal
    clock: Clock

    @property
    def path(self) -> Path:
        return self.database.path

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets" / "audit"

    def exchange(self, *texts: str, **fields: Any) -> Exchange:
        """As `exchange_of`, received now."""
        return exchange_of(*texts, clock=self.clock, **fields)

    async def converse(self, *texts: str, answer: str = "It scatters.", **fields: Any) -> Exchange:
        """One whole exchange: opened, answered, closed as `ok`."""
        exchange = self.exchange(*texts, **fields)
        await self.journal.opened(exchange)
        await self.end(exchange, EndState.OK, answer)
        return exchange

    async def end(self, exchange: Exchange, state: EndState, answer: str | None = None, error: str = "") -> None:
        """Close `exchange`, with `answer` streamed in pieces of a word each."""
        segments = [] if answer is None else streamed(answer)
        finish(exchange, state, self.clock, error=error)
        exchange.bytes_out = sum(map(len, segments))
        await self.journal.closed(exchange, segments)

    async def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database holds, by SQL of the test's own."""
        return await self.database.read(lambda conn: conn.execute(sql, values).fetchall())


@asynccontextmanager
async def desk_in(
    folder: Path, *, clock: Clock | None = None, patience: float = PATIENCE, users: tuple[str, ...] = (ANA, BEN)
) -> AsyncIterator[Desk]:
    """Open (again) the journal in `folder`, with users 1 and 2."""
    database = await Database.open(folder / "gatelodge.db", clock=clock)
    try:
        await database.write(lambda conn: add_users(conn, users))
        sealer = Sealer.load_or_create(folder / "secrets" / "audit")
        yield Desk(folder, database, Journal(database, database.clock, sealer, patience=patience), database.clock)
    finally:
        await database.close()


def add_users(conn: sqlite3.Connection, emails: tuple[str, ...]) -> None:
    """Users with the numbers 1, 2, …"""
    for id_, email in enumerate(emails, 1):
        conn.execute("INSERT OR IGNORE INTO users (id, email, created_us) VALUES (?, ?, 0)", (id_, email))


def exchange_of(
    *texts: str, clock: Clock | None = None, user_id: int = 1, user: str = ANA, route: str = "/api/chat", **fields: Any
) -> Exchange:
    """An admitted exchange: a chat of `texts`, user and assistant in turn."""
    clock = clock or SystemClock()
    messages = [
        {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts or ("Why blue?",))
    ]
    known: dict[str, Any] = {
        "request_id": new_request_id(),
        "user_id": user_id,
        "user": user,
        "key_id": "k1",
        "session": None,
        "client_label": "notebook",
        "address": "192.0.2.7",
        "user_agent": "curl/8",
        "route": route,
        "model_asked": "llama3.2",
        "model": "llama3.2:latest",
        "upstream": "local",
        "stream": True,
        "document": {"model": "llama3.2", "messages": messages, "stream": True, "options": {"seed": 7}},
        "received": clock.wall(),
        "admitted": clock.wall(),
        "admitted_clock": clock.now(),
    }
    return Exchange(**known | fields)


def finish(exchange: Exchange, state: EndState, clock: Clock, *, error: str = "") -> None:
    """What the relay notes of an end."""
    exchange.state = state
    exchange.error = error
    exchange.sent_upstream = True
    exchange.seated = exchange.first_byte = exchange.ended = clock.wall()
    exchange.usage = Usage(11, 7) if state is EndState.OK else Usage()


def streamed(text: str, *, done: bool = True) -> list[bytes]:
    """`text` as /api/chat streams it, a word a line."""
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    lines = [{"message": {"role": "assistant", "content": word}, "done": False} for word in words]
    if done:
        lines.append({"message": {"role": "assistant", "content": ""}, "done": True, "eval_count": 7})
    return [msgspec.json.encode(line) + b"\n" for line in lines]
