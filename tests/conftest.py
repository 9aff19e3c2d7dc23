"""Fixtures that several tests share, and the rule about skips.

A skip is a test that does not speak. Each is printed, and one that tests/allowed_skips.txt does not name makes the
whole run red; so does an expected failure, which nothing may name.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
import uvloop

from tests.rigs.engine import engine, engine_files
from tests.rigs.real_ollama import ollama_files, real_ollama
from tests.skips import ALLOWED, SkipPolicy

__all__ = ["engine", "engine_files", "ollama_files", "real_ollama"]


def pytest_configure(config: pytest.Config) -> None:
    """Let the rule about skips watch this run."""
    # A shell that starts us in the background ignores Ctrl-C for us, and every program we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(SkipPolicy(ALLOWED.read_text(encoding="utf-8")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first run ever downloads engines, which a slow line may take longer for than a test has."""
    downloads = {"engine_files", "ollama_files"}
    for item in items:
        if downloads & set(getattr(item, "fixturenames", ())) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops that a module's tests run on: `EVENT_LOOPS` names them, else asyncio's own alone."""
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    names = getattr(getattr(item, "module", None), "EVENT_LOOPS", ("asyncio",))
    return {name: factories[name] for name in names}
