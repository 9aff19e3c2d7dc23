"""What an OpenAI client asks, read and checked: chat completions, completions, embeddings.

Rule: types are checked where the gate itself uses a field. An OpenAI upstream gets every field as it came; for others
`openai_conversation.py` says which fields can be translated. null is the same as absent.
"""

from __future__ import annotations

from typing import Any

from common.errors import BadRequest
from daemon.dialects import openai_bodies
from daemon.dialects.asks import Ask, Shape, names
from daemon.dialects.strict_json import canonicalise, kind_of, read

CHAT_KEYS = names(openai_bodies.ChatCompletionAsk)
COMPLETION_KEYS = names(openai_bodies.CompletionAsk)
EMBEDDING_KEYS = names(openai_bodies.EmbeddingAsk)
RESPONSE_KEYS = names(openai_bodies.ResponseAsk)
MESSAGE_KEYS = names(openai_bodies.ChatMessage)


def read_chat_completion(body: bytes, default_model: str = "") -> Ask:
    """The body of POST /v1/chat/completions. BadRequest where it is not one; so for the other two."""
    document = canonicalise(read(body), CHAT_KEYS)
    messages = wanted(document, "messages", list, "an array of messages")
    if not messages:
        raise BadRequest("messages must be an array with at least one message", detail={"param": "messages"})
    document["messages"] = [_message(number, message) for number, message in enumerate(messages)]
    return _streamable("/v1/chat/completions", Shape.OPENAI_CHAT, document, default_model)


def read_completion(body: bytes, default_model: str = "") -> Ask:
    """The body of POST /v1/completions."""
    document = canonicalise(read(body), COMPLETION_KEYS)
    if document.get("prompt") is None:
        raise BadRequest("prompt is required", detail={"param": "prompt"})
    return _streamable("/v1/completions", Shape.OPENAI_COMPLETION, document, default_model)


def read_embedding(body: bytes, default_model: str = "") -> Ask:
    """The body of POST /v1/embeddings; its answer is never streamed."""
    document = canonicalise(read(body), EMBEDDING_KEYS)
    if not document.get("input"):
        raise BadRequest("input must be a text or an array of texts", detail={"param": "input"})
    encoding = wanted(document, "encoding_format", str, "float or base64")
    if encoding not in (None, "float", "base64"):
        raise BadRequest("encoding_format must be float or base64", detail={"param": "encoding_format"})
    dimensions = wanted(document, "dimensions", int, "a whole number")
    if dimensions is not None and dimensions < 1:
        raise BadRequest("dimensions must be at least 1", detail={"param": "dimensions"})
    return _ask("/v1/embeddings", Shape.OPENAI_EMBEDDING, document, default_model, stream=False)


def read_response(body: bytes, default_model: str = "") -> Ask:
    """The body of POST /v1/responses."""
    document = canonicalise(read(body), RESPONSE_KEYS)
    given = wanted(document, "input", (str, list), "a text or an array of items")
    if not given:
        raise BadRequest("input must be a text or an array with at least one item", detail={"param": "input"})
    stream = wanted(document, "stream", bool, "true or false") is True
    return _ask("/v1/responses", Shape.RESPONSES, document, default_model, stream=stream)


def wanted(document: dict[str, Any], name: str, kind: type | tuple[type, ...], words: str, *, where: str = "") -> Any:
    """The value of a field that must be a `kind` if it is there; None where it is absent or null. BadRequest.

    A bool is no number here.
    """
    value = document.get(name)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if value is None or (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))):
        return value
    param = f"{where}{name}"
    raise BadRequest(f"{param} must be {words}, not {kind_of(value)}", detail={"param": param})


def _message(number: int, message: Any) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(message, dict):
        raise BadRequest(f"{where} must be an object, not {kind_of(message)}", detail={"param": where})
    canonical = canonicalise(message, MESSAGE_KEYS, "a message")
    if not isinstance(canonical.get("role"), str):
        raise BadRequest(f"{where}.role must be a string", detail={"param": f"{where}.role"})
    wanted(canonical, "content", (str, list), "a text or an array of parts", where=f"{where}.")
    return canonical


def _streamable(route: str, shape: Shape, document: dict[str, Any], default_model: str) -> Ask:
    stream = wanted(document, "stream", bool, "true or false") is True
    options = wanted(document, "stream_options", dict, "an object") or {}
    if options and not stream:
        raise BadRequest("stream_options is only for stream: true", detail={"param": "stream_options"})
    wanted(options, "include_usage", bool, "true or false", where="stream_options.")
    return _ask(route, shape, document, default_model, stream=stream)


def _ask(route: str, shape: Shape, document: dict[str, Any], default_model: str, *, stream: bool) -> Ask:
    model = wanted(document, "model", str, "a model's name") or default_model
    if not model:
        raise BadRequest("you must name a model", detail={"param": "model"})
    return Ask(route, shape, document, model, stream)
