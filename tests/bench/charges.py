"""What is charged to whom: the CPU of a request and of a chunk, by the part of the house that spends it.

A daemon of its own runs under a profiler (`profiled.py`) beside one without. The profiler tells shares, by module, with
what each called outside of the house; it makes many small calls look dearer than few large ones. The shares are then
held against what a request costs without it.
"""

from __future__ import annotations

import os
import pstats
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import targets
from tests.bench.load import Result
from tests.bench.profiled import FOLDER
from tests.bench.targets import Cores, Target
from tests.rigs.process import ROOT

Measure = Callable[[Target, dict[str, float | bool | str]], Awaitable[Result]]

# The first that a module's path begins with says what it is charged to; what no line names is charged to its caller.
_CHARGES = (
    ("daemon/web/", "client's connection (HTTP)"),
    ("tornado/", "client's connection (HTTP)"),
    ("daemon/dialects/asks", "reading the request"),
    ("daemon/dialects/strict_json", "reading the request"),
    ("daemon/dialects/", "translating the answer"),
    ("daemon/access/", "identity"),
    ("daemon/traffic/", "limits and line"),
    ("daemon/providers/", "upstream's connection"),
    ("daemon/audit/", "journal"),
    ("daemon/store/", "journal"),
    ("aiosqlite/", "journal"),
    ("daemon/logs", "log, metrics, watchers"),
    ("daemon/metrics", "log, metrics, watchers"),
    ("daemon/hub", "log, metrics, watchers"),
    ("daemon/recent", "log, metrics, watchers"),
    ("daemon/app", "log, metrics, watchers"),
    ("logging/", "log, metrics, watchers"),
    ("prometheus_client/", "log, metrics, watchers"),
    ("asyncio/runners", "event loop and sockets"),
    ("daemon/", "relay"),
)
_SHORTEST = 200  # calls below which a function is of the start, not of the requests
ROWS: dict[str, dict[str, float | bool | str]] = {
    "small request": {"row": "requests", "whole": True, "connections": 64},
    "chunk": {"row": "streams", "streams": 20, "rate": 100.0},
}


async def table(folder: Path, upstream: Target, cores: Cores, measure: Measure) -> str:
    """Measure both, print."""
    lines = []
    for name, spec in ROWS.items():
        place = Path(tempfile.mkdtemp(dir=folder))
        async with targets.gatelodge(place / "plain", upstream, cores) as plain:
            cost = _cost(await measure(plain, spec))
        os.environ[FOLDER] = str(place)
        async with targets.gatelodge(place / "data", upstream, cores, program="tests.bench.profiled") as profiled:
            await measure(profiled, spec)
        spent = Counter[str]()
        for file in place.iterdir():
            if file.is_file():
                spent.update(_charged(pstats.Stats(str(file))))
        total = sum(spent.values())
        lines.append(f"a {name}: {cost:.1f} us of CPU, charged to")
        lines += [f"  {who:30} {each / total:>6.1%} {cost * each / total:>8.1f}" for who, each in spent.most_common()]
    return "\n".join(lines)


def _cost(result: Result) -> float:
    return 1e6 * result.cpu / result.units


def _charged(stats: pstats.Stats) -> Counter[str]:
    """Seconds by charge, of one thread: each function's own time, or that of its callers where it is nobody's."""
    charged = Counter[str]()
    for (path, _, _), (_, calls, own, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        charge = charge_of(path)
        if charge == "event loop and sockets":
            charged[charge] += own
        elif calls < _SHORTEST:
            continue
        elif charge:
            charged[charge] += own
        else:
            for (caller, _, _), (_, _, share, _) in callers.items():
                charged[charge_of(caller) or "Python's own library"] += share
    return charged


def charge_of(path: str) -> str:
    """Whom the code in a file is charged to; empty: whoever called it."""
    place = path.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/")
    if "/lib/python3" in place:
        place = place.rpartition("/lib/python3")[2].partition("/")[2]
    return next((who for start, who in _CHARGES if place.startswith(start)), "")
