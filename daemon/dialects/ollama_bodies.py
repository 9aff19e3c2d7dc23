"""The bodies of Ollama's inference routes, as types: what their clients send, what they are answered.

Rule: field for field Ollama's (api/types.go). They name the keys by which `asks.py` reads, and describe the routes
(`daemon/web/openapi.py`); requests and answers themselves are relayed, not built from these. Unknown fields pass
through; null is the same as absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Model = Annotated[str, Meta(description="`llama3.2` means `llama3.2:latest`, or its only installed tag.", min_length=1)]
Stream = Annotated[bool | None, Meta(description="Answer line by line; so unless it is false.")]
KeepAlive = Annotated[
    str | float | None,
    Meta(description='How long the model stays loaded: seconds, or such as "5m"; below zero: for ever.'),
]
Format = Annotated[
    str | dict[str, Any] | None, Meta(description='"json", or a JSON Schema that the answer is to follow.')
]
Think = Annotated[bool | str | None, Meta(description="Whether, or how much (low, medium, high), to think first.")]
Pictures = Annotated[list[str] | None, Meta(description="Base64.")]
Logprobs = Annotated[bool | None, Meta(description="With the probability of each token.")]
Nanoseconds = Annotated[int | UnsetType, Meta(description="Nanoseconds.")]


class OllamaOptions(Struct, kw_only=True):
    """The names that `options` may have; what they mean and may be is the model server's matter."""

    num_keep: Any = None
    seed: Any = None
    num_predict: Any = None
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None
    typical_p: Any = None
    tfs_z: Any = None
    repeat_last_n: Any = None
    temperature: Any = None
    repeat_penalty: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    mirostat: Any = None
    mirostat_tau: Any = None
    mirostat_eta: Any = None
    penalize_newline: Any = None
    stop: Any = None
    numa: Any = None
    num_ctx: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    main_gpu: Any = None
    low_vram: Any = None
    f16_kv: Any = None
    logits_all: Any = None
    vocab_only: Any = None
    use_mmap: Any = None
    use_mlock: Any = None
    num_thread: Any = None


Options = Annotated[OllamaOptions | None, Meta(description="Sampling, and how the model is loaded.")]


class OllamaMessage(Struct, kw_only=True):
    """A message of a chat."""

    role: Annotated[str, Meta(description="system, user, assistant or tool.")]
    content: str = ""
    thinking: str | None = None
    images: Pictures = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaAsk(Struct, kw_only=True):
    """What chat and generate have in common."""

    model: Model
    stream: Stream = None
    format: Format = None
    keep_alive: KeepAlive = None
    options: Options = None
    think: Think = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: Logprobs = None
    top_logprobs: int | None = None


class OllamaChat(OllamaAsk, kw_only=True):
    """A chat. Without messages the model is only loaded, or with `keep_alive: 0` unloaded."""

    messages: list[OllamaMessage] | None = None
    tools: Annotated[list[dict[str, Any]] | None, Meta(description="Functions that the model may call.")] = None


class InlineCredential(Struct, kw_only=True):
    """A password in the body, as the oldest clients send it. A header is better."""

    username: str
    password: str


class OllamaChatWithAuth(OllamaChat, kw_only=True):
    """A chat. With `auth` it is always answered in one piece."""

    auth: InlineCredential | None = None


class OllamaGenerate(OllamaAsk, kw_only=True):
    """A text to go on from. Without a prompt the model is only loaded, or with `keep_alive: 0` unloaded."""

    prompt: str | None = None
    suffix: Annotated[str | None, Meta(description="What comes after the answer.")] = None
    system: str | None = None
    template: str | None = None
    context: Annotated[list[int] | None, Meta(description="Of an earlier answer.")] = None
    raw: Annotated[bool | None, Meta(description="The prompt goes to the model as it is.")] = None
    images: Pictures = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None


class OllamaEmbed(Struct, kw_only=True):
    """Texts to embed."""

    model: Model
    input: Annotated[str | list[str] | None, Meta(description="A text or several.")] = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: Options = None


class OllamaEmbeddings(Struct, kw_only=True):
    """A text to embed, in Ollama's older form."""

    model: Model
    prompt: str | None = None
    keep_alive: KeepAlive = None
    options: Options = None


class OllamaEnd(Struct, kw_only=True):
    """What the last line of a stream, and an unstreamed answer, say besides."""

    model: str
    created_at: str
    done: bool
    done_reason: str | UnsetType = UNSET
    total_duration: Nanoseconds = UNSET
    load_duration: Nanoseconds = UNSET
    prompt_eval_count: Annotated[int | UnsetType, Meta(description="Tokens in.")] = UNSET
    prompt_eval_duration: Nanoseconds = UNSET
    eval_count: Annotated[int | UnsetType, Meta(description="Tokens out.")] = UNSET
    eval_duration: Nanoseconds = UNSET
    logprobs: list[dict[str, Any]] | UnsetType = UNSET


class OllamaSaid(Struct, kw_only=True):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class OllamaChatAnswer(OllamaEnd, kw_only=True):
    """An answer to a chat, or a line of one; counts and durations come with the end."""

    message: OllamaSaid | UnsetType = UNSET


class OllamaChatAnswerWithResponse(OllamaChatAnswer, kw_only=True):
    """The same; an unstreamed one has its text as `response`, too."""

    response: str | UnsetType = UNSET


class OllamaGenerateAnswer(OllamaEnd, kw_only=True):
    """A text that goes on, or a line of it; counts and durations come with the end."""

    response: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    context: list[int] | UnsetType = UNSET


class OnlyResponse(Struct, kw_only=True):
    """The text alone."""

    response: str


class OllamaEmbedAnswer(Struct, kw_only=True):
    """A vector for each text."""

    model: str
    embeddings: list[list[float]]
    total_duration: Nanoseconds = UNSET
    load_duration: Nanoseconds = UNSET
    prompt_eval_count: int | UnsetType = UNSET


class OllamaEmbeddingsAnswer(Struct, kw_only=True):
    """The vector."""

    embedding: list[float]


class OllamaModel(Struct, kw_only=True):
    """A model, as Ollama lists it."""

    name: str
    model: str
    size: Annotated[int | UnsetType, Meta(description="Bytes.")] = UNSET
    digest: str | UnsetType = UNSET
    modified_at: str | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET
    size_vram: int | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET


class OllamaModels(Struct):
    """Models that the caller may use."""

    models: list[OllamaModel]


class OllamaShow(Struct, kw_only=True):
    """Which model; `name` is the older word."""

    model: Model
    verbose: bool | None = None


class OllamaVersion(Struct):
    """The version."""

    version: str


class ModelNamed(Struct, kw_only=True):
    """A model to pull, push, create or delete, with whatever else Ollama takes there."""

    model: Model
    stream: Stream = None


class ModelCopied(Struct, kw_only=True):
    """A model, and the name of its copy."""

    source: Model
    destination: Model


class Progress(Struct, kw_only=True):
    """How far it is."""

    status: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    completed: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
