"""Answers of no dialect, and how each kind of upstream would stream them: for tests of every pair of dialects.

Rule: independent of the code under test; shapes as Ollama 0.9, llama.cpp and Anthropic's documentation show them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from daemon.dialects.anthropic_asks import read_messages
from daemon.dialects.asks import Ask, read_chat
from daemon.dialects.openai_asks import read_chat_completion, read_response

CLIENTS = ("ollama", "openai", "responses", "anthropic")
SERVERS = ("ollama", "openai", "anthropic")
# What only the end of a client's stream has.
ENDS = {
    "ollama": b'"done":true',
    "openai": b"[DONE]",
    "responses": b"response.completed",
    "anthropic": b"message_stop",
}
TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}


@dataclass(frozen=True)
class Call:
    """A tool call; `parts` are its arguments' JSON text as an upstream that tells them in parts cuts it."""

    name: str
    parts: tuple[str, ...]
    id: str = ""

    @property
    def arguments(self) -> Any:
        return json.loads("".join(self.parts))


@dataclass(frozen=True)
class Spoken:
    """An answer: thoughts first, then texts, then calls; `reason` in OpenAI's words."""

    texts: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    reason: str = "stop"
    tokens_in: int = 7
    tokens_out: int = 3
    logprobs: list[dict[str, Any]] = field(default_factory=list)  # of the first text

    @property
    def text(self) -> str:
        return "".join(self.texts)


def streamed_by(server: str, spoken: Spoken, *, end: str = "done") -> bytes:
    """The bytes of such an upstream; `end` is done, error (told in the stream), nothing or junk."""
    return {"ollama": _ollama, "openai": _openai, "anthropic": _anthropic}[server](spoken, end)


def asked_by(client: str, *, stream: bool, **fields: Any) -> Ask:
    """A small question of such a client, with `fields` of its own dialect."""
    read, least = _READERS[client]
    return read(json.dumps({"model": "m", "stream": stream} | least | fields).encode())


_MESSAGES = {"messages": [{"role": "user", "content": "x"}]}
_READERS: dict[str, tuple[Callable[[bytes], Ask], dict[str, Any]]] = {
    "ollama": (read_chat, _MESSAGES),
    "openai": (read_chat_completion, _MESSAGES),
    "responses": (read_response, {"input": "x"}),
    "anthropic": (read_messages, _MESSAGES | {"max_tokens": 9}),
}


def _ollama(spoken: Spoken, end: str) -> bytes:
    lines: list[dict[str, Any]] = [_said(thinking=thought) for thought in spoken.thoughts]
    lines += [_said(content=text) for text in spoken.texts]
    if spoken.logprobs and spoken.texts:
        lines[len(spoken.thoughts)]["logprobs"] = spoken.logprobs
    calls = [
        ({"id": call.id} if call.id else {}) | {"function": {"name": call.name, "arguments": call.arguments}}
        for call in spoken.calls
    ]
    if calls:
        lines.append(_said(tool_calls=calls))
    if end == "done":
        reason = "length" if spoken.reason == "length" else "stop"
        counts = {"prompt_eval_count": spoken.tokens_in, "eval_count": spoken.tokens_out}
        lines.append(_said() | {"done": True, "done_reason": reason} | counts)
    elif end == "error":
        lines.append({"error": "it broke"})
    return "".join(_compact(line) + "\n" for line in lines).encode() + (b"<junk>\n" if end == "junk" else b"")


def _said(**fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": ""} | fields, "done": False}


def _openai(spoken: Spoken, end: str) -> bytes:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"reasoning_content": thought} for thought in spoken.thoughts]
    first = len(deltas)
    deltas += [{"content": text} for text in spoken.texts]
    for number, call in enumerate(spoken.calls):
        for place, part in enumerate(call.parts):
            named = {"id": call.id or f"c{number}", "type": "function"} if place == 0 else {}
            function = ({"name": call.name} if place == 0 else {}) | {"arguments": part}
            deltas.append({"tool_calls": [{"index": number} | named | {"function": function}]})
    chunks = [_chunk({"delta": delta}) for delta in deltas]
    if spoken.logprobs and spoken.texts:
        chunks[first]["choices"][0]["logprobs"] = {"content": spoken.logprobs}
    if end == "done":
        chunks.append(_chunk({"delta": {}}, spoken.reason))
        total = spoken.tokens_in + spoken.tokens_out
        usage = {"prompt_tokens": spoken.tokens_in, "completion_tokens": spoken.tokens_out, "total_tokens": total}
        chunks.append({"id": "x", "choices": [], "usage": usage})
    elif end == "error":
        chunks.append({"error": {"message": "it broke"}})
    payloads = [_compact(chunk) for chunk in chunks] + {"done": ["[DONE]"], "junk": ["<junk>"]}.get(end, [])
    return "".join(f"data: {payload}\n\n" for payload in payloads).encode()


def _chunk(choice: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0} | choice | {"finish_reason": reason}],
    }


_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def _anthropic(spoken: Spoken, end: str) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    counts = {"input_tokens": spoken.tokens_in, "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message | {"usage": counts}}]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if spoken.thoughts:
        told = [{"type": "thinking_delta", "thinking": thought} for thought in spoken.thoughts]
        signed = {"type": "signature_delta", "signature": "sig"}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*told, signed]))
    if spoken.texts:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in spoken.texts]))
    for number, call in enumerate(spoken.calls):
        use = {"type": "tool_use", "id": call.id or f"toolu_{number}", "name": call.name, "input": {}}
        blocks.append((use, [{"type": "input_json_delta", "partial_json": part} for part in call.parts]))
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    if end == "done":
        delta = {"stop_reason": _STOPS[spoken.reason], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": spoken.tokens_out}})
        events.append({"type": "message_stop"})
    elif end == "error":
        events.append({"type": "error", "error": {"type": "overloaded_error", "message": "it broke"}})
    text = "".join(f"event: {event['type']}\ndata: {_compact(event)}\n\n" for event in events)
    return (text + ("event: x\ndata: <junk>\n\n" if end == "junk" else "")).encode()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
