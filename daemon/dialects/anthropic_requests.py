"""Requests for an upstream that speaks Anthropic's dialect: messages.

Rule: always streamed. `max_tokens`, which Anthropic wants, is `LONGEST_ANSWER` where the client named none; one that it
named holds, and thinking gets less. What its dialect has nothing like (penalties, seeds, log probabilities, raw
completions, …) is refused.
"""

from __future__ import annotations

from typing import Any

from daemon.dialects.conversation import Conversation, Image, Part, Schema, Text, Thought, Tool, ToolUse, Turn, cannot

LONGEST_ANSWER = 8192
LEAST_BUDGET = 1024  # tokens of thinking that Anthropic takes for a budget; an answer must be longer
_DIALECT = "Anthropic"
# A share of the answer that a level of thinking may take.
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
    request["messages"] = _messages(asked)
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
        raise cannot("the continuation of a text", asked.model, _DIALECT, "prompt")
    for name, neutral in _UNKNOWN.items():
        if getattr(asked.sampling, name) not in (None, neutral):
            raise cannot(name, asked.model, _DIALECT)
    if asked.choices > 1:
        raise cannot("more than one choice (n)", asked.model, _DIALECT, "n")
    if asked.logprobs:
        raise cannot("logprobs", asked.model, _DIALECT)
    if asked.format == "json":
        raise cannot("JSON without a schema", asked.model, _DIALECT, asked.field("format"))
    if asked.verbosity:
        raise cannot(asked.field("verbosity"), asked.model, _DIALECT)


def _messages(asked: Conversation) -> list[dict[str, Any]]:
    """Anthropic's alternation: the answers of tools are blocks of a user's message; neighbours of one role are one.

    Anthropic takes back only thinking that it signed. Other thinking is left out: as text it would be something that
    the assistant said, and of earlier turns Anthropic leaves out its own, too.
    """
    result: list[dict[str, Any]] = []
    for turn in asked.turns:
        if turn.role == "system":
            continue
        if any(isinstance(part, Thought) and not _signed(part) for part in turn.parts):
            asked.leave_out(asked.field("thoughts"))
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
        case Thought():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _says(part: Part) -> bool:
    """Whether it says anything that Anthropic takes: an empty text is refused, and thinking that it did not sign."""
    return _signed(part) if isinstance(part, Thought) else not isinstance(part, Text) or bool(part.text)


def _signed(part: Part) -> bool:
    return isinstance(part, Thought) and bool(part.signature or part.redacted)


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
            budget = max(LEAST_BUDGET, asked.think)
    longest = asked.sampling.max_tokens
    if _breaks_a_loop(asked.turns) or (longest is not None and longest <= LEAST_BUDGET):
        asked.leave_out(asked.field("think"))
        return
    # The budget is a part of the answer's length, and how long that may be is the client's word.
    if longest is None:
        request["max_tokens"] = max(request["max_tokens"], budget + 1024)
    else:
        budget = min(budget, max(LEAST_BUDGET, longest - 1024))
    request["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _breaks_a_loop(turns: list[Turn]) -> bool:
    """Whether the assistant's last turn calls tools and does not begin with thinking that Anthropic signed: with
    thinking switched on it refuses to go on after that."""
    said = next((turn.parts for turn in reversed(turns) if turn.role == "assistant"), [])
    return any(isinstance(part, ToolUse) for part in said) and not (said and _signed(said[0]))
