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
from ast import literal_eval
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.gatehouse import ADMIN, Gatehouse, RawClient, gatehouse
from tests.rigs.office import open_office
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


async def typed_python(code: str) -> str:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(*(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
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


# The first two seeds', as they stand there: a body, and a line.
REQUEST_BODY = """{
  "model": "phi",
  "request": "Give me a fun fact about gravity."
}"""
REQUEST_LINE = """curl -X POST http://192.168.2.57:8085/request \\
  -H "X-API-KEY: admin" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "llama2", "request": "What do you think about gravity?"}'"""


async def test_the_first_seeds_line_and_body_work_with_an_issued_key(
    tmp_path: Path, curl: None, upstream: ScriptedUpstream
) -> None:
    """Rows 1, 2, 3, 7, 11: plain text out; its own key opens nothing."""
    upstream.add_model("llama2:latest")
    async with gatehouse(tmp_path, upstream) as gate:
        line = REQUEST_LINE.replace("http://192.168.2.57:8085", gate.url)
        assert await typed(line.replace("admin", gate.key)) == "Why not?"
        assert upstream.inference[-1].document["model"] == "llama2:latest"
        answer = await gate.http.post(gate.url + "/request", content=REQUEST_BODY, headers={"X-API-KEY": gate.key})
        assert (answer.status_code, answer.text) == (200, "Why not?")
        assert upstream.inference[-1].document["model"] == "phi:latest"
        asked = [record.prompt for record in await gate.records()]
        assert asked == ["Give me a fun fact about gravity.", "What do you think about gravity?"]
        assert await typed(line) == "Unauthorized access"


# The third's, in both of its languages, its key file, and its further route.
PROMPT_LINE = """curl -X POST "http://127.0.0.1:8000/generate" \\
     -H "x_api_key: your_secret_api_key" \\
     -H "Content-Type: application/json" \\
     -d '{"prompt": "Explain what machine learning is"}'"""
PROMPT_PYTHON = """import requests

url = "http://127.0.0.1:8000/generate"
headers = {
    "x_api_key": "your_secret_api_key",
    "Content-Type": "application/json"
}
data = {
    "prompt": "Explain what machine learning is"
}

response = requests.post(url, headers=headers, json=data)
print(response.json())
"""
KEY_FILE = "x_api_key=your_secret_api_key\n"
ALLOWED_MODELS = ["deepseek-r1:1.5b", "llama3:8b", "orca3:12b"]


async def test_the_key_and_credit_gateways_examples_work_with_an_issued_key(gate: Gatehouse, curl: None) -> None:
    """Rows 16 and 17: `{"response"}` from the default model, by curl as by Python."""
    for example in (PROMPT_LINE, PROMPT_PYTHON):
        text = example.replace("http://127.0.0.1:8000", gate.url).replace("your_secret_api_key", gate.key)
        said = await (typed(text) if text.startswith("curl") else typed_python(text))
        assert literal_eval(said) == {"response": "Why not?"}
        assert gate.upstream.inference[-1].document["model"] == MODELS[0]
    records = await gate.records()
    assert [(record.route, record.prompt) for record in records] == [
        ("/generate", "Explain what machine learning is")
    ] * 2


async def test_the_allow_list_of_a_key_is_kept_at_the_route_with_the_model_in_it(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Row 18: its list as a key's models."""
    for model in (*ALLOWED_MODELS, "mistral:7b"):
        upstream.add_model(model)
    async with gatehouse(tmp_path, upstream) as gate:
        _, key = await gate.member("scripts@example.org", models=ALLOWED_MODELS)
        said = []
        for model in (*ALLOWED_MODELS, "nobody", "mistral:7b"):
            body = {"prompt": "Explain what machine learning is"}
            answer = await gate.http.post(f"{gate.url}/generate/{model}", json=body, headers={"x_api_key": key})
            said.append((answer.status_code, answer.json().get("detail")))
        assert said == [(200, None)] * 3 + [(400, "Invalid model name"), (403, "Invalid model name")]


# The fourth's file of tokens; its lines are above.
TOKENS_FILE = """{
  "user1": "token_for_user1",
  "user2": "token_for_user2",
  "user3": "token_for_user3"
}"""


async def test_the_seeds_own_lines_and_key_files_work_as_they_are_after_an_import(tmp_path: Path, curl: None) -> None:
    """Rows 28, 31 and 36: nothing but the address is changed; each token is a user's."""
    (tmp_path / "tokens.json").write_text(TOKENS_FILE)
    (tmp_path / ".env").write_text(KEY_FILE)
    async with open_office(tmp_path, models=MODELS) as office:
        gate = office.gate
        for name in ("tokens.json", ".env"):
            await office.done("import", str(tmp_path / name))
        for line in SEEDS_LINES.values():
            assert (await typed(line.replace("http://localhost:8000", gate.url))).startswith("{")
        assert (await gate.records())[0].user == "user1@localhost"
        assert json.loads(await typed(PROMPT_LINE.replace("http://127.0.0.1:8000", gate.url)))["response"] == "Why not?"
        assert (await gate.records())[0].user == "shared@localhost"


# The fifth's, with a password in the body: a line, what PowerShell is to send, and the body in full.
CHAT_LINE = """curl http://192.168.1.2:7000/chat \\
-H "Content-Type: application/json" \\
-d '{
  "auth":{"username":"user@company.com","password":"password"},
  "messages":[{"role":"user","content":"Explain MQTT"}]
}'"""
CHAT_POWERSHELL_BODY = """{
   "auth":{"username":"user@company.com","password":"password"},
   "messages":[{"role":"user","content":"Explain MQTT"}]
 }"""
CHAT_BODY = """{
  "auth": {
    "username": "user@company.com",
    "password": "password"
  },
  "model": "llama3.2:latest",
  "messages": [
    { "role": "user", "content": "Hello" }
  ]
}"""


async def test_the_lan_gateways_examples_work_with_a_users_password(gate: Gatehouse, curl: None) -> None:
    """Rows 41, 58 and 59: by curl, as PowerShell sends it, and in full; the password is the user's own."""
    password = "my own good password"
    _, one_time = await gate.house.directory.add_user(ADMIN, "user@company.com")
    await gate.house.accounts.change_password("user@company.com", str(one_time), password, "127.0.0.1")

    def own(text: str) -> str:
        return text.replace('"password":"password"', f'"password":"{password}"').replace(
            '"password": "password"', f'"password": "{password}"'
        )

    line = own(CHAT_LINE).replace("http://192.168.1.2:7000", gate.url)
    answers = [json.loads(await typed(line))]
    body = own(CHAT_POWERSHELL_BODY).replace("\n", "\r\n").encode()
    client = await RawClient.connect(gate.port)
    await client.send(
        b"POST /chat HTTP/1.1\r\nUser-Agent: Mozilla/5.0 (Windows NT; de-DE) WindowsPowerShell/5.1\r\n"
        b"Content-Type: application/json\r\nHost: gate\r\nContent-Length: %d\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\n\r\n" % len(body)
    )
    assert (await client.read_head()).startswith(b"HTTP/1.1 100")
    await client.send(body)
    answers.append(json.loads((await client.read_all()).partition(b"\r\n\r\n")[2]))
    client.close()
    answers.append((await gate.http.post(gate.url + "/chat", content=own(CHAT_BODY))).json())
    for answer in answers:
        assert answer["response"] == answer["message"]["content"] == "Why not?"
        assert (answer["model"], answer["done"]) == ("llama3.2:latest", True)
    asked = [(record.user, record.prompt) for record in await gate.records()]
    assert asked == [("user@company.com", text) for text in ("Hello", "Explain MQTT", "Explain MQTT")]
    # Their own password is nobody's.
    assert (await gate.http.post(gate.url + "/chat", content=CHAT_BODY)).status_code == 401


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
