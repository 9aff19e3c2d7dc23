"""Anthropic's dialect: messages, and the counting of their tokens.

Rule: what a client of Anthropic sees here is what Anthropic would have said, error shapes and `request-id` included.
Any `anthropic-version` is taken. The list of models is at the path that OpenAI's clients use too (`openai.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from tornado.httputil import HTTPHeaders

from common.errors import BadRequest, GatewayError
from daemon.access.identity import not_for_this_key
from daemon.dialects import anthropic_asks, anthropic_bodies, errors
from daemon.dialects.anthropic_bodies import AnthropicModelsQuery
from daemon.dialects.asks import Ask
from daemon.web.base import Handler
from daemon.web.described import EVENTS, Lines, Operation, described
from daemon.web.inference import InferenceRoute

VERSION_HEADER = "anthropic-version"
_PAGING = AnthropicModelsQuery.__struct_fields__


class AnthropicHandler(Handler):
    """Errors as Anthropic words them; the request id under Anthropic's name as well."""

    group = "Anthropic's dialect"
    error_types = (errors.AnthropicError,)

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


_COUNTED = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
_MESSAGES = Operation(
    group=AnthropicHandler.group,
    summary="Answer messages",
    takes=anthropic_bodies.MessagesAsk,
    answers=(anthropic_bodies.AnthropicAnswer, Lines(anthropic_bodies.AnthropicEvent, EVENTS)),
    example=_COUNTED | {"max_tokens": 256},
    relayed=True,
)


def _beside(ask: Ask, headers: HTTPHeaders, query: str) -> Ask:
    return anthropic_asks.with_betas(ask, headers.get("anthropic-beta", ""), query)


INFERENCE = (
    InferenceRoute(
        "/v1/messages",
        anthropic_asks.read_messages,
        beside=_beside,
        errors=errors.anthropic,
        request_id_names=("request-id",),
        told=_MESSAGES,
    ),
)


class CountTokens(AnthropicHandler):
    """POST /v1/messages/count_tokens: the upstream's own count where it can count, else an estimate that says so."""

    @described(
        "Count the tokens of messages",
        description="An estimate where the upstream cannot count; then `X-Gatelodge-Estimate: true` says so.",
        takes=anthropic_bodies.CountAsk,
        answers=anthropic_bodies.TokenCount,
        errors=(403, 404, 502, 504),
        example=_COUNTED,
    )
    async def post(self) -> None:
        caller = self.caller()
        ask = anthropic_asks.read_count(self.request.body)
        route = await self.house.registry.resolve(ask.model, cloud=caller.user.cloud)
        if not caller.may_use(ask.model, route.model):
            raise not_for_this_key(caller, ask.model)
        # What is not on record does not leave the LAN.
        counted = None if route.leaves_lan else await route.upstream.count_tokens(route.model, ask.document)
        if counted is None:
            counted = _estimated(ask.document)
            self.set_header("X-Gatelodge-Estimate", "true")
        self.answer(200, anthropic_bodies.TokenCount(counted))


def models_query(arguments: Mapping[str, list[bytes]]) -> AnthropicModelsQuery:
    """Which page is asked for; what else stands in the query is none of ours. BadRequest."""
    given = {name: values[-1].decode() for name, values in arguments.items() if name in _PAGING and values}
    try:
        asked = msgspec.convert(given, AnthropicModelsQuery, strict=False)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise BadRequest(f"the parameters are wrong: {error}") from error
    if asked.after_id is not None and asked.before_id is not None:
        raise BadRequest("after_id and before_id cannot both be given")
    return asked


def models_page(
    tags: list[dict[str, Any]], created: list[float], asked: AnthropicModelsQuery
) -> anthropic_bodies.AnthropicModels:
    """The list of models in Anthropic's form; `created` in Unix seconds, infinite where nobody knows. BadRequest for a
    page beside a model that is not in the list."""
    names = [str(tag["name"]) for tag in tags]
    start, stop = 0, len(names)
    if asked.after_id is not None:
        start = _place(names, "after_id", asked.after_id) + 1
    if asked.before_id is not None:
        stop = _place(names, "before_id", asked.before_id)
    has_more = asked.limit is not None and stop - start > asked.limit
    if has_more and asked.limit is not None:
        start, stop = (stop - asked.limit, stop) if asked.before_id is not None else (start, start + asked.limit)
    data = [model(names[number], created[number]) for number in range(start, stop)]
    return anthropic_bodies.AnthropicModels(
        data=data, has_more=has_more, first_id=data[0].id if data else None, last_id=data[-1].id if data else None
    )


def _place(names: list[str], parameter: str, name: str) -> int:
    if name not in names:
        raise BadRequest(f"{parameter}: there is no model {name[:100]!r}")
    return names.index(name)


def model(name: str, created: float) -> anthropic_bodies.AnthropicModel:
    """One model in Anthropic's form."""
    second = 0 if math.isinf(created) else int(created)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
    return anthropic_bodies.AnthropicModel(id=name, display_name=name, created_at=moment)


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
