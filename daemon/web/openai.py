"""OpenAI's dialect: chat completions, completions, responses, embeddings, and the list of models.

Rule: what a client of OpenAI sees here is what OpenAI would have said, error shapes included; the models are the
gate's, those that the caller may use.
"""

from __future__ import annotations

import math
from typing import Any

from common.errors import GatewayError
from daemon.access.identity import not_for_this_key
from daemon.dialects import errors, openai_asks
from daemon.providers.upstream import Model as Installed
from daemon.web import anthropic
from daemon.web.base import Handler
from daemon.web.inference import InferenceRoute


class OpenAiHandler(Handler):
    """Errors as OpenAI words them."""

    def error_shape(self, error: GatewayError) -> Any:
        return errors.openai(error, self.request_id)


class Inference(OpenAiHandler):
    """What else comes to an inference route: a browser's preflight. Its POST is `daemon/web/inference.py`'s."""


INFERENCE = (
    InferenceRoute("/v1/chat/completions", openai_asks.read_chat_completion, errors=errors.openai),
    InferenceRoute("/v1/completions", openai_asks.read_completion, errors=errors.openai),
    InferenceRoute("/v1/responses", openai_asks.read_response, errors=errors.openai),
    InferenceRoute("/v1/embeddings", openai_asks.read_embedding, errors=errors.openai),
)


class ModelsHandler(OpenAiHandler):
    """A route that OpenAI's and Anthropic's clients share; the latter say which version they speak."""

    @property
    def for_anthropic(self) -> bool:
        """Whether one of Anthropic's clients asks."""
        return anthropic.VERSION_HEADER in self.request.headers

    def error_shape(self, error: GatewayError) -> Any:
        return errors.anthropic(error, self.request_id) if self.for_anthropic else super().error_shape(error)


class Models(ModelsHandler):
    """GET /v1/models: the models that the caller may use."""

    async def get(self) -> None:
        caller = self.caller()
        tags = [tag for tag in await self.house.registry.tags() if caller.may_use(str(tag["name"]))]
        if self.for_anthropic:
            self.answer(200, anthropic.models_page(tags, [Installed.of(tag).installed for tag in tags]))
        else:
            self.answer(200, {"object": "list", "data": [_model(tag) for tag in tags]})

    async def head(self) -> None:
        await self.get()


class Model(ModelsHandler):
    """GET /v1/models/{id}: one of them, under the name that was asked for."""

    async def get(self, name: str) -> None:
        caller = self.caller()
        route = await self.house.registry.resolve(name)
        if not caller.may_use(name, route.model):
            raise not_for_this_key(caller, name)
        known = (route.upstream.models or {}).get(route.model)
        installed = known or Installed.of({"name": route.model})
        if self.for_anthropic:
            self.answer(200, anthropic.model(name, installed.installed))
        else:
            self.answer(200, _model(installed.entry) | {"id": name})

    async def head(self, name: str) -> None:
        await self.get(name)


def _model(tag: dict[str, Any]) -> dict[str, Any]:
    installed = Installed.of(tag).installed
    created = 0 if math.isinf(installed) else int(installed)
    return {"id": tag["name"], "object": "model", "created": created, "owned_by": "library"}
