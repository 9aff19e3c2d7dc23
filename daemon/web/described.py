"""How a route tells what it is: what it takes, what it answers, whom; beside the code that serves it.

    @described("One's own place in the queue", answers=list[Waiting])
    async def get(self) -> None: …

Rule: said once, there; `openapi.py` makes the description of the interface from it and from the table of routes. Types
are msgspec's, the same by which a body is read and an answer is written wherever the gate itself does that; bodies that
are relayed have theirs in `daemon/dialects/*_bodies.py`. Nothing of it is on the way of a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec
from tornado.web import RequestHandler

F = TypeVar("F", bound=Callable[..., Any])

# "open": nobody is asked. "any": a Bearer token, a Bearer key or a key header; the others are narrower.
Credential = Literal["open", "any", "optional", "inline", "session", "administrator", "metrics", "client"]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TEXT = "text/plain"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Lines:
    """A stream whose lines, or events, are JSON of this type."""

    of: Any
    media: str = "application/x-ndjson"
    last: str = ""  # what the last event says, where that is no JSON


@dataclass(frozen=True)
class Text:
    """An answer, or a body, that is no JSON."""

    media: str = TEXT


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one route."""

    summary: str
    group: str = ""  # under which it is shown; empty: its handler's
    description: str = ""
    takes: Any = None  # the type of its JSON body, or Text; None: it reads none
    form: bool = False  # `takes` comes as a form
    optional: bool = False  # the body may be absent
    example: Any = None  # a body that works where its model is there
    query: type[msgspec.Struct] | None = None  # each field is a parameter
    answers: tuple[Any, ...] = ()  # the type of its JSON answer, Lines or Text; several: of one status
    status: int = 200
    more: tuple[int, ...] = ()  # further good statuses, with the same answer
    errors: tuple[int, ...] = ()  # in the route's shape, beyond those that every route has
    credential: Credential = "any"
    relayed: bool = False  # an upstream has its say: its errors and refusals of the line are to be expected


def described(summary: str, *, answers: Any = (), **more: Any) -> Callable[[F], F]:
    """Tell what a handler's method does; the fields are `Operation`'s."""
    several = answers if isinstance(answers, tuple) else (answers,)
    operation = Operation(summary=summary, answers=several, **more)

    def tell(method: F) -> F:
        method.operation = operation  # type: ignore[attr-defined]
        return method

    return tell


def of_default_model(operation: Operation) -> Operation:
    """The same, of a route where the model may be absent."""
    takes = operation.takes
    name = f"{takes.__name__}OfDefault"
    loose = msgspec.defstruct(name, [("model", str | None, None)], bases=(takes,), kw_only=True)
    loose.__doc__ = f"{takes.__doc__} The model may be absent: the default model."
    example = {key: value for key, value in operation.example.items() if key != "model"}
    return replace(operation, takes=loose, example=example)


def operation_of(handler: type[RequestHandler], method: str) -> Operation | None:
    """What the handler tells of that method; None where it tells nothing. HEAD is told by GET."""
    operation: Operation | None = getattr(getattr(handler, method.lower()), "operation", None)
    if operation is None and method == "HEAD":
        of_get = operation_of(handler, "GET")
        return None if of_get is None else replace(of_get, summary=f"{of_get.summary}: the head alone", answers=())
    return operation


def serves(handler: type[RequestHandler], method: str) -> bool:
    """Whether the handler has that method of its own."""
    return getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
