"""What a client asks, read and checked: Ollama's chat, generate, embed and embeddings.

Rule: types are checked where the gate itself uses a field, in Ollama's own words; what Ollama alone understands passes
through unchecked and unknown fields stay. null is the same as absent, as in Go. No policy here: bounds and permissions
are decided on the `Ask` that comes out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from common.errors import BadRequest
from daemon.dialects import ollama_bodies
from daemon.dialects.strict_json import canonicalise, kind_of, parse_with_credential


class Shape(StrEnum):
    """The shape of a request and its answer. The part before the dot is the family: one way to tell an error."""

    CHAT = "ollama.chat"
    GENERATE = "ollama.generate"
    EMBED = "ollama.embed"
    EMBEDDINGS = "ollama.embeddings"
    OPENAI_CHAT = "openai.chat"
    OPENAI_COMPLETION = "openai.completion"
    OPENAI_EMBEDDING = "openai.embedding"
    ANTHROPIC = "anthropic.messages"
    RESPONSES = "responses.response"
    TEXT = "text.request"

    @property
    def family(self) -> str:
        """The part before the dot."""
        return self.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Ask:
    """One inference request. `document` is the checked body, its known keys in their canonical spelling."""

    route: str  # of the shape, "/api/chat"; aliases arrive here as what they stand for
    shape: Shape
    document: dict[str, Any]
    model: str  # as asked, or the default
    stream: bool
    # What came beside the body and belongs to the dialect: for an upstream of the same one.
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to infer: Ollama then only loads the model, or with keep_alive 0 unloads it."""
        substance = _SUBSTANCE.get(self.shape)
        return substance is not None and not self.document.get(substance)


_SUBSTANCE = {Shape.CHAT: "messages", Shape.GENERATE: "prompt", Shape.EMBED: "input", Shape.EMBEDDINGS: "prompt"}


def keys(words: str) -> frozenset[str]:
    """Names that a dialect knows, written with spaces between."""
    return frozenset(words.split())


def names(body: type[msgspec.Struct]) -> frozenset[str]:
    """The names of a body's fields."""
    return frozenset(body.__struct_fields__)


_OF_OLLAMA_ALONE = keys("_debug_render_only runner")  # of its own tools and tests
CHAT_KEYS = names(ollama_bodies.OllamaChat) | _OF_OLLAMA_ALONE
GENERATE_KEYS = names(ollama_bodies.OllamaGenerate) | _OF_OLLAMA_ALONE
EMBED_KEYS = names(ollama_bodies.OllamaEmbed)
EMBEDDINGS_KEYS = names(ollama_bodies.OllamaEmbeddings)
MESSAGE_KEYS = names(ollama_bodies.OllamaMessage)
OPTION_KEYS = names(ollama_bodies.OllamaOptions)


def read_chat(body: bytes, default_model: str | None = None) -> Ask:
    """The body of POST /api/chat. BadRequest where it is not one; so for the other three."""
    return chat_of(read_chat_document(body)[0], default_model)


def chat_of(document: dict[str, Any], default_model: str | None = None) -> Ask:
    """What a chat's document asks. BadRequest without a model."""
    return _ask("/api/chat", Shape.CHAT, document, default_model, stream=_stream(document, "ChatRequest"))


def read_chat_document(body: bytes) -> tuple[dict[str, Any], Any]:
    """The same body but for its model, which may be absent; and the inline credential that came in it, or None."""
    document, credential = _read_with_credential(body, "ChatRequest", CHAT_KEYS)
    messages = expect(document, "messages", list, "[]api.Message", of="ChatRequest")
    if messages:
        document["messages"] = [_message(message) for message in messages]
    return document, credential


def read_generate(body: bytes, default_model: str | None = None) -> Ask:
    """The body of POST /api/generate."""
    document = _read(body, "GenerateRequest", GENERATE_KEYS)
    expect(document, "prompt", str, "string", of="GenerateRequest")
    return _ask("/api/generate", Shape.GENERATE, document, default_model, stream=_stream(document, "GenerateRequest"))


def read_embed(body: bytes, default_model: str | None = None) -> Ask:
    """The body of POST /api/embed; its answer is never streamed."""
    document = _read(body, "EmbedRequest", EMBED_KEYS)
    return _ask("/api/embed", Shape.EMBED, document, default_model, stream=False)


def read_embeddings(body: bytes, default_model: str | None = None) -> Ask:
    """The body of POST /api/embeddings, the older form of embed."""
    document = _read(body, "EmbeddingRequest", EMBEDDINGS_KEYS)
    expect(document, "prompt", str, "string", of="EmbeddingRequest")
    return _ask("/api/embeddings", Shape.EMBEDDINGS, document, default_model, stream=False)


def expect(document: dict[str, Any], name: str, kind: type, go_type: str, *, of: str) -> Any:
    """The value of a field that must be a `kind` if it is there; None where it is absent or null.

    BadRequest in the words of Go's decoder, as Ollama says it. A bool is no number here.
    """
    value = document.get(name)
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    raise BadRequest(f"json: cannot unmarshal {kind_of(value)} into Go struct field {of}.{name} of type {go_type}")


def keep_alive_seconds(value: Any) -> float | None:
    """Ollama's keep_alive, a number of seconds or a duration such as "5m": in seconds, forever as infinity.

    None where it is not given. BadRequest in Ollama's words.
    """
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float():
            return float(value) if value >= 0 else float("inf")
        case str():
            seconds = _duration(value)
            return seconds if seconds >= 0 else float("inf")
    raise BadRequest(f'keep_alive must be a number of seconds or a duration such as "5m", not {kind_of(value)}')


def _read(body: bytes, go_type: str, known: frozenset[str]) -> dict[str, Any]:
    return _read_with_credential(body, go_type, known)[0]


def _read_with_credential(body: bytes, go_type: str, known: frozenset[str]) -> tuple[dict[str, Any], Any]:
    value, credential = parse_with_credential(body)
    if not isinstance(value, dict):
        raise BadRequest(f"json: cannot unmarshal {kind_of(value)} into Go value of type api.{go_type}")
    document = canonicalise(value, known)
    expect(document, "model", str, "string", of=go_type)
    options = expect(document, "options", dict, "map[string]interface {}", of=go_type)
    if options:
        document["options"] = canonicalise(options, OPTION_KEYS, "options")
    return document, credential


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise BadRequest(
            f"json: cannot unmarshal {kind_of(message)} into Go struct field ChatRequest.messages of type api.Message"
        )
    canonical = canonicalise(message, MESSAGE_KEYS, "a message")
    for name in ("role", "content"):
        expect(canonical, name, str, "string", of="ChatRequest.messages")
    return canonical


def _stream(document: dict[str, Any], go_type: str) -> bool:
    return expect(document, "stream", bool, "bool", of=go_type) is not False


def _ask(route: str, shape: Shape, document: dict[str, Any], default_model: str | None, *, stream: bool) -> Ask:
    model = document.get("model") or default_model
    if not model:
        raise BadRequest("model is required")
    return Ask(route, shape, document, model, stream)


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def _duration(text: str) -> float:
    """A duration as Go's time.ParseDuration reads it, in seconds."""
    unsigned = text[1:] if text[:1] in ("-", "+") else text
    if unsigned == "0":
        return 0.0
    quantities = _QUANTITY.findall(unsigned)
    if not quantities or "".join(number + unit for number, unit in quantities) != unsigned:
        raise BadRequest(f'time: invalid duration "{text[:40]}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in quantities)
    return -seconds if text.startswith("-") else seconds
