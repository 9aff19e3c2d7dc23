"""Ollama's requests as OpenAI's: chat completions, completions, embeddings.

Rule: what changes the answer is translated or refused (BadRequest), never dropped; what only says how Ollama should
run the model (num_ctx, num_gpu, keep_alive, …) has no meaning to another server and is left out, as are unknown
fields. Sampling options beyond OpenAI's own go along under the names that llama.cpp shares with Ollama; a server that
does not know them says so itself.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from common.errors import BadRequest
from daemon.dialects.asks import Ask, expect
from daemon.dialects.strict_json import kind_of

# Option -> name in a completion request and the Go type that Ollama's errors name.
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

# The first bytes of an image, in base64.
_IMAGE_TYPES = {"iVBORw": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}


def chat_completion(ask: Ask) -> dict[str, Any]:
    """The request for /v1/chat/completions of an `ollama.chat`, but for the model."""
    document, of = ask.document, "ChatRequest"
    _refuse(ask, "_debug_render_only")
    request = _completion(ask, of)
    request["messages"] = _Conversation().messages(document["messages"])
    tools = expect(document, "tools", list, "api.Tools", of=of)
    if tools:
        request["tools"] = [_tool(tool) for tool in tools]
    _add_format(request, document.get("format"))
    _add_think(request, document.get("think"))
    _add_logprobs(request, document, of)
    return request


def generation(ask: Ask) -> dict[str, Any]:
    """The request for /v1/chat/completions of an `ollama.generate` that is not raw: one question, and its answer."""
    document, of = ask.document, "GenerateRequest"
    _refuse(ask, "suffix", "template", "context", "_debug_render_only")
    request = _completion(ask, of)
    system = expect(document, "system", str, "string", of=of)
    images = expect(document, "images", list, "[]api.ImageData", of=of)
    question = {"role": "user", "content": document["prompt"], "images": images}
    messages = [{"role": "system", "content": system}] if system else []
    request["messages"] = _Conversation().messages([*messages, question])
    _add_format(request, document.get("format"))
    _add_think(request, document.get("think"))
    _add_logprobs(request, document, of)
    return request


def raw_completion(ask: Ask) -> dict[str, Any]:
    """The request for /v1/completions of a raw `ollama.generate`: the prompt as the model is to see it."""
    document, of = ask.document, "GenerateRequest"
    if any(document.get(name) for name in ("template", "system", "context")):
        raise BadRequest("raw mode does not support template, system, or context")
    _refuse(ask, "suffix", "images", "format", "_debug_render_only")
    request = _completion(ask, of)
    request["prompt"] = document["prompt"]
    _add_logprobs(request, document, of)
    if request.pop("logprobs", False):
        # Here `logprobs` is the number of alternatives.
        request["logprobs"] = max(1, request.pop("top_logprobs", 1))
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


def is_raw(ask: Ask) -> bool:
    """Whether an `ollama.generate` brings its prompt in the model's own template."""
    return expect(ask.document, "raw", bool, "bool", of="GenerateRequest") is True


def _completion(ask: Ask, of: str) -> dict[str, Any]:
    """The part that all completions share: streamed, with usage, and the options."""
    request: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    for option, value in (ask.document.get("options") or {}).items():
        if value is None or value == [] or option not in _OPTIONS:
            continue
        name, go_type = _OPTIONS[option]
        request[name] = _option(option, value, go_type)
    if request.get("max_tokens", 1) <= 0:
        del request["max_tokens"]  # Ollama: no bound
    return request


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
    """BadRequest for a field that another server has no equal of and that would change the answer."""
    for field in fields:
        if ask.document.get(field):
            raise BadRequest(
                f"{field} is not possible with the model {ask.model!r}: its server speaks OpenAI's dialect, which has "
                f"nothing like it"
            )


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise BadRequest(
            f"json: cannot unmarshal {kind_of(tool)} into Go struct field ChatRequest.tools of type api.Tool"
        )
    return {"type": "function"} | tool


def _add_format(request: dict[str, Any], format_: Any) -> None:
    match format_:
        case None | "":
            return
        case "json":
            request["response_format"] = {"type": "json_object"}
        case dict():
            schema = {"name": "answer", "strict": True, "schema": format_}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            words = json.dumps(json.dumps(format_))
            raise BadRequest(f'invalid format: {words}; expected "json" or a valid JSON Schema object')


def _add_think(request: dict[str, Any], think: Any) -> None:
    match think:
        case None:
            return
        case bool():
            # What llama.cpp, vLLM and SGLang hand to the model's template; others have no switch for it.
            request["chat_template_kwargs"] = {"enable_thinking": think}
        case str() if think in _LEVELS:
            request["reasoning_effort"] = think
        case _:
            words = json.dumps(think)
            raise BadRequest(f'invalid think value: {words} (must be "high", "medium", "low", true, or false)')


def _add_logprobs(request: dict[str, Any], document: dict[str, Any], of: str) -> None:
    top = expect(document, "top_logprobs", int, "int", of=of) or 0
    if not 0 <= top <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    if expect(document, "logprobs", bool, "bool", of=of):
        request["logprobs"] = True
        if top:
            request["top_logprobs"] = top


class _Conversation:
    """Messages translated in order: OpenAI ties a tool's answer to its call by id, Ollama may do without."""

    def __init__(self) -> None:
        self._unanswered: list[tuple[str, str]] = []  # id and name of the calls a tool has not answered yet
        self._calls = 0

    def messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._message(message) for message in messages]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        of = "ChatRequest.messages"
        result: dict[str, Any] = {"role": message.get("role") or "user", "content": _content(message, of)}
        thinking = expect(message, "thinking", str, "string", of=of)
        if thinking:
            result["reasoning_content"] = thinking
        calls = expect(message, "tool_calls", list, "[]api.ToolCall", of=of)
        if calls:
            result["tool_calls"] = [self._call(call) for call in calls]
        if result["role"] == "tool":
            result["tool_call_id"] = self._answered(message)
        return result

    def _call(self, call: Any) -> dict[str, Any]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest("a tool call must be an object with a function that has a name")
        arguments = function.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise BadRequest(
                f"json: cannot unmarshal {kind_of(arguments)} into Go struct field "
                "ChatRequest.messages.tool_calls.function.arguments of type api.ToolCallFunctionArguments"
            )
        identifier = call.get("id") or f"call_{self._calls}"
        self._calls += 1
        self._unanswered.append((identifier, function["name"]))
        return {
            "id": identifier,
            "type": "function",
            "function": {"name": function["name"], "arguments": msgspec.json.encode(arguments).decode()},
        }

    def _answered(self, message: dict[str, Any]) -> str:
        """The id of the call that a tool's message answers: named, else the oldest open one of that tool, or of any."""
        identifier, name = message.get("tool_call_id"), message.get("tool_name")
        matching = [call for call in self._unanswered if call[0] == identifier]
        if not matching and not identifier:
            matching = [call for call in self._unanswered if call[1] == name] or self._unanswered
        if not matching:
            return str(identifier or "call_unknown")
        answered = matching[0]
        self._unanswered.remove(answered)
        return answered[0]


def _content(message: dict[str, Any], of: str) -> Any:
    text = message.get("content") or ""
    images = expect(message, "images", list, "[]api.ImageData", of=of)
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return parts + [{"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in images]


def _data_uri(image: Any) -> str:
    if not isinstance(image, str):
        raise BadRequest(f"json: cannot unmarshal {kind_of(image)} into Go value of type api.ImageData")
    media = next((media for start, media in _IMAGE_TYPES.items() if image.startswith(start)), "image/jpeg")
    return f"data:{media};base64,{image}"
