"""The bodies of Anthropic's routes, as types: what their clients send, what they are answered.

Rule: names and meaning are Anthropic's API reference's. They name the keys by which `anthropic_asks.py` reads, and
describe the routes (`daemon/web/openapi.py`); messages themselves are relayed or written by the dialects. Unknown
fields pass through to an upstream of the same dialect; null is the same as absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class AnthropicMessage(Struct, kw_only=True):
    """A message."""

    role: Annotated[str, Meta(description="user or assistant.")]
    content: Annotated[
        str | list[dict[str, Any]], Meta(description="A text, or blocks: text, image, tool_use, tool_result, thinking.")
    ]


class CountAsk(Struct, kw_only=True):
    """Messages whose tokens are to be counted."""

    model: Annotated[str, Meta(description="As `/v1/models` lists it.", min_length=1)]
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    tools: Annotated[list[dict[str, Any]] | None, Meta(description="Tools that the model may use.")] = None
    tool_choice: dict[str, Any] | None = None
    thinking: Annotated[dict[str, Any] | None, Meta(description="Whether, and for how many tokens, to think.")] = None
    mcp_servers: list[dict[str, Any]] | None = None
    context_management: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: Annotated[dict[str, Any] | None, Meta(description="A JSON Schema for the answer.")] = None


class MessagesAsk(CountAsk, kw_only=True):
    """Messages to answer."""

    max_tokens: Annotated[int, Meta(ge=1)]
    metadata: dict[str, Any] | None = None
    stop_sequences: list[str] | None = None
    stream: Annotated[bool | None, Meta(description="Answer in server-sent events.")] = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    service_tier: str | None = None
    container: str | dict[str, Any] | None = None


class AnthropicUsage(Struct, kw_only=True):
    """Tokens, as the upstream counted them."""

    input_tokens: int
    output_tokens: int


class AnthropicAnswer(Struct, kw_only=True):
    """The answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: AnthropicUsage


class AnthropicEvent(Struct, kw_only=True):
    """An event of a streamed answer; the last is `message_stop`."""

    type: str
    index: int | UnsetType = UNSET


class TokenCount(Struct):
    """How many tokens the messages have."""

    input_tokens: int


class AnthropicModel(Struct, kw_only=True):
    """A model; `created_at` is the beginning of time where nobody knows."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str


class AnthropicModelsQuery(Struct, kw_only=True):
    """Which page of the list; of Anthropic's clients alone."""

    limit: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="So many at most (Anthropic's clients); absent: all."),
    ] = None
    after_id: Annotated[str | None, Meta(description="Those after this one (Anthropic's clients).")] = None
    before_id: Annotated[str | None, Meta(description="Those right before this one (Anthropic's clients).")] = None


class AnthropicModels(Struct, kw_only=True):
    """The models that the caller may use, or a page of them."""

    data: list[AnthropicModel]
    has_more: bool = False
    first_id: str | None
    last_id: str | None
