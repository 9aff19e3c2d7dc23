"""Requests for an Ollama upstream: chat, and generate for the continuation of a text.

Rule: always streamed. OpenAI's completions become a generate that is not raw, as Ollama's own /v1/completions does it.
A tool choice that Ollama cannot be held to is refused; hints that change no promise (`strict` of a tool, the detail of
an image, the end user's name) are left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from daemon.dialects.conversation import Conversation, Image, Schema, Thought, Tool, ToolUse, Turn, cannot

_DIALECT = "Ollama"


def chat(asked: Conversation) -> dict[str, Any]:
    """The request for /api/chat, but for the model. BadRequest for what it cannot say."""
    request = _request(asked)
    request["messages"] = [_message(turn, asked.model) for turn in asked.turns]
    match asked.tool_choice:
        case "" | "auto":
            if asked.tools:
                request["tools"] = [_tool(tool) for tool in asked.tools]
        case "none":
            pass
        case _:
            raise cannot("a tool_choice other than auto and none", asked.model, _DIALECT, "tool_choice")
    if asked.parallel_calls is False and asked.tools:
        raise cannot("parallel_tool_calls: false", asked.model, _DIALECT, "parallel_tool_calls")
    return request


def generate(asked: Conversation) -> dict[str, Any]:
    """The request for /api/generate, but for the model."""
    request = _request(asked)
    request["prompt"] = asked.prompt
    if asked.suffix:
        request["suffix"] = asked.suffix
    return request


def _request(asked: Conversation) -> dict[str, Any]:
    if asked.choices > 1:
        raise cannot("more than one choice (n)", asked.model, _DIALECT, "n")
    if asked.verbosity:
        raise cannot(asked.field("verbosity"), asked.model, _DIALECT)
    request: dict[str, Any] = {"stream": True}
    options = msgspec.to_builtins(asked.sampling)
    if "max_tokens" in options:
        options["num_predict"] = options.pop("max_tokens")
    if options:
        request["options"] = options
    match asked.format:
        case "json":
            request["format"] = "json"
        case Schema() as schema:
            request["format"] = schema.schema
    match asked.think:
        case None:
            pass
        case bool():
            request["think"] = asked.think
        case "none":
            request["think"] = False
        case str():
            request["think"] = {"minimal": "low", "xhigh": "high"}.get(asked.think, asked.think)
        case int():
            request["think"] = asked.think > 0  # Ollama has a switch, and no budget to keep to
    if asked.logprobs:
        request["logprobs"] = True
        if asked.top_logprobs:
            request["top_logprobs"] = asked.top_logprobs
    return request


def _message(turn: Turn, model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": ""}
    message["content"] = turn.text
    thoughts = "".join(part.text for part in turn.parts if isinstance(part, Thought))
    if thoughts:
        message["thinking"] = thoughts
    images = [_image(part, model) for part in turn.parts if isinstance(part, Image)]
    if images:
        message["images"] = images
    calls = [part for part in turn.parts if isinstance(part, ToolUse)]
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in calls
        ]
    if turn.role == "tool":
        message["tool_call_id"] = turn.answers
        if turn.tool_name:
            message["tool_name"] = turn.tool_name
    return message


def _image(image: Image, model: str) -> str:
    if image.url:
        raise cannot("an image by its address (send it as a data: URL)", model, _DIALECT, "image_url")
    return image.data


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}
