"""A request of no dialect: what a reader of a client's request gives, and a writer for an upstream takes.

Rule: every pair of dialects that are not the same is one reader and one writer joined by this; a new dialect adds a
reader or a writer, not a pair. A reader puts in whatever the client asked and a writer either says all of it to the
upstream or refuses (`cannot`): nothing that would change the answer is dropped silently. What only says how Ollama
should run the model (num_ctx, keep_alive, …) is no part of this and reaches only an Ollama.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from common.errors import BadRequest

Role = Literal["system", "user", "assistant", "tool"]


class Text(msgspec.Struct, gc=False):
    """Plain text."""

    text: str


class Image(msgspec.Struct, gc=False):
    """A picture in the request itself (`data`, base64, and its media type), or at an address (`url`), which the gate
    never fetches: only an upstream that fetches for itself can take it."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    detail: str = ""


class ToolUse(msgspec.Struct, gc=False):
    """A call that the assistant made in an earlier turn."""

    id: str
    name: str
    arguments: dict[str, Any]


class Thought(msgspec.Struct, gc=False):
    """What the assistant thought in an earlier turn; `signature` and `redacted` are the provider's own (Anthropic)."""

    text: str
    signature: str = ""
    redacted: str = ""


Part = Text | Image | ToolUse | Thought


class Turn(msgspec.Struct, gc=False):
    """One message. A tool's turn answers the call `answers` (an id, or "" where the client named none)."""

    role: Role
    parts: list[Part]
    answers: str = ""
    tool_name: str = ""
    failed: bool = False  # the tool reports an error

    @property
    def text(self) -> str:
        """Its text as one: parts that a person or a tool sent apart are lines, what the assistant said goes on."""
        texts = [part.text for part in self.parts if isinstance(part, Text)]
        said = ("" if self.role == "assistant" else "\n").join(texts)
        return f"Error: {said}" if self.failed else said


class Tool(msgspec.Struct, gc=False):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class Schema(msgspec.Struct, gc=False):
    """The JSON Schema that the answer must follow."""

    schema: dict[str, Any]
    name: str = "answer"
    strict: bool | None = None


class Sampling(msgspec.Struct, gc=False, omit_defaults=True):
    """How the next token is chosen, under OpenAI's names; None leaves it to the upstream."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    # Beyond OpenAI's own, under the names that llama.cpp, vLLM and Ollama share.
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None


class Conversation(msgspec.Struct, gc=False):
    """One request for an answer to `turns`, or for the continuation of the raw text `prompt` (completions)."""

    model: str
    turns: list[Turn] = []
    prompt: str | None = None
    suffix: str = ""
    tools: list[Tool] = []
    # "auto", "none", "required", or "=NAME" for that one tool; "" where the client said nothing.
    tool_choice: str = ""
    parallel_calls: bool | None = None
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    format: Literal["", "json"] | Schema = ""
    # True, False, a level (minimal, low, medium, high) or a budget in tokens; None where the client said nothing.
    think: bool | str | int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    choices: int = 1
    end_user: str = ""  # the client's own name for whom it asks; goes to providers that have a field for it
    verbosity: str = ""  # how much to say, OpenAI's low or high; "" where the client wants the usual
    # What the client's dialect calls a field that has another name here: "think", "thoughts", "verbosity".
    named: dict[str, str] = {}
    strict_by_us: bool = False  # the schema is strict because the client's dialect knows no other, not by its own word
    # Fields that the client sent and the upstream does not get, because the answer is none the worse for it or there is
    # no other way; in the client's words, for the header that tells them.
    left_out: list[str] = []

    def field(self, name: str) -> str:
        """What the client calls the field `name`."""
        return self.named.get(name, name)

    def leave_out(self, field: str) -> None:
        """Tell that the upstream does not get this field of the client's."""
        if field not in self.left_out:
            self.left_out.append(field)


def cannot(what: str, model: str, dialect: str, param: str = "") -> BadRequest:
    """The refusal of something that the upstream's dialect has nothing like; `param` is the field, where `what` says it
    in other words."""
    return BadRequest(
        f"{what} is not possible with the model {model!r}: its server speaks {dialect}'s dialect, which has nothing "
        f"like it",
        code="not_supported_by_upstream",
        detail={"param": param or what},
    )


def check_tool_choice(asked: Conversation) -> None:
    """BadRequest where a tool must be called and there is none, or not that one: no server could do it."""
    name = asked.tool_choice.removeprefix("=")
    if asked.tool_choice in ("", "auto", "none") or any(name in ("required", tool.name) for tool in asked.tools):
        return
    if not asked.tools:
        raise BadRequest("tool_choice wants a tool to be called, and tools names none", detail={"param": "tool_choice"})
    raise BadRequest(f"tool_choice wants {name[:60]!r}, which tools does not have", detail={"param": "tool_choice"})


_IMAGE_TYPES = {"iVBORw": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}


def media_type_of(data: str) -> str:
    """The media type of an image by its first bytes in base64; JPEG where they tell nothing."""
    return next((media for start, media in _IMAGE_TYPES.items() if data.startswith(start)), "image/jpeg")


def image_at(url: str, detail: str = "") -> Image:
    """An image from a URL; a `data:` URL brings it along. BadRequest where that is not base64."""
    if not url.startswith("data:"):
        return Image(url=url, detail=detail)
    head, comma, data = url[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or encoding.split(";")[-1] != "base64":
        raise BadRequest("an image's data: URL must be base64")
    return Image(media_type or media_type_of(data), data, detail=detail)


def open_calls(turns: list[Turn]) -> None:
    """Tie each tool's turn to the call it answers, in place: by its id, else the oldest open call of that tool, or of
    any. Calls without an id get one (`call_0`, …); Ollama may do without, the others cannot."""
    unanswered: list[ToolUse] = []
    number = 0
    for turn in turns:
        for part in turn.parts:
            if isinstance(part, ToolUse):
                part.id = part.id or f"call_{number}"
                number += 1
                unanswered.append(part)
        if turn.role != "tool":
            continue
        matching = [call for call in unanswered if call.id == turn.answers]
        if not matching and not turn.answers:
            matching = [call for call in unanswered if call.name == turn.tool_name] or unanswered
        if matching:
            answered = matching[0]
            unanswered.remove(answered)
            turn.answers, turn.tool_name = answered.id, answered.name
        else:
            turn.answers = turn.answers or "call_unknown"
