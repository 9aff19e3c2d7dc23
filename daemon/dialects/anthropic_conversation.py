"""Anthropic's messages, read into a conversation of no dialect.

Rule: a block that no other server has (documents, server tools, containers) is refused by name, never dropped. Cache
marks and the service tier change no answer and are left out; so is the effort of a request that asks for no thinking.
What manages the provider's own context is left out, too, and named in the answer's header.
"""

from __future__ import annotations

from typing import Any

from common.errors import BadRequest
from daemon.dialects.asks import Ask
from daemon.dialects.conversation import (
    Conversation,
    Image,
    Part,
    Sampling,
    Schema,
    Text,
    Thought,
    Tool,
    ToolUse,
    Turn,
    open_calls,
)
from daemon.dialects.openai_asks import wanted

_NUMBER = (int, float)
_CONFIGURED = ("format", "effort")  # of output_config, what is read here


def conversation(ask: Ask) -> Conversation:
    """What an `anthropic.messages` asks. BadRequest."""
    document = ask.document
    for field in ("container", "mcp_servers"):
        if document.get(field):
            raise _impossible(field)
    turns: list[Turn] = []
    system = _system(document.get("system"))
    if system:
        turns.append(Turn("system", [Text(system)]))
    for number, message in enumerate(document["messages"]):
        turns += _turns(f"messages.{number}", message)
    open_calls(turns)
    stops = wanted(document, "stop_sequences", list, "an array of texts")
    if stops and not all(isinstance(stop, str) for stop in stops):
        raise BadRequest("stop_sequences: must be an array of texts", detail={"param": "stop_sequences"})
    sampling = Sampling(
        max_tokens=document.get("max_tokens"),
        temperature=wanted(document, "temperature", _NUMBER, "a number"),
        top_p=wanted(document, "top_p", _NUMBER, "a number"),
        top_k=wanted(document, "top_k", int, "a whole number"),
        stop=stops or None,
    )
    tools = wanted(document, "tools", list, "an array of tools") or ()
    choice, parallel = _tool_choice(document.get("tool_choice"))
    metadata = document.get("metadata")
    end_user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return Conversation(
        ask.model,
        turns=turns,
        tools=[_tool(f"tools.{number}", tool) for number, tool in enumerate(tools)],
        tool_choice=choice,
        parallel_calls=parallel,
        sampling=sampling,
        format=_format(document),
        think=_think(document),
        end_user=end_user if isinstance(end_user, str) else "",
        named={"think": "thinking", "thoughts": "messages.thinking", "format": "output_format"},
        strict_by_us=True,
        left_out=_left_out(document),
    )


def _left_out(document: dict[str, Any]) -> list[str]:
    """What only keeps Anthropic's own context short, or is a hint to it: no other server knows of it, and the answer
    is the same unless the conversation is too long for the server, who says so. Claude Code sends it unasked."""
    config = document.get("output_config")
    hints = [f"output_config.{name}" for name in config if name not in _CONFIGURED] if isinstance(config, dict) else []
    return (["context_management"] if document.get("context_management") else []) + hints


def _impossible(what: str, param: str = "") -> BadRequest:
    return BadRequest(
        f"{what} is not possible with this model: its server does not speak Anthropic's dialect and has none",
        code="not_supported_by_upstream",
        detail={"param": param or what},
    )


def _system(system: Any) -> str:
    if not isinstance(system, list):
        return str(system or "")
    texts = [block.get("text") if isinstance(block, dict) else None for block in system]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest("system: must be a text or an array of text blocks", detail={"param": "system"})
    return "\n\n".join(str(text) for text in texts)


def _turns(where: str, message: dict[str, Any]) -> list[Turn]:
    """The turns of one message: a user's message may bring the answers of tools, which are turns of their own."""
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise BadRequest(f"{where}.role: must be user or assistant", detail={"param": where})
    content = message["content"]
    if isinstance(content, str):
        return [Turn(role, [Text(content)] if content else [])]
    answers: list[Turn] = []
    parts: list[Part] = []
    for number, block in enumerate(content):
        place = f"{where}.content.{number}"
        match block:
            case {"type": "tool_result", "tool_use_id": str(identifier)}:
                failed = block.get("is_error") is True
                answers.append(Turn("tool", _result(place, block.get("content")), identifier, failed=failed))
            case _:
                parts.append(_part(place, block))
    return [*answers, Turn(role, parts)] if parts or not answers else answers


def _result(where: str, content: Any) -> list[Part]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise BadRequest(f"{where}.content: must be a text or an array of blocks", detail={"param": where})
    return [_part(f"{where}.content.{number}", block) for number, block in enumerate(content)]


def _part(where: str, block: Any) -> Part:
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text)
        case {"type": "image", "source": {"type": "base64", "media_type": str(media), "data": str(data)}}:
            return Image(media, data)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return Image(url=url)
        case {"type": "tool_use", "id": str(identifier), "name": str(name), "input": dict(arguments)}:
            return ToolUse(identifier, name, arguments)
        case {"type": "thinking", "thinking": str(text)}:
            return Thought(text, str(block.get("signature") or ""))
        case {"type": "redacted_thinking", "data": str(data)}:
            return Thought("", redacted=data)
        case {"type": "text" | "image" | "tool_use" | "thinking" | "tool_result" as kind}:
            raise BadRequest(f"{where}: a {kind} block lacks what it needs", detail={"param": where})
        case {"type": str(kind)}:
            raise _impossible(f"{kind[:40]} in a message", where)
        case _:
            raise BadRequest(f"{where}: must be a block with a type", detail={"param": where})


def _tool(where: str, tool: Any) -> Tool:
    match tool:
        case {"name": str(name), "input_schema": dict(schema)} if tool.get("type", "custom") in ("custom", None):
            strict = tool.get("strict")
            return Tool(name, str(tool.get("description") or ""), schema, strict if isinstance(strict, bool) else None)
        case {"type": str(kind)} if kind != "custom":
            raise _impossible(f"{kind[:40]} as a tool", where)
        case _:
            raise BadRequest(f"{where}: must have a name and an input_schema", detail={"param": where})


def _tool_choice(choice: Any) -> tuple[str, bool | None]:
    if choice is None:
        return "", None
    kind = choice.get("type") if isinstance(choice, dict) else None
    alone = choice.get("disable_parallel_tool_use") if isinstance(choice, dict) else None
    parallel = False if alone is True else None
    match kind:
        case "auto" | "none":
            return str(kind), parallel
        case "any":
            return "required", parallel
        case "tool" if isinstance(choice.get("name"), str):
            return f"={choice['name']}", parallel
    raise BadRequest("tool_choice: type must be auto, any, tool or none", detail={"param": "tool_choice"})


def _format(document: dict[str, Any]) -> Any:
    config = document.get("output_config")
    wanted_format = document.get("output_format") or (config.get("format") if isinstance(config, dict) else None)
    match wanted_format:
        case None:
            return ""
        case {"type": "json_schema", "schema": dict(schema)}:
            return Schema(schema, strict=True)
        case _:
            raise BadRequest("output_format: must be a json_schema with a schema", detail={"param": "output_format"})


def _think(document: dict[str, Any]) -> bool | int | str | None:
    config = document.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    match document.get("thinking"):
        case None:
            return None
        case {"type": "disabled"}:
            return False
        case {"type": "adaptive"}:
            return {"max": "xhigh"}.get(effort, effort) if isinstance(effort, str) else True
        case {"type": "enabled", "budget_tokens": int(budget)} if budget >= 1:
            return budget
        case _:
            raise BadRequest(
                "thinking: must be disabled, adaptive, or enabled with budget_tokens", detail={"param": "thinking"}
            )
