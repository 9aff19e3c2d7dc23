"""Starts `daemon/audit/reader.py` as a child process, for what would hold the event loop's interpreter too long.

Rule: the question goes in on standard input, so that nothing of it stands in a process list; the answer comes out on
standard output as it is found; leaving the context ends the child, and a child that ends badly is an error, never a
short answer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.errors import GatewayError

READ_AT_ONCE = 64 * 1024
_ROOT = Path(__file__).resolve().parents[2]

Verb = Literal["try", "search", "export", "verify", "write", "check", "plan"]


class ReaderFailed(GatewayError):
    """The child that reads the journal ended before its answer was whole."""

    code = "audit_unreadable"


@asynccontextmanager
async def spawn_reader(verb: Verb, arguments: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
    """The child's standard output. Left normally after its end was read, it raises ReaderFailed where the child ended
    badly; left early, the child is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon.audit.reader", verb,
        stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=_ROOT, limit=READ_AT_ONCE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    try:
        process.stdin.write(msgspec.json.encode({"parent": os.getpid(), **arguments}))
        process.stdin.close()
        yield process.stdout
        if process.stdout.at_eof() and await process.wait() != 0:
            raise ReaderFailed(_last_line(await complaints))
    finally:
        await _end(process)
        await complaints


async def read_chunks(verb: Verb, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """The answer in pieces, as they come."""
    async with spawn_reader(verb, arguments) as output:
        while piece := await output.read(READ_AT_ONCE):
            yield piece


async def read_lines(verb: Verb, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """The answer line by line, without their ends."""
    rest = b""
    async with spawn_reader(verb, arguments) as output:
        while piece := await output.read(READ_AT_ONCE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line


async def _end(process: Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            pass  # it ended between the two lines
    # asyncio's `wait` wants every pipe at its end, and one that is paused because nobody read it never gets there.
    assert process.stdout is not None
    while await process.stdout.read(READ_AT_ONCE):
        pass
    await process.wait()


def _last_line(complaints: bytes) -> str:
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return f"the journal could not be read: {lines[-1] if lines else 'the reader ended without a word'}"
