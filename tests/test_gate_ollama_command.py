"""The real `ollama` command line against the gate: it cannot send a header, so its key stands in the path (row 85)."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.rigs import upstream_shapes
from tests.rigs.gatehouse import MODEL, Gatehouse, gatehouse
from tests.rigs.real_ollama import CHAT_MODEL, EMBEDDING_MODEL, OllamaFiles, RealOllama, ollama
from tests.rigs.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.real_ollama, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(real_ollama: RealOllama, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gatehouse]:
    """A gate in front of the real Ollama, and a key that may stand in the path."""
    upstream = SimpleNamespace(kind="ollama", url=real_ollama.url)
    async with gatehouse(tmp_path_factory.mktemp("gate"), upstream) as running:  # type: ignore[arg-type]
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brief(gate: Gatehouse) -> AsyncIterator[str]:
    """A model that says little: the command line has no option for that."""
    # Of another context than the model that it is made of: Ollama would go on with that one where it is loaded, and
    # show its name.
    parameters = {"num_predict": 6, "num_gpu": 0, "num_ctx": 1024}
    asked = {"model": "brief", "from": CHAT_MODEL, "parameters": parameters, "stream": False}
    made = await gate.http.post(f"{gate.upstream.url}/api/create", json=asked, timeout=60)
    assert made.json() == {"status": "success"}
    await gate.house.registry.refresh()
    yield "brief:latest"
    await gate.http.request("DELETE", f"{gate.upstream.url}/api/delete", json={"model": "brief"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(gate: Gatehouse) -> str:
    _, key = await gate.member("terminal@example.org", in_path=True)
    return key


async def test_list_ps_show_and_run_work_with_a_key_in_the_path(
    gate: Gatehouse,
    key: str,
    brief: str,
    ollama_files: OllamaFiles,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`OLLAMA_HOST=http://gateway:7000/k/KEY`: as people type it; on record as that user, the key nowhere."""
    caplog.set_level(logging.DEBUG, "gatelodge")
    host = f"{gate.url}/k/{key}"
    code, out, err = await ollama(ollama_files, tmp_path, host, "list")
    assert code == 0, err
    assert {line.split()[0] for line in out.splitlines()[1:]} == {CHAT_MODEL, EMBEDDING_MODEL, brief}

    code, out, err = await ollama(ollama_files, tmp_path, host, "show", brief)
    assert code == 0, err
    assert "architecture" in out and "llama" in out

    code, out, err = await ollama(ollama_files, tmp_path, host, "run", "brief", "Say hello.")
    assert code == 0, err
    assert out.strip()
    (record,) = [row for row in await gate.records() if row.prompt.strip() == "Say hello."]
    assert (record.user, record.route, record.state) == ("terminal@example.org", "/api/generate", "ok")
    assert (await gate.audit(record.request_id)).response.strip() == out.strip()

    code, out, err = await ollama(ollama_files, tmp_path, host, "ps")
    assert code == 0, err
    assert brief in out

    kept = b"".join(file.read_bytes() for file in gate.data.rglob("*") if file.is_file())
    assert key.rpartition("_")[2].encode() not in kept
    assert key.rpartition("_")[2] not in "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)


async def test_without_such_a_key_it_is_told_why(
    gate: Gatehouse, key: str, ollama_files: OllamaFiles, tmp_path: Path
) -> None:
    """No key, a wrong one, one that may not stand in the path: the command fails with the gate's words."""
    for path, words in (
        ("", "credential"),
        (f"/k/{key}x", "credential"),
        (f"/k/{gate.key}", "may not stand in the path"),
    ):
        code, out, err = await ollama(ollama_files, tmp_path, gate.url + path, "list")
        assert code != 0
        assert words in err, json.dumps([out, err])


@pytest.mark.parametrize(
    ("kind", "told", "line"),
    [
        ("openai", {}, "architecture"),
        ("openai", {"max_model_len": 4096}, "4096"),
        ("openai", {"meta": {"n_embd": 576}}, "576"),
        ("anthropic", {}, "architecture"),
    ],
    ids=["nothing told", "as vLLM", "as an embedding server", "anthropic"],
)
async def test_show_works_before_servers_that_are_no_ollama(
    ollama_files: OllamaFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    told: dict[str, Any],
    line: str,
) -> None:
    """They tell little of a model; the command prints that, where it once panicked."""
    plain = upstream_shapes.openai_model
    monkeypatch.setattr(upstream_shapes, "openai_model", lambda name: plain(name) | told)
    async with ScriptedUpstream(kind=kind) as upstream, gatehouse(tmp_path, upstream) as gate:
        _, key = await gate.member("terminal@example.org", in_path=True)
        code, out, err = await ollama(ollama_files, tmp_path, f"{gate.url}/k/{key}", "show", MODEL)
        assert code == 0, err
        assert line in out and "completion" in out


async def test_pull_rm_and_run_name_their_model(gate: Gatehouse, ollama_files: OllamaFiles, tmp_path: Path) -> None:
    """The command sends `model` empty beside `name`: what the server says is about the model, not about the request."""
    _, key = await gate.member("keeper@example.org", role="admin", in_path=True)
    host = f"{gate.url}/k/{key}"
    for words in (("rm", "nobody"), ("run", "glm-4.6:cloud", "hello"), ("pull", "glm-4.6:cloud")):
        code, out, err = await ollama(ollama_files, tmp_path, host, *words)
        assert code != 0 and "model is required" not in err, err
        assert ("not found" if words[0] == "rm" else "runs outside of this network") in err, (words, out, err)
    copied = await gate.post("/api/copy", {"source": CHAT_MODEL, "destination": "again"}, key=key)
    assert copied.status_code == 200
    code, _, err = await ollama(ollama_files, tmp_path, host, "rm", "again")
    assert code == 0, err
    code, out, _ = await ollama(ollama_files, tmp_path, host, "list")
    assert "again" not in out
