"""What the table of verbs is made of: a verb of `common/protocol.py` and the function that answers it.

Rule: the types of both are checked against each other here, so that a verb cannot answer what it does not promise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from common.protocol import Request, Verb
from daemon.access.actor import Actor

if TYPE_CHECKING:
    from daemon.house import House

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


@dataclass(frozen=True)
class Download:
    """A raw answer: bytes as they come. Closing `pieces` early frees what makes them."""

    content_type: str
    pieces: AsyncGenerator[bytes, None]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """One line of the table. `run(house, actor, request)` is awaited (one, raw) or iterated (many)."""

    verb: Verb[Any, Any]
    run: Callable[[House, Actor, Any], Any]


def one(verb: Verb[Q, A], run: Callable[[House, Actor, Q], Awaitable[A]]) -> Bound:
    """A verb that answers one document."""
    return _bound("one", verb, run)


def many(verb: Verb[Q, A], run: Callable[[House, Actor, Q], AsyncGenerator[A, None]]) -> Bound:
    """A verb that answers items as they come."""
    return _bound("many", verb, run)


def raw(verb: Verb[Q, bytes], run: Callable[[House, Actor, Q], Awaitable[Download]]) -> Bound:
    """A verb that answers bytes."""
    return _bound("raw", verb, run)


def _bound(form: str, verb: Verb[Any, Any], run: Callable[[House, Actor, Any], Any]) -> Bound:
    if verb.form != form:
        raise TypeError(f"{verb.name} answers in the form {verb.form!r}, not {form!r}")
    return Bound(verb, run)
