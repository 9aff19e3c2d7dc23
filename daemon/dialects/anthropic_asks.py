"""What an Anthropic client asks, read and checked: messages, and the counting of their tokens.

Rule: types are checked where the gate itself uses a field. An Anthropic upstream gets every field as it came; for
others `anthropic_conversation.py` says which can be translated. null is the same as absent.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from common.errors import BadRequest
from daemon.dialects import anthropic_bodies
from daemon.dialects.asks import Ask, Shape, names
from daemon.dialects.openai_asks import wanted
from daemon.dialects.strict_json import canonicalise, kind_of, read

LONGEST_BETAS = 2048  # characters of `anthropic-beta`; Claude Code sends some 200
_BETA = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BETA_QUERY = "beta=true"
KEYS = names(anthropic_bodies.MessagesAsk)
MESSAGE_KEYS = names(anthropic_bodies.AnthropicMessage)


def read_messages(body: bytes, default_model: str = "") -> Ask:
    """The body of POST /v1/messages. BadRequest where it is not one."""
    document = _document(body)
    longest = wanted(document, "max_tokens", int, "a whole number")
    if longest is None or longest < 1:
        raise BadRequest("max_tokens: a whole number of at least 1 is required", detail={"param": "max_tokens"})
    stream = wanted(document, "stream", bool, "true or false") is True
    return Ask("/v1/messages", Shape.ANTHROPIC, document, _model(document, default_model), stream)


def read_count(body: bytes, default_model: str = "") -> Ask:
    """The body of POST /v1/messages/count_tokens: the same without `max_tokens`; its answer is never streamed."""
    document = _document(body)
    return Ask("/v1/messages/count_tokens", Shape.ANTHROPIC, document, _model(document, default_model), stream=False)


def with_betas(ask: Ask, betas: str, query: str) -> Ask:
    """`ask` with what came beside its body: the header `anthropic-beta`, without which Anthropic refuses the fields of
    its betas, and `?beta=true`, which its SDKs set with it. BadRequest where the header is no list of names."""
    names_given = [name.strip() for name in betas.split(",")] if betas else []
    if len(betas) > LONGEST_BETAS or not all(_BETA.fullmatch(name) for name in names_given):
        raise BadRequest("anthropic-beta: must be names with commas between them", code="invalid_header")
    if not names_given and query != _BETA_QUERY:
        return ask
    headers = (("anthropic-beta", ",".join(names_given)),) if names_given else ()
    return replace(ask, headers=headers, query=_BETA_QUERY if query == _BETA_QUERY else "")


def _document(body: bytes) -> dict[str, Any]:
    document = canonicalise(read(body), KEYS)
    messages = wanted(document, "messages", list, "an array of messages")
    if not messages:
        raise BadRequest("messages: at least one message is required", detail={"param": "messages"})
    document["messages"] = [_message(number, message) for number, message in enumerate(messages)]
    wanted(document, "system", (str, list), "a text or an array of text blocks")
    return document


def _message(number: int, message: Any) -> dict[str, Any]:
    where = f"messages.{number}"
    if not isinstance(message, dict):
        raise BadRequest(f"{where}: must be an object, not {kind_of(message)}", detail={"param": where})
    canonical = canonicalise(message, MESSAGE_KEYS, "a message")
    if not isinstance(canonical.get("content"), str | list):
        raise BadRequest(f"{where}.content: must be a text or an array of blocks", detail={"param": where})
    return canonical


def _model(document: dict[str, Any], default_model: str) -> str:
    model = wanted(document, "model", str, "a model's name") or default_model
    if not model:
        raise BadRequest("model: field required", detail={"param": "model"})
    return str(model)
