"""Ollama's dialect: its inference routes, its lists, and `/embed` and `/tags` without `/api`.

Rule: what a client of Ollama sees here is what Ollama would have said, error shapes included. A route that is not in
this file (or `ollama_admin.py`) never reaches an upstream. Content-Type is ignored, as Ollama ignores it.
"""

from __future__ import annotations

from typing import Any

from common.errors import BadRequest
from daemon.access.identity import not_for_this_key
from daemon.dialects import asks, ollama_bodies, strict_json
from daemon.web.base import Handler
from daemon.web.described import Lines, Operation, Text, described, of_default_model
from daemon.web.inference import InferenceRoute

# Shown by /api/version where no Ollama is behind the gate: the version whose behaviour the translation keeps.
OLLAMA_SPOKEN = "0.9.3"


class OllamaHandler(Handler):
    """Errors as Ollama words them: `error`, a string, first; our details beside it."""

    group = "Ollama's dialect"


class Inference(OllamaHandler):
    """What else comes to an inference route: a browser's preflight. Its POST is `daemon/web/inference.py`'s."""


_MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
_MODEL = {"model": "llama3.2"}


def _told(summary: str, takes: type, answer: type, example: dict[str, Any], *, streams: bool = True) -> Operation:
    answers = (answer, Lines(answer)) if streams else (answer,)
    return Operation(
        group=OllamaHandler.group, summary=summary, takes=takes, answers=answers, example=example, relayed=True
    )


CHAT = _told("Chat", ollama_bodies.OllamaChat, ollama_bodies.OllamaChatAnswer, _MODEL | {"messages": _MESSAGES})
GENERATE = _told(
    "Go on from a prompt",
    ollama_bodies.OllamaGenerate,
    ollama_bodies.OllamaGenerateAnswer,
    _MODEL | {"prompt": "The sky is blue because"},
)
_EMBED = _told(
    "Embed texts",
    ollama_bodies.OllamaEmbed,
    ollama_bodies.OllamaEmbedAnswer,
    _MODEL | {"input": ["one text", "another"]},
    streams=False,
)
_EMBEDDINGS = _told(
    "Embed a text, in Ollama's older form",
    ollama_bodies.OllamaEmbeddings,
    ollama_bodies.OllamaEmbeddingsAnswer,
    _MODEL | {"prompt": "a text"},
    streams=False,
)

# The POST routes that the gate serves. The alias without /api is for Bearer callers, and names a default.
INFERENCE = (
    InferenceRoute("/api/generate", asks.read_generate, told=GENERATE),
    InferenceRoute("/api/chat", asks.read_chat, told=CHAT),
    InferenceRoute("/api/embed", asks.read_embed, told=_EMBED),
    InferenceRoute("/api/embeddings", asks.read_embeddings, told=_EMBEDDINGS),
    InferenceRoute("/embed", asks.read_embed, names_a_default=True, told=of_default_model(_EMBED)),
)


class Tags(OllamaHandler):
    """GET /api/tags: the models that the caller may use."""

    @described("The models that you may use", answers=ollama_bodies.OllamaModels)
    async def get(self) -> None:
        caller = self.caller()
        models = await self.house.registry.tags(cloud=caller.user.cloud)
        self.answer(200, {"models": [model for model in models if caller.may_use(str(model["name"]))]})

    async def head(self) -> None:
        await self.get()


class Running(OllamaHandler):
    """GET /api/ps: what is loaded, of the models that the caller may use."""

    @described("Which of them are loaded", answers=ollama_bodies.OllamaModels)
    async def get(self) -> None:
        caller = self.caller()
        models = await self.house.registry.running()
        self.answer(200, {"models": [model for model in models if caller.may_use(str(model["name"]))]})

    async def head(self) -> None:
        await self.get()


class Show(OllamaHandler):
    """POST /api/show: a model's details."""

    @described(
        "One model's details",
        takes=ollama_bodies.OllamaShow,
        answers=dict[str, Any],
        errors=(403, 404, 502, 504),
        example=_MODEL,
    )
    async def post(self) -> None:
        caller = self.caller()
        document = strict_json.canonicalise(strict_json.read(self.request.body), frozenset({"model", "name"}))
        name = document.get("model") or document.get("name")
        if not isinstance(name, str) or not name:
            raise BadRequest("model is required")
        route = await self.house.registry.resolve(name, cloud=caller.user.cloud)
        if not caller.may_use(name, route.model):
            raise not_for_this_key(caller, name)
        status, body = await route.upstream.show(route.model, document)
        self.set_status(status)
        self.finish(body)


class Version(OllamaHandler):
    """GET /api/version: the Ollama behind the gate, or the version whose behaviour the gate keeps."""

    public = True

    @described("The version of the Ollama behind, or that is spoken", answers=ollama_bodies.OllamaVersion)
    async def get(self) -> None:
        self.answer(200, {"version": await self.house.registry.version() or OLLAMA_SPOKEN})

    async def head(self) -> None:
        await self.get()


class Root(OllamaHandler):
    """GET / and HEAD /: what clients of Ollama knock with before anything else."""

    public = True

    @described("What clients of Ollama knock with", answers=Text())
    async def get(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("Ollama is running")

    async def head(self) -> None:
        await self.get()
