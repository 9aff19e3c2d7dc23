"""An OpenAI upstream's list of models in the shapes of Ollama's tags, show and ps.

Rule: what the upstream does not tell is empty or absent, never invented. llama.cpp tells sizes and contexts beside
OpenAI's fields; they are used where they are there. `digest` only has to be the same for the same model: it is made
from what identifies it, because Ollama's own command line cannot print a model without one. `modified_at` is what the
upstream told first of that model: llama.cpp and vLLM tell as `created` the moment at which they are asked.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import msgspec

from daemon.dialects.translator import UpstreamGarbled

# Such a server unloads nothing by itself: what Ollama says of a model that is to stay.
_NEVER = "9999-12-31T23:59:59Z"
ARCHITECTURE = "unknown"  # which one a model has, neither llama.cpp nor vLLM tells


class _Meta(msgspec.Struct, gc=False):
    n_params: int | None = None
    size: int | None = None
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    n_embd: int | None = None
    ftype: str | None = None


class _Architecture(msgspec.Struct, gc=False):
    input_modalities: list[str] = []


class _Model(msgspec.Struct, gc=False):
    id: str
    created: float | None = None
    owned_by: str | None = None
    meta: _Meta | None = None
    architecture: _Architecture | None = None
    max_model_len: int | None = None  # vLLM


class _Models(msgspec.Struct, gc=False):
    data: list[_Model]


class CatalogueEntry(msgspec.Struct, frozen=True):
    """One model, as each of Ollama's three lists shows it."""

    name: str
    tags: dict[str, Any]
    show: dict[str, Any]
    ps: dict[str, Any]


def catalogue(models_answer: bytes, told: dict[str, float]) -> list[CatalogueEntry]:
    """The models in the answer to GET /v1/models. UpstreamGarbled where it is none.

    `told` is the upstream's own to keep between its answers: digest of a model -> when it is from (Unix seconds), as
    it was told first. New models are added to it.
    """
    try:
        models = msgspec.json.decode(models_answer, type=_Models).data
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamGarbled(f"the upstream's list of models is not OpenAI's: {error}") from error
    return [_entry(model, model.meta or _Meta(), told) for model in models]


def _entry(model: _Model, meta: _Meta, told: dict[str, float]) -> CatalogueEntry:
    details: dict[str, Any] = {
        "parent_model": "",
        "format": "gguf" if model.owned_by == "llamacpp" else "",
        "family": "",
        "families": [],
        "parameter_size": _human(meta.n_params) if meta.n_params else "",
        "quantization_level": meta.ftype or "",
    }
    head = {"name": model.id, "model": model.id}
    digest = _digest(model, meta)
    body = {"size": meta.size or 0, "digest": digest, "details": details}
    created = told.setdefault(digest, model.created or 0)
    modified = {"modified_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))}
    context = meta.n_ctx or model.max_model_len
    vision = model.architecture is not None and "image" in model.architecture.input_modalities
    show = {
        "modelfile": "",
        "template": "",
        "details": details,
        "model_info": _info(meta, meta.n_ctx_train or model.max_model_len),
        "capabilities": ["completion", "vision"] if vision else ["completion"],
    }
    running = {"expires_at": _NEVER, "size_vram": 0} | ({"context_length": context} if context else {})
    return CatalogueEntry(model.id, head | modified | body, show | modified, head | body | running)


def _info(meta: _Meta, context: int | None) -> dict[str, Any] | None:
    """Ollama's `model_info`, with 0 for what is not told; None where no length is.

    Ollama's own command line panics where one is there and lacks any of these four.
    """
    if not context and not meta.n_embd:
        return None
    return {
        "general.architecture": ARCHITECTURE,
        "general.parameter_count": meta.n_params or 0,
        f"{ARCHITECTURE}.context_length": context or 0,
        f"{ARCHITECTURE}.embedding_length": meta.n_embd or 0,
    }


def _digest(model: _Model, meta: _Meta) -> str:
    return hashlib.sha256(msgspec.json.encode([model.id, meta.n_params, meta.size, meta.ftype])).hexdigest()


def _human(count: int) -> str:
    """A number of parameters as Ollama writes it: 134.52M, 7.6B, 70B."""
    for unit, name, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            return f"{count // unit}{name}" if count % unit == 0 else f"{count / unit:.{digits}f}{name}"
    return str(count)
