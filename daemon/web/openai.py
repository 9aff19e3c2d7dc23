"""OpenAI's dialect: chat completions, completions, responses, embeddings, and the list of models.

Rule: what a client of OpenAI sees here is what OpenAI would have said, error shapes included; the models are the
gate's, those that the caller may use.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from common.errors import GatewayError
from daemon.access.identity import not_for_this_key
from daemon.dialects import anthropic_bodies, errors, openai_asks, openai_bodies
from daemon.providers.upstream import Model as Installed
from daemon.web import anthropic
from daemon.web.base import Handler
from daemon.web.described import EVENTS, Lines, Operation, described
from daemon.web.inference import InferenceRoute


class OpenAiHandler(Handler):
    """Errors as OpenAI words them."""

    group = "OpenAI's dialect"
    error_types: ClassVar[tuple[Any, ...]] = (errors.OpenAiError,)

    def error_shape(self, error: GatewayError) -> Any:
        return errors.openai(error, self.request_id)


class Inference(OpenAiHandler):
    """What else comes to an inference route: a browser's preflight. Its POST is `daemon/web/inference.py`'s."""


_MODEL = {"model": "llama3.2"}


def _told(summary: str, takes: type, answer: type, events: Lines | None, **example: Any) -> Operation:
    answers = (answer,) if events is None else (answer, events)
    shown = _MODEL | example
    return Operation(
        group=OpenAiHandler.group, summary=summary, takes=takes, answers=answers, example=shown, relayed=True
    )


_CHAT = _told(
    "Chat",
    openai_bodies.ChatCompletionAsk,
    openai_bodies.ChatCompletion,
    Lines(openai_bodies.ChatCompletion, EVENTS, last="[DONE]"),
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
_COMPLETION = _told(
    "Go on from a text",
    openai_bodies.CompletionAsk,
    openai_bodies.ChatCompletion,
    Lines(openai_bodies.ChatCompletion, EVENTS, last="[DONE]"),
    prompt="The sky is blue because",
)
_RESPONSE = _told(
    "Respond",
    openai_bodies.ResponseAsk,
    openai_bodies.ResponseObject,
    Lines(openai_bodies.ResponseEvent, EVENTS),
    input="Why is the sky blue?",
)
_EMBEDDING = _told(
    "Embed texts", openai_bodies.EmbeddingAsk, openai_bodies.EmbeddingList, None, input=["one text", "another"]
)
INFERENCE = (
    InferenceRoute("/v1/chat/completions", openai_asks.read_chat_completion, errors=errors.openai, told=_CHAT),
    InferenceRoute("/v1/completions", openai_asks.read_completion, errors=errors.openai, told=_COMPLETION),
    InferenceRoute("/v1/responses", openai_asks.read_response, errors=errors.openai, told=_RESPONSE),
    InferenceRoute("/v1/embeddings", openai_asks.read_embedding, errors=errors.openai, told=_EMBEDDING),
)


class ModelsHandler(OpenAiHandler):
    """A route that OpenAI's and Anthropic's clients share; the latter say which version they speak."""

    error_types = (errors.OpenAiError, errors.AnthropicError)

    @property
    def for_anthropic(self) -> bool:
        """Whether one of Anthropic's clients asks."""
        return anthropic.VERSION_HEADER in self.request.headers

    def error_shape(self, error: GatewayError) -> Any:
        return errors.anthropic(error, self.request_id) if self.for_anthropic else super().error_shape(error)


class Models(ModelsHandler):
    """GET /v1/models: the models that the caller may use."""

    @described(
        "The models that you may use",
        description="In Anthropic's form, and in pages where they are asked for, where the request says "
        "`anthropic-version`.",
        query=anthropic_bodies.AnthropicModelsQuery,
        answers=(openai_bodies.OpenAiModels, anthropic_bodies.AnthropicModels),
    )
    async def get(self) -> None:
        caller = self.caller()
        installed = await self.house.registry.tags(cloud=caller.user.cloud)
        tags = [tag for tag in installed if caller.may_use(str(tag["name"]))]
        if self.for_anthropic:
            asked = anthropic.models_query(self.request.query_arguments)
            self.answer(200, anthropic.models_page(tags, [Installed.of(tag).installed for tag in tags], asked))
        else:
            self.answer(200, openai_bodies.OpenAiModels(data=[_model(tag) for tag in tags]))

    async def head(self) -> None:
        await self.get()


class Model(ModelsHandler):
    """GET /v1/models/{id}: one of them, under the name that was asked for."""

    @described(
        "One of them",
        answers=(openai_bodies.OpenAiModel, anthropic_bodies.AnthropicModel),
        errors=(403, 404),
    )
    async def get(self, name: str) -> None:
        caller = self.caller()
        route = await self.house.registry.resolve(name, cloud=caller.user.cloud)
        if not caller.may_use(name, route.model):
            raise not_for_this_key(caller, name)
        known = (route.upstream.models or {}).get(route.model)
        installed = known or Installed.of({"name": route.model})
        if self.for_anthropic:
            self.answer(200, anthropic.model(name, installed.installed))
        else:
            self.answer(200, _model(installed.entry | {"name": name}))

    async def head(self, name: str) -> None:
        await self.get(name)


def _model(tag: dict[str, Any]) -> openai_bodies.OpenAiModel:
    installed = Installed.of(tag).installed
    return openai_bodies.OpenAiModel(id=str(tag["name"]), created=0 if math.isinf(installed) else int(installed))
