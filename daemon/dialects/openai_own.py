"""What a request of OpenAI's dialect must not have before the hosts that check every field.

Rule: told from the host's and the model's name alone, there is nothing to configure. Any other server, those on the LAN
above all, gets llama.cpp's and vLLM's fields as well. What is taken out is named, so that the client is told.
"""

from __future__ import annotations

import re
from typing import Any

from daemon.dialects.conversation import Conversation

# They refuse a request for a field that they do not know (seen in the reports of other gateways' users).
_CHECKING = ("openai.com", "openai.azure.com", "groq.com", "mistral.ai", "cerebras.ai", "googleapis.com")
_OPENAIS = ("openai.com", "openai.azure.com")
# OpenAI's thinking models take `max_completion_tokens` alone, wherever they are served; its older ones take both.
_THINKING = re.compile(r"(?:.*/)?(?:gpt-[5-9]|o[1-9])(?:[.:-].*)?", re.IGNORECASE)
_OF_LOCAL_SERVERS = (
    "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip


def fitted(request: dict[str, Any], asked: Conversation, *, host: str, model: str) -> dict[str, Any]:
    """The request as the server at `host` takes it for `model`; what it does not get is noted in `asked`."""
    openais = _is_of(host, _OPENAIS) or _THINKING.fullmatch(model) is not None
    checking = _is_of(host, _CHECKING)
    if not (openais or checking):
        return request
    request = dict(request)
    if openais and "messages" in request and "max_tokens" in request:
        request["max_completion_tokens"] = request.pop("max_tokens")
    if checking:
        _take_out_local(request, asked)
        request |= _with_schema_not_too_strict(request, asked)
    return request


def _take_out_local(request: dict[str, Any], asked: Conversation) -> None:
    for name in _OF_LOCAL_SERVERS:
        if request.pop(name, None) is not None:
            asked.leave_out(name)
    if request.pop("chat_template_kwargs", None) is not None:
        asked.leave_out(asked.field("think"))
    messages = request.get("messages")
    if messages and any("reasoning_content" in message for message in messages):
        asked.leave_out(asked.field("thoughts"))
        request["messages"] = [
            {name: value for name, value in message.items() if name != "reasoning_content"} for message in messages
        ]


def _with_schema_not_too_strict(request: dict[str, Any], asked: Conversation) -> dict[str, Any]:
    """`strict` is taken with schemas alone whose objects require all that they have and allow nothing else; Ollama's
    and Anthropic's clients, who say nothing of it, must not be refused for others."""
    match request.get("response_format"):
        case {"type": "json_schema", "json_schema": {"strict": True, "schema": schema, **more}} if (
            asked.strict_by_us and not _is_closed(schema)
        ):
            asked.leave_out(f"{asked.field('format')}.strict")
            return {"response_format": {"type": "json_schema", "json_schema": {**more, "schema": schema}}}
    return {}


def _is_closed(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema:
        properties, required = schema.get("properties") or {}, schema.get("required") or []
        if schema.get("additionalProperties") is not False or set(properties) - {*map(str, required)}:
            return False
    return all(map(_is_closed, schema.values()))


def _is_of(host: str, domains: tuple[str, ...]) -> bool:
    host = host.lower().rstrip(".")
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
