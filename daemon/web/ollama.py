"""Ollama's dialect: its inference routes, its lists, and `/embed` and `/tags` without `/api`.

Rule: what a client of Ollama sees here is what Ollama would have said, error shapes included. A route that is not in
this file (or `ollama_admin.py`) never reaches an upstream. Content-Type is ignored, as Ollama ignores it.
"""

from __future__ import annotations

from common.errors import BadRequest
from daemon.access.identity import not_for_this_key
from daemon.dialects import asks, strict_json
from daemon.web.base import Handler
from daemon.web.inference import InferenceRoute

# Shown by /api/version where no Ollama is behind the gate: the version whose behaviour the translation keeps.
OLLAMA_SPOKEN = "0.9.3"


class OllamaHandler(Handler):
    """Errors as Ollama words them: `error`, a string, first; our details beside it."""


class Inference(OllamaHandler):
    """What else comes to an inference route: a browser's preflight. Its POST is `daemon/web/inference.py`'s."""


# The POST routes that the gate serves. The aliases of generate and chat without /api are in `classic.py`.
INFERENCE = (
    InferenceRoute("/api/generate", asks.read_generate),
    InferenceRoute("/api/chat", asks.read_chat),
    InferenceRoute("/api/embed", asks.read_embed),
    InferenceRoute("/api/embeddings", asks.read_embeddings),
    InferenceRoute("/embed", asks.read_embed, names_a_default=True),
)


class Tags(OllamaHandler):
    """GET /api/tags: the models that the caller may use."""

    async def get(self) -> None:
        caller = self.caller()
        models = await self.house.registry.tags()
        self.answer(200, {"models": [model for model in models if caller.may_use(str(model["name"]))]})

    async def head(self) -> None:
        await self.get()


class Running(OllamaHandler):
    """GET /api/ps: what is loaded, of the models that the caller may use."""

    async def get(self) -> None:
        caller = self.caller()
        models = await self.house.registry.running()
        self.answer(200, {"models": [model for model in models if caller.may_use(str(model["name"]))]})

    async def head(self) -> None:
        await self.get()


class Show(OllamaHandler):
    """POST /api/show: a model's details."""

    async def post(self) -> None:
        caller = self.caller()
        document = strict_json.canonicalise(strict_json.read(self.request.body), frozenset({"model", "name"}))
        name = document.get("model") or document.get("name")
        if not isinstance(name, str) or not name:
            raise BadRequest("model is required")
        route = await self.house.registry.resolve(name)
        if not caller.may_use(name, route.model):
            raise not_for_this_key(caller, name)
        status, body = await route.upstream.show(route.model, document)
        self.set_status(status)
        self.finish(body)


class Version(OllamaHandler):
    """GET /api/version: the Ollama behind the gate, or the version whose behaviour the gate keeps."""

    public = True

    async def get(self) -> None:
        self.answer(200, {"version": await self.house.registry.version() or OLLAMA_SPOKEN})

    async def head(self) -> None:
        await self.get()


class Root(OllamaHandler):
    """GET / and HEAD /: what clients of Ollama knock with before anything else."""

    public = True

    async def get(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("Ollama is running")

    async def head(self) -> None:
        await self.get()
