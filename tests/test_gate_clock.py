"""R2: the wall clock steps a day, forward and back, under a daemon that runs; the machine's own time goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from common.errors import Unauthenticated
from tests.rigs.gatehouse import ADMIN, QUESTION, gatehouse
from tests.rigs.lodge import HERE, lodge
from tests.rigs.process import daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.traffic import DAY, SECOND
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import chunks

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))  # where Debian's package puts it
PASSWORD = "a password of some length"


class WallClock:
    """The wall clock of a daemon, which a test sets (libfaketime); what counts since the boot is left alone."""

    def __init__(self, folder: Path) -> None:
        if not LIBRARIES:
            pytest.skip("libfaketime is not installed")
        self._file = folder / "wall-clock"
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """So far from the true time; in one step, as the daemon may read at any moment."""
        fresh = self._file.with_name("wall-clock.new")
        fresh.write_text(f"{offset}\n")
        fresh.rename(self._file)


async def test_a_stepped_wall_clock_decides_nothing(tmp_path: Path) -> None:
    """A full window stays full, and says the same wait; a key works; a stream goes on; an access token is good for its
    ten minutes of that clock and never longer, and a session outlives the step."""
    clock = WallClock(tmp_path)
    async with ScriptedUpstream() as upstream:
        async with gatehouse(tmp_path, upstream) as gate:
            data, bearer = gate.data, gate.bearer()
            await gate.house.limits.set(ADMIN, "ana@example.org", {"requests_per_hour": 3})
            _, one_time = await gate.house.directory.add_user(ADMIN, "joe@example.org")
            login = {"email": "joe@example.org", "password": PASSWORD}
            changed = {"email": "joe@example.org", "old": one_time, "new": PASSWORD}
            assert (await gate.http.post(f"{gate.url}/auth/password", json=changed)).status_code == 204
        async with (
            daemon_process(data, "--ollama", upstream.url, "--seats", "4", **clock.environment) as daemon,
            httpx.AsyncClient(timeout=20, base_url=(await daemon.listening()).url) as http,
        ):
            chat = QUESTION | {"stream": False}

            async def ask() -> httpx.Response:
                return await http.post("/api/chat", json=chat, headers=bearer)

            async def session() -> dict[str, str]:
                answer = await http.post("/auth/login", json=login)
                assert answer.status_code == 200, answer.text
                return answer.json()

            async def known(token: str) -> int:
                return (await http.get("/auth/me", headers={"Authorization": f"Bearer {token}"})).status_code

            pace = asyncio.Semaphore(1)
            upstream.next(chunks(3, pace=pace))
            async with http.stream("POST", "/api/chat", json=QUESTION, headers=bearer) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                assert [(await ask()).status_code for _ in range(3)] == [200, 200, 429]
                first = await session()
                assert await known(first["access_token"]) == 200

                waits = []
                for step in ("+1d", "-1d", "+400d", "+0"):
                    clock.set(step)
                    refused = await ask()
                    assert refused.status_code == 429
                    waits.append(int(refused.headers["retry-after"]))
                assert all(3600 - 60 <= wait <= 3600 for wait in waits)

                clock.set("+1d")
                assert await known(first["access_token"]) == 401
                renewed = await http.post(
                    "/oauth/token", data={"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
                )
                later = renewed.json()["access_token"]
                assert await known(later) == 200
                clock.set("-1d")
                assert await known(later) == 401, "from the future"
                earlier = (await session())["access_token"]
                assert await known(earlier) == 200
                clock.set("+0")
                assert await known(earlier) == 401
                assert await known(first["access_token"]) == 200, "its ten minutes are not over"

                clock.set("-1d")
                for _ in range(3):
                    pace.release()
                assert json.loads([line async for line in lines][-1])["done"] is True
            request_id = answer.headers["x-request-id"]
            (line,) = await until(lambda: [each for each in daemon.log if each.get("request_id") == request_id])
            assert (line["state"], line["seconds"]) == ("ok", 0)
            await daemon.kill()
        clock.set("+1d")
        async with (
            daemon_process(data, "--ollama", upstream.url, "--seats", "4", **clock.environment) as daemon,
            httpx.AsyncClient(timeout=20, base_url=(await daemon.listening()).url) as http,
        ):
            refused = await http.post("/api/chat", json=chat, headers=bearer)
            assert refused.status_code == 429
            assert 3600 - 60 <= int(refused.headers["retry-after"]) <= 3600
            assert await daemon.stop() == 0


async def test_a_token_that_was_seen_before_is_from_the_future_as_well(tmp_path: Path) -> None:
    """What was verified once is remembered, and still not taken where the clock was set back: no token lives longer."""
    async with lodge(tmp_path) as it:
        await it.person("ana@example.org", PASSWORD)
        token = (await it.accounts.login("ana@example.org", PASSWORD, HERE)).access_token
        assert it.bearer(token).user.email == "ana@example.org"
        it.clock.unix -= DAY
        with pytest.raises(Unauthenticated):
            it.bearer(token)
        it.clock.unix += DAY
        assert it.bearer(token).user.email == "ana@example.org"
        it.clock.unix += 600 * SECOND
        with pytest.raises(Unauthenticated):
            it.bearer(token)
