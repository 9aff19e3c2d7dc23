"""The bodies of OpenAI's inference routes, as types: what their clients send, what they are answered.

Rule: names and meaning are OpenAI's API reference's. They name the keys by which `openai_asks.py` reads, and describe
the routes (`daemon/web/openapi.py`); requests and answers themselves are relayed or written by the dialects. Unknown
fields pass through to an upstream of the same dialect; null is the same as absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Model = Annotated[str, Meta(description="As `/v1/models` lists it.", min_length=1)]
Stream = Annotated[bool | None, Meta(description="Answer in server-sent events.")]
Tools = Annotated[list[dict[str, Any]] | None, Meta(description="Functions that the model may call.")]
Content = Annotated[
    str | list[dict[str, Any]] | None, Meta(description="A text, or parts: text, image_url with a `data:` URL.")
]


class ChatMessage(Struct, kw_only=True):
    """A message of a chat."""

    role: Annotated[str, Meta(description="system, developer, user, assistant or tool.")]
    content: Content = None
    name: str | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Sampled(Struct, kw_only=True):
    """What chat and completions have in common; the fields from top_k on are those of local servers."""

    model: Model
    stream: Stream = None
    stream_options: Annotated[dict[str, Any] | None, Meta(description="`include_usage`, with `stream`.")] = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None
    logprobs: Annotated[bool | int | None, Meta(description="Chat: whether; completions: how many.")] = None
    top_logprobs: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None


class ChatCompletionAsk(Sampled, kw_only=True):
    """A chat."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: Tools = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: Annotated[dict[str, Any] | None, Meta(description="text, json_object or json_schema.")] = None
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    reasoning: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None


class CompletionAsk(Sampled, kw_only=True):
    """A text to go on from."""

    prompt: str | list[str | int]
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None


class EmbeddingAsk(Struct, kw_only=True):
    """Texts to embed."""

    model: Model
    input: Annotated[str | list[str | int], Meta(description="A text or several, not empty.")]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class ResponseAsk(Struct, kw_only=True):
    """What to respond to. The gateway keeps no conversation."""

    model: Model
    input: Annotated[str | list[dict[str, Any]], Meta(description="A text, or items, not empty.")]
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tools: Tools = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    stream: Stream = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    prompt: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    include: list[str] | None = None
    truncation: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    context_management: list[dict[str, Any]] | None = None


class TokensUsed(Struct, kw_only=True):
    """Tokens, as the upstream counted them."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | UnsetType = UNSET


class ChatCompletion(Struct, kw_only=True):
    """The answer to a chat."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: TokensUsed | UnsetType | None = UNSET


class Embedded(Struct, kw_only=True):
    """The vector of one text: numbers, or with `base64` the bytes of 32-bit floats."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str


class EmbeddingList(Struct, kw_only=True):
    """A vector for each text."""

    object: Literal["list"]
    model: str
    data: list[Embedded]
    usage: TokensUsed | UnsetType = UNSET


class ResponseObject(Struct, kw_only=True):
    """The response."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | UnsetType | None = UNSET


class ResponseEvent(Struct, kw_only=True):
    """An event of a streamed response; the last is `response.completed` or `response.incomplete`."""

    type: str
    sequence_number: int


class OpenAiModel(Struct, kw_only=True):
    """A model; `created` in Unix seconds, 0 where nobody knows."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "library"


class OpenAiModels(Struct, kw_only=True):
    """The models that the caller may use."""

    object: Literal["list"] = "list"
    data: list[OpenAiModel]
