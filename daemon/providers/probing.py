"""How many requests an upstream really runs at once, found out with tiny generations.

Ollama does not tell OLLAMA_NUM_PARALLEL, and forces it to 1 for some architectures; what it holds back waits without a
word. So: ask for several answers at once and count those that begin before one of them ends. All are then dropped.
"""

from __future__ import annotations

import asyncio

from common.errors import GatewayError, UpstreamFailed
from daemon.dialects.asks import Ask, Shape
from daemon.providers.upstream import Upstream

MOST = 16  # more at once than anybody sets up by hand
PATIENCE = 120.0  # seconds until the first one begins: the model may have to be loaded
SETTLING = 3.0  # seconds that the others get after the latest one began


async def measure_seats(upstream: Upstream, model: str, *, most: int = MOST, settling: float = SETTLING) -> int:
    """How many of `most` generations with `model` run at once. UpstreamFailed where none begins."""
    begun: list[float] = []
    news = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def generate(number: int) -> None:
        # Different prompts: a server may not answer two from one cache.
        document = {
            "model": model,
            "prompt": f"Count from {number} upwards, one number a line.",
            "options": {"num_predict": 64, "temperature": 0},
        }
        translator = upstream.translator(Ask("/api/generate", Shape.GENERATE, document, model, stream=True))
        async with upstream.request(
            translator.upstream_method, translator.upstream_path, body=translator.body(model)
        ) as response:
            if response.status != 200:
                status, words = translator.error_status(response.status, await response.read(65536))
                raise UpstreamFailed(f"the upstream {upstream.name} answered {status}: {words}")
            first = True
            async for _ in response:
                if first:
                    begun.append(loop.time())
                    news.set()
                    first = False

    asking = [asyncio.create_task(generate(number)) for number in range(1, most + 1)]
    try:
        await _until_settled(asking, begun, news, settling)
        failed = [task.exception() for task in asking if task.done() and task.exception() is not None]
        if not begun:
            why = failed[0] if failed else None
            raise (
                why
                if isinstance(why, GatewayError)
                else UpstreamFailed(f"the upstream {upstream.name} began no answer within {PATIENCE:g} seconds")
            )
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        for task in asking:
            if not task.cancelled():
                task.exception()  # looked at: what matters of it was said above
    return len(begun)


async def _until_settled(
    asking: list[asyncio.Task[None]], begun: list[float], news: asyncio.Event, settling: float
) -> None:
    """Until all began, or one ended, or nothing new began for a while."""
    while len(begun) < len(asking) and not any(task.done() and task.exception() is None for task in asking):
        left = [task for task in asking if not task.done()]
        if not left:
            return
        news.clear()
        hearing = asyncio.ensure_future(news.wait())
        done, _ = await asyncio.wait(
            {hearing, *left},
            timeout=settling if begun else PATIENCE,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hearing.cancel()
        if not done:
            return
