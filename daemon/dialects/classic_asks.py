"""What the clients of the seeds ask at `/generate` and `/chat`: Ollama's bodies, with the seeds' own defaults.

Rule: what is asked is an ask of Ollama's dialect, so everything behind this is Ollama's, too. Shapes of answers are the
routes' matter (`daemon/web/classic.py`). A password that comes along is handed back apart and is in no document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import BadRequest
from daemon.dialects.asks import Ask, Shape, chat_of, read_chat_document, read_generate
from daemon.dialects.strict_json import kind_of

LONGEST_WORD = 1024  # characters of a user's name or password: longer ones are nobody's

_MAY_HOLD_AUTH = re.compile(rb'"auth"', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class InlineAuth:
    """Who asks, as the body says it."""

    username: str
    password: str = field(repr=False)


def read_prompt(body: bytes, default_model: str) -> Ask:
    """`{"prompt"}` as a generate that is one answer unless it asks for a stream. BadRequest where it is not one."""
    ask = read_generate(body, default_model)
    if "prompt" not in ask.document:
        raise BadRequest("prompt is required")
    return replace(ask, stream=ask.document.get("stream") is True)


def read_prompt_for(model: str, body: bytes, default_model: str) -> Ask:
    """The same, with the model in the path; the body may repeat it."""
    del default_model
    if not model:
        raise BadRequest("the path names no model", code="model_name_invalid")
    ask = read_prompt(body, model)
    if ask.model != model:
        raise BadRequest("the path names one model and the body another", code="model_name_invalid")
    return replace(ask, document={**ask.document, "model": model})


def read_chat_without_auth(body: bytes, default_model: str) -> Ask:
    """A chat whose caller is known already. BadRequest where another credential came along."""
    document, credential = read_chat_document(body)
    if credential is not None:
        raise BadRequest("two credentials were sent, one of them in the body; send one", code="several_credentials")
    return chat_of(document, default_model)


def may_hold_auth(body: bytes) -> bool:
    """Whether a credential can be in the body; cheaper than reading it."""
    return _MAY_HOLD_AUTH.search(body) is not None


def read_chat_and_auth(body: bytes) -> tuple[dict[str, Any], InlineAuth | None]:
    """A chat's document, and who asks; None where it does not say. BadRequest where either is not one."""
    document, auth = read_chat_document(body)
    if auth is None:
        return document, None
    if not isinstance(auth, dict):
        raise BadRequest(f"auth must be an object with username and password, not {kind_of(auth)}")
    username, password = auth.get("username"), auth.get("password")
    for name, value in (("username", username), ("password", password)):
        if not isinstance(value, str):
            raise BadRequest(f"auth.{name} must be a text")
        if len(value) > LONGEST_WORD:
            raise BadRequest(f"auth.{name} is longer than {LONGEST_WORD} characters")
    return document, InlineAuth(str(username), str(password))


def one_answer(document: dict[str, Any], default_model: str) -> Ask:
    """That chat, to be answered in one piece whatever it says of streaming. BadRequest without a model."""
    model = document.get("model") or default_model
    if not model:
        raise BadRequest("model is required")
    return Ask("/api/chat", Shape.CHAT, document, model, stream=False)
