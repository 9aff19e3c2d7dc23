"""Which translator stands between a client's ask and an upstream's kind: the tables of them.

Rule: the relay and the providers ask here and know no translator by name. The same dialect on both ends is relayed
unparsed; any other pair joins the reader of the client's requests with the upstream's, and the reader of the upstream's
answers with the client's writer. A new dialect is a row in each table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from common.errors import BadRequest
from daemon.clock import Clock
from daemon.dialects import (
    anthropic_conversation,
    anthropic_requests,
    anthropic_stream,
    ollama_conversation,
    ollama_requests,
    openai_conversation,
    openai_own,
    openai_requests,
    openai_stream,
    responses_conversation,
    text,
    translator,
    unknown,
)
from daemon.dialects.anthropic_stream import AnthropicStream
from daemon.dialects.anthropic_through import AnthropicThrough, AnthropicWhole
from daemon.dialects.anthropic_writer import AnthropicWriter
from daemon.dialects.asks import Ask, Shape
from daemon.dialects.conversation import Conversation, check_tool_choice
from daemon.dialects.joined import Joined, Reader, Writer
from daemon.dialects.ollama import OllamaStream, OllamaVectors, OllamaWhole
from daemon.dialects.ollama_stream import OllamaPieces
from daemon.dialects.ollama_to_openai import NothingOverOpenAi, VectorsOverOpenAi
from daemon.dialects.ollama_writer import OllamaWriter
from daemon.dialects.openai_stream import OpenAiStream
from daemon.dialects.openai_through import OpenAiThrough, OpenAiVectors, OpenAiWhole
from daemon.dialects.openai_to_ollama import OpenAiVectorsOverOllama
from daemon.dialects.openai_writer import OpenAiWriter
from daemon.dialects.responses_writer import ResponsesWriter
from daemon.dialects.translator import Translator


class _Client(NamedTuple):
    """A dialect that clients speak."""

    read: Callable[[Ask], Conversation]
    writer: Callable[[Ask, Clock], Writer]
    streamed_as: str


class _Server(NamedTuple):
    """A dialect that upstreams speak; `request` gives its path and its body but for the model."""

    request: Callable[[Conversation], tuple[str, dict[str, Any]]]
    reader: Callable[[], Reader]
    error_answer: Callable[[int, bytes], tuple[int, str]]


def translator_for(ask: Ask, upstream_kind: str, clock: Clock, *, host: str = "") -> Translator:
    """The translator for one exchange. `upstream_kind` is "ollama", "openai" or "anthropic", `host` its name.

    BadRequest where the upstream could only answer something else than what was asked.
    """
    family = ask.shape.family
    if family != upstream_kind:
        unknown.refuse_obeyed(ask)
    special = _SPECIAL.get((family, upstream_kind))
    chosen = special(ask, clock) if special is not None else None
    if chosen is not None:
        return chosen
    if upstream_kind not in _SERVERS:
        raise BadRequest(f"{ask.route} is not possible with the model {ask.model!r}: its server does not speak it")
    return _joined(ask, _CLIENTS[family], _SERVERS[upstream_kind], clock, host)


def _joined(ask: Ask, client: _Client, server: _Server, clock: Clock, host: str) -> Translator:
    asked = client.read(ask)
    check_tool_choice(asked)
    path, request = server.request(asked)

    def fit(request: dict[str, Any], model: str) -> dict[str, Any]:
        return openai_own.fitted(request, asked, host=host, model=model)

    return Joined(
        path,
        request,
        server.reader(),
        client.writer(ask, clock),
        clock,
        streamed_as=client.streamed_as if ask.stream else None,
        error_answer=server.error_answer,
        fit=fit if server.request is _to_openai else None,
        left_out=asked.left_out,
    )


def _to_ollama(asked: Conversation) -> tuple[str, dict[str, Any]]:
    if asked.prompt is None:
        return "/api/chat", ollama_requests.chat(asked)
    return "/api/generate", ollama_requests.generate(asked)


def _to_openai(asked: Conversation) -> tuple[str, dict[str, Any]]:
    if asked.prompt is None:
        return "/v1/chat/completions", openai_requests.chat_completion(asked)
    return "/v1/completions", openai_requests.completion(asked)


def _to_anthropic(asked: Conversation) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", anthropic_requests.messages(asked)


def _anthropic_through(ask: Ask, clock: Clock) -> Translator:
    return AnthropicThrough(ask) if ask.stream else AnthropicWhole(ask)


def _no_vectors(ask: Ask, clock: Clock) -> Translator | None:
    if ask.shape in (*_OLLAMAS_VECTORS, Shape.OPENAI_EMBEDDING):
        raise BadRequest(f"the model {ask.model!r} makes no embeddings: its server speaks Anthropic's dialect")
    return None


def _ollama_to_anthropic(ask: Ask, clock: Clock) -> Translator | None:
    _no_vectors(ask, clock)
    return NothingOverOpenAi(ask, clock) if ask.empty else None  # the list of models is at the same path there


def _ollama_through(ask: Ask, clock: Clock) -> Translator:
    if ask.shape in _OLLAMAS_VECTORS:
        return OllamaVectors(ask)
    return OllamaStream(ask) if ask.stream else OllamaWhole(ask)


def _ollama_to_openai(ask: Ask, clock: Clock) -> Translator | None:
    if ask.empty:
        return NothingOverOpenAi(ask, clock)
    return VectorsOverOpenAi(ask, clock) if ask.shape in _OLLAMAS_VECTORS else None


def _openai_through(ask: Ask, clock: Clock) -> Translator:
    if ask.shape is Shape.OPENAI_EMBEDDING:
        return OpenAiVectors(ask)
    return OpenAiThrough(ask) if ask.stream else OpenAiWhole(ask)


def _openai_to_ollama(ask: Ask, clock: Clock) -> Translator | None:
    return OpenAiVectorsOverOllama(ask) if ask.shape is Shape.OPENAI_EMBEDDING else None


_OLLAMAS_VECTORS = (Shape.EMBED, Shape.EMBEDDINGS)
_CLIENTS = {
    "ollama": _Client(ollama_conversation.conversation, OllamaWriter, translator.NDJSON),
    "openai": _Client(openai_conversation.conversation, OpenAiWriter, translator.SSE),
    "responses": _Client(responses_conversation.conversation, ResponsesWriter, translator.SSE),
    "anthropic": _Client(anthropic_conversation.conversation, AnthropicWriter, translator.SSE),
    "text": _Client(text.conversation, text.TextWriter, translator.TEXT),
}
_SERVERS = {
    "ollama": _Server(_to_ollama, OllamaPieces, translator.error_answer),
    "openai": _Server(_to_openai, OpenAiStream, openai_stream.error_answer),
    "anthropic": _Server(_to_anthropic, AnthropicStream, anthropic_stream.error_answer),
}
# What is not joined: the same dialect on both ends, embeddings, an ask for nothing. None means that it is, after all.
_SPECIAL: dict[tuple[str, str], Callable[[Ask, Clock], Translator | None]] = {
    ("ollama", "ollama"): _ollama_through,
    ("ollama", "openai"): _ollama_to_openai,
    ("openai", "openai"): _openai_through,
    ("openai", "ollama"): _openai_to_ollama,
    ("anthropic", "anthropic"): _anthropic_through,
    ("ollama", "anthropic"): _ollama_to_anthropic,
    ("openai", "anthropic"): _no_vectors,
}
