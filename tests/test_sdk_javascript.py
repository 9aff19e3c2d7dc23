"""The official JavaScript SDKs (`ollama`, `openai`, `@anthropic-ai/sdk`) at the gate, where Node is installed.

One run of tests/js/clients.mjs a gate; what it got is judged here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.engine.install import EngineFiles
from tests.rigs.gatehouse import MODEL, gatehouse
from tests.rigs.javascript import said_by_clients
from tests.rigs.real_gates import BEHIND, real_engine, real_gate
from tests.rigs.real_ollama import RealOllama
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.upstream_behaviours import error_in_stream
from tests.test_sdk_scripted import CITIES, TWO_CALLS, speaking


@pytest.fixture(params=BEHIND)
def behind(request: pytest.FixtureRequest) -> EngineFiles | RealOllama:
    return real_engine(request)


async def test_they_talk_to_real_engines(behind: EngineFiles | RealOllama, tmp_path: Path) -> None:
    """Chats, streams, responses, messages, embeddings (which this SDK of OpenAI wants in base64), lists, errors."""
    async with real_gate(behind, tmp_path) as gate:
        said = await said_by_clients(gate, "real")
        recorded = await gate.audit(said["openai"]["request"])
        models = set(gate.house.registry.upstreams[0].models or ())
    of_openai, of_anthropic, of_ollama = said["openai"], said["anthropic"], said["ollama"]
    text = of_openai["text"]
    assert text
    assert (recorded.response, recorded.state) == (text, "ok")
    assert of_openai["streamed"] == of_openai["response"] == of_ollama["text"] == of_ollama["streamed"] == text
    assert of_anthropic["text"] == of_anthropic["streamed"] == of_anthropic["final"] == text
    assert of_openai["usage"]["completion_tokens"] == of_openai["streamed_usage"]["completion_tokens"] == 4
    assert of_anthropic["usage"]["output_tokens"] == of_anthropic["final_usage"]["output_tokens"] == 4
    counts = of_anthropic["final_usage"]
    prompt = counts["input_tokens"] + counts.get("cache_read_input_tokens", 0)  # Anthropic counts a cache's apart
    assert prompt == of_openai["usage"]["prompt_tokens"] == of_ollama["counts"][0]
    assert of_anthropic["stop"] == "max_tokens"
    assert of_anthropic["counted"] > 0
    assert (of_openai["events"][0], of_openai["events"][-1]) == ("response.created", "response.incomplete")
    assert of_openai["dimensions"] == of_ollama["dimensions"]
    assert of_openai["dimensions"][0] > 100
    assert of_openai["numbers"]
    assert set(of_openai["models"]) == set(of_anthropic["models"]) == set(of_ollama["models"]) == models
    assert MODEL in models
    assert [(each["missing"]["kind"], each["missing"]["status"]) for each in (of_openai, of_anthropic, of_ollama)] == [
        ("NotFoundError", 404),
        ("NotFoundError", 404),
        ("ResponseError", 404),
    ]


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_they_run_tools_and_raise_what_breaks(kind: str, tmp_path: Path) -> None:
    """Two calls at once, whole and streamed, in every dialect; a stream that breaks is nobody's answer."""
    async with ScriptedUpstream(kind=kind) as upstream, gatehouse(tmp_path, upstream) as gate:
        upstream.next(*[speaking(TWO_CALLS)] * 6, *[error_in_stream(2)] * 3)
        said = await said_by_clients(gate, "scripted")
    for client in ("openai", "openai_streamed", "responses", "anthropic", "anthropic_streamed", "ollama"):
        assert said[client] == CITIES, client
    assert said["thought"] == ["Both towns."] * 3
    assert all(said["broken"].values()), said["broken"]
