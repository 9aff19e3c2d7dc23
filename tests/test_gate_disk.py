"""A disk that is nearly full: nothing is admitted that could not be recorded (A8)."""

from __future__ import annotations

from pathlib import Path

from tests.rigs.gatehouse import gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream


async def test_below_min_free_nothing_is_admitted_and_the_words_say_why(tmp_path: Path) -> None:
    """503 with Retry-After, nothing upstream, /ready says so; what is no inference still answers."""
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream, storage__min_free=1 << 60) as gate:
        answer = await gate.chat()
        assert answer.status_code == 503
        assert answer.json()["code"] == "disk_full"
        assert "MiB" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) > 0
        assert not upstream.inference
        ready = await gate.http.get(gate.url + "/ready")
        assert ready.status_code == 503
        assert "disk" in ready.json()["checks"]["storage"]
        assert (await gate.get("/api/tags")).status_code == 200
