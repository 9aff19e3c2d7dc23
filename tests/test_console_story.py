"""The lodge end to end: one console in one terminal (tmux), a daemon of its own process, from an empty installation.

What the administrator does is typed; what came of it is read from the terminal, from the clients and from the disk.
"""

from __future__ import annotations

import asyncio
import csv
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rigs.console import Terminal, gatelodge, has_tmux
from tests.rigs.process import DaemonProcess, daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after
from tests.rigs.upstream_shapes import words_of

pytestmark = pytest.mark.skipif(not has_tmux(), reason="needs tmux")

ANA, PASSWORD = "ana@example.org", "a good password"
PROMPT = "Why is the sky blue in Ulm?"
ASK = {"model": "smollm2:135m", "messages": [{"role": "user", "content": PROMPT}]}


class Seat:
    """The administrator before the terminal, and people before the gate."""

    def __init__(self, terminal: Terminal, data: Path, http: httpx.AsyncClient) -> None:
        self.terminal = terminal
        self.data = data
        self.http = http
        self.url = ""

    async def press(self, *keys: str, sees: str | tuple[str, ...] = ()) -> str:
        """Press keys, then wait until all these words stand there; what stands there."""
        await asyncio.to_thread(self.terminal.press, *keys)
        return await self.terminal.sees(*([sees] if isinstance(sees, str) else sees))

    async def type(self, text: str, *, sees: str | tuple[str, ...] = ()) -> str:
        """Type a text."""
        await asyncio.to_thread(self.terminal.tmux, "send-keys", "-l", text)
        return await self.terminal.sees(*([sees] if isinstance(sees, str) else sees))

    async def loses(self, words: str) -> None:
        """Wait until these words are gone."""

        async def gone() -> bool:
            return words not in await asyncio.to_thread(self.terminal.frame)

        await until(gone, timeout=30, what=f"{words!r} is gone")

    async def post(self, path: str, body: Any, key: str = "") -> httpx.Response:
        """A client's request."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return await self.http.post(self.url + path, json=body, headers=headers)

    async def stream(self, key: str) -> list[str]:
        """The lines of a streamed chat, to its end."""
        headers = {"Authorization": f"Bearer {key}"}
        async with self.http.stream("POST", self.url + "/api/chat", json=ASK, headers=headers) as answer:
            return [line async for line in answer.aiter_lines()]

    @asynccontextmanager
    async def daemon(self, upstream: ScriptedUpstream) -> AsyncIterator[DaemonProcess]:
        """The daemon, while it runs."""
        arguments = ("--ollama", upstream.url, "--seats", "2")
        async with daemon_process(self.data, *arguments) as daemon:
            self.url = (await daemon.listening()).url
            yield daemon


@pytest.mark.timeout(240)
async def test_from_an_empty_installation_by_the_console_alone(tmp_path: Path) -> None:
    """Approve, issue a key, watch the stream, cancel it, lower the limit after a dry run, see the 429, find the
    conversation, export it, disable the user; the daemon killed and started again meanwhile."""
    data = tmp_path / "data"
    socket = data / "gatelodge.sock"
    gate = asyncio.Event()
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(timeout=30) as http:
        with Terminal(gatelodge(socket), tmp_path, size=(100, 30)) as terminal:
            seat = Seat(terminal, data, http)
            await terminal.sees("NO DAEMON", "there is no socket at", "rying again in")
            async with seat.daemon(upstream) as daemon:
                await seat.press("r", sees="● LIVE")
                key = await let_her_in(seat)
                await watch_and_cancel(seat, upstream, gate, key)
                await daemon.kill()
                await terminal.sees("○ STALE", "trying again")
            async with seat.daemon(upstream):
                await seat.press("r", sees="● LIVE")
                terminal.resize(80, 24)
                await seat.loses("STALE")
                await lower_the_limit(seat, key)
                await find_and_export(seat, data)
                await shut_her_out(seat, key)
                await seat.press("q", sees="left with 0")
    gate.set()


async def let_her_in(seat: Seat) -> str:
    """Registration, approval, a key with the secret shown once; the secret."""
    code = (await seat.post("/auth/register", {"email": ANA, "password": PASSWORD})).json()["code"]
    await seat.terminal.sees("2 Users(1)")
    await seat.press("2", sees=(code, "pending", "127.0.0.1"))
    await seat.press("a", sees=(f"Let {ANA} in (code {code}", "[y] yes"))
    await seat.press("y", sees=f"{ANA} is approved")
    await seat.loses("pending")
    await seat.press("/", sees="/")
    await seat.type("ana", sees="1 of ")
    await seat.press("Enter", sees="q Quit")
    await seat.press("i", sees=("For the user", ANA))
    await seat.type("laptop", sees="laptop")
    frame = await seat.press("Enter", sees=("Shown this once", "glk_"))
    (secret,) = set(re.findall(r"glk_\w+", frame))
    await seat.press("Escape", sees="is issued to")
    return secret


async def watch_and_cancel(seat: Seat, upstream: ScriptedUpstream, gate: asyncio.Event, key: str) -> None:
    """A row appears; its answer is seen as it grows; `c` `y`; the client is told and the upstream is free."""
    upstream.next(stall_after(3, gate))
    client = asyncio.create_task(seat.stream(key))
    await seat.press("1", sees=(ANA, "1 of 1"))
    await seat.press("Enter", sees=(PROMPT, "ANSWER", words_of(3)[0].strip(), "laptop"))
    await seat.press("Escape", sees="sort ELAPSED")
    await seat.press("c", sees=(f"of {ANA}", "[y] yes"))
    await seat.press("y", sees="is cancelled")
    lines = await client
    assert "cancelled" in lines[-1], lines
    await asyncio.wait_for(upstream.inference[-1].client_left.wait(), 20)


async def lower_the_limit(seat: Seat, key: str) -> None:
    """From the user to the limits; a dry run over what was recorded; then it holds, and the head counts the 429."""
    await seat.press("2", sees="[2 Users")
    await seat.press("l", sees=("[7 Limits]", f"user:{ANA}"))
    for _ in range(2):
        assert (await seat.post("/api/chat", ASK | {"stream": False}, key)).status_code == 200
    await seat.press("e", sees=(f"Limits of user:{ANA}", "requests/minute"))
    await seat.type("1", sees="→ 1")
    frame = await seat.press("Enter", sees=(f"Change the limits of user:{ANA}?", "requests refused", "[y] apply"))
    assert re.search(r"[12] of 3 requests refused", frame), frame
    await seat.press("y", sees="the next request is under them")
    statuses = [(await seat.post("/api/chat", ASK | {"stream": False}, key)).status_code for _ in range(3)]
    assert statuses.count(429) >= 2, statuses
    await seat.terminal.sees(f"429 {statuses.count(429)}/m")


async def find_and_export(seat: Seat, data: Path) -> None:
    """A search on the daemon, the conversation as text, and all of hers as a CSV that the daemon wrote."""
    await seat.press("6", sees="[6 Audit]")
    await seat.press("/", sees="Enter sea")
    await seat.type(f"user:{ANA} text:Ulm", sees="text:Ulm")
    await seat.press("Enter", sees="found · user:")
    await seat.terminal.sees("Why is")
    await seat.press("G")
    await seat.press("Enter", sees=(PROMPT, "cancelled_by_admin", "RECORD"))
    await seat.press("Escape", sees="found · user:")
    await seat.press("Escape", sees="everything, newest first")
    await seat.press("/", sees="Enter sea")
    await seat.type(f"user:{ANA}", sees=f"/user:{ANA}")
    await seat.press("Enter", sees=f"found · user:{ANA}")
    await seat.press("e", sees=("Export exchanges", "Format"))
    await seat.press("Enter", sees="job 1 exports")
    await seat.press("8", sees=("[8 Jobs]", "done", "export"))
    (file,) = (data / "exports").glob("*.csv")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["prompt"] for row in rows if PROMPT in row["prompt"]], rows


async def shut_her_out(seat: Seat, key: str) -> None:
    """Disabled: her key is worth nothing."""
    await seat.press("2", sees=("[2 Users", ANA))
    await seat.press("d", sees=(f"Disable {ANA}?", "[y] yes"))
    await seat.press("y", sees=f"{ANA} is disabled")
    assert (await seat.post("/api/chat", ASK | {"stream": False}, key)).status_code in (401, 403)


async def test_the_place_is_kept_while_the_daemon_is_away(tmp_path: Path) -> None:
    """Page and filter are as before when the daemon is back; while it is away nothing is changed, nor asked about."""
    data = tmp_path / "data"
    async with ScriptedUpstream() as upstream, httpx.AsyncClient(timeout=30) as http:
        with Terminal(gatelodge(data / "gatelodge.sock"), tmp_path, size=(80, 24)) as terminal:
            seat = Seat(terminal, data, http)
            async with seat.daemon(upstream) as daemon:
                await terminal.sees("● LIVE")
                await seat.press("2", sees="[2 Users")
                await seat.press("/")
                await seat.type("service", sees="filter 'service'")
                await seat.press("Enter")
                await daemon.kill()
                await terminal.sees("○ STALE", "trying again")
                await seat.press("c", sees="nothing is changed while the daemon is away")
            async with seat.daemon(upstream):
                await seat.press("r", sees=("● LIVE", "[2 Users", "filter 'service'"))
                terminal.resize(160, 50)
                await terminal.sees("● LIVE", "filter 'service'")
                await seat.press("q", sees="left with 0")
