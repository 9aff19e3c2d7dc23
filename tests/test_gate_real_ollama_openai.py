"""OpenAI's dialect beside the real thing: Ollama 0.9.3's own /v1 routes and the gate's, which asks it natively.

Compared is what a client of OpenAI looks at: status, kind of content, the text in its chunks, the reason to finish, the
usage, the vectors; of an error its status, and what is told of it. Ids and times are each server's own. Where the gate
means to differ the table says how and why, and it must be true of both sides.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.real_ollama import CHAT_MODEL, EMBEDDING_MODEL, RealOllama

pytestmark = [pytest.mark.real_ollama, pytest.mark.asyncio(loop_scope="module")]

CHAT_ROUTE, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ASKED = [{"role": "user", "content": "Say hello."}]
CHAT: dict[str, Any] = {"model": CHAT_MODEL, "messages": ASKED, "temperature": 0, "seed": 7, "max_tokens": 2}
TEXT: dict[str, Any] = {"model": CHAT_MODEL, "prompt": "Say hello.", "temperature": 0, "seed": 7, "max_tokens": 2}
COUNTED = {"stream": True, "stream_options": {"include_usage": True}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


@dataclass(frozen=True)
class Differs:
    """An intended difference: the status of each side."""

    why: str
    ollama: int
    gate: int


NEVER_DROPPED = "Ollama reads over it; what would change the answer is a 400 at the gate, never dropped"
# name -> method, path, body, and how the gate differs where it means to
CASES: dict[str, tuple[str, str, Any, Differs | None]] = {
    "chat": ("POST", CHAT_ROUTE, CHAT, None),
    "chat streamed and counted": ("POST", CHAT_ROUTE, CHAT | COUNTED, None),
    "chat with a stop": ("POST", CHAT_ROUTE, CHAT | {"stop": ["m"]}, None),
    "chat of parts": (
        *("POST", CHAT_ROUTE),
        *(CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]}, None),
    ),
    "chat as JSON": ("POST", CHAT_ROUTE, CHAT | {"response_format": {"type": "json_object"}}, None),
    "chat by a schema": (
        *("POST", CHAT_ROUTE),
        CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        None,
    ),
    "chat with unknown fields": ("POST", CHAT_ROUTE, CHAT | {"brand_new": 1}, None),
    "completion streamed and counted": ("POST", COMPLETION, TEXT | COUNTED, None),
    "embedding": ("POST", EMBEDDING, {"model": EMBEDDING_MODEL, "input": "hello"}, None),
    "embeddings": ("POST", EMBEDDING, {"model": EMBEDDING_MODEL, "input": ["a", "b c d"]}, None),
    "models": ("GET", "/v1/models", None, None),
    "a model": ("GET", f"/v1/models/{CHAT_MODEL}", None, None),
    "no such model, listed": ("GET", "/v1/models/nobody", None, None),
    "no such model, chat": ("POST", CHAT_ROUTE, CHAT | {"model": "nobody"}, None),
    "no such model, completion": ("POST", COMPLETION, TEXT | {"model": "nobody"}, None),
    "no such model, embedding": ("POST", EMBEDDING, {"model": "nobody", "input": "a"}, None),
    "no messages": ("POST", CHAT_ROUTE, CHAT | {"messages": []}, None),
    "messages of a wrong type": ("POST", CHAT_ROUTE, CHAT | {"messages": "hello"}, None),
    "half a body": ("POST", CHAT_ROUTE, b'{"model":', None),
    "nothing to embed": ("POST", EMBEDDING, {"model": EMBEDDING_MODEL}, None),
    "no model": ("POST", CHAT_ROUTE, {"messages": ASKED}, None),
    "a temperature of a wrong type": ("POST", CHAT_ROUTE, CHAT | {"temperature": "hot"}, None),
    "an image that is an address": (
        "POST",
        CHAT_ROUTE,
        CHAT
        | {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}
            ]
        },
        None,
    ),
    "tools without the gift": (
        *("POST", CHAT_ROUTE),
        *(CHAT | {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}, None),
    ),
    "two choices": ("POST", CHAT_ROUTE, CHAT | {"n": 2}, Differs(NEVER_DROPPED, 200, 400)),
    "a bias of tokens": ("POST", CHAT_ROUTE, CHAT | {"logit_bias": {"5": 1}}, Differs(NEVER_DROPPED, 200, 400)),
    "an echo": ("POST", COMPLETION, TEXT | {"echo": True}, Differs(NEVER_DROPPED, 200, 400)),
    "usage of no stream": (
        *("POST", CHAT_ROUTE),
        *(CHAT | {"stream_options": {"include_usage": True}}, Differs("OpenAI itself refuses it", 200, 400)),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(real_ollama: RealOllama, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gatehouse]:
    behind: Any = SimpleNamespace(kind="ollama", url=real_ollama.url)
    async with gatehouse(tmp_path_factory.mktemp("gate"), behind) as running:
        yield running


@pytest.mark.parametrize("name", list(CASES))
async def test_the_gate_answers_as_ollamas_own_v1_does(gate: Gatehouse, name: str) -> None:
    """The table above, row by row."""
    method, path, body, differs = CASES[name]
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    straight = await gate.http.request(method, gate.upstream.url + path, content=content, timeout=60)
    through = await gate.http.request(method, gate.url + path, content=content, headers=gate.bearer(), timeout=60)
    if differs is None:
        assert looks(through) == looks(straight)
    else:
        assert (straight.status_code, through.status_code) == (differs.ollama, differs.gate)
    if through.status_code != 200:
        assert set(through.json()["error"]) >= {"message", "type", "param", "code"}


def looks(answer: httpx.Response) -> Any:
    """What a client sees of an answer."""
    kind = answer.headers["content-type"].partition(";")[0]
    if answer.status_code != 200:
        return answer.status_code, kind, bool(answer.json()["error"]["message"])
    if kind != "text/event-stream":
        return answer.status_code, kind, whole(answer.json())
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    texts = [text for choice in choices if (text := text_of(choice))]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")][-1:]  # Ollama tells zeros before, in completions
    return answer.status_code, kind, done, {chunk["object"] for chunk in chunks}, texts, reasons, usage


def whole(document: dict[str, Any]) -> Any:
    if "choices" in document:
        (choice,) = document["choices"]
        return document["object"], document["model"], text_of(choice), choice["finish_reason"], document["usage"]
    if document["object"] == "list" and document["data"][0]["object"] == "embedding":
        vectors = [[round(number, 4) for number in each["embedding"]] for each in document["data"]]
        return vectors, [each["index"] for each in document["data"]], document["usage"]
    return document


def text_of(choice: dict[str, Any]) -> str:
    """The text of a whole answer or of a chunk, of chat or completion."""
    said = choice.get("message") or choice.get("delta")
    return str((choice.get("text") if said is None else said.get("content")) or "")
