"""How many requests an upstream really runs at once, found out with tiny generations.

Ollama does not tell OLLAMA_NUM_PARALLEL, and forces it to 1 for some architectures; what it holds back waits without a
word. So: ask for several answers at once and count those that begin before one of them ends. All are then dropped.
Other requests that run meanwhile make the count too small: a time to probe is when nobody is waiting.
"""

from __future__ import annotations

import asyncio

from common.errors import UpstreamFailed
from daemon.dialects.asks import Ask, Shape
from daemon.providers.upstream import Upstream

MOST = 16  # more at once than anybody sets up by hand
PATIENCE = 120.0  # seconds until the first one begins: the model may have to be loaded
SETTLING = 3.0  # seconds that the others get after the latest one began


async def measure_seats(
    upstream: Upstream, model: str, *, most: int = MOST, patience: float = PATIENCE, settling: float = SETTLING
) -> int:
    """How many of `most` generations with `model` run at once. UpstreamFailed where none begins."""
    race = _Race()
    # Different prompts: a server may answer two equal ones from one cache.
    asking = [
        asyncio.create_task(
            _generate(upstream, model, f"Count upwards from {number}, one number a line.", race), name="probe"
        )
        for number in range(1, most + 1)
    ]
    try:
        while not race.over and race.begun < most and any(not task.done() for task in asking):
            race.news.clear()
            async with asyncio.timeout(settling if race.begun else patience):
                await race.news.wait()
    except TimeoutError:
        pass  # nothing new began for a while: this is how many there are
    finally:
        for task in asking:
            task.cancel()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
    if race.begun:
        return race.begun
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    raise UpstreamFailed(f"the upstream {upstream.name} began no answer within {patience:g} seconds", status=504)


class _Race:
    """How many answers have begun, and whether one has ended: from then on a beginning proves nothing."""

    def __init__(self) -> None:
        self.begun = 0
        self.over = False
        self.news = asyncio.Event()


async def _generate(upstream: Upstream, model: str, prompt: str, race: _Race) -> None:
    document = {"model": model, "prompt": prompt, "options": {"num_predict": 64, "temperature": 0}}
    translator = upstream.translator(Ask("/api/generate", Shape.GENERATE, document, model, stream=True))
    try:
        async with upstream.request(
            translator.upstream_method, translator.upstream_path, body=translator.body(model)
        ) as response:
            if response.status != 200:
                body = upstream.discretion.body(response.status, await response.read(64 * 1024))
                status, words = translator.error_status(response.status, body)
                raise UpstreamFailed(f"the upstream {upstream.name} answered {status}: {words}")
            begun = False
            async for _ in response:
                if not begun and not race.over:
                    begun = True
                    race.begun += 1
                    race.news.set()
            # What a server holds back begins when another one ends, in the same moment as far as we can see.
            race.over = race.over or begun
    finally:
        race.news.set()
