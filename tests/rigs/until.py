"""Waiting for something to become true, in place of sleeping and hoping.

Rule: a test waits for a condition, never for a time; the time-out only bounds how long a broken promise takes to fail.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], *, timeout: float = 10.0, what: str = "") -> Any:
    """Wait until `condition()` is true and return its value; AssertionError after `timeout` seconds.

    `condition` may be a coroutine function. `what` says in words what was waited for.
    """
    give_up = time.monotonic() + timeout
    pause = 0.0  # the first looks cost only a loop turn: most conditions are true within microseconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= give_up:
            raise AssertionError(f"not true within {timeout:g} s: {what or _described(condition)}")
        await asyncio.sleep(pause)
        pause = min(0.02, pause + 0.0005)


async def holds(condition: Callable[[], Any], *, turns: int = 50, what: str = "") -> None:
    """Check that `condition()` stays true over `turns` turns of the event loop, each given time for pending I/O."""
    for _ in range(turns):
        assert condition(), f"was true and is no longer: {what or _described(condition)}"
        await asyncio.sleep(0.001)


async def settled(value: Callable[[], Any], *, turns: int = 50) -> Any:
    """Wait until `value()` has stopped changing, over `turns` turns of the event loop with time for pending I/O."""
    last, same = value(), 0
    while same < turns:
        await asyncio.sleep(0.001)
        now = value()
        last, same = now, (same + 1 if now == last else 0)
    return last


def _described(condition: Callable[[], Any]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
