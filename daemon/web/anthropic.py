"""Anthropic's dialect: messages, and the counting of their tokens.

Rule: what a client of Anthropic sees here is what Anthropic would have said, error shapes and `request-id` included.
Any `anthropic-version` is taken. The list of models is at the path that OpenAI's clients use too (`openai.py`).
"""

from __future__ import annotations

import math
import time
from typing import Any

from common.errors import GatewayError
from daemon.access.identity import not_for_this_key
from daemon.dialects import anthropic_asks, errors
from daemon.web.base import Handler
from daemon.web.inference import InferenceRoute

VERSION_HEADER = "anthropic-version"


class AnthropicHandler(Handler):
    """Errors as Anthropic words them; the request id under Anthropic's name as well."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        if hasattr(self, "request_id"):
            self.set_header("request-id", self.request_id)

    def prepare(self) -> None:
        self.set_header("request-id", self.request_id)
        super().prepare()

    def error_shape(self, error: GatewayError) -> Any:
        return errors.anthropic(error, self.request_id)


class Inference(AnthropicHandler):
    """What else comes to an inference route: a browser's preflight. Its POST is `daemon/web/inference.py`'s."""


INFERENCE = (
    InferenceRoute(
        "/v1/messages", anthropic_asks.read_messages, errors=errors.anthropic, request_id_names=("request-id",)
    ),
)


class CountTokens(AnthropicHandler):
    """POST /v1/messages/count_tokens: the upstream's own count where it can count, else an estimate that says so."""

    async def post(self) -> None:
        caller = self.caller()
        ask = anthropic_asks.read_count(self.request.body)
        route = await self.house.registry.resolve(ask.model)
        if not caller.may_use(ask.model, route.model):
            raise not_for_this_key(caller, ask.model)
        counted = await route.upstream.count_tokens(route.model, ask.document)
        if counted is None:
            counted = _estimated(ask.document)
            self.set_header("X-Gatelodge-Estimate", "true")
        self.answer(200, {"input_tokens": counted})


def models_page(tags: list[dict[str, Any]], created: list[float]) -> dict[str, Any]:
    """The list of models in Anthropic's form; `created` in Unix seconds, infinite where nobody knows."""
    data = [model(str(tag["name"]), since) for tag, since in zip(tags, created, strict=True)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"data": data, "has_more": False, **ends}


def model(name: str, created: float) -> dict[str, Any]:
    """One model in Anthropic's form."""
    second = 0 if math.isinf(created) else int(created)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return {"type": "model", "id": name, "display_name": name, "created_at": moment}


def _estimated(document: dict[str, Any]) -> int:
    """About a token for four characters of text, as a rule of thumb for English; pictures count nothing."""
    return max(1, math.ceil(_characters(document.get("messages")) / 4 + _characters(document.get("system")) / 4))


def _characters(value: Any) -> int:
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_characters, value))
        case {"type": "image"}:
            return 0
        case dict():
            return sum(_characters(each) for name, each in value.items() if name not in ("type", "role"))
        case _:
            return 0
