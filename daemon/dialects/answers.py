"""What an answer said, put together again from the bytes the client was sent: for the audit.

Rule: the same answer gives the same message bytes, streamed or not, and they are the bytes of that message when the
client sends it back with its next turn; so the store keeps one copy. An answer that was cut anywhere gives what was
whole of it. Runs in the writer's thread, on what the relay has already let go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Answer:
    """`content`: the text, for search and CSV. `message`: canonical JSON, `{"role", "content", "thinking"?,
    "tool_calls"?}`; of embeddings, the JSON answer itself."""

    content: str
    message: bytes


def assemble(shape: str, segments: Iterable[bytes]) -> Answer:
    """The answer of `shape` (`Ask.shape`) whose bytes, in order, are `segments`, cut anywhere."""
    return _ASSEMBLERS[shape](b"".join(segments))


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None  # decoded, so that an upstream's own way of escaping is not kept


class _Line(msgspec.Struct, gc=False):
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None


_read_line = msgspec.json.Decoder(_Line).decode


def _ollama(raw: bytes) -> Answer:
    content: list[str] = []
    thinking: list[str] = []
    tool_calls: list[Any] = []
    for line in raw.split(b"\n"):
        if not line:
            continue
        try:
            read = _read_line(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # cut off
        message = read.message or _Message(read.response, read.thinking)
        content.append(message.content or "")
        thinking.append(message.thinking or "")
        tool_calls += message.tool_calls or ()
    text = "".join(content)
    result: dict[str, Any] = {"role": "assistant", "content": text}
    if any(thinking):
        result["thinking"] = "".join(thinking)
    if tool_calls:
        result["tool_calls"] = tool_calls
    return Answer(text, msgspec.json.encode(result))


def _vectors(raw: bytes) -> Answer:
    return Answer("", raw)


_ASSEMBLERS: dict[str, Callable[[bytes], Answer]] = {
    "ollama.chat": _ollama,
    "ollama.generate": _ollama,
    "ollama.embed": _vectors,
    "ollama.embeddings": _vectors,
}
