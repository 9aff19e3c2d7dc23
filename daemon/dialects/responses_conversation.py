"""OpenAI's responses, read into a conversation of no dialect.

Rule: the gate keeps nothing for a client: what refers to something stored (`previous_response_id`, `conversation`,
`item_reference`, `prompt`, `background`) is refused by name, as is a tool that only OpenAI runs. `store` promises the
client nothing here and is left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import BadRequest
from daemon.dialects.asks import Ask
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
from daemon.dialects.openai_conversation import verbosity

_NUMBER = (int, float)
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


# Where OpenAI hands out thinking that only it can read, the signature of Anthropic's goes out and comes back: without
# it Anthropic does not think on after a tool's answer. The mark keeps strangers' seals apart.
SEALED_THOUGHTS = "reasoning.encrypted_content"
SIGNED = "gatelodge:signature:"
_KEPT_NOWHERE = {
    "previous_response_id": "the gateway keeps no conversation; send its items as input",
    "conversation": "the gateway keeps no conversation; send its items as input",
    "background": "the gateway answers on the connection that asked; leave it out, and stream a long answer",
    "prompt": "the gateway keeps no prompt templates; send the text itself as instructions and input",
}


def conversation(ask: Ask) -> Conversation:
    """What a `responses.response` asks. BadRequest."""
    document = ask.document
    for field, why in _KEPT_NOWHERE.items():
        if document.get(field):
            raise _impossible(field, field, why)
    turns: list[Turn] = []
    instructions = wanted(document, "instructions", str, "a text")
    if instructions:
        turns.append(Turn("system", [Text(instructions)]))
    given = document["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for number, item in enumerate(items):
        _add(turns, f"input[{number}]", item)
    open_calls(turns)
    top = wanted(document, "top_logprobs", int, "a number from 0 to 20") or 0
    if not 0 <= top <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20", detail={"param": "top_logprobs"})
    longest = wanted(document, "max_output_tokens", int, "a whole number")
    if longest is not None and longest < 1:
        raise BadRequest("max_output_tokens must be at least 1", detail={"param": "max_output_tokens"})
    text, include = document.get("text"), wanted(document, "include", list, "an array of names") or ()
    tools = wanted(document, "tools", list, "an array of tools") or ()
    end_user = document.get("user") or document.get("safety_identifier")
    return Conversation(
        ask.model,
        turns=turns,
        tools=[_tool(f"tools[{number}]", tool) for number, tool in enumerate(tools)],
        tool_choice=_tool_choice(document.get("tool_choice")),
        parallel_calls=wanted(document, "parallel_tool_calls", bool, "true or false"),
        sampling=Sampling(
            max_tokens=longest,
            temperature=wanted(document, "temperature", _NUMBER, "a number"),
            top_p=wanted(document, "top_p", _NUMBER, "a number"),
        ),
        format=_format(text),
        think=_think(document.get("reasoning")),
        logprobs=top > 0 or "message.output_text.logprobs" in include,
        top_logprobs=top,
        end_user=end_user if isinstance(end_user, str) else "",
        verbosity=verbosity(text, "verbosity", where="text.") if isinstance(text, dict) else "",
        named={
            "think": "reasoning",
            "thoughts": "input.reasoning",
            "verbosity": "text.verbosity",
            "format": "text.format",
        },
        left_out=_left_out(document),
    )


def _left_out(document: dict[str, Any]) -> list[str]:
    """What only says how a provider is to keep within its context: nothing here cuts a conversation, and one that is
    too long is told so, or cut, by the server itself."""
    truncation = document.get("truncation")
    if truncation not in (None, "auto", "disabled"):
        raise BadRequest("truncation must be auto or disabled", detail={"param": "truncation"})
    cut = ["truncation"] if truncation == "auto" else []
    return cut + (["context_management"] if document.get("context_management") else [])


def _impossible(what: str, param: str, why: str = "") -> BadRequest:
    reason = why or "its server has nothing like it"
    return BadRequest(f"{what} is not possible here: {reason}", code="not_supported", detail={"param": param})


def _add(turns: list[Turn], where: str, item: Any) -> None:
    """Append what one item of the input says; what belongs to the assistant's last turn is added to it."""
    match item:
        case {"type": "function_call", "call_id": str(identifier), "name": str(name), "arguments": str(text)}:
            _of_assistant(turns).parts.append(ToolUse(identifier, name, _arguments(where, text)))
        case {"type": "function_call_output", "call_id": str(identifier)}:
            turns.append(Turn("tool", _parts(f"{where}.output", item.get("output")), identifier))
        case {"type": "reasoning"}:
            texts = [each for name in ("content", "summary") if isinstance(item.get(name), list) for each in item[name]]
            said = "".join(str(each.get("text") or "") for each in texts if isinstance(each, dict))
            sealed = item.get("encrypted_content")
            signature = sealed.removeprefix(SIGNED) if isinstance(sealed, str) and sealed.startswith(SIGNED) else ""
            if said:
                _of_assistant(turns).parts.append(Thought(said, signature))
        case {"role": str(role), "content": content} if item.get("type", "message") == "message":
            if role not in _ROLES:
                raise BadRequest(f"{where}.role must be one of {', '.join(_ROLES)}", detail={"param": f"{where}.role"})
            parts = _parts(f"{where}.content", content)
            if role == "assistant":
                _of_assistant(turns).parts.extend(parts)
            else:
                turns.append(Turn(_ROLES[role], parts))
        case {"type": str(kind)} if kind not in ("message", "function_call", "function_call_output"):
            raise _impossible(f"an item of type {kind[:40]}", where)
        case _:
            raise BadRequest(f"{where} must be a message, a function call or its output", detail={"param": where})


def _of_assistant(turns: list[Turn]) -> Turn:
    if not turns or turns[-1].role != "assistant":
        turns.append(Turn("assistant", []))
    return turns[-1]


def _arguments(where: str, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRequest(
            f"{where}.arguments must be the text of a JSON object", detail={"param": f"{where}.arguments"}
        ) from error


def _parts(where: str, content: Any) -> list[Part]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise BadRequest(f"{where} must be a text or an array of parts", detail={"param": where})
    return [_part(f"{where}[{number}]", part) for number, part in enumerate(content)]


def _part(where: str, part: Any) -> Part:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "input_image", "image_url": str(url)}:
            return image_at(url, str(part.get("detail") or ""))
        case {"type": "input_file" | "input_audio" | "input_image" as kind}:
            raise _impossible(f"{kind} in a message", where)
        case _:
            raise BadRequest(f"{where} must be a text or an image part", detail={"param": where})


def _tool(where: str, tool: Any) -> Tool:
    match tool:
        case {"type": "function", "name": str(name)}:
            parameters = tool.get("parameters") or {}
            if not isinstance(parameters, dict):
                raise BadRequest(f"{where}.parameters must be a JSON Schema", detail={"param": where})
            strict = tool.get("strict")
            described = str(tool.get("description") or "")
            return Tool(name, described, parameters, strict if isinstance(strict, bool) else None)
        case {"type": str(kind)} if kind != "function":
            raise _impossible(f"the tool {kind[:40]}", where, "only function tools are")
        case _:
            raise BadRequest(f"{where} must be a function tool with a name", detail={"param": where})


def _tool_choice(choice: Any) -> str:
    match choice:
        case None:
            return ""
        case "auto" | "none" | "required":
            return str(choice)
        case {"type": "function", "name": str(name)}:
            return f"={name}"
        case _:
            raise BadRequest(
                "tool_choice must be auto, none, required or a named function", detail={"param": "tool_choice"}
            )


def _format(text: Any) -> Any:
    wanted_format = text.get("format") if isinstance(text, dict) else None
    match wanted_format:
        case None | {"type": "text"}:
            return ""
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "schema": dict(schema)}:
            strict = wanted_format.get("strict")
            name = str(wanted_format.get("name") or "answer")
            return Schema(schema, name, strict if isinstance(strict, bool) else None)
        case _:
            raise BadRequest("text.format must be text, json_object or json_schema", detail={"param": "text.format"})


def _think(reasoning: Any) -> str | None:
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    if effort is not None and effort not in _EFFORTS:
        raise BadRequest(f"reasoning.effort must be one of {', '.join(_EFFORTS)}", detail={"param": "reasoning.effort"})
    return effort
