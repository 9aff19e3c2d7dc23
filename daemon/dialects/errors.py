"""How each dialect says an error before the first byte of an answer.

Rule: the words are the error's; our own details (which limit, what used, when it frees) stand where the dialect's
clients read over what they do not know. What an error in mid-stream looks like is in `translator.py`. The types beside
the functions describe what those make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.errors import Forbidden, GatewayError

# A dialect's error body: (error, request id) -> a JSON object, or plain text.
ErrorShape = Callable[[GatewayError, str], dict[str, Any] | str]
# What a dialect makes of an error before it is told: another status, other words.
Reading = Callable[[GatewayError], GatewayError]


class Refusal(msgspec.Struct, kw_only=True):
    """What stands beside the words where a limit refused (429)."""

    limit: Annotated[str | UnsetType, Meta(description="Which one, such as requests_per_minute.")] = UNSET
    scope: Annotated[str | UnsetType, Meta(description="Whose, in words.")] = UNSET
    used: int | UnsetType = UNSET
    max: int | UnsetType = UNSET
    frees_at: Annotated[str | UnsetType | None, Meta(description="When the next one may come, ISO 8601 UTC.")] = UNSET
    retry_after: Annotated[int | UnsetType | None, Meta(description="The same in whole seconds, rounded up.")] = UNSET
    estimate: Annotated[bool | UnsetType, Meta(description="Whether what is in flight may still fill it.")] = UNSET


class Error(Refusal, kw_only=True):
    """What happened, and what to do."""

    error: Annotated[str, Meta(description="In words.")]
    code: Annotated[str, Meta(description="For machines; it stays as it is.")]


def ollama(error: GatewayError, request_id: str) -> dict[str, Any]:
    """`error` in words, as Ollama's clients look for it, then ours."""
    return {"error": error.message, "code": error.code, **error.detail}


class OpenAiErrorObject(Refusal, kw_only=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: Annotated[str | None, Meta(description="The field that is wrong, where one is.")]
    code: str


class OpenAiError(msgspec.Struct, kw_only=True):
    """An error as OpenAI words it."""

    error: OpenAiErrorObject


def openai(error: GatewayError, request_id: str) -> dict[str, Any]:
    """OpenAI's error object; `param` is the field that is wrong, where one is."""
    detail = dict(error.detail)
    said = {
        "message": error.message,
        "type": _OPENAI_TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
        "param": detail.pop("param", None),
        "code": error.code,
    }
    return {"error": said | detail}


_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class AnthropicErrorObject(Refusal, kw_only=True):
    """Anthropic's error object."""

    type: str
    message: str
    code: str


class AnthropicError(msgspec.Struct, kw_only=True):
    """An error as Anthropic words it."""

    type: Literal["error"]
    error: AnthropicErrorObject
    request_id: str


def anthropic(error: GatewayError, request_id: str) -> dict[str, Any]:
    """Anthropic's error object; `request_id` is ours."""
    detail = {name: value for name, value in error.detail.items() if name != "param"}
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    said = {"type": kind, "message": error.message, "code": error.code}
    return {"type": "error", "error": said | detail, "request_id": request_id}


_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def text(error: GatewayError, request_id: str) -> str:
    """The words alone, as `POST /request` says them."""
    return error.message


def as_request_says_it(error: GatewayError) -> GatewayError:
    """The statuses of `POST /request`: whoever is not let in, and whatever model cannot be had, is a 403."""
    if error.status == 401:
        return Forbidden("Unauthorized access", code=error.code)
    if error.status == 404 or error.code == "model_not_allowed":
        return Forbidden("Model unavailable", code="model_unavailable")
    return error


def detail(error: GatewayError, request_id: str) -> dict[str, Any]:
    """`detail` in words, as FastAPI's services say it, beside our own `error` and `code`."""
    if error.status == 401:
        words = "Invalid API Key"
    elif error.code in ("model_not_found", "model_not_allowed", "model_name_invalid"):
        words = "Invalid model name"
    else:
        words = error.message
    return {"error": error.message, "code": error.code, **error.detail, "detail": words}


def as_generate_says_it(error: GatewayError) -> GatewayError:
    """The statuses of `POST /generate` by an API key's header: a model that is not there is a 400."""
    if error.status != 404:
        return error
    return GatewayError(error.message, status=400, code="model_not_found", detail=error.detail)


# What each of them makes, for the description of the routes; str: plain text.
TYPES: dict[ErrorShape, type] = {
    ollama: Error,
    openai: OpenAiError,
    anthropic: AnthropicError,
    text: str,
    detail: Error,
}
