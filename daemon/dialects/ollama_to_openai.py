"""A client of Ollama before an upstream that speaks OpenAI's dialect: embeddings; before it or Anthropic's, what asks
for nothing.

Rule: counts are the upstream's, never guessed. Chat and generate are joined in `pairs.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon.clock import Clock
from daemon.dialects import openai_requests, translator
from daemon.dialects.asks import Ask, Shape, expect, keep_alive_seconds
from daemon.dialects.ollama_writer import OllamaWriter
from daemon.dialects.openai_stream import error_answer
from daemon.dialects.translator import MAX_WHOLE, UpstreamGarbled, is_list, said
from daemon.dialects.vectors import shortened
from daemon.exchange import Usage


class _OverOpenAi:
    """What the three translators below share."""

    upstream_method: Literal["POST", "GET"] = "POST"
    upstream_headers: translator.Headers = ()
    left_out: tuple[str, ...] = ()
    content_type = translator.JSON

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._sent = 0
        self.usage = Usage()
        self.pieces = 0
        self.finished = False

    def so_far(self) -> bytes:
        return b""

    def gained(self) -> bytes:
        return b""

    def error_status(self, status: int, body: bytes) -> tuple[int, str]:
        return error_answer(status, body)

    def _elapsed_ns(self, since: int) -> int:
        return max(0, self._clock.now() - since) * 1000


class NothingOverOpenAi(_OverOpenAi):
    """An ask with nothing to infer, by which Ollama's clients load or unload a model.

    Such a server loads when it likes: it is only asked whether it is there, and the client is told what Ollama tells.
    """

    upstream_method = "GET"
    upstream_path = "/v1/models"

    def __init__(self, ask: Ask, clock: Clock) -> None:
        super().__init__(ask, clock)
        self._reason = "unload" if keep_alive_seconds(ask.document.get("keep_alive")) == 0 else "load"

    def body(self, model: str) -> bytes:
        return b""

    def feed(self, data: bytes) -> bytes:
        return b""

    def terminator(self) -> bytes:
        self.finished = True
        self.usage = Usage(0, 0)
        match self._ask.shape:
            case Shape.EMBED:
                return msgspec.json.encode({"model": self._ask.model, "embeddings": []})
            case Shape.EMBEDDINGS:
                return msgspec.json.encode({"embedding": []})
            case _:
                return OllamaWriter(self._ask, self._clock).nothing(self._reason)


class _Vector(msgspec.Struct, gc=False):
    embedding: msgspec.Raw
    index: int = 0


class _VectorUsage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None


class _Vectors(msgspec.Struct, gc=False):
    data: list[_Vector] | None = None
    usage: _VectorUsage | None = None
    error: Any = None


class VectorsOverOpenAi(_OverOpenAi):
    """embed and embeddings."""

    upstream_path = "/v1/embeddings"

    def __init__(self, ask: Ask, clock: Clock) -> None:
        super().__init__(ask, clock)
        self._request = openai_requests.embeddings(ask)
        self._dimensions = expect(ask.document, "dimensions", int, "int", of="EmbedRequest") or 0
        self._parts: list[bytes] = []
        self._size = 0

    def body(self, model: str) -> bytes:
        self._sent = self._clock.now()
        return msgspec.json.encode({"model": model} | self._request)

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")
        return b""

    def terminator(self) -> bytes:
        try:
            answer = msgspec.json.decode(b"".join(self._parts), type=_Vectors)
            if answer.error is not None:
                raise said({"error": answer.error})
            vectors = [self._vector(each) for each in sorted(answer.data or (), key=lambda each: each.index)]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream's embeddings are not OpenAI's: {error}") from error
        texts = self._request["input"]
        if len(vectors) != (1 if isinstance(texts, str) else len(texts)):
            raise UpstreamGarbled(f"the upstream answered with {len(vectors)} embeddings, not one for each input")
        self.finished = True
        tokens = answer.usage.prompt_tokens if answer.usage is not None else None
        self.usage = Usage(tokens, 0)
        if self._ask.shape is Shape.EMBEDDINGS:
            return msgspec.json.encode({"embedding": vectors[0]})
        result = {"model": self._ask.model, "embeddings": vectors, "total_duration": self._elapsed_ns(self._sent)}
        return msgspec.json.encode(result | ({"prompt_eval_count": tokens} if tokens else {}))

    def _vector(self, entry: _Vector) -> msgspec.Raw | list[float]:
        """One embedding, its bytes untouched unless it is to be shortened, as Ollama does it: cut and normalised."""
        if not is_list(entry.embedding):
            raise UpstreamGarbled("the upstream's embeddings are not lists of numbers")
        if self._dimensions <= 0:
            return entry.embedding
        return shortened(msgspec.json.decode(entry.embedding, type=list[float]), self._dimensions)
