"""Requests and answers as the audit keeps them: cut at message boundaries, put together again, read for their text.

Rule: a chat is `head || message, message, … || tail`, and joined it is the request as JSON; a message's bytes depend on
nothing around it and `role` and `content` come first, so that the turn that repeats it finds it stored. Any other
document is one part. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def split_request(document: dict[str, Any]) -> list[bytes]:
    """The parts of a request: one, or head, messages, tail."""
    listed = _listed(document)
    if listed is None:
        return [_encode(document)]
    head, tail = bytearray(b"{"), bytearray(b"]")
    side = head
    for name, value in document.items():
        if name == listed:
            side += _encode(name) + b":["
            side = tail
            continue
        if side is tail:
            side += b","
        side += _encode(name) + b":" + _encode(value)
        if side is head:
            side += b","
    tail += b"}"
    return [bytes(head), *map(_message, document[listed]), bytes(tail)]


def join_request(parts: Sequence[bytes]) -> bytes:
    """The request as JSON."""
    if len(parts) == 1:
        return parts[0]
    return parts[0] + b",".join(parts[1:-1]) + parts[-1]


def weight(document: dict[str, Any]) -> int:
    """About how many bytes a request holds, cheaply: its long texts and lists of texts."""
    total, listed = 0, _listed(document)
    for name, value in document.items():
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list):
            total += sum(map(_weight, value)) if name == listed else sum(map(_length, value))
    return total


def prompt_of(document: Any) -> str:
    """What was asked, as text: the prompt, the last user message, or the input to embed."""
    match document:
        case {"prompt": str(prompt)} | {"request": str(prompt)}:
            return prompt
        case {"messages": list(messages)}:
            return next((text_of(each) for each in reversed(messages) if _is_users(each)), "")
        case {"input": str(text)}:
            return text
        case {"input": [{}, *_] as items}:
            return next((text_of(each) for each in reversed(items) if _is_users(each)), "")
        case {"input": list(texts)}:
            return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def prompt_of_parts(parts: Sequence[bytes]) -> str:
    """As `prompt_of`, from the parts: of a long conversation only the end is decoded."""
    if len(parts) == 1:
        return prompt_of(_decode(parts[0]))
    for part in reversed(parts[1:-1]):
        message = _decode(part)
        if _is_users(message):
            return text_of(message)
    return ""


def text_of(message: Any) -> str:
    """The text of a message whose content is a string or a list of content parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def response_of(answer: Any) -> str:
    """What was answered, as text: the message's content; of an answer that is no message, its JSON."""
    if isinstance(answer, dict) and "role" in answer:
        return text_of(answer)
    return answer if isinstance(answer, str) else _encode(answer).decode()


def value_of(part: bytes) -> Any:
    """The JSON value of a part; as text where it is none (an embedding that was cut off)."""
    try:
        return _decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return part.decode("utf-8", "replace")


def _listed(document: dict[str, Any]) -> str | None:
    """The field that holds the turns of a conversation: `messages`, or the items of a response's `input`."""
    for name in ("messages", "input"):
        value = document.get(name)
        if isinstance(value, list) and value and (name == "messages" or isinstance(value[0], dict)):
            return name
    return None


def _weight(message: Any) -> int:
    return weight(message) if isinstance(message, dict) else 8


def _message(message: Any) -> bytes:
    if not isinstance(message, dict):
        return _encode(message)
    first = {name: message[name] for name in ("role", "content") if name in message}
    return _encode(first | message)


def _is_users(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else 8
