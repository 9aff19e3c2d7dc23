"""Embeddings for a client of OpenAI's dialect from an Ollama upstream.

Rule: `encoding_format: base64` is little-endian float32, as OpenAI's; its JavaScript SDK asks for it by itself and
makes an empty vector of a plain list.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from common.errors import BadRequest
from daemon.dialects import translator
from daemon.dialects.asks import Ask
from daemon.dialects.translator import MAX_WHOLE, UpstreamGarbled, said
from daemon.dialects.vectors import in_base64, shortened
from daemon.exchange import Usage


class _Answer(msgspec.Struct, gc=False):
    embeddings: list[msgspec.Raw] | None = None
    prompt_eval_count: int | None = None
    error: Any = None


class OpenAiVectorsOverOllama:
    """See `translator.Translator`."""

    upstream_method: Literal["POST", "GET"] = "POST"
    upstream_headers: translator.Headers = ()
    left_out: tuple[str, ...] = ()
    upstream_path = "/api/embed"
    content_type = translator.JSON

    def __init__(self, ask: Ask) -> None:
        texts = ask.document["input"]
        if not isinstance(texts, str) and not (
            isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        ):
            raise BadRequest(
                "input must be a text or an array of texts for this model; its server takes no token numbers",
                detail={"param": "input"},
            )
        dimensions = self._dimensions = ask.document.get("dimensions") or 0
        self._ask = ask
        self._count = 1 if isinstance(texts, str) else len(texts)
        self._request = {"input": texts} | ({"dimensions": dimensions} if dimensions else {})
        self._base64 = ask.document.get("encoding_format") == "base64"
        self._parts: list[bytes] = []
        self._size = 0
        self.usage = Usage()
        self.pieces = 0
        self.finished = False

    def body(self, model: str) -> bytes:
        return msgspec.json.encode({"model": model} | self._request)

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_WHOLE:
            raise UpstreamGarbled(f"the upstream's answer is longer than {MAX_WHOLE:,} bytes")
        return b""

    def terminator(self) -> bytes:
        try:
            answer = msgspec.json.decode(b"".join(self._parts), type=_Answer)
            if answer.error is not None:
                raise said({"error": answer.error})
            vectors = [self._vector(raw) for raw in answer.embeddings or ()]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamGarbled(f"the upstream's embeddings are not Ollama's: {error}") from error
        if len(vectors) != self._count:
            raise UpstreamGarbled(f"the upstream answered with {len(vectors)} embeddings, not one for each input")
        self.finished = True
        tokens = answer.prompt_eval_count or 0
        self.usage = Usage(tokens, 0)
        data = [{"object": "embedding", "index": number, "embedding": each} for number, each in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return msgspec.json.encode({"object": "list", "data": data, "model": self._ask.model, "usage": usage})

    def so_far(self) -> bytes:
        return b""

    def gained(self) -> bytes:
        return b""

    def error_status(self, status: int, body: bytes) -> tuple[int, str]:
        return translator.error_answer(status, body)

    def _vector(self, raw: msgspec.Raw) -> Any:
        known = msgspec.json.decode(raw, type=list[float])
        vector = shortened(known, self._dimensions)
        if self._base64:
            return in_base64(vector)
        return raw if vector is known else vector
