"""The gate over the real built-in engine: Ollama's official client talks to llama.cpp and does not notice.

The engine speaks OpenAI's dialect alone; what the client gets is Ollama's, by translation. Answers are those of a tiny
model: that there are some, whole and counted, is the promise, not what they say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import ollama
import pytest

from daemon import app
from daemon.config import Config
from daemon.engine.choice import Chosen
from daemon.engine.supervisor import Engine
from tests.rigs.gatehouse import MODEL, Gatehouse, gatehouse
from tests.rigs.real_ollama import OllamaFiles
from tests.rigs.real_ollama import ollama as run_ollama
from tests.rigs.until import until

pytestmark = pytest.mark.engine

SHORT = {"num_predict": 12, "temperature": 0}
QUESTION = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
async def gate(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gatehouse]:
    """A gate that was told of the test's engine, and its key, as `choose_upstreams` tells of the daemon's own."""
    behind: Any = SimpleNamespace(kind="openai", url=engine.url)
    upstreams = [{"name": "builtin", "kind": "openai", "url": engine.url, "seats": 4}]

    async def choose(stack: AsyncExitStack, config: Config, *_: Any, **__: Any) -> Chosen:
        return Chosen(config.upstreams, {"builtin": engine.key})

    monkeypatch.setattr(app, "choose_upstreams", choose)
    async with gatehouse(tmp_path, behind, upstreams=upstreams) as running:
        yield running


async def blocking(gate: Gatehouse, talk: Callable[[ollama.Client], Any]) -> Any:
    """What `talk` says with the official blocking client, which runs in a thread: the gate runs in this loop."""
    with ollama.Client(host=gate.url, headers=gate.bearer()) as client:
        return await asyncio.to_thread(talk, client)


async def test_what_the_model_cannot_take_is_a_mistake_of_the_asker(gate: Gatehouse) -> None:
    """An image for a model that only reads text: 400 with llama.cpp's words, as the official client shows them."""
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    seen = [{"role": "user", "content": "What is it?", "images": [dot]}]
    answer = await gate.post("/api/chat", {"model": MODEL, "messages": seen, "stream": False})
    assert answer.status_code == 400, answer.text
    assert "image input is not supported" in answer.json()["error"]


async def in_the_audit(gate: Gatehouse, route: str) -> Any:
    """The latest exchange of that route, as the audit shows it."""
    row = next(row for row in await gate.records() if row.route == route)
    return await gate.audit(row.request_id)


async def test_the_official_client_chats(gate: Gatehouse) -> None:
    """Streamed and whole: an answer with its counts; the audit has the prompt and all of the answer."""
    whole = await blocking(gate, lambda client: client.chat(MODEL, messages=QUESTION, options=SHORT))
    assert whole.message.content
    assert (whole.done, whole.model) == (True, MODEL)
    assert whole.prompt_eval_count > 0
    assert whole.eval_count > 0
    record = await in_the_audit(gate, "/api/chat")
    assert (record.prompt, record.response, record.state) == ("Say hello.", whole.message.content, "ok")
    assert (record.tokens_in, record.tokens_out) == (whole.prompt_eval_count, whole.eval_count)

    parts = await blocking(gate, lambda client: list(client.chat(MODEL, messages=QUESTION, options=SHORT, stream=True)))
    assert len(parts) > 3, "an answer that streams comes in pieces"
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    text = "".join(part.message.content for part in parts)
    assert text == whole.message.content, "streamed or not, at temperature 0 it is one answer"
    assert (parts[-1].prompt_eval_count, parts[-1].eval_count) == (whole.prompt_eval_count, whole.eval_count)
    assert (await in_the_audit(gate, "/api/chat")).response == text


async def test_the_official_client_generates(gate: Gatehouse) -> None:
    """`generate`, whole and streamed, with a system text; recorded like a chat."""
    asked = {"model": MODEL, "prompt": "Say hello.", "system": "You are brief.", "options": SHORT}
    whole = await blocking(gate, lambda client: client.generate(**asked))
    assert whole.response
    assert whole.eval_count > 0
    parts = await blocking(gate, lambda client: list(client.generate(**asked, stream=True)))
    assert "".join(part.response for part in parts) == whole.response
    assert parts[-1].done
    record = await in_the_audit(gate, "/api/generate")
    assert (record.prompt, record.response) == ("Say hello.", whole.response)
    assert record.tokens_out == whole.eval_count


async def test_the_official_client_embeds_and_looks_around(gate: Gatehouse) -> None:
    """embed, embeddings, list, show, ps: Ollama's shapes, as its own client checks them."""
    embedded = await blocking(gate, lambda client: client.embed(MODEL, input=["one", "two"]))
    assert len(embedded.embeddings) == 2
    assert len(embedded.embeddings[0]) == len(embedded.embeddings[1]) > 100
    older = await blocking(gate, lambda client: client.embeddings(MODEL, prompt="one"))
    assert len(older.embedding) == len(embedded.embeddings[0])
    listed = await blocking(gate, lambda client: client.list())
    assert [model.model for model in listed.models] == [MODEL]
    shown = await blocking(gate, lambda client: client.show(MODEL))
    assert shown.details is not None
    running = await blocking(gate, lambda client: client.ps())
    assert [model.model for model in running.models] in ([], [MODEL])
    record = await in_the_audit(gate, "/api/embed")
    assert record.state == "ok"
    assert record.tokens_in


@pytest.mark.real_ollama
async def test_ollamas_command_line_shows_the_model(gate: Gatehouse, ollama_files: OllamaFiles, tmp_path: Path) -> None:
    """Row 85, before the built-in engine: size and lengths, as far as llama.cpp tells them."""
    _, key = await gate.member("terminal@example.org", in_path=True)
    code, out, err = await run_ollama(ollama_files, tmp_path, f"{gate.url}/k/{key}", "show", MODEL)
    assert code == 0, err
    shown = [" ".join(line.split()) for line in out.splitlines()]
    assert {"architecture unknown", "parameters 134.52M", "context length 8192", "quantization Q4_1"} <= {*shown}, out


async def test_the_official_asynchronous_client_works_and_errors_are_its_own(gate: Gatehouse) -> None:
    """The same client for asyncio; what goes wrong is its ResponseError with Ollama's words."""
    async with ollama.AsyncClient(host=gate.url, headers=gate.bearer()) as client:
        stream = await client.chat(MODEL, messages=QUESTION, options=SHORT, stream=True)
        parts = [part async for part in stream]
        assert parts[-1].done
        assert "".join(part.message.content or "" for part in parts)
        whole = await client.generate(MODEL, prompt="Say hello.", options=SHORT)
        assert whole.response
        assert [model.model for model in (await client.list()).models] == [MODEL]
        with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as failure:
            await client.chat("nobody", messages=QUESTION)
        assert failure.value.status_code == 404
    async with ollama.AsyncClient(host=gate.url, headers=gate.bearer("glk_wrong_key")) as stranger:
        with pytest.raises(ollama.ResponseError) as failure:
            await stranger.list()
        assert failure.value.status_code == 401


async def test_many_talk_at_once_and_one_who_leaves_frees_the_engine(gate: Gatehouse, engine: Engine) -> None:
    """Six at four seats are all served; a client that leaves in mid-answer leaves no slot of the engine busy."""
    answers = await asyncio.gather(
        *(gate.post("/api/chat", {"model": MODEL, "messages": QUESTION, "options": SHORT}) for _ in range(6))
    )
    for answer in answers:
        assert answer.status_code == 200
        assert json.loads(answer.content.splitlines()[-1])["done"] is True
    endless = {"model": MODEL, "messages": QUESTION, "options": {"num_predict": 4000, "temperature": 1.5}}
    async with gate.streaming(body=endless) as answer:
        await anext(answer.aiter_lines())
    await until(lambda: not gate.house.gate.live())

    async def idle() -> bool:
        async with httpx.AsyncClient() as client:
            slots = (await client.get(f"{engine.url}/slots", headers={"Authorization": f"Bearer {engine.key}"})).json()
        return not any(slot["is_processing"] for slot in slots)

    await until(idle)
    assert (await gate.records())[0].state == "client_left"
