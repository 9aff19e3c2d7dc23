"""A gate before the real built-in engine or the real Ollama, whichever a test's `behind` is.

@pytest.fixture(scope="module", params=BEHIND)
def behind(request): return real_engine(request)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon import app
from daemon.config import Config
from daemon.engine.choice import Chosen
from daemon.engine.install import EngineFiles
from daemon.engine.supervisor import Engine
from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.real_ollama import RealOllama

BEHIND = (
    pytest.param("engine_files", marks=pytest.mark.engine, id="engine"),
    pytest.param("real_ollama", marks=pytest.mark.real_ollama, id="ollama"),
)


def real_engine(request: pytest.FixtureRequest) -> EngineFiles | RealOllama:
    """The built-in engine's files, or a running Ollama."""
    engine: EngineFiles | RealOllama = request.getfixturevalue(request.param)
    return engine


@asynccontextmanager
async def real_gate(behind: EngineFiles | RealOllama, folder: Path) -> AsyncIterator[Gatehouse]:
    """The gate; `upstream.kind` is "openai" or "ollama". The built-in engine runs as long as it does."""
    if isinstance(behind, RealOllama):
        real: Any = SimpleNamespace(kind="ollama", url=behind.url)
        async with gatehouse(folder, real) as running:
            yield running
        return
    engine = Engine(behind, log_file=folder / "engine.log")
    await engine.start()

    async def choose(stack: AsyncExitStack, config: Config, *_: Any, **__: Any) -> Chosen:
        return Chosen(config.upstreams, {"builtin": engine.key})

    real = SimpleNamespace(kind="openai", url=engine.url)
    upstreams = [{"name": "builtin", "kind": "openai", "url": engine.url, "seats": 4}]
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(app, "choose_upstreams", choose)
            async with gatehouse(folder, real, upstreams=upstreams) as running:
                yield running
    finally:
        await engine.stop()
