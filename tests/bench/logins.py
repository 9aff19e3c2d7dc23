"""Identity alone: `python -m tests.bench.logins [--brief]`, against a whole daemon in this process.

Prints the event loop's lag while 200 people log in, 34 at once, from another process (P1); how long a refused login
takes where the password is wrong, the account unknown or disabled (P2); how soon a running stream ends after its key
was revoked (J5). uvloop, argon2id at the usual cost, a real database.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import httpx
import uvloop

from tests.rigs.gatehouse import ADMIN, Gatehouse, gatehouse
from tests.rigs.process import ROOT
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.upstream_behaviours import stall_after

LOGINS, AT_ONCE = 200, 34
PASSWORD = "a good password"


def spread(times: list[float]) -> str:
    """p50, p99 and the longest, in milliseconds."""
    times = sorted(1000 * each for each in times)
    return (
        f"p50 {statistics.median(times):.2f} ms, p99 {times[int(len(times) * 0.99)]:.2f} ms, at most {times[-1]:.2f} ms"
    )


async def people(gate: Gatehouse, count: int) -> None:
    """So many accounts with one password; hashed once, since only the logins are measured."""
    hashed = await gate.house.accounts._passwords.hash(PASSWORD)
    for number in range(count):
        user, _ = await gate.house.directory.add_user(ADMIN, f"person{number}@example.org", service=True)
        await gate.house.directory.set_password(ADMIN, user.id, user.epoch, hashed)


async def lag_under_logins(gate: Gatehouse, count: int) -> None:
    """P1."""
    lags: list[float] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    watcher = asyncio.create_task(watch())
    began = time.perf_counter()
    load = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.logins", "--load", gate.url, str(count)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await load.communicate()
    took = time.perf_counter() - began
    done.set()
    await watcher
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(json.loads(said).items()))
    print(f"{count} logins, {AT_ONCE} at once: {statuses}; {took:.1f} s")
    print(f"the event loop's lag meanwhile: {spread(lags)} (demand: p99 50)")


async def load(url: str, count: int) -> None:
    """Log in as so many people; prints how often each status came."""
    statuses: Counter[int] = Counter()
    numbers = iter(range(count))

    async def drive(http: httpx.AsyncClient) -> None:
        for number in numbers:
            body = {"email": f"person{number}@example.org", "password": PASSWORD}
            statuses[(await http.post(f"{url}/auth/login", json=body)).status_code] += 1

    async with httpx.AsyncClient(timeout=60) as http:
        await asyncio.gather(*(drive(http) for _ in range(AT_ONCE)))
    print(json.dumps(statuses))


async def refused_logins(gate: Gatehouse, count: int) -> None:
    """P2: each from an address of its own, so that none is throttled; in turn, so that all else hits them alike."""
    disabled, _ = await gate.member("disabled@example.org")
    hashed = await gate.house.accounts._passwords.hash(PASSWORD)
    await gate.house.directory.set_password(ADMIN, disabled.id, disabled.epoch, hashed)
    await gate.house.directory.disable(ADMIN, disabled.id)
    kinds = {"wrong": "person0@example.org", "unknown": "nobody@example.org", "disabled": disabled.email}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    answers = set()
    for number in range(count + 3):
        for at, (kind, email) in enumerate(kinds.items()):
            body = {"email": email, "password": PASSWORD if kind == "disabled" else "wrong password"}
            headers = {"X-Forwarded-For": f"10.{at}.{number >> 8}.{number & 255}"}
            began = time.perf_counter()
            answer = await gate.http.post(f"{gate.url}/auth/login", json=body, headers=headers)
            if number >= 3:  # the first warm up
                times[kind].append(time.perf_counter() - began)
            answers.add((answer.status_code, answer.content))
    assert len(answers) == 1, answers
    told = ", ".join(f"{kind} {1000 * statistics.median(each):.2f}" for kind, each in times.items())
    worst = 0.0
    for one, other in combinations(times.values(), 2):
        error = (statistics.variance(one) / count + statistics.variance(other) / count) ** 0.5
        worst = max(worst, abs(statistics.fmean(one) - statistics.fmean(other)) / error)
    print(f"refused login, {count} of each, median ms: {told}; same bytes; means differ by {worst:.1f} standard errors")


async def cuts(gate: Gatehouse, upstream: ScriptedUpstream, count: int) -> None:
    """J5: from asking for the revocation to the end of the stream in the client's hands."""
    times = []
    for number in range(count):
        key, text = await gate.house.directory.issue_key(ADMIN, gate.user.id, f"cut {number}")
        go_on = asyncio.Event()
        upstream.next(stall_after(1, go_on))
        async with gate.streaming(key=text) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            began = time.perf_counter()
            await gate.house.directory.revoke_key(ADMIN, key.id)
            rest = [json.loads(line) async for line in lines]
            times.append(time.perf_counter() - began)
            assert "error" in rest[-1]
        go_on.set()
    print(f"stream cut after its key was revoked, {count} times: {spread(times)} (demand: 2,000)")


async def main(brief: bool) -> None:
    """Everything, in order."""
    logins = 40 if brief else LOGINS
    with tempfile.TemporaryDirectory(prefix="gatelodge-logins-") as folder:
        async with (
            ScriptedUpstream() as upstream,
            gatehouse(Path(folder), upstream, server__trusted_proxies=["127.0.0.1/32"]) as gate,
        ):
            await people(gate, logins)
            await lag_under_logins(gate, logins)
            await refused_logins(gate, 10 if brief else 100)
            await cuts(gate, upstream, 10 if brief else 100)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        asyncio.run(load(sys.argv[2], int(sys.argv[3])))
    else:
        logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
        uvloop.run(main("--brief" in sys.argv))
