"""What people are told to type works as it stands: README's lines, the seeds' own, and what PowerShell makes of them.

Real curl against a real daemon over a scripted upstream; only addresses and credentials are put in.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.gatehouse import ADMIN, Gatehouse, RawClient, gatehouse
from tests.rigs.process import ROOT
from tests.rigs.scripted_upstream import ScriptedUpstream

MODELS = ("llama3.2:latest", "llama3.1:8b", "phi:latest", "codellama:13b")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(models=MODELS) as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


@pytest.fixture
def curl() -> None:
    """Without it nothing here can be typed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")


async def typed(line: str, **environment: str) -> str:
    """What a line prints in a shell; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", line),
        env=os.environ | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (line, err.decode())
    return out.decode()


def readme_lines() -> list[str]:
    """The curl lines of README that name a gateway, in their order; continued lines joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"(?:^ {4}|`)(curl http://gateway:7000[^`\n]*|curl -N http://gateway:7000[^`\n]*)", text, re.M)


async def test_what_readme_tells_people_to_type_works(gate: Gatehouse, curl: None) -> None:
    """Register, log in, chat, make a key, ask for one's place, exchange a key for a token: line by line."""
    key, text = await gate.house.directory.issue_key(ADMIN, gate.user.id, label="nightly")
    put_in = {
        "http://gateway:7000": gate.url,
        "ana@example.org": "bea@example.org",  # Ana is there already
        "glk_ID:SECRET": f"glk_{key.id}:{text.rpartition('_')[2]}",
    }
    done = []
    token = ""
    for line in readme_lines():
        command = line
        for written, real in put_in.items():
            command = command.replace(written, real)
        said = await typed(command, TOKEN=token)
        route = re.findall(r"http://gateway:7000(\S+)", line)[0]
        done.append(route)
        answer = [json.loads(part) for part in said.splitlines()]
        match route:
            case "/auth/register":
                assert answer[0]["status"] == "pending"
                await gate.house.directory.approve(ADMIN, answer[0]["code"])
            case "/auth/login":
                token = answer[0]["access_token"]
            case "/api/chat":
                assert len(answer) > 1
                assert answer[-1]["done"] is True
            case "/auth/keys":
                assert (await gate.get("/auth/me", key=answer[0]["key"])).json()["email"] == "bea@example.org"
            case "/v1/queue":
                assert answer == [[]]
            case "/oauth/token":
                assert (await gate.get("/auth/me", key=answer[0]["access_token"])).json()["key"] == key.id
    assert done == ["/auth/register", "/auth/login", "/api/chat", "/auth/keys", "/v1/queue", "/oauth/token"]


async def test_the_python_of_readme_works(gate: Gatehouse) -> None:
    """The official client, as README writes it."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    code = code.replace("http://gateway:7000", gate.url).replace("glk_…", gate.key)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "Why not?")


# The examples of the third seed, as they stand there.
SEEDS_LINES = {
    "generate": """curl -X POST 'http://localhost:8000/api/generate' \\
  -H 'Authorization: Bearer token_for_user1' \\
  -H 'Content-Type: application/json' \\
  -d '{
        "model": "llama3.2",
        "prompt": "Why is the sky blue?",
        "stream": false
      }'""",
    "generate, streamed": """curl -X POST 'http://localhost:8000/api/generate' \\
  -H 'Authorization: Bearer token_for_user1' \\
  -H 'Content-Type: application/json' \\
  -d '{
        "model": "llama3.2",
        "prompt": "Why is the sky blue?"
      }'""",
    "chat": """curl -X POST 'http://localhost:8000/api/chat' \\
  -H 'Authorization: Bearer token_for_user1' \\
  -H 'Content-Type: application/json' \\
  -d '{
        "model": "llama3.2",
        "messages": [
          {
            "role": "user",
            "content": "Tell me a joke."
          }
        ],
        "stream": false
      }'""",
    "chat, streamed": """curl -X POST 'http://localhost:8000/api/chat' \\
  -H 'Authorization: Bearer token_for_user1' \\
  -H 'Content-Type: application/json' \\
  -d '{
        "model": "llama3.1",
        "messages": [
          {
            "role": "user",
            "content": "Tell me a joke."
          }
        ]
      }'""",
    "tags": """curl -X GET 'http://localhost:8000/api/tags' \\
  -H 'Authorization: Bearer token_for_user1'""",
}


@pytest.mark.parametrize("name", list(SEEDS_LINES))
async def test_the_seeds_own_lines_work_with_an_issued_key(gate: Gatehouse, curl: None, name: str) -> None:
    """Rows 29, 31, 32: streamed unless told otherwise, `response` where they expect it, the models in a list."""
    line = SEEDS_LINES[name].replace("http://localhost:8000", gate.url).replace("token_for_user1", gate.key)
    answer = [json.loads(part) for part in (await typed(line)).splitlines()]
    match name:
        case "generate":
            assert [part["response"] for part in answer] == ["Why not?"]
        case "generate, streamed":
            assert "".join(part["response"] for part in answer) == "Why not?"
        case "chat":
            assert [part["message"]["content"] for part in answer] == ["Why not?"]
        case "chat, streamed":
            assert "".join(part["message"]["content"] for part in answer) == "Why not?"
        case "tags":
            models = answer[0]["models"]
            assert {model["name"] for model in models} == set(MODELS)
            details = {"format", "family", "families", "parameter_size", "quantization_level"}
            assert all(details <= model["details"].keys() for model in models)
    if "streamed" in name:
        assert len(answer) > 1
        assert answer[-1]["done"] is True


async def test_a_body_as_powershell_sends_it(gate: Gatehouse) -> None:
    """Row 41: byte order mark, CR LF, `Expect: 100-continue`, a content type with a charset."""
    text = '{\r\n  "model": "llama3.2",\r\n  "prompt": "Erklär MQTT",\r\n  "stream": false\r\n}'
    body = b"\xef\xbb\xbf" + text.encode()
    client = await RawClient.connect(gate.port)
    await client.send(
        b"POST /api/generate HTTP/1.1\r\nUser-Agent: Mozilla/5.0 (Windows NT; de-DE) WindowsPowerShell/5.1\r\n"
        b"Content-Type: application/json; charset=utf-8\r\nAuthorization: Bearer %b\r\n"
        b"Host: gate\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        % (gate.key.encode(), len(body))
    )
    assert (await client.read_head()).startswith(b"HTTP/1.1 100")
    await client.send(body)
    head, _, answer = (await client.read_all()).partition(b"\r\n\r\n")
    client.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(answer)["response"] == "Why not?"
    record = (await gate.records())[0]
    assert (await gate.audit(record.request_id)).prompt == "Erklär MQTT"


async def test_each_name_reaches_the_server_that_has_the_model(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Rows 3 and 13: phi, mistral, tinyllama, llama2, written without a tag, over two servers."""
    async with ScriptedUpstream(models=("mistral:7b", "tinyllama:latest", "llama2:latest")) as other:
        upstreams = [{"name": "one", "url": upstream.url}, {"name": "two", "url": other.url}]
        async with gatehouse(tmp_path, upstream, upstreams=upstreams) as gate:
            for name, server, real in (
                ("phi", upstream, "phi:latest"),
                ("mistral", other, "mistral:7b"),
                ("tinyllama", other, "tinyllama:latest"),
                ("llama2", other, "llama2:latest"),
            ):
                answer = await gate.chat(model=name)
                assert (answer.status_code, answer.json()["model"]) == (200, real)
                assert server.inference[-1].document["model"] == real
            listed = (await gate.get("/api/tags")).json()["models"]
            assert {model["name"] for model in listed} == {*MODELS, "mistral:7b", "tinyllama:latest", "llama2:latest"}


async def test_images_tools_and_formats_reach_the_upstream_as_they_were_sent(gate: Gatehouse) -> None:
    """Row 33: what the gate has no business with arrives as it was, in its order."""
    asked: dict[str, Any] = {
        "model": "llama3.2:latest",
        "messages": [{"role": "user", "content": "What is it?", "images": ["aGVsbG8="]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"A": {}, "a": {}}}}}],
        "format": {"type": "object", "properties": {"X": {"type": "string"}}},
        "options": {"num_ctx": 4096, "temperature": 0.5, "unheard_of": [1, None]},
        "stream": True,
        "brand_new": {"nested": True},
    }
    assert (await gate.post("/api/chat", asked)).status_code == 200
    seen = json.loads(gate.upstream.inference[-1].raw)
    assert list(seen.items()) == list(asked.items())


@pytest.mark.parametrize("credential", ["admin", "admin123", "token_for_user1", "password", "glk_admin_admin"])
async def test_no_credential_works_that_nobody_issued(gate: Gatehouse, credential: str) -> None:
    """Rows 11, 52 and 55: the seeds' shared words open nothing, in no place where a credential may stand."""
    for header in ({"X-API-KEY": credential}, {"x_api_key": credential}, gate.bearer(credential)):
        answer = await gate.http.get(gate.url + "/api/tags", headers=header)
        assert answer.status_code == 401
    for email in ("admin", "admin@example.org", "admin@localhost", "ana@example.org"):
        body = {"email": email, "password": credential}
        answer = await gate.http.post(gate.url + "/auth/login", json=body)
        assert answer.status_code in {400, 401, 429}
        assert "access_token" not in answer.text
