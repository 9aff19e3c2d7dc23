"""Fixtures that several tests share, the rule about skips, and on how many processes a run is.

A skip is a test that does not speak. Each is printed, and one that tests/allowed_skips.txt does not name makes the
whole run red; so does an expected failure, which nothing may name.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx
import httpx._transports.default as httpx_transports
import pytest
import uvloop

from tests.rigs.engine import engine, engine_files
from tests.rigs.real_ollama import ollama_files, real_ollama
from tests.skips import ALLOWED, SkipPolicy

# Beyond so many the longest files alone set the time, and each worker has daemons and consoles of its own.
MOST_WORKERS = 6
# Begun first where workers share the files: one of them that came last would be waited for alone.
LONGEST = ("test_run_first_start.py", "test_run_script.py", "test_console_hostile.py", "test_cli_commands.py")

__all__ = ["engine", "engine_files", "ollama_files", "real_ollama"]


def pytest_configure(config: pytest.Config) -> None:
    """Let the rule about skips watch this run."""
    # A shell that starts us in the background ignores Ctrl-C for us, and every program we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Each client of httpx would read all the world's certificate authorities anew: 20 ms, for what stays on loopback.
    vars(httpx_transports)["create_ssl_context"] = cache(httpx.create_ssl_context)
    config.pluginmanager.register(SkipPolicy(ALLOWED.read_text(encoding="utf-8")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: a process for each processor; none besides our own for a few tests, which workers would only delay."""
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    if config.option.keyword or (len(named) == 1 and named[0].is_file()):
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, MOST_WORKERS) if processors > 1 else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first; and the first run ever downloads engines, which a slow line may take longer for than a
    test has."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name not in LONGEST)
    downloads = {"engine_files", "ollama_files"}
    for item in items:
        if downloads & set(getattr(item, "fixturenames", ())) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops that a module's tests run on: `EVENT_LOOPS` names them, else asyncio's own alone."""
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    names = getattr(getattr(item, "module", None), "EVENT_LOOPS", ("asyncio",))
    return {name: factories[name] for name in names}
