"""Row 43: the built-in engine listens where every account of the machine can reach it, and answers the gate alone."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from daemon.clock import SystemClock
from daemon.config import BUILTIN, Deadlines, Queue
from daemon.config import load as load_config
from daemon.engine import choice
from daemon.engine.choice import choose_upstreams
from daemon.engine.install import EngineFiles
from daemon.engine.supervisor import Engine
from daemon.providers.registry import Registry
from daemon.store.database import Database

CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 2}
ASKS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "a", "max_tokens": 2},
    "/v1/messages": CHAT,
    "/completion": {"prompt": "a", "n_predict": 2},
    "/v1/embeddings": {"input": "a"},
    "/tokenize": {"content": "a"},
}
LOOKS = ("/v1/models", "/models", "/slots", "/props")


@pytest.mark.engine
async def test_who_does_not_show_its_key_gets_nothing_of_the_engine(engine: Engine) -> None:
    """Without the key, or with another, everything that infers or tells is 401; only /health tells that it lives."""
    async with httpx.AsyncClient(base_url=engine.url, timeout=60) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": "wrong"}):
            for path, body in ASKS.items():
                assert (await client.post(path, json=body, headers=headers)).status_code == 401, path
            for path in LOOKS:
                assert (await client.get(path, headers=headers)).status_code == 401, path
        assert (await client.get("/health")).json() == {"status": "ok"}
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {engine.key}"})
        assert answer.status_code == 200


@pytest.mark.engine
async def test_its_key_stands_nowhere_that_others_read(engine: Engine, tmp_path: Path) -> None:
    """Arguments are everybody's to read; neither they nor environment, log or representation hold the key."""
    assert len(engine.key) >= 40
    for file in ("cmdline", "environ"):
        assert engine.key.encode() not in Path(f"/proc/{engine.pid}/{file}").read_bytes()
    assert engine.key not in (tmp_path / "engine.log").read_text()
    assert engine.key not in repr(engine)


def test_each_engine_has_a_key_of_its_own(tmp_path: Path) -> None:
    """A key is drawn at each start of the daemon; one that was learnt once is worth nothing later."""
    files = EngineFiles(site=tmp_path, model=tmp_path)
    keys = {Engine(files, log_file=tmp_path / "log").key for _ in range(3)}
    assert len(keys) == 3


@pytest.mark.engine
async def test_the_gate_shows_the_key_and_never_tells_it(
    engine_files: EngineFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the daemon chooses its own engine: the registry's requests are answered, and nothing tells the key."""

    async def installed(*_: object) -> EngineFiles:
        return engine_files

    async def silent(*_: object) -> bool:
        return False

    monkeypatch.setattr(choice, "ensure_installed", installed)
    monkeypatch.setattr(choice, "answers", silent)
    caplog.set_level(logging.DEBUG)
    config = load_config(environment={}, flags={"storage.data": str(tmp_path)})
    database = await Database.open(tmp_path / "gatelodge.db")
    try:
        async with AsyncExitStack() as stack:
            chosen = await choose_upstreams(
                stack, config, database, first=True, builtin_model=True, say=lambda line: None
            )
            registry = Registry(
                chosen.upstreams,
                queue=Queue(),
                deadlines=Deadlines(),
                clock=SystemClock.continued(None),
                keys=chosen.keys,
            )
            stack.push_async_callback(registry.close)
            await registry.refresh()
            upstream = registry.upstream(BUILTIN)
            assert upstream.state == "ok", upstream.error
            (model,) = await registry.tags()
            status, _ = await upstream.fetch("POST", "/v1/chat/completions", CHAT, patience=60)
            assert status == 200
            key = chosen.keys[BUILTIN]
            for telling in (chosen, registry, upstream, upstream.pool, model, caplog.text):
                assert key not in repr(telling)
    finally:
        await database.close()
