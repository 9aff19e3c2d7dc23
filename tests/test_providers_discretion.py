"""Finding a provider's key in what it says in its errors: C5, P8. Nobody but the administrator hears of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from common.errors import GatewayError
from common.protocol import ModelTarget, UpstreamsKey
from daemon.admin import cloud as cloud_verbs
from daemon.admin import models as model_verbs
from daemon.dialects.translator import UpstreamSaid
from daemon.providers.discretion import LONGEST, Discretion
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.gatehouse import ADMIN, MODEL, QUESTION, gatehouse
from tests.rigs.leaks import secrets_of_a_run
from tests.rigs.scripted_upstream import ScriptedUpstream

KEY = "sk-oai-Geranium-0123456789-wxyz"
# How servers say it, and what is left of it.
SAID = {
    f"bad key {KEY}.": "bad key [key].",
    f"Authorization: Bearer {KEY}": "Authorization: Bearer [key]",
    f"Incorrect API key provided: {KEY[:8]}{'*' * 19}{KEY[-4:]}. Look": "Incorrect API key provided: [key]. Look",
    "key=sk-o****************wxyz, org-1": "key=[key], org-1",
    "no such key: sk-oai…": "no such key: [key]",
    "no such key: ...wxyz": "no such key: [key]",
    "'sk-oai...wxyz'": "'[key]'",
    f"the key begins with {KEY[:12]} and ends with {KEY[-9:]}": "the key begins with [key] and ends with [key]",
    f"{KEY[3:20]}{KEY[10:]}": "[key][key]",
    "waiting for s... and ****** and sk- and z": "waiting for s... and ****** and sk- and z",
    "": "",
}


def test_the_key_and_its_parts_are_taken_out_of_words() -> None:
    """Whole, in parts of eight characters, with stars for its middle; nothing else is touched."""
    keeper = Discretion("far", KEY)
    assert {words: keeper.text(words) for words in SAID} == SAID
    short = Discretion("far", "abc123")
    assert short.text("is abc123 right? abc1234 is") == "is [key] right? abc1234 is"
    assert Discretion("far", "").text(f"bad key {KEY}") == f"bad key {KEY}"
    assert KEY not in repr(keeper)


def test_a_refused_key_is_told_in_our_own_words(caplog: pytest.LogCaptureFixture) -> None:
    """401 and 403; the log has what was said, without the key. Other errors keep their words and details."""
    caplog.set_level(logging.INFO, "gatelodge")
    keeper = Discretion("far", KEY)
    for status, words in ((401, "refused the key"), (403, "refused the key"), (400, "[key] is long"), (None, "[key]")):
        said = UpstreamSaid(f"{KEY} is long", status=502, detail={"param": f"x{KEY}", "n": 1})
        said.upstream_status = status
        keeper.keep(said)
        assert words in said.message and KEY not in f"{said} {said.args} {said.detail}"
        assert said.detail == ({} if status in (401, 403) else {"param": "x[key]", "n": 1})
    assert "the administrator must look" in keeper.body(403, b"<html>").decode()
    told = [record.getMessage() for record in caplog.records]
    assert told[:2] == [f"the upstream far refused its key ({status}): [key] is long" for status in (401, 403)]


def test_an_error_answer_is_passed_on_where_nothing_of_the_key_is_in_it() -> None:
    """As it came, byte for byte; else its words alone. A long one is not looked through."""
    keeper = Discretion("far", KEY)
    for status, body in ((404, b'{"error": "no such model", "more":1}'), (500, b"<p>"), (200, KEY.encode())):
        assert keeper.body(status, body) == body
    assert json.loads(keeper.body(400, json.dumps({"error": {"message": f"not {KEY}"}}).encode())) == {
        "error": "not [key]"
    }
    assert json.loads(keeper.body(400, f'{{"error":"no","seen":"{KEY}"}}'.encode())) == {"error": "no"}
    assert json.loads(keeper.body(500, b"x" * (LONGEST + 1))) == {"error": "the upstream answered 500"}


ROUTES: dict[str, dict[str, Any]] = {
    "/api/chat": {"stream": False},
    "/v1/chat/completions": {},
    "/v1/responses": {"input": "Why?"},
    "/v1/messages": {"max_tokens": 9},
}


@pytest.mark.parametrize("kind", ["ollama", "openai", "anthropic"])
async def test_nobody_hears_of_the_key_from_an_upstream(tmp_path: Path, kind: str) -> None:
    """Told before the answer or within it, on every route and by the verbs: in no answer, no record, no log."""
    with secrets_of_a_run(tmp_path) as run:
        run.add("an upstream's key", KEY)
        run.add("the end of an upstream's key", KEY[-12:])
        async with ScriptedUpstream(kind=kind) as upstream, gatehouse(tmp_path, upstream) as gate:
            await cloud_verbs.set_key(gate.house, ADMIN, UpstreamsKey("up", KEY))
            for route, more in ROUTES.items():
                for stream in (False, True):
                    for failing, words in (
                        (behaviours.error(401, f"bad key {KEY}"), "the upstream up refused the key"),
                        (behaviours.error(403, f"bad key {KEY}"), "the administrator must look"),
                        (behaviours.error(400, f"odd: {KEY}, …{KEY[-12:]}"), "odd: [key]"),
                        (behaviours.error_in_stream(2, f"lost {KEY}"), "lost [key]"),
                    ):
                        upstream.next(failing)
                        answer = await gate.post(route, QUESTION | more | {"stream": stream})
                        assert words in answer.text and KEY[-12:] not in answer.text, (route, stream, answer.text)
                    assert (await gate.chat()).status_code == 200  # else it is left alone for a while
            if kind == "ollama":
                await of_models(gate, upstream)
            errors = [(await gate.audit(row.request_id)).error or "" for row in await gate.records()]
            assert not any("eranium" in each for each in errors)
            assert sum("refused the key" in each for each in errors) == 16
        assert run.leaks(tmp_path) == []


async def of_models(gate: Any, upstream: ScriptedUpstream) -> None:
    """What an Ollama says where models are asked about or fetched."""
    _, keeper = await gate.member("keeper@example.org", role="admin")
    for status in (401, 400):
        upstream.next(*[behaviours.error(status, f"bad key {KEY}")] * 2, route="/api/pull")
        upstream.next(behaviours.error(status, f"bad key {KEY}"), route="/api/show")
        for path in ("/api/pull", "/api/show"):
            answer = await gate.post(path, {"model": MODEL}, key=keeper)
            assert answer.status_code >= 400 and KEY not in answer.text
            assert ("refused" if status == 401 else "[key]") in answer.json()["error"]
        with pytest.raises(GatewayError, match="refused" if status == 401 else "bad key .key."):
            async for _ in model_verbs.pull(gate.house, ADMIN, ModelTarget(MODEL)):
                pass
