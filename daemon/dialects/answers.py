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

from daemon.dialects.openai_stream import in_parts


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


class _OpenAiFunction(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _OpenAiCall(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _OpenAiFunction | None = None


class _OpenAiMessage(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_OpenAiCall] | None = None


class _OpenAiChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _OpenAiMessage | None = None
    message: _OpenAiMessage | None = None
    text: str | None = None


class _OpenAiChunk(msgspec.Struct, gc=False):
    choices: list[_OpenAiChoice] | None = None


_read_chunk = msgspec.json.Decoder(_OpenAiChunk).decode


def _openai(raw: bytes) -> Answer:
    """Of several choices the first is the answer that the next turn is likely to bring back."""
    content: list[str] = []
    thinking: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    for event in raw.split(b"\n") if raw.startswith((b"data:", b":", b"event:")) else [raw]:
        text = event.removeprefix(b"data:").strip()
        if not text.startswith(b"{"):
            continue
        try:
            chunk = _read_chunk(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # cut off
        for choice in chunk.choices or ():
            said = choice.delta or choice.message or _OpenAiMessage(choice.text)
            if choice.index:
                continue
            told, thought = in_parts(said.content) if isinstance(said.content, list) else (said.content or "", "")
            content.append(told or said.refusal or "")
            thinking.append(said.reasoning_content or said.reasoning or thought)
            for number, call in enumerate(said.tool_calls or ()):
                function = call.function or _OpenAiFunction()
                place = call.index if choice.delta is not None else number
                whole = calls.setdefault(
                    place, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
                )
                whole["id"] = whole["id"] or call.id or ""
                whole["function"]["name"] = whole["function"]["name"] or function.name or ""
                whole["function"]["arguments"] += function.arguments or ""
    text_of = "".join(content)
    result: dict[str, Any] = {"role": "assistant", "content": text_of}
    if any(thinking):
        result["reasoning_content"] = "".join(thinking)
    if calls:
        result["tool_calls"] = [calls[number] for number in sorted(calls)]
    return Answer(text_of, msgspec.json.encode(result))


def _anthropic(raw: bytes) -> Answer:
    """A message whole, or its events; content as blocks, as the client sends it back with its next turn."""
    whole = _AnthropicMessage(content=[])
    for event in raw.split(b"\n") if raw.startswith((b"event:", b"data:", b":")) else [b"data:" + raw]:
        if not event.startswith(b"data:"):
            continue
        try:
            read = msgspec.json.decode(event[5:], type=_AnthropicEvent)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # cut off
        _add_anthropic(whole.content, read)
    for block in whole.content:
        if isinstance(block.get("input"), str):
            block["input"] = _json_or_text(block["input"])
    text = "".join(str(block.get("text") or "") for block in whole.content)
    return Answer(text, msgspec.json.encode({"role": "assistant", "content": whole.content}))


class _AnthropicMessage(msgspec.Struct, gc=False):
    content: list[dict[str, Any]]


class _AnthropicEvent(msgspec.Struct, gc=False):
    type: str = ""
    content: list[dict[str, Any]] | None = None
    index: int = 0
    content_block: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None


def _add_anthropic(content: list[dict[str, Any]], event: _AnthropicEvent) -> None:
    if event.content is not None:
        content += event.content
    elif event.content_block is not None:
        content.append(event.content_block)
        if event.content_block.get("type") == "tool_use":
            event.content_block["input"] = ""
    elif event.type == "content_block_delta" and event.delta and event.index < len(content):
        block = content[event.index]
        for name, value in event.delta.items():
            if name != "type" and isinstance(value, str):
                place = "input" if name == "partial_json" else name
                block[place] = str(block.get(place) or "") + value


class _ResponsePart(msgspec.Struct, gc=False):
    text: str = ""  # none of a refusal
    refusal: str = ""


class _ResponseItem(msgspec.Struct, gc=False):
    type: str = ""
    content: list[_ResponsePart] | None = None
    summary: list[_ResponsePart] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    pieces: list[str] = []  # of the arguments, where they came so


class _Response(msgspec.Struct, gc=False):
    output: list[_ResponseItem] | None = None


class _ResponseEvent(msgspec.Struct, gc=False):
    type: str = ""
    delta: str | None = None
    item: _ResponseItem | None = None
    response: _Response | None = None
    output: list[_ResponseItem] | None = None


def _responses(raw: bytes) -> Answer:
    """A response whole, or its events: the items, and what was said of one that was cut off."""
    items: list[_ResponseItem] = []
    for line in raw.split(b"\n") if raw.startswith((b"event:", b"data:", b":")) else [b"data:" + raw]:
        if not line.startswith(b"data:"):
            continue
        try:
            event = msgspec.json.decode(line[5:], type=_ResponseEvent)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # cut off
        if event.output is not None:
            items = event.output
        elif event.type == "response.output_item.added" and event.item is not None:
            items.append(event.item)
        elif event.delta is not None and items:
            item = items[-1]
            if event.type == "response.function_call_arguments.delta":
                item.pieces.append(event.delta)
            elif event.type == "response.output_text.delta":
                item.content = item.content or []
                item.content.append(_ResponsePart(event.delta))
            elif event.type == "response.reasoning_summary_text.delta":
                item.summary = item.summary or []
                item.summary.append(_ResponsePart(event.delta))
    text = "".join(part.text or part.refusal for item in items for part in item.content or ())
    thinking = "".join(part.text for item in items for part in item.summary or ())
    calls = [
        {
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": item.arguments + "".join(item.pieces)},
        }
        for item in items
        if item.type == "function_call"
    ]
    result: dict[str, Any] = {"role": "assistant", "content": text}
    result |= ({"reasoning_content": thinking} if thinking else {}) | ({"tool_calls": calls} if calls else {})
    return Answer(text, msgspec.json.encode(result))


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text


def _text(raw: bytes) -> Answer:
    text = raw.decode("utf-8", "replace")
    return Answer(text, msgspec.json.encode({"role": "assistant", "content": text}))


def _vectors(raw: bytes) -> Answer:
    return Answer("", raw)


_ASSEMBLERS: dict[str, Callable[[bytes], Answer]] = {
    "ollama.chat": _ollama,
    "ollama.generate": _ollama,
    "ollama.embed": _vectors,
    "ollama.embeddings": _vectors,
    "openai.chat": _openai,
    "openai.completion": _openai,
    "openai.embedding": _vectors,
    "anthropic.messages": _anthropic,
    "responses.response": _responses,
    "text.request": _text,
}
