"""Ollama's dialect: its inference routes, its lists, and the same without `/api` for Bearer callers.

Rule: what a client of Ollama sees here is what Ollama would have said, error shapes included. A route that is not in
this file (or `ollama_admin.py`) never reaches an upstream. Content-Type is ignored, as Ollama ignores it.
"""

from __future__ import annotations

from typing import ClassVar

from common.errors import BadRequest, GatewayError, NotFound
from daemon.dialects import asks, strict_json
from daemon.dialects.asks import Ask
from daemon.dialects.translator import in_stream_error
from daemon.relay import Visit
from daemon.web.base import Handler
from daemon.web.stream import ClientStream

# Shown by /api/version where no Ollama is behind the gate: the version whose behaviour the translation keeps.
OLLAMA_SPOKEN = "0.9.3"


class OllamaHandler(Handler):
    """Errors as Ollama words them: `error`, a string, first; our details beside it."""


class Inference(OllamaHandler):
    """POST generate, chat, embed, embeddings: identify -> read -> the gate."""

    counted_elsewhere = True
    names_a_default: ClassVar[bool] = False  # Ollama's own routes want a model named; the seeds' aliases do not

    visit: Visit | None = None

    def read(self, default: str) -> Ask:
        """The body as what it asks; `default` is the model where it names none, empty where it must name one."""
        raise NotImplementedError

    async def post(self) -> None:
        received = self.house.clock.wall()
        caller = self.caller()
        default = await self.house.registry.default_model() if self.names_a_default else ""
        ask = self.read(default)
        self.visit = Visit(
            request_id=self.request_id,
            address=self.client_address,
            route=self.request.path,
            client_label=self.request.headers.get("X-Client-Label", ""),
            user_agent=self.request.headers.get("User-Agent", "")[:200],
            received=received,
        )
        client = ClientStream(self)
        try:
            await self.house.gate.serve(caller, ask, client, self.visit)
        except GatewayError as failure:
            if self.left:
                return
            if not client.started:
                raise
            # The status is out already: an error in the stream, so that the answer cannot be taken for a whole one.
            await client.finish(in_stream_error(ask.shape, failure.message))

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self.visit is not None:
            self.visit.left()


class Generate(Inference):
    """POST /api/generate."""

    def read(self, default: str) -> Ask:
        return asks.read_generate(self.request.body, default)


class Chat(Inference):
    """POST /api/chat."""

    def read(self, default: str) -> Ask:
        return asks.read_chat(self.request.body, default)


class Embed(Inference):
    """POST /api/embed."""

    def read(self, default: str) -> Ask:
        return asks.read_embed(self.request.body, default)


class Embeddings(Inference):
    """POST /api/embeddings: Ollama's older way to embed, one prompt at a time."""

    def read(self, default: str) -> Ask:
        return asks.read_embeddings(self.request.body, default)


class AliasGenerate(Generate):
    """POST /generate, for Bearer callers."""

    names_a_default = True


class AliasChat(Chat):
    """POST /chat, for Bearer callers."""

    names_a_default = True

    def read(self, default: str) -> Ask:
        ask = super().read(default)
        if ask.inline_auth:
            raise BadRequest("two credentials were sent, one of them in the body; send one", code="several_credentials")
        return ask


class AliasEmbed(Embed):
    """POST /embed, for Bearer callers."""

    names_a_default = True


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
            raise NotFound(f"model '{name}' not found")
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
