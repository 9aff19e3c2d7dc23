"""The bench runs: its shortest form, over a real daemon. No time is judged, here or anywhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

from common.protocol import AuditSearch
from daemon.audit.search import search
from tests.bench import proc
from tests.bench.charges import charge_of
from tests.bench.growth import fill
from tests.bench.load import Client, Result, Spec, chat, connect
from tests.bench.table import FIGURES, any_lost, printed
from tests.bench.targets import Cores, upstream
from tests.rigs.journals import desk_in
from tests.rigs.process import ROOT


async def test_its_shortest_form_measures_the_gateway_beside_the_upstream() -> None:
    """One row, every process of it: upstream, load, a daemon with its key, limits and journal."""
    bench = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench", "--seconds", "0.3", "--only", "first_token"),
        cwd=ROOT,
        env=os.environ | {"NGINX": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = (each.decode() for each in await asyncio.wait_for(bench.communicate(), 50))
    assert bench.returncode == 0, said + complaint
    head, row = (
        next(line for line in said.splitlines() if words in line) for words in ("x upstream", "first token, 20/s, p50")
    )
    assert head.split()[0] == "upstream"
    assert "gatelodge" in head
    assert "<= 2" in row
    assert "Short form" in said, "figures of the short form must not be taken for more"


async def test_an_answer_that_is_not_whole_is_lost_not_fast() -> None:
    """The load believes an answer only with its end; an error, or a connection that breaks, is none."""
    async with upstream(Cores(None, None)) as target:
        spec = Spec(row="", port=target.port, upstream=target.port, key="", cpu_of=target.pid, seconds=0)
        client = await connect(target.port)
        assert await client.ask(chat(spec, chunks=3))
        assert client.chunks == 3
        assert await client.ask(chat(spec, chunks=5, every=0.001, after=0.001))
        assert client.chunks == 5
        assert not await client.ask(b"GET /api/version HTTP/1.1\r\nHost: bench\r\n\r\n")
        broken = client.ask(chat(spec, chunks=10**6, every=0.001))
        client.transport.abort()
        assert not await broken


def test_chunks_are_counted_wherever_the_reads_cut_them() -> None:
    """The load reads the same answer byte by byte."""
    client = Client()
    ages = client.ages = []
    for byte in b"HTTP/1.1 200 OK\r\n\r\n" + b'{"message":{"content":"12"},"done":false}\n' * 3:
        client.data_received(bytes([byte]))
    assert client.chunks == len(ages) == 3


def test_what_was_lost_is_seen() -> None:
    """One lost answer anywhere makes the bench's exit code 1."""
    whole, short = {"gatelodge": {"streams": [Result(units=1)]}}, {"gatelodge": {"streams": [Result(), Result(lost=1)]}}
    assert not any_lost(whole)
    assert any_lost(short)


def test_the_table_holds_medians_ratios_and_what_was_added() -> None:
    """Three rounds of two targets, and of nginx beside them."""

    def rounds(cpus: tuple[float, ...], age: float) -> dict[str, list[Result]]:
        return {
            "requests": [Result(units=1000, seconds=1, cpu=cpu) for cpu in cpus],
            "first_token": [Result(units=1, ages=[age])] * 3,
        }

    table = printed(
        FIGURES,
        {
            "upstream": rounds((0.01, 0.01, 0.01), 0.001),
            "nginx": rounds((0.02, 0.02, 0.02), 0.0015),
            "gatelodge": rounds((0.1, 0.9, 0.2), 0.004),
        },
        streams=500,
    ).splitlines()
    assert table[0].split() == ["upstream", "nginx", "gatelodge", "x", "nginx", "x", "upstream", "demand", "aim"]
    (cpu,) = (line for line in table if line.startswith("CPU per small request, 64 at once, us"))
    assert cpu.split()[8:13] == ["10.0", "20.0", "200.0", "10.0", "20.0"]
    (first,) = (line for line in table if "p50" in line and "first token" in line)
    assert first.split()[-6:-3] == ["0.50", "3.00", "<="]
    assert not any("chunk" in line for line in table), "what was not measured has no row"


def test_cpu_and_memory_are_those_of_the_whole_tree() -> None:
    """A child's work counts while it runs and after it ended."""
    before = proc.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(4_000_000))"], check=True)
    assert proc.cpu_seconds(os.getpid()) - before >= 0.02
    assert proc.memory(os.getpid()) > 10


async def test_a_filled_journal_is_a_whole_one(tmp_path: Path) -> None:
    """What the bench stores to measure with is chained, closed and found as if it had been served."""
    async with desk_in(tmp_path) as desk:
        fill(desk.path, 20)
        report = await desk.journal.verify()
        assert (report.intact, report.records) == (True, 40)
        async with aclosing(search(desk.database, AuditSearch(), now_us=desk.clock.wall())) as rows:
            assert [row.state async for row in rows] == ["ok"] * 20


def test_what_a_module_spends_is_charged_to_its_part() -> None:
    """Ours by the part of the house, another's by whom it works for; nobody's to whoever called it."""
    site = "/somewhere/lib/python3.11/site-packages"
    assert charge_of(f"{ROOT}/daemon/traffic/windows.py") == "limits and line"
    assert charge_of(f"{ROOT}/daemon/relay.py") == "relay"
    assert charge_of(f"{site}/tornado/iostream.py") == "client's connection (HTTP)"
    assert charge_of("/usr/lib/python3.11/asyncio/runners.py") == "event loop and sockets"
    assert charge_of("~") == charge_of("/usr/lib/python3.11/hmac.py") == ""
