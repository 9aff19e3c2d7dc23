"""Messages of the protocol made of any text: every field that may hold foreign words holds the next ones.

    words = itertools.cycle(strings)
    row = specimen(UserRow, lambda: next(words))

What only the daemon itself writes keeps its form: moments, words of a fixed list, numbers.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

Words = Callable[[], str]

MOMENT = "2026-01-31T09:05:07.000000Z"
# Moments that the daemon writes. `modified` and `expires` of a model are the upstream's words, and not among them.
MOMENTS = {
    *("created", "approved", "one_time_expires", "expires", "revoked", "previous_until", "last_used", "frees_at"),
    *("since", "until", "received", "seated", "first_byte", "admitted", "ended", "at", "timestamp", "started"),
    *("oldest_queued", "start"),
}
FOREIGN_MOMENTS = frozenset({("ModelRow", "modified"), ("ModelRow", "expires")})


def specimen(kind: Any, words: Words, /, **given: Any) -> Any:
    """An instance of a message's type; `given` fields are as they are given."""
    fields = {}
    for name, declared in _fields(kind).items():
        if name in given:
            fields[name] = given[name]
        elif name in MOMENTS and declared in (str, str | None) and (kind.__name__, name) not in FOREIGN_MOMENTS:
            fields[name] = MOMENT
        else:
            fields[name] = _value(declared, words)
    return kind(**fields)


@cache
def _fields(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(declared: Any, words: Words) -> Any:
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is typing.Annotated:
        return _value(arguments[0], words)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return _value(next(each for each in arguments if each is not type(None)), words)
    if origin is list:
        return [_value(arguments[0], words) for _ in range(2)]
    if origin is dict:
        return {words(): words() for _ in range(2)}
    if declared is str:
        return words()
    if declared is Any:
        return {"messages": [{"role": words(), "content": words()}], "message": {"thinking": words()}, words(): words()}
    if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
        return specimen(declared, words)
    return {int: 7, float: 1.5, bool: False}[declared]
