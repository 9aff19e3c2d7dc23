"""The real built-in engine for tests: installed once into a cache that later runs reuse, started once a session.

Rule: the cache is made by the daemon's own installer and by pip, never by hand; deleting var/test-cache costs a
download and nothing else.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from daemon.engine.install import EngineFiles, ensure_installed
from daemon.engine.supervisor import Engine

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "var" / "test-cache"  # below var/, which git ignores


@contextmanager
def one_at_a_time(name: str) -> Iterator[Path]:
    """The cache folder, held against other test runs that would fill the same part of it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE


def install_engine() -> EngineFiles:
    """The engine's files, fetched from the package index on the first call ever."""
    with one_at_a_time("engine") as cache:
        return asyncio.run(ensure_installed(cache, print))


@pytest.fixture(scope="session")
def engine_files() -> EngineFiles:
    """The engine's files in the test cache."""
    return install_engine()


@pytest_asyncio.fixture
async def engine(engine_files: EngineFiles, tmp_path: Path) -> AsyncIterator[Engine]:
    """A running engine of a test's own (about a second to start); its address is `engine.url`."""
    engine = Engine(engine_files, log_file=tmp_path / "engine.log")
    await engine.start()
    yield engine
    await engine.stop()
