"""The gate beside the real thing: the same request straight to Ollama 0.9.3 and through the gate gets the same answer.

Same status, content type, fields in the same order, and at temperature 0 the same text. Where the gate means to differ,
the table says how and why; what it says must be true of both sides, so that a difference that went away is noticed.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.rigs.gatehouse import Gatehouse, gatehouse
from tests.rigs.real_ollama import CHAT_MODEL, EMBEDDING_MODEL, RealOllama
from tests.rigs.until import until

# One gate and one event loop for all of them: each case is two requests.
pytestmark = [pytest.mark.real_ollama, pytest.mark.asyncio(loop_scope="module")]

JSON, NDJSON = "application/json; charset=utf-8", "application/x-ndjson"
ASKED = [{"role": "user", "content": "Say hello."}]
FIXED = {"temperature": 0, "seed": 7, "num_predict": 4}
CHAT: dict[str, Any] = {"model": CHAT_MODEL, "messages": ASKED, "options": FIXED}
GENERATE: dict[str, Any] = {"model": CHAT_MODEL, "prompt": "Say hello.", "options": FIXED}
WHOLE = {"stream": False}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class Differs:
    """An intended difference: what Ollama says and what the gate says instead; None where that is the same."""

    why: str
    ollama: tuple[int, str, str | None]  # status, content type, error
    gate: tuple[int, str, str | None]


OWN_WORDS = "the gate reads bodies itself and strictly, before anything else looks at them, and says what it saw"
ONE_WORDING = "Ollama words this differently by route; the gate has one wording, that of generate and show"
FAILURE = "what fails in the upstream is 502 at the gate (contract), and never a 200; the words stay Ollama's"
ALWAYS_JSON = "the gate's errors are JSON with X-Request-Id, also where Ollama's router says plain text"
REQUIRED = "a missing model is the same 400 on every route of the gate"

# name -> method, path, body, and how the gate differs where it means to
CASES: dict[str, tuple[str, str, Any, Differs | None]] = {
    "chat streamed": ("POST", "/api/chat", CHAT, None),
    "chat whole": ("POST", "/api/chat", CHAT | WHOLE, None),
    "chat as JSON": ("POST", "/api/chat", CHAT | WHOLE | {"format": "json"}, None),
    "chat with unknown fields": (
        *("POST", "/api/chat"),
        *(CHAT | WHOLE | {"brand_new": {"a": [1]}, "options": FIXED | {"brand_new": 1}}, None),
    ),
    "chat by a byte order mark": (
        "POST",
        "/api/chat",
        b"\xef\xbb\xbf" + json.dumps(CHAT).encode(),
        Differs(
            "PowerShell 5 sends one: the gate tolerates it (row 41)",
            (400, JSON, "invalid character 'ï' looking for beginning of value"),
            (200, NDJSON, None),
        ),
    ),
    "chat without messages": ("POST", "/api/chat", {"model": CHAT_MODEL}, None),
    "chat in another case": ("POST", "/api/chat", {"Model": CHAT_MODEL, "MESSAGES": ASKED, "Options": FIXED}, None),
    "generate streamed": ("POST", "/api/generate", GENERATE, None),
    "generate whole": ("POST", "/api/generate", GENERATE | WHOLE, None),
    "generate raw": ("POST", "/api/generate", GENERATE | {"raw": True}, None),
    "generate with system and template": (
        *("POST", "/api/generate"),
        *(GENERATE | WHOLE | {"system": "Be brief.", "template": "{{ .System }} {{ .Prompt }}"}, None),
    ),
    "generate without prompt": ("POST", "/api/generate", {"model": CHAT_MODEL}, None),
    "generate with suffix": ("POST", "/api/generate", GENERATE | {"suffix": "!"}, None),
    "embed one": ("POST", "/api/embed", {"model": EMBEDDING_MODEL, "input": "hello"}, None),
    "embed several": ("POST", "/api/embed", {"model": EMBEDDING_MODEL, "input": ["a", "b c d"]}, None),
    "embed nothing": ("POST", "/api/embed", {"model": EMBEDDING_MODEL, "input": []}, None),
    "embed a number": ("POST", "/api/embed", {"model": EMBEDDING_MODEL, "input": 5}, None),
    "embeddings": ("POST", "/api/embeddings", {"model": EMBEDDING_MODEL, "prompt": "hello"}, None),
    "embeddings of nothing": ("POST", "/api/embeddings", {"model": EMBEDDING_MODEL, "prompt": ""}, None),
    "tags": ("GET", "/api/tags", None, None),
    "tags by HEAD": ("HEAD", "/api/tags", None, None),
    "show": ("POST", "/api/show", {"model": CHAT_MODEL}, None),
    "show by name": ("POST", "/api/show", {"name": EMBEDDING_MODEL}, None),
    "show in detail": ("POST", "/api/show", {"model": CHAT_MODEL, "verbose": True}, None),
    "show nobody": ("POST", "/api/show", {"model": "nobody"}, None),
    "show without a name": ("POST", "/api/show", {}, None),
    "ps": ("GET", "/api/ps", None, None),
    "version": ("GET", "/api/version", None, None),
    "version by HEAD": ("HEAD", "/api/version", None, None),
    "knock": ("GET", "/", None, None),
    "knock by HEAD": ("HEAD", "/", None, None),
    "unknown model, generate": ("POST", "/api/generate", GENERATE | {"model": "nobody"}, None),
    "unknown model, chat": (
        "POST",
        "/api/chat",
        CHAT | {"model": "nobody"},
        Differs(
            ONE_WORDING,
            (404, JSON, 'model "nobody" not found, try pulling it first'),
            (404, JSON, "model 'nobody' not found"),
        ),
    ),
    "unknown model, embed": (
        "POST",
        "/api/embed",
        {"model": "nobody", "input": "a"},
        Differs(
            ONE_WORDING,
            (404, JSON, 'model "nobody" not found, try pulling it first'),
            (404, JSON, "model 'nobody' not found"),
        ),
    ),
    "no model, chat": ("POST", "/api/chat", {"messages": ASKED}, None),
    "no model, embeddings": ("POST", "/api/embeddings", {"prompt": "a"}, None),
    "no model, generate": (
        "POST",
        "/api/generate",
        {"prompt": "a"},
        Differs(REQUIRED, (404, JSON, "model '' not found"), (400, JSON, "model is required")),
    ),
    "no model, embed": (
        "POST",
        "/api/embed",
        {"input": "a"},
        Differs(REQUIRED, (404, JSON, 'model "" not found, try pulling it first'), (400, JSON, "model is required")),
    ),
    "an untagged name": (
        "POST",
        "/api/show",
        {"model": "smollm2"},
        Differs("the only installed tag serves (row 13)", (404, JSON, "model 'smollm2' not found"), (200, JSON, None)),
    ),
    "no body": ("POST", "/api/chat", b"", None),
    "half a body": (
        "POST",
        "/api/chat",
        b'{"model":',
        Differs(
            OWN_WORDS,
            (400, JSON, "unexpected EOF"),
            (400, JSON, "the request body is not JSON: Input data was truncated"),
        ),
    ),
    "a list": ("POST", "/api/chat", b"[]", None),
    "a word": ("POST", "/api/generate", b'"x"', None),
    "a model twice": (
        "POST",
        "/api/show",
        b'{"model":"nobody","MODEL":"%b"}' % CHAT_MODEL.encode(),
        Differs(
            "Go takes the last of two spellings: a way around the gate's policy, so both are refused (H6)",
            (200, JSON, None),
            (400, JSON, "the request has keys that differ only in case: 'model', 'MODEL'"),
        ),
    ),
    "messages of a wrong type": ("POST", "/api/chat", CHAT | {"messages": "hello"}, None),
    "model of a wrong type": ("POST", "/api/chat", CHAT | {"model": 5}, None),
    "stream of a wrong type": ("POST", "/api/chat", CHAT | {"stream": "yes"}, None),
    "options of a wrong type": ("POST", "/api/generate", GENERATE | {"options": []}, None),
    "an option of a wrong type": (
        "POST",
        "/api/chat",
        CHAT | {"options": {"temperature": "hot"}},
        Differs(
            FAILURE,
            (500, JSON, 'option "temperature" must be of type float32'),
            (502, JSON, 'option "temperature" must be of type float32'),
        ),
    ),
    "a format there is not": (
        "POST",
        "/api/chat",
        CHAT | {"format": "yaml"},
        Differs(
            FAILURE,
            (200, NDJSON, 'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object'),
            (502, JSON, 'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object'),
        ),
    ),
    "keep_alive that is none": ("POST", "/api/chat", CHAT | {"keep_alive": "soon"}, None),
    "thinking without the gift": ("POST", "/api/chat", CHAT | {"think": True}, None),
    "tools without the gift": ("POST", "/api/chat", CHAT | {"tools": [TOOL]}, None),
    "chat with an embedding model": ("POST", "/api/chat", CHAT | {"model": EMBEDDING_MODEL}, None),
    "another method": (
        "GET",
        "/api/chat",
        None,
        Differs(ALWAYS_JSON, (405, "text/plain", None), (405, JSON, "this route does not have that method")),
    ),
    "nowhere": (
        "GET",
        "/nowhere",
        None,
        Differs(ALWAYS_JSON, (404, "text/plain", None), (404, JSON, "there is nothing at /nowhere")),
    ),
    "unloading": ("POST", "/api/generate", {"model": EMBEDDING_MODEL, "keep_alive": 0}, None),
}

MEASURED = {"created_at", "expires_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
UNORDERED = {"modelfile", "parameters"}  # Ollama prints a Go map: in another order each time


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(real_ollama: RealOllama, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gatehouse]:
    behind: Any = SimpleNamespace(kind="ollama", url=real_ollama.url)
    async with gatehouse(tmp_path_factory.mktemp("gate"), behind) as running:
        yield running


async def both(gate: Gatehouse, method: str, path: str, body: Any) -> tuple[httpx.Response, httpx.Response]:
    """The answers of Ollama itself and of the gate."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    straight = await gate.http.request(method, gate.upstream.url + path, content=content, timeout=60)
    through = await gate.http.request(method, gate.url + path, content=content, headers=gate.bearer(), timeout=60)
    return straight, through


@pytest.mark.parametrize("name", list(CASES))
async def test_the_gate_answers_as_ollama_does(gate: Gatehouse, name: str) -> None:
    """The table above, row by row."""
    method, path, body, differs = CASES[name]
    straight, through = await both(gate, method, path, body)
    if differs is None:
        assert looks(through) == looks(straight)
    else:
        assert summary(straight) == differs.ollama
        assert summary(through) == differs.gate


def looks(answer: httpx.Response) -> tuple[int, str, Any]:
    """What must be the same of an answer; of an error its words, beside which the gate puts `code` and details."""
    content_type = answer.headers["content-type"]
    if answer.request.method == "HEAD":
        return answer.status_code, content_type, answer.headers["content-length"]
    if content_type == NDJSON:
        return answer.status_code, content_type, [fields(line) for line in answer.content.splitlines()]
    if content_type != JSON:
        return answer.status_code, content_type, answer.text
    words = error_of(answer)
    return answer.status_code, content_type, fields(answer.content) if words is None else words


def summary(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, content type, and the words of an error."""
    return answer.status_code, answer.headers["content-type"], error_of(answer)


def error_of(answer: httpx.Response) -> str | None:
    """The words of an error, in JSON or as the only line of a stream."""
    if "json" not in answer.headers["content-type"]:
        return None
    document = json.loads(answer.content.splitlines()[0])
    return document.get("error")


def fields(text: bytes) -> Any:
    """A document as pairs in their order, without what differs from one time to the next."""
    return json.loads(text, object_pairs_hook=steady, parse_float=lambda number: round(float(number), 4))


def steady(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Times and durations as their kind, text in a random order of lines sorted; so are models in memory, of which
    Ollama tells those that expire in the same second in any order."""
    pairs = [
        (name, sorted(value, key=str) if name == "models" and "expires_at" in str(value) else value)
        for name, value in pairs
    ]
    return [
        (name, type(value).__name__)
        if name in MEASURED
        else (name, sorted(value.splitlines()))
        if name in UNORDERED
        else (name, value)
        for name, value in pairs
    ]


@pytest.mark.parametrize("when", ["in mid-stream", "before a whole answer", "in prefill"])
async def test_leaving_stops_the_real_ollama(gate: Gatehouse, real_ollama: RealOllama, when: str) -> None:
    """Row 72: whose client is gone computes no more, though thousands of tokens were asked for.

    Ollama 0.9.3 itself reads a prompt to its end before it looks whether anybody still waits.
    """
    prompt = "Tell a long story. " + "word " * (20 if when == "in prefill" else 1)
    asked = {
        "model": CHAT_MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "options": {"num_predict": 20_000, "temperature": 1.5},
        "stream": when != "before a whole answer",
    }
    runs = Work(real_ollama.process.pid)
    asking = asyncio.ensure_future(gate.post("/api/chat", asked, timeout=60))
    (exchange,) = await until(gate.house.gate.live)
    if when == "in prefill":
        await until(lambda: exchange.phase == "prefill" and runs.grew(), timeout=20)
    else:
        await until(lambda: exchange.first_byte, timeout=20)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not gate.house.gate.live())
    await until(runs.rest, timeout=20, what="Ollama's processes use no processor time any more")
    assert (await gate.audit(exchange.request_id)).state == "client_left"


class Work:
    """How much processor time a process group has used, in clock ticks (a hundredth of a second)."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._begin = self._used()
        self._last, self._since = self._begin, time.monotonic()

    def grew(self) -> bool:
        """Whether it has done a tenth of a second's work since the beginning."""
        return self._used() - self._begin > 10

    def rest(self) -> bool:
        """Whether it has done nothing worth the name for a third of a second."""
        used = self._used()
        if used - self._last > 2:
            self._last, self._since = used, time.monotonic()
        return time.monotonic() - self._since > 0.33

    def _used(self) -> int:
        used = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                if os.getpgid(int(stat.parent.name)) == self._group:
                    values = stat.read_text().rpartition(")")[2].split()
                    used += int(values[11]) + int(values[12])  # utime, stime
            except OSError:
                continue  # it ended while we looked
        return used
