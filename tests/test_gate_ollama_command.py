"""The real `ollama` command line against the gate: it cannot send a header, so its key stands in the path (row 85)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.real_ollama import CHAT_MODEL, EMBEDDING_MODEL, OllamaFiles, RealOllama

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
    asked = {"model": "brief", "from": CHAT_MODEL, "parameters": {"num_predict": 6, "num_gpu": 0}, "stream": False}
    made = await gate.http.post(f"{gate.upstream.url}/api/create", json=asked, timeout=60)
    assert made.json() == {"status": "success"}
    await gate.house.registry.refresh()
    yield "brief:latest"
    await gate.http.request("DELETE", f"{gate.upstream.url}/api/delete", json={"model": "brief"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(gate: Gatehouse) -> str:
    _, key = await gate.member("terminal@example.org", in_path=True)
    return key


async def ollama(files: OllamaFiles, home: Path, host: str, *words: str) -> tuple[int, str, str]:
    """Run the command line; its exit code, what it printed, and what it said beside that."""
    process = await asyncio.create_subprocess_exec(
        *(files.server / "ollama-lib", *words),
        env={
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": f"{files.server}:{files.libraries}",
            "HOME": str(home),
            "OLLAMA_HOST": host,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


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
