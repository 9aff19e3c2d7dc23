"""The list of models as Anthropic's clients page through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest
from daemon.web.anthropic import models_page, models_query
from tests.rigs.gatehouse import MODEL, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream

NAMES = ["a", "b", "c", "d", "e"]


def page(**query: str) -> tuple[list[str], bool, Any, Any]:
    asked = models_query({name: [value.encode()] for name, value in query.items()})
    told = models_page([{"name": name} for name in NAMES], [0.0] * len(NAMES), asked)
    return [each.id for each in told.data], told.has_more, told.first_id, told.last_id


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({}, NAMES, False),
        ({"limit": "2"}, ["a", "b"], True),
        ({"limit": "5"}, NAMES, False),
        ({"limit": "2", "after_id": "b"}, ["c", "d"], True),
        ({"limit": "2", "after_id": "d"}, ["e"], False),
        ({"after_id": "e"}, [], False),
        ({"limit": "2", "before_id": "e"}, ["c", "d"], True),
        ({"limit": "2", "before_id": "c"}, ["a", "b"], False),
        ({"before_id": "a"}, [], False),
        ({"limit": "1", "beta": "true"}, ["a"], True),
    ],
)
def test_a_page_is_what_stands_beside_its_mark(query: dict[str, str], names: list[str], more: bool):
    """In the order of the list; whoever goes on by `last_id` sees each model once."""
    first, last = (names[0], names[-1]) if names else (None, None)
    assert page(**query) == (names, more, first, last)


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"after_id": "z"}, {"after_id": "a", "before_id": "b"}],
)
def test_a_page_that_cannot_be_is_a_400(query: dict[str, str]):
    """In words that name the parameter."""
    with pytest.raises(BadRequest):
        page(**query)


async def test_the_route_has_pages_for_anthropics_clients_alone(tmp_path: Path) -> None:
    """OpenAI's have no such parameters."""
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        version = {"anthropic-version": "2023-06-01"}
        assert (await gate.get(f"/v1/models?after_id={MODEL}", headers=version)).json()["data"] == []
        refused = await gate.get("/v1/models?limit=0", headers=version)
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        assert (await gate.get("/v1/models?limit=0")).status_code == 200
