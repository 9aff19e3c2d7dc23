"""Request smuggling: every known way to make two servers disagree on where a request ends, each with its verdict.

The payloads and their verdicts: tests/vectors/smuggling/payloads.json; how they are played: tests/rigs/smuggling.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.rigs.payloads import payloads
from tests.rigs.smuggling import NGINX, WAYS, as_recorded, stage
from tests.rigs.until import until

# The loop that the daemon itself runs on (tests/conftest.py).
EVENT_LOOPS = ("uvloop",)


def test_the_corpus_is_whole() -> None:
    """A fresh clone has every family, and a verdict for each payload by each way."""
    families = Counter(each.family for each in payloads())
    assert sum(families.values()) >= 285
    known = {"CL.TE", "TE.CL", "TE.TE", "CL.CL", "TE.0", "CL.0", "chunks", "lines", "request line", "Host"}
    assert known <= set(families)
    assert all(set(each.verdicts) == set(WAYS) for each in payloads())
    assert len({str(each) for each in payloads()}) == len(payloads())


@pytest.mark.parametrize("way", WAYS)
async def test_no_payload_smuggles_a_request(tmp_path: Path, way: str) -> None:
    """H1: what the attacker is answered, what the upstream is asked and what the next client is answered are as
    recorded; nothing is asked that was not answered to who asked it, and the next client gets an answer of its own.
    """
    if way != "alone" and NGINX is None:
        pytest.skip("nginx is not installed")
    different = []
    async with stage(tmp_path) as played:
        for payload in payloads():
            verdict = await played.play(payload, way)
            if verdict != payload.verdicts[way]:
                different.append(f"{payload}: recorded {payload.verdicts[way]}, now {verdict}")
            assert verdict["next"] == [200], payload
            assert len(verdict["asked"]) <= verdict["answers"].count(200), payload
            # Alone the gate itself decides where a request ends; nginx may see one more, and says so to both sides.
            assert way != "alone" or "smuggled" not in verdict["asked"], payload
        await until(lambda: not played.gate.house.gate.live())
        assert played.gate.house.answering == 0
    assert different == [] or not as_recorded(way)
