"""OpenAI's chat completions and completions, read into a conversation of no dialect.

Rule: a field that changes the answer is taken or refused by name, never dropped. What is only the provider's book-
keeping (store, metadata, service_tier, prompt_cache_key, …) and has no other server's equal is left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import BadRequest
from daemon.dialects.asks import Ask, Shape
from daemon.dialects.conversation import (
    Conversation,
    Part,
    Role,
    Sampling,
    Schema,
    Text,
    Thought,
    Tool,
    ToolUse,
    Turn,
    image_at,
    open_calls,
)
from daemon.dialects.openai_asks import wanted
from daemon.dialects.strict_json import kind_of

_NUMBER = (int, float)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


def conversation(ask: Ask) -> Conversation:
    """What an `openai.chat` or `openai.completion` asks. BadRequest."""
    return _chat(ask) if ask.shape is Shape.OPENAI_CHAT else _completion(ask)


def _chat(ask: Ask) -> Conversation:
    document = ask.document
    _refuse(document, "logit_bias", "audio", "prediction", "web_search_options", "functions", "function_call")
    if document.get("modalities") not in (None, ["text"]):
        raise _impossible("modalities other than text", "modalities")
    asked = _asked(ask)
    asked.named = {
        "think": "reasoning" if document.get("reasoning_effort") is None else "reasoning_effort",
        "thoughts": "messages.reasoning_content",
        "format": "response_format",
    }
    asked.verbosity = verbosity(document, "verbosity")
    asked.turns = [_turn(f"messages[{number}]", message) for number, message in enumerate(document["messages"])]
    open_calls(asked.turns)
    tools = wanted(document, "tools", list, "an array of tools") or ()
    asked.tools = [_tool(f"tools[{number}]", tool) for number, tool in enumerate(tools)]
    asked.tool_choice = _tool_choice(document.get("tool_choice"))
    asked.parallel_calls = wanted(document, "parallel_tool_calls", bool, "true or false")
    asked.format = _format(document.get("response_format"))
    asked.think = _think(document, asked)
    asked.logprobs = wanted(document, "logprobs", bool, "true or false") is True
    top = wanted(document, "top_logprobs", int, "a number from 0 to 20") or 0
    if not 0 <= top <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20", detail={"param": "top_logprobs"})
    if top and not asked.logprobs:
        raise BadRequest("top_logprobs wants logprobs: true", detail={"param": "top_logprobs"})
    asked.top_logprobs = top
    return asked


def _completion(ask: Ask) -> Conversation:
    document = ask.document
    _refuse(document, "logit_bias", "echo")
    if (wanted(document, "best_of", int, "a number") or 1) > 1:
        raise _impossible("best_of")
    asked = _asked(ask)
    prompt = document["prompt"]
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _impossible("a prompt that is not one text", "prompt")
    asked.prompt = prompt
    asked.suffix = wanted(document, "suffix", str, "a text") or ""
    top = wanted(document, "logprobs", int, "a number from 0 to 5")
    if top is not None and not 0 <= top <= 20:
        raise BadRequest("logprobs must be between 0 and 20", detail={"param": "logprobs"})
    asked.logprobs, asked.top_logprobs = top is not None, top or 0
    return asked


def _asked(ask: Ask) -> Conversation:
    document = ask.document
    sampling = Sampling()
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "min_p", "typical_p"):
        setattr(sampling, name, wanted(document, name, _NUMBER, "a number"))
    for name in ("repeat_penalty", "mirostat_tau", "mirostat_eta"):
        setattr(sampling, name, wanted(document, name, _NUMBER, "a number"))
    for name in ("seed", "top_k", "repeat_last_n", "mirostat"):
        setattr(sampling, name, wanted(document, name, int, "a whole number"))
    longest = wanted(document, "max_completion_tokens", int, "a whole number")
    sampling.max_tokens = wanted(document, "max_tokens", int, "a whole number") if longest is None else longest
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise BadRequest("max_tokens must be at least 1", detail={"param": "max_tokens"})
    stop = wanted(document, "stop", (str, list), "a text or an array of texts")
    if stop:
        sampling.stop = [stop] if isinstance(stop, str) else stop
        if not all(isinstance(each, str) for each in sampling.stop):
            raise BadRequest("stop must be a text or an array of texts", detail={"param": "stop"})
    choices = wanted(document, "n", int, "a whole number")
    if choices is not None and choices < 1:
        raise BadRequest("n must be at least 1", detail={"param": "n"})
    end_user = wanted(document, "user", str, "a text") or ""
    return Conversation(ask.model, sampling=sampling, choices=1 if choices is None else choices, end_user=end_user)


def _refuse(document: dict[str, Any], *fields: str) -> None:
    for field in fields:
        if document.get(field):
            raise _impossible(field)


def _impossible(what: str, param: str = "") -> BadRequest:
    return BadRequest(
        f"{what} is not possible with this model: its server does not speak OpenAI's dialect and has nothing like it",
        code="not_supported_by_upstream",
        detail={"param": param or what},
    )


def _turn(where: str, message: dict[str, Any]) -> Turn:
    role = _ROLES.get(message["role"])
    if role is None:
        raise BadRequest(f"{where}.role must be one of {', '.join(_ROLES)}", detail={"param": f"{where}.role"})
    parts: list[Part] = []
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thoughts, str):
        parts.append(Thought(thoughts))
    parts += _parts(f"{where}.content", message.get("content"))
    calls = wanted(message, "tool_calls", list, "an array of calls", where=f"{where}.") or ()
    parts += [_call(f"{where}.tool_calls[{number}]", call) for number, call in enumerate(calls)]
    if (
        message.get("function_call") is not None
    ):  # the older form of a call, which its function's name ties to its answer
        parts.append(_call(f"{where}.function_call", {"function": message["function_call"]}))
    if message.get("audio") is not None:
        raise _impossible("audio in a message", where)
    answers, name = message.get("tool_call_id"), message.get("name")
    tool_name = name if role == "tool" and isinstance(name, str) else ""
    return Turn(role, parts, answers if isinstance(answers, str) else "", tool_name)


def _parts(where: str, content: Any) -> list[Part]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [Text(content)]
    return [_part(f"{where}[{number}]", part) for number, part in enumerate(content)]


def _part(where: str, part: Any) -> Part:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "image_url", "image_url": {"url": str(url), **more}}:
            return image_at(url, str(more.get("detail") or ""))
        case {"type": "image_url", "image_url": str(url)}:
            return image_at(url)
        case {"type": "input_audio" | "file" as kind}:
            raise _impossible(f"{kind} in a message", where)
        case _:
            raise BadRequest(f"{where} must be a text or an image_url part", detail={"param": where})


def _call(where: str, call: Any) -> ToolUse:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest(f"{where} must be a function call with a name", detail={"param": where})
    text = function.get("arguments") or "{}"
    try:
        arguments = msgspec.json.decode(text, type=dict[str, Any]) if isinstance(text, str) else text
    except (msgspec.MsgspecError, ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(
            f"{where}.function.arguments must be the text of a JSON object", detail={"param": f"{where}.function"}
        )
    return ToolUse(str(call.get("id") or ""), function["name"], arguments)


def _tool(where: str, tool: Any) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type", "function") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest(f"{where} must be a function tool with a name", detail={"param": where})
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise BadRequest(
            f"{where}.function.parameters must be a JSON Schema, not {kind_of(parameters)}", detail={"param": where}
        )
    strict = function.get("strict")
    return Tool(
        function["name"],
        str(function.get("description") or ""),
        parameters or {},
        strict if isinstance(strict, bool) else None,
    )


def _tool_choice(choice: Any) -> str:
    match choice:
        case None:
            return ""
        case "auto" | "none" | "required":
            return str(choice)
        case {"type": "function", "function": {"name": str(name)}}:
            return f"={name}"
        case _:
            raise BadRequest(
                "tool_choice must be auto, none, required or a named function", detail={"param": "tool_choice"}
            )


def _format(wanted_format: Any) -> Any:
    match wanted_format:
        case None | {"type": "text"}:
            return ""
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **more}}:
            strict = more.get("strict")
            return Schema(schema, str(more.get("name") or "answer"), strict if isinstance(strict, bool) else None)
        case _:
            raise BadRequest(
                "response_format must be text, json_object or json_schema with a schema",
                detail={"param": "response_format"},
            )


def verbosity(document: dict[str, Any], name: str, *, where: str = "") -> str:
    """How much the client wants said: low, high, or "" for the usual. BadRequest."""
    wish = wanted(document, name, str, "low, medium or high", where=where)
    if wish not in (None, "low", "medium", "high"):
        raise BadRequest(f"{where}{name} must be low, medium or high", detail={"param": f"{where}{name}"})
    return "" if wish in (None, "medium") else str(wish)


def _think(document: dict[str, Any], asked: Conversation) -> bool | int | str | None:
    effort = document.get("reasoning_effort")
    told = document.get("reasoning")
    reasoning = told if isinstance(told, dict) else {}
    effort = reasoning.get("effort") if effort is None else effort
    if effort is not None and effort not in _EFFORTS:
        raise BadRequest(f"reasoning_effort must be one of {', '.join(_EFFORTS)}", detail={"param": "reasoning_effort"})
    # Beside the effort OpenRouter's clients name a switch and a budget; local servers' clients have a switch elsewhere.
    switch = wanted(reasoning, "enabled", bool, "true or false", where="reasoning.")
    budget = wanted(reasoning, "max_tokens", int, "a whole number", where="reasoning.")
    kwargs = document.get("chat_template_kwargs")
    template = kwargs if isinstance(kwargs, dict) else {}
    in_template = template.get("enable_thinking")
    for where, fields, known in (
        ("reasoning", reasoning, ("effort", "enabled", "max_tokens")),
        ("chat_template_kwargs", template, ("enable_thinking",)),
    ):
        for name in fields:
            if name not in known and fields[name] is not None:
                asked.leave_out(f"{where}.{name}")
    if effort is not None or switch is False:
        return False if switch is False else str(effort)
    if budget is not None and budget > 0:
        return int(budget)
    if switch is None and isinstance(in_template, bool):
        asked.named["think"] = "chat_template_kwargs"
        return in_template
    return True if switch else None
