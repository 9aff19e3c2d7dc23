"""The routes of the seeds: `/request`, `/generate`, `/generate/{model}`, `/chat`, with their shapes and statuses.

    POST /request            text in, text out; what is refused is a 403 in words
    POST /generate           by an API key's header {"prompt"} -> {"response"}; else Ollama's generate, streamed
    POST /generate/{model}   the first of these, of that model
    POST /chat               with `auth` in the body one answer; else Ollama's chat, streamed

Rule: which of two shapes is meant is told by the credential (features.md, C1 and C2). What is behind a shape is
Ollama's dialect, or plain text (`daemon/dialects/text.py`); nothing here knows an upstream.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import unquote

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, RequestStartLine

from common.errors import BadRequest, GatewayError
from daemon.access.identity import INLINE, Caller, no_credential
from daemon.dialects import asks, classic_asks, errors, ollama_bodies, text
from daemon.dialects.asks import Ask
from daemon.dialects.ollama import only_response, with_response
from daemon.house import House
from daemon.underway import Visit
from daemon.web import base, ollama
from daemon.web.base import Handler
from daemon.web.described import Lines, Operation, Text, of_default_model
from daemon.web.inference import Carrier, InferenceRequest, InferenceRoute

_GROUP = "The older gateways' routes"
_TOLD_PROMPT = Operation(
    group=_GROUP,
    summary="Go on from a prompt, with the model in the path",
    takes=of_default_model(ollama.GENERATE).takes,
    answers=(ollama_bodies.OnlyResponse, Lines(ollama_bodies.OllamaGenerateAnswer)),
    example={"prompt": "The sky is blue because"},
    relayed=True,
)
_TOLD_GENERATE = replace(
    _TOLD_PROMPT,
    summary="Go on from a prompt",
    description="By an API key's header alone one answer, `{response}`; else as `/api/generate`.",
    answers=(ollama_bodies.OllamaGenerateAnswer, ollama_bodies.OnlyResponse, *_TOLD_PROMPT.answers[1:]),
)
_TOLD_CHAT = replace(
    of_default_model(replace(ollama.CHAT, takes=ollama_bodies.OllamaChatWithAuth)),
    group=_GROUP,
    description="As `/api/chat`; an unstreamed answer has its text as `response`, too.",
    answers=(ollama_bodies.OllamaChatAnswerWithResponse, Lines(ollama_bodies.OllamaChatAnswer)),
    credential="inline",
)
_TOLD_REQUEST = Operation(
    group=_GROUP,
    summary="Ask in one text, be answered in plain text",
    takes=text.TextRequest,
    answers=(Text(),),
    example={"model": "llama3.2", "request": "Why is the sky blue?"},
    relayed=True,
)

# A Bearer's shapes, which other credentials than the seeds' own get too.
_GENERATE = InferenceRoute("/generate", asks.read_generate, names_a_default=True, told=_TOLD_GENERATE)
_CHAT = InferenceRoute(
    "/chat", classic_asks.read_chat_without_auth, names_a_default=True, whole=with_response, told=_TOLD_CHAT
)
_REQUEST = InferenceRoute(
    "/request", text.read_request, errors=errors.text, reading=errors.as_request_says_it, told=_TOLD_REQUEST
)
# The shape of whoever only sends an API key's header.
_PROMPT = InferenceRoute(
    "/generate",
    classic_asks.read_prompt,
    names_a_default=True,
    whole=only_response,
    errors=errors.detail,
    reading=errors.as_generate_says_it,
    told=_TOLD_PROMPT,
)
_PROMPT_FOR = replace(_PROMPT, path="/generate/{model}", names_a_default=False)
INFERENCE = (_REQUEST, _GENERATE, _PROMPT_FOR, _CHAT)

# When `auth` in a body became deprecated, as RFC 9745 writes it: 2026-11-01.
DEPRECATED = "@1793491200"
LARGEST_INLINE = 8 * 1024 * 1024  # bytes of a body that must be read to know who sends it; an image of 5 MB fits


def exact(house: House) -> dict[str, Carrier]:
    """Who carries the POST to a path that has two shapes."""
    return {"/generate": partial(_generate, house), "/chat": partial(ChatRequest, house, _CHAT)}


def beneath(house: House) -> dict[str, Carrier]:
    """Who carries the POST to a path that ends with a model's name."""
    return {"/generate/": partial(_generate_of_a_model, house)}


def _generate(
    house: House, connection: HTTP1Connection, asked: RequestStartLine, headers: HTTPHeaders
) -> InferenceRequest:
    by_key = "Authorization" not in headers and ("X-Api-Key" in headers or "x_api_key" in headers)
    return InferenceRequest(house, _PROMPT if by_key else _GENERATE, connection, asked, headers)


def _generate_of_a_model(
    house: House, connection: HTTP1Connection, asked: RequestStartLine, headers: HTTPHeaders
) -> InferenceRequest:
    model = unquote(asked.path.partition("?")[0].removeprefix("/generate/"))
    route = replace(_PROMPT_FOR, read=partial(classic_asks.read_prompt_for, model))
    return InferenceRequest(house, route, connection, asked, headers)


class ChatRequest(InferenceRequest):
    """A POST to /chat, whose body may say who asks (row 58, security.md P6).

    Rule: the password is in memory as long as it takes to check it; it is no part of what is admitted or recorded.
    """

    def unwelcome(self) -> bool:
        try:
            base.check_reception(self._headers, self._house)
            if self._house.access.presents(self._headers):
                return super().unwelcome()
        except GatewayError:
            return True
        self.known = False  # the body may say who asks: until it is read, it counts as a stranger's
        return False

    async def _asked(self, visit: Visit) -> tuple[Caller, Ask]:
        house = self._house
        if house.access.presents(self._headers):
            return await super()._asked(visit)
        body = self._take_body()
        if len(body) > LARGEST_INLINE:
            words = f"with auth in the body it may have {LARGEST_INLINE:,} bytes; send an API key in a header"
            raise BadRequest(words, status=413, code="too_large")
        if not classic_asks.may_hold_auth(body):
            raise no_credential()
        document, auth = classic_asks.read_chat_and_auth(body)
        del body
        if auth is None:
            raise no_credential()
        self._answer.fixed.append(("Deprecation", DEPRECATED))
        user = await house.accounts.inline(auth.username, auth.password, self._address)
        del auth
        default = await house.registry.default_model()
        return Caller(user, None, INLINE, "inline"), classic_asks.one_answer(document, default)


class Request(Handler):
    """What else comes to /request: a browser's preflight. Errors in plain text, as its POST has them."""

    def error_shape(self, error: GatewayError) -> Any:
        return errors.text(error, self.request_id)
