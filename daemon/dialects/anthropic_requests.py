"""Requests for an upstream that speaks Anthropic's dialect: messages.

Rule: always streamed. `max_tokens`, which Anthropic wants, is `LONGEST_ANSWER` where the client named none. What its
dialect has nothing like (penalties, seeds, log probabilities, raw completions, …) is refused.
"""

from __future__ import annotations

from typing import Any

from daemon.dialects.conversation import Conversation, Image, Part, Schema, Text, Thought, Tool, ToolUse, Turn, cannot

LONGEST_ANSWER = 8192
_DIALECT = "Anthropic"
# A share of the answer that a level of thinking may take; Anthropic wants at least 1,024 tokens.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 4096, "high": 8192, "xhigh": 16384}
# What it has nothing like, with the value that changes nothing, as many clients send it.
_UNKNOWN = {
    "seed": None, "presence_penalty": 0, "frequency_penalty": 0, "min_p": 0, "typical_p": 1, "repeat_penalty": 1,
    "repeat_last_n": 0, "mirostat": 0, "mirostat_tau": None, "mirostat_eta": None,
}  # fmt: skip


def messages(asked: Conversation) -> dict[str, Any]:
    """The request for /v1/messages, but for the model. BadRequest for what it cannot say."""
    _refuse(asked)
    sampling = asked.sampling
    request: dict[str, Any] = {"stream": True, "max_tokens": sampling.max_tokens or LONGEST_ANSWER}
    systems = [turn for turn in asked.turns if turn.role == "system"]
    if systems:
        request["system"] = "\n\n".join(turn.text for turn in systems)
    request["messages"] = _messages([turn for turn in asked.turns if turn.role != "system"])
    for name in ("temperature", "top_p", "top_k"):
        if getattr(sampling, name) is not None:
            request[name] = getattr(sampling, name)
    if sampling.stop:
        request["stop_sequences"] = sampling.stop
    if asked.tools:
        request["tools"] = [_tool(tool) for tool in asked.tools]
        choice = _tool_choice(asked)
        if choice:
            request["tool_choice"] = choice
    if isinstance(asked.format, Schema):
        request["output_config"] = {"format": {"type": "json_schema", "schema": asked.format.schema}}
    _add_think(request, asked)
    if asked.end_user:
        request["metadata"] = {"user_id": asked.end_user}
    return request


def _refuse(asked: Conversation) -> None:
    if asked.prompt is not None:
        raise cannot("the continuation of a text", asked.model, _DIALECT)
    for name, neutral in _UNKNOWN.items():
        if getattr(asked.sampling, name) not in (None, neutral):
            raise cannot(name, asked.model, _DIALECT)
    if asked.choices > 1:
        raise cannot("more than one choice (n)", asked.model, _DIALECT)
    if asked.logprobs:
        raise cannot("logprobs", asked.model, _DIALECT)
    if asked.format == "json":
        raise cannot("JSON without a schema", asked.model, _DIALECT)


def _messages(turns: list[Turn]) -> list[dict[str, Any]]:
    """Anthropic's alternation: the answers of tools are blocks of a user's message; neighbours of one role are one."""
    result: list[dict[str, Any]] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        blocks = [_result(turn)] if turn.role == "tool" else [_block(part) for part in turn.parts if _says(part)]
        if result and result[-1]["role"] == role:
            result[-1]["content"] += blocks
        elif blocks:
            result.append({"role": role, "content": blocks})
    return result


def _result(turn: Turn) -> dict[str, Any]:
    result = {
        "type": "tool_result",
        "tool_use_id": turn.answers,
        "content": [_block(part) for part in turn.parts if isinstance(part, Text | Image) and _says(part)],
    }
    return result | ({"is_error": True} if turn.failed else {})


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image() if part.url:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        case Image():
            return {
                "type": "image",
                "source": {"type": "base64", "media_type": part.media_type, "data": part.data},
            }
        case ToolUse():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
        case Thought() if part.redacted:
            return {"type": "redacted_thinking", "data": part.redacted}
        case Thought() if part.signature:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case Thought():
            # Anthropic takes back only thinking that it signed; what another server thought is told as text.
            return {"type": "text", "text": f"<thinking>{part.text}</thinking>"}


def _says(part: Part) -> bool:
    """Whether it says anything: Anthropic refuses an empty text."""
    return not isinstance(part, Text) or bool(part.text)


def _tool(tool: Tool) -> dict[str, Any]:
    schema = tool.parameters or {"type": "object", "properties": {}}
    described = {"description": tool.description} if tool.description else {}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    return {"name": tool.name} | described | {"input_schema": schema} | strict


def _tool_choice(asked: Conversation) -> dict[str, Any]:
    alone = {"disable_parallel_tool_use": True} if asked.parallel_calls is False else {}
    match asked.tool_choice:
        case "":
            return {"type": "auto"} | alone if alone else {}
        case "auto" | "none":
            return {"type": asked.tool_choice} | (alone if asked.tool_choice == "auto" else {})
        case "required":
            return {"type": "any"} | alone
        case named:
            return {"type": "tool", "name": named.removeprefix("=")} | alone


def _add_think(request: dict[str, Any], asked: Conversation) -> None:
    match asked.think:
        case None | False | "none":
            return
        case True:
            budget = _BUDGETS["medium"]
        case str():
            budget = _BUDGETS.get(asked.think, _BUDGETS["medium"])
        case int():
            budget = max(1024, asked.think)
    request["thinking"] = {"type": "enabled", "budget_tokens": budget}
    # The budget is a part of the answer's length.
    request["max_tokens"] = max(request["max_tokens"], budget + 1024)
