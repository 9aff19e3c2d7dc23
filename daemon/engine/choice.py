"""Which upstreams this daemon has: what was named, what was chosen on an earlier start, or what is found now.

Rule: the built-in engine is offered only on the first start of an empty data folder where no upstream was named and no
Ollama answers; the choice is stored. Later an absent Ollama is an error of requests (502), never a reason to install.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from daemon.config import BUILTIN, DEFAULT_OLLAMA, Config, UpstreamConfig
from daemon.engine.install import ensure_installed
from daemon.engine.supervisor import SEATS, Engine
from daemon.store.database import Database
from daemon.store.settings import get_setting, set_setting

log = logging.getLogger("gatelodge.daemon")

CHOICE = "upstream"  # the setting that keeps the choice: "ollama" or "builtin"


@dataclass(frozen=True)
class Chosen:
    """The upstreams to serve from, and the secrets of those that want one, by their names."""

    upstreams: tuple[UpstreamConfig, ...]
    keys: dict[str, str] = field(default_factory=dict, repr=False)


async def choose_upstreams(
    stack: AsyncExitStack,
    config: Config,
    database: Database,
    *,
    first: bool,
    builtin_model: bool,
    say: Callable[[str], None],
) -> Chosen:
    """The upstreams to serve from; a built-in engine is started, and `stack` ends it. StartError where it cannot be."""
    if config.upstreams:
        return Chosen(config.upstreams)
    chosen = await database.read(lambda conn: get_setting(conn, CHOICE))
    if chosen is None:
        chosen = "ollama"
        if first and builtin_model and not await answers(DEFAULT_OLLAMA):
            say(f"No Ollama answers at {DEFAULT_OLLAMA} and none was named, so the gate gets a small model of its own:")
            say("llama.cpp with SmolLM2-135M, about 130 MB. It is there to try the gate with, not for real work.")
            chosen = BUILTIN
    if chosen == BUILTIN and builtin_model:
        files = await ensure_installed(config.data, say)
        engine = Engine(files, log_file=config.data / "engine.log")
        url = await engine.start()
        stack.push_async_callback(engine.stop)
        await _keep(database, BUILTIN)
        served = UpstreamConfig(name=BUILTIN, kind="openai", url=url, seats=SEATS)
        return Chosen((served,), {BUILTIN: engine.key})
    await _keep(database, "ollama" if chosen != BUILTIN else BUILTIN)
    if not await answers(DEFAULT_OLLAMA):
        log.warning(
            "no Ollama answers at %s: requests get 502 until it does; start it, or name another with --ollama URL",
            DEFAULT_OLLAMA,
        )
    return Chosen((UpstreamConfig(name="ollama", kind="ollama", url=DEFAULT_OLLAMA),))


async def answers(url: str, patience: float = 2.0) -> bool:
    """Whether something accepts connections at `url` within `patience` seconds."""
    parts = urlsplit(url)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, parts.port or 80), patience)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _keep(database: Database, choice: str) -> None:
    await database.write(lambda conn: set_setting(conn, CHOICE, choice))
