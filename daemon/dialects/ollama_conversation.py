"""Ollama's chat and generate, read into a conversation of no dialect.

Rule: errors are in Ollama's words. What only says how Ollama should run the model (num_ctx, num_gpu, keep_alive, …) has
no meaning elsewhere and is left out, as are unknown fields, and options are named as left out; what changes the answer
and no other server has is refused.
"""

from __future__ import annotations

import json
from typing import Any

from common.errors import BadRequest
from daemon.dialects.asks import Ask, Shape, expect
from daemon.dialects.conversation import (
    Conversation,
    Image,
    Part,
    Role,
    Sampling,
    Schema,
    Text,
    Thought,
    Tool,
    ToolUse,
    Turn,
    media_type_of,
    open_calls,
)
from daemon.dialects.strict_json import kind_of

# Option -> its field of `Sampling` and the Go type that Ollama's errors name.
_OPTIONS: dict[str, tuple[str, str]] = {
    "temperature": ("temperature", "float32"),
    "top_p": ("top_p", "float32"),
    "seed": ("seed", "integer"),
    "num_predict": ("max_tokens", "integer"),
    "stop": ("stop", "array"),
    "presence_penalty": ("presence_penalty", "float32"),
    "frequency_penalty": ("frequency_penalty", "float32"),
    "top_k": ("top_k", "integer"),
    "min_p": ("min_p", "float32"),
    "typical_p": ("typical_p", "float32"),
    "repeat_penalty": ("repeat_penalty", "float32"),
    "repeat_last_n": ("repeat_last_n", "integer"),
    "mirostat": ("mirostat", "integer"),
    "mirostat_tau": ("mirostat_tau", "float32"),
    "mirostat_eta": ("mirostat_eta", "float32"),
}
_LEVELS = ("high", "medium", "low")
_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
_OF_MESSAGES = "ChatRequest.messages"


def conversation(ask: Ask) -> Conversation:
    """What an `ollama.chat` or `ollama.generate` asks. BadRequest."""
    if ask.shape is Shape.CHAT:
        return _chat(ask)
    return _raw(ask) if is_raw(ask) else _generate(ask)


def is_raw(ask: Ask) -> bool:
    """Whether an `ollama.generate` brings its prompt in the model's own template."""
    return expect(ask.document, "raw", bool, "bool", of="GenerateRequest") is True


def _chat(ask: Ask) -> Conversation:
    document, of = ask.document, "ChatRequest"
    _refuse(ask, "_debug_render_only")
    asked = _asked(ask, of)
    asked.turns = [_turn(message) for message in document["messages"]]
    open_calls(asked.turns)
    asked.tools = [_tool(tool) for tool in expect(document, "tools", list, "api.Tools", of=of) or ()]
    asked.format, asked.think = _format(document.get("format")), _think(document.get("think"))
    return asked


def _generate(ask: Ask) -> Conversation:
    document, of = ask.document, "GenerateRequest"
    _refuse(ask, "suffix", "template", "context", "_debug_render_only")
    asked = _asked(ask, of)
    system = expect(document, "system", str, "string", of=of)
    if system:
        asked.turns.append(Turn("system", [Text(system)]))
    asked.turns.append(Turn("user", [*_text(document["prompt"]), *_images(document, of)]))
    asked.format, asked.think = _format(document.get("format")), _think(document.get("think"))
    return asked


def _raw(ask: Ask) -> Conversation:
    document = ask.document
    if any(document.get(name) for name in ("template", "system", "context")):
        raise BadRequest("raw mode does not support template, system, or context")
    _refuse(ask, "suffix", "images", "format", "_debug_render_only")
    asked = _asked(ask, "GenerateRequest")
    asked.prompt = document["prompt"]
    return asked


def _asked(ask: Ask, of: str) -> Conversation:
    """What all of them share: the model, the options, log probabilities."""
    sampling = Sampling()
    left_out: list[str] = []
    for option, value in (ask.document.get("options") or {}).items():
        if value is None or value == []:
            continue
        if option not in _OPTIONS:
            left_out.append(f"options.{option}")
            continue
        name, go_type = _OPTIONS[option]
        setattr(sampling, name, _option(option, value, go_type))
    if sampling.max_tokens is not None and sampling.max_tokens <= 0:
        sampling.max_tokens = None  # Ollama: no bound
    top = expect(ask.document, "top_logprobs", int, "int", of=of) or 0
    if not 0 <= top <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    wanted = expect(ask.document, "logprobs", bool, "bool", of=of) is True
    named = {"thoughts": "messages.thinking"}
    logged = top if wanted else 0
    asked = Conversation(ask.model, sampling=sampling, logprobs=wanted, top_logprobs=logged)
    asked.named, asked.strict_by_us, asked.left_out = named, True, left_out
    return asked


def _option(option: str, value: Any, go_type: str) -> Any:
    match go_type:
        case "array":
            if not isinstance(value, list):
                raise BadRequest(f'option "{option}" must be of type array')
            if not all(isinstance(each, str) for each in value):
                raise BadRequest(f'option "{option}" must be of an array of strings')
            return value
        case _:
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise BadRequest(f'option "{option}" must be of type {go_type}')
            return int(value) if go_type == "integer" else value


def _refuse(ask: Ask, *fields: str) -> None:
    for field in fields:
        if ask.document.get(field):
            raise BadRequest(
                f"{field} is not possible with the model {ask.model!r}: its server does not speak Ollama's dialect and "
                "has nothing like it",
                code="not_supported_by_upstream",
                detail={"param": field},
            )


def _turn(message: dict[str, Any]) -> Turn:
    of = _OF_MESSAGES
    role = message.get("role") or "user"
    if role not in _ROLES:
        raise BadRequest(f"invalid role: {json.dumps(role)[:60]}; expected system, user, assistant or tool")
    parts: list[Part] = []
    thinking = expect(message, "thinking", str, "string", of=of)
    if thinking:
        parts.append(Thought(thinking))
    parts += _text(message.get("content") or "")
    parts += _images(message, of)
    calls = expect(message, "tool_calls", list, "[]api.ToolCall", of=of)
    parts += [_call(call) for call in calls or ()]
    return Turn(role, parts, str(message.get("tool_call_id") or ""), str(message.get("tool_name") or ""))


def _text(text: str) -> list[Part]:
    return [Text(text)] if text else []


def _images(document: dict[str, Any], of: str) -> list[Part]:
    images = expect(document, "images", list, "[]api.ImageData", of=of) or ()
    return [_image(image) for image in images]


def _image(image: Any) -> Image:
    if not isinstance(image, str):
        raise BadRequest(f"json: cannot unmarshal {kind_of(image)} into Go value of type api.ImageData")
    return Image(media_type_of(image), image)


def _call(call: Any) -> ToolUse:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest("a tool call must be an object with a function that has a name")
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise BadRequest(
            f"json: cannot unmarshal {kind_of(arguments)} into Go struct field "
            "ChatRequest.messages.tool_calls.function.arguments of type api.ToolCallFunctionArguments"
        )
    return ToolUse(str(call.get("id") or ""), function["name"], arguments)


def _tool(tool: Any) -> Tool:
    if not isinstance(tool, dict):
        raise BadRequest(
            f"json: cannot unmarshal {kind_of(tool)} into Go struct field ChatRequest.tools of type api.Tool"
        )
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest("a tool must be an object with a function that has a name")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("a tool's parameters must be a JSON Schema object")
    strict = function.get("strict")
    return Tool(function["name"], str(function.get("description") or ""), parameters, strict)


def _format(wanted: Any) -> Any:
    match wanted:
        case None | "":
            return ""
        case "json":
            return "json"
        case dict():
            return Schema(wanted, strict=True)
        case _:
            words = json.dumps(json.dumps(wanted))
            raise BadRequest(f'invalid format: {words}; expected "json" or a valid JSON Schema object')


def _think(think: Any) -> bool | str | None:
    match think:
        case None | bool():
            return think
        case str() if think in _LEVELS:
            return think
        case _:
            words = json.dumps(think)
            raise BadRequest(f'invalid think value: {words} (must be "high", "medium", "low", true, or false)')
