"""Requests for an upstream that speaks OpenAI's dialect: chat completions, completions, embeddings.

Rule: always streamed, with usage. Sampling options beyond OpenAI's own go along under the names that llama.cpp and vLLM
share; hosts that are known to refuse them do not get them (`openai_own.py`), another one says so itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import BadRequest
from daemon.dialects.asks import Ask
from daemon.dialects.conversation import (
    Conversation,
    Image,
    Schema,
    Text,
    Thought,
    Tool,
    ToolUse,
    Turn,
    cannot,
)

_DIALECT = "OpenAI"


def chat_completion(asked: Conversation) -> dict[str, Any]:
    """The request for /v1/chat/completions, but for the model. BadRequest for what it cannot say."""
    if asked.suffix:
        raise cannot("suffix", asked.model, _DIALECT)
    request = _completion(asked)
    request["messages"] = [_message(turn) for turn in asked.turns]
    if asked.tools:
        request |= _tools(asked)
    if asked.verbosity:
        request["verbosity"] = asked.verbosity
    match asked.format:
        case "json":
            request["response_format"] = {"type": "json_object"}
        case Schema() as schema:
            strict = {} if schema.strict is None else {"strict": schema.strict}
            wanted = {"name": schema.name, **strict, "schema": schema.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": wanted}
    _add_think(request, asked)
    if asked.logprobs:
        request["logprobs"] = True
        if asked.top_logprobs:
            request["top_logprobs"] = asked.top_logprobs
    return request


def _tools(asked: Conversation) -> dict[str, Any]:
    """The tools and how to use them; without tools OpenAI refuses the latter, which then say nothing."""
    told: dict[str, Any] = {"tools": [_tool(tool) for tool in asked.tools]}
    match asked.tool_choice:
        case "":
            pass
        case "auto" | "none" | "required":
            told["tool_choice"] = asked.tool_choice
        case named:
            told["tool_choice"] = {"type": "function", "function": {"name": named.removeprefix("=")}}
    return told if asked.parallel_calls is None else told | {"parallel_tool_calls": asked.parallel_calls}


def completion(asked: Conversation) -> dict[str, Any]:
    """The request for /v1/completions: the prompt as the model is to see it."""
    if asked.format:
        raise cannot("format", asked.model, _DIALECT)
    request = _completion(asked)
    request["prompt"] = asked.prompt
    if asked.suffix:
        request["suffix"] = asked.suffix
    if asked.logprobs:
        request["logprobs"] = max(1, asked.top_logprobs)  # here it is the number of alternatives
    return request


def embeddings(ask: Ask) -> dict[str, Any]:
    """The request for /v1/embeddings of an `ollama.embed` or `ollama.embeddings`.

    `dimensions` stays with us: Ollama shortens and normalises itself, and some servers ignore the field silently.
    """
    document = ask.document
    texts = document.get("input", document.get("prompt"))
    if not isinstance(texts, str) and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise BadRequest("invalid input type")
    return {"input": texts, "encoding_format": "float"}


def _completion(asked: Conversation) -> dict[str, Any]:
    request: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    request |= msgspec.to_builtins(asked.sampling)
    if asked.choices > 1:
        request["n"] = asked.choices
    if asked.end_user:
        request["user"] = asked.end_user
    return request


def _add_think(request: dict[str, Any], asked: Conversation) -> None:
    match asked.think:
        case None:
            return
        case bool():
            # What llama.cpp, vLLM and SGLang hand to the model's template; others have no switch for it.
            request["chat_template_kwargs"] = {"enable_thinking": asked.think}
        case str():
            request["reasoning_effort"] = asked.think
        case int():
            request["chat_template_kwargs"] = {"enable_thinking": True}  # a switch, and no budget to keep to


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": _content(turn)}
    thoughts = "".join(part.text for part in turn.parts if isinstance(part, Thought))
    if thoughts:
        message["reasoning_content"] = thoughts
    calls = [part for part in turn.parts if isinstance(part, ToolUse)]
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    if turn.role == "tool":
        message["tool_call_id"] = turn.answers
    return message


def _content(turn: Turn) -> Any:
    """A string where it is only text, else OpenAI's parts in their order."""
    shown = [part for part in turn.parts if isinstance(part, Text | Image)]
    if all(isinstance(part, Text) for part in shown):
        return turn.text
    failed = [{"type": "text", "text": "Error:"}] if turn.failed else []
    return [*failed, *[_part(part) for part in shown]]


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": part.detail} if part.detail else {})}


def _call(call: ToolUse) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.arguments).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
