"""The administrator's office: a whole daemon, and its admin socket as the console and curl reach it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from click.testing import CliRunner, Result

from common import paths
from common.protocol import Request, Verb
from console.__main__ import cli
from console.client import Client, Refused
from tests.rigs.gatehouse import MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


class Office:
    """A running daemon and its admin socket, as the console reaches it."""

    def __init__(self, gate: Gatehouse) -> None:
        self.gate = gate
        self.socket = paths.admin_socket(gate.data, {})
        self.client = Client(self.socket, timeout=20)

    async def ask(self, verb: Verb[Q, A], request: Q) -> A:
        """In a thread: the client blocks, and the daemon runs in this loop."""
        return await asyncio.to_thread(self.client.ask, verb, request)

    async def items(self, verb: Verb[Q, A], request: Q) -> list[A]:
        """All items of a verb that answers many."""
        return await asyncio.to_thread(lambda: list(self.client.items(verb, request)))

    async def refused(self, verb: Verb[Q, A], request: Q) -> Refused:
        """How the verb is refused."""
        with pytest.raises(Refused) as caught:
            await self.ask(verb, request)
        return caught.value

    async def http(self, method: str, path: str, **more: Any) -> httpx.Response:
        """As curl --unix-socket would."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        async with httpx.AsyncClient(transport=transport, timeout=20) as client:
            return await client.request(method, f"http://gatelodge{path}", **more)

    def recorded(self) -> list[dict[str, Any]]:
        """What administrators did, from the journal."""
        with sqlite3.connect(f"file:{paths.database_file(self.gate.data)}?mode=ro", uri=True) as conn:
            rows = conn.execute("SELECT detail FROM journal WHERE event = 'admin' ORDER BY seq").fetchall()
        conn.close()
        return [json.loads(detail) for (detail,) in rows]

    async def cli(self, *arguments: str, stdin: str | None = None) -> Result:
        """Run the command line against this daemon, in a thread."""
        words = ["--socket", str(self.socket), *arguments]
        return await asyncio.to_thread(CliRunner().invoke, cli, words, input=stdin)

    async def done(self, *arguments: str) -> Result:
        """As `cli`; it must succeed."""
        result = await self.cli(*arguments)
        assert result.exit_code == 0, result.output
        return result

    async def json(self, *arguments: str) -> Any:
        """What the command prints with --json."""
        return json.loads((await self.done(*arguments, "--json")).stdout)


@asynccontextmanager
async def open_office(
    tmp_path: Path, *, models: tuple[str, ...] = (MODEL, "qwen3:4b"), **flags: Any
) -> AsyncIterator[Office]:
    """An office over a scripted upstream; `flags` as for `gatehouse`."""
    async with ScriptedUpstream(models=models) as upstream, gatehouse(tmp_path, upstream, **flags) as gate:
        yield Office(gate)
