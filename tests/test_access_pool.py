"""P1: argon2 has two threads of its own and 32 places in line, and the event loop never computes a hash.

By construction, so that no clock is asked: the computations are held until the test lets them go. What the loop's lag
is under real logins, `python -m tests.bench.logins` measures.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.access import passwords
from tests.rigs.gatehouse import ADMIN, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until

RUNNING, WAITING = 2, 32


class Held:
    """argon2's computations while a test holds them: where each runs, and how many at once."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.threads: set[str] = set()
        self.running = self.most = self.count = 0
        self._lock = threading.Lock()

    def compute(self, answer: Any) -> Any:
        with self._lock:
            self.threads.add(threading.current_thread().name)
            self.count += 1
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go_on.wait(20)
        with self._lock:
            self.running -= 1
        return answer


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Computations wait for `go_on`; every password is wrong."""
    held = Held()
    computed = passwords._computed

    def hashed(password: bytes, salt: bytes, cost: Any) -> str:
        if threading.current_thread() is threading.main_thread() and held.count == 0 and not held.threads:
            return computed(password, salt, cost)  # the decoy, made once at the start
        return str(held.compute("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA"))

    monkeypatch.setattr(passwords, "_computed", hashed)
    monkeypatch.setattr(passwords, "_matches", lambda *_: held.compute(False))
    yield held
    held.go_on.set()


async def login(gate: Gatehouse, number: int) -> httpx.Response:
    body = {"email": f"person{number}@example.org", "password": "wrong password"}
    return await gate.http.post(f"{gate.url}/auth/login", json=body)


async def test_34_logins_are_taken_and_the_next_is_503_at_once(tmp_path: Path, held: Held) -> None:
    """P1: two run, 32 wait, every further one hears 503 with Retry-After while they do; the model answers meanwhile."""
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        taken = [asyncio.create_task(login(gate, number)) for number in range(RUNNING + WAITING)]
        await until(lambda: held.running == RUNNING)
        pool = gate.house.accounts._passwords
        await until(lambda: repr(pool) == f"<PasswordPool {RUNNING + WAITING} of {RUNNING + WAITING}>")
        try:
            for number in range(100, 110):
                refused = await asyncio.wait_for(login(gate, number), 5)
                assert refused.status_code == 503
                assert int(refused.headers["Retry-After"]) >= 1
            registered = {"email": "new@example.org", "password": "a good password"}
            assert (await gate.http.post(f"{gate.url}/auth/register", json=registered)).status_code == 503
            assert (await gate.chat()).status_code == 200, "a full pool is nobody's business but the logins'"
            assert not any(each.done() for each in taken)
        finally:
            held.go_on.set()
        assert {(await each).status_code for each in taken} <= {401, 503}  # their second computation may find it full
        assert held.most == RUNNING


async def test_the_event_loop_computes_no_hash(tmp_path: Path, held: Held) -> None:
    """P1: every way to a hash (register, log in, change, reset, add) goes through the pool's own threads."""
    held.go_on.set()
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        made = 0
        user, _ = await gate.house.directory.add_user(ADMIN, "bea@example.org")
        ways: list[tuple[str, dict[str, str]]] = [
            ("/auth/register", {"email": "carl@example.org", "password": "a good password"}),
            ("/auth/register", {"email": "carl@example.org", "password": "another one"}),
            ("/auth/login", {"email": "bea@example.org", "password": "a good password"}),
            ("/auth/login", {"email": "carl@example.org", "password": "a good password"}),
            ("/auth/password", {"email": "bea@example.org", "old": "a good password", "new": "yet another"}),
        ]
        for path, body in ways:
            before = held.count
            await gate.http.post(f"{gate.url}{path}", json=body)
            made += held.count > before
        await gate.house.directory.reset_password(ADMIN, user.id)
        assert made == len(ways), "each of them computes"
        assert held.threads
        assert all(name.startswith("argon2") for name in held.threads), held.threads
