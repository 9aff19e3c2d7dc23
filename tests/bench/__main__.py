"""`./run bench`: what Gatelodge costs on this machine, beside the upstream alone and, where installed, nginx.

    ./run bench                      three interleaved rounds of 5 seconds a measurement: a quarter of an hour
    ./run bench --seconds 2          the short form: one round, less of everything; under two minutes, less exact
    ./run bench --only requests      some rows (comma-separated: requests, streams, translated, first_token,
                                     departures, growth, parts)
    ./run bench --profile            what the CPU of a request and of a chunk is charged to, and nothing else
    NGINX=/path/to/nginx ./run bench    with an nginx that is not in the PATH

Everything runs on loopback, in processes of its own: upstream (`upstream.py`), load (`load.py`), targets
(`targets.py`); with two cores the gateway has one to itself. CPU is the target's whole process tree, from /proc. Each
figure is the median of its rounds; in a round every target is measured before the next round begins, so that what else
the machine does hits all alike. Hold the ratios, not the absolute figures: those move with the machine. It is not a
test and no time makes it fail; an answer that is lost does (exit code 1).
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import uvloop

from tests.bench import charges, growth, proc, targets
from tests.bench.load import Result, Spec
from tests.bench.table import FIGURES, IDLE, any_lost, printed
from tests.bench.targets import Cores, Target
from tests.rigs.process import ROOT

SHORT = 5.0  # seconds; what measures shorter than this is the short form
STREAMS = 500
STREAMS_SHORT = 100
PARTS = tuple(f"tests.bench.{name}" for name in ("dialects", "admission", "journal", "logins", "console"))


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    seconds: float
    rounds: int
    streams: int
    rows: frozenset[str]

    def specs(self) -> dict[str, dict[str, float | bool | str]]:
        """The measurements by name; what each tells the load."""
        every: dict[str, dict[str, float | bool | str]] = {
            "requests": {"row": "requests", "whole": True, "connections": 64},
            "requests_streamed": {"row": "requests", "connections": 64},
            "requests_few": {"row": "requests", "whole": True, "connections": 8},
            "streams": {"row": "streams", "streams": 20, "rate": 100.0},
            "streams_many": {"row": "streams", "streams": self.streams, "rate": 20.0},
            "translated_openai": {"row": "streams", "streams": 20, "rate": 100.0, "dialect": "openai"},
            "translated_anthropic": {"row": "streams", "streams": 20, "rate": 100.0, "dialect": "anthropic"},
            "translated_ollama": {"row": "streams", "streams": 20, "rate": 100.0, "at": "openai"},
            "first_token": {"row": "first_token", "rate": 20.0},
            "departures_prefill": {"row": "prefill"},
            "departures_mid_stream": {"row": "mid_stream"},
            "departures_whole": {"row": "whole", "whole": True},
        }
        return {name: spec for name, spec in every.items() if self._wants(name)}

    def _wants(self, name: str) -> bool:
        return not self.rows or any(name.startswith(row) for row in self.rows)

    @property
    def growth(self) -> bool:
        """Whether the cost as work grows is measured, too."""
        return self._wants("growth")

    @property
    def parts(self) -> bool:
        """Whether the micro-benchmarks of the parts run, too."""
        return self._wants("parts")


async def measure(plan: Plan, folder: Path) -> dict[str, dict[str, list[Result]]]:
    """Every measurement of every target: results by target and measurement, one a round."""
    cores = Cores.of_this_machine()
    proc.pin(cores.others)
    results: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(targets.upstream(cores))
        measured = [upstream]
        if targets.nginx_binary() is not None:
            port = _free_port()
            measured.append(
                await stack.enter_async_context(targets.nginx(folder / "nginx", upstream, cores, port)),
            )
        measured.append(await stack.enter_async_context(targets.gatelodge(folder / "data", upstream, cores)))
        await asyncio.sleep(1)  # what a start leaves to do is not idling
        for target in measured:
            results[target.name][IDLE].append(Result(memory=proc.memory(target.pid)))
        for number in range(plan.rounds):
            for name, spec in plan.specs().items():
                for target in measured:
                    _say(f"round {number + 1} of {plan.rounds}: {name} {target.name}")
                    # The others speak the upstream's dialect alone: they show what as many chunks of that cost.
                    spoken = spec if target.name == "gatelodge" else spec | {"dialect": "ollama", "at": "ollama"}
                    results[target.name][name].append(await _loaded(target, upstream, cores, plan.seconds, spoken))
    _say("")
    return results


async def measure_growth(plan: Plan, folder: Path, *, short: bool) -> str:
    """The table of the cost as work grows."""
    cores = Cores.of_this_machine()
    proc.pin(cores.others)
    async with targets.upstream(cores) as upstream:

        async def measured(target: Target, how: dict[str, float | bool | str]) -> Result:
            _say(f"cost as work grows: {how['row']}")
            return await _loaded(target, upstream, cores, plan.seconds / 2 if short else plan.seconds, how)

        sizes = growth.SHORT if short else growth.LONG
        printed = await growth.table(folder, upstream, cores, sizes, plan.rounds, measured)
    _say("")
    return printed


async def measure_charges(plan: Plan, folder: Path) -> str:
    """The table of what is charged to whom."""
    cores = Cores.of_this_machine()
    proc.pin(cores.others)
    async with targets.upstream(cores) as upstream:

        async def measured(target: Target, how: dict[str, float | bool | str]) -> Result:
            return await _loaded(target, upstream, cores, plan.seconds, how)

        return await charges.table(folder, upstream, cores, measured)


async def _loaded(
    target: Target, upstream: Target, cores: Cores, seconds: float, how: dict[str, float | bool | str]
) -> Result:
    """One measurement by a load process of its own."""
    # A departure takes milliseconds: a quarter of the time shows a hundred of them.
    length = seconds / 4 if how["row"] in {"prefill", "mid_stream", "whole"} else seconds
    spec = msgspec.convert(
        how
        | {
            "port": target.port,
            "upstream": upstream.port,
            "key": target.key,
            "cpu_of": target.pid,
            "seconds": length,
            "core": cores.others,
        },
        Spec,
    )
    load = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", msgspec.json.encode(spec).decode()),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        printed_by_load, _ = await asyncio.wait_for(load.communicate(), 60 + 4 * seconds)
    finally:
        if load.returncode is None:
            load.kill()
            await load.wait()
    if load.returncode != 0:
        raise RuntimeError(f"the load on {target.name} failed at {spec.row}")
    return msgspec.json.decode(printed_by_load, type=Result)


def main(argv: list[str]) -> int:
    """Measure, print; the exit code."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure Gatelodge on this machine.")
    parser.add_argument(
        "--seconds", type=float, default=SHORT, help="length of each measurement (5; below: short form)"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (3; short form: 1)")
    parser.add_argument("--only", default="", metavar="ROWS", help="see tests/bench/__main__.py")
    parser.add_argument("--profile", action="store_true", help="what the CPU of a request and a chunk is charged to")
    options = parser.parse_args(argv)
    short = options.seconds < SHORT
    plan = Plan(
        seconds=options.seconds,
        rounds=options.rounds or (1 if short else 3),
        streams=STREAMS_SHORT if short else STREAMS,
        rows=frozenset(filter(None, options.only.split(","))),
    )
    began = time.monotonic()
    if options.profile:
        targets.allow_many_sockets()
        with tempfile.TemporaryDirectory(prefix="gatelodge-bench-") as scratch:
            print(uvloop.run(measure_charges(plan, Path(scratch))))
        return 0
    _introduce(plan, short)
    lost = False
    if plan.specs():
        targets.allow_many_sockets()
        with tempfile.TemporaryDirectory(prefix="gatelodge-bench-") as scratch:
            results = uvloop.run(measure(plan, Path(scratch)))
        print(printed(FIGURES, results, streams=plan.streams))
        lost = any_lost(results)
    if plan.growth:
        targets.allow_many_sockets()
        with tempfile.TemporaryDirectory(prefix="gatelodge-bench-") as scratch:
            print("\n" + uvloop.run(measure_growth(plan, Path(scratch), short=short)), flush=True)
    if plan.parts:
        for module in PARTS:
            print(f"\n{module}:", flush=True)
            subprocess.run([sys.executable, "-m", module, *(["--brief"] if short else [])], cwd=ROOT, check=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")
    return 1 if lost else 0


def _introduce(plan: Plan, short: bool) -> None:
    cores = Cores.of_this_machine()
    where = "one core for all" if cores.gateway is None else f"gateway on core {cores.gateway}, the rest on another"
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {where};")
    print(f"{plan.rounds} round(s) of {plan.seconds:g} s each, medians. Gatelodge: key, limits, durable audit on.")
    if short:
        print(f"Short form: {plan.streams} streams stand for {STREAMS}. For figures to hold, run it without --seconds.")
    if targets.nginx_binary() is None:
        print("nginx is not installed: its column is left out, and with it the ratios.")
    print(flush=True)


def _free_port() -> int:
    """A port that is free now: nginx cannot be told to take any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
