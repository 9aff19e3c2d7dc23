"""Reads request bodies as JSON that can be understood in one way only.

Rule: what two readers could read differently is refused: duplicate keys anywhere, keys that differ only in case where
Ollama ignores case, NaN, invalid UTF-8, lone surrogates, numbers beyond a double, depth beyond 64. What goes upstream
is re-serialised from what was read here, never the client's own bytes. `auth` beside a body's other fields is an inline
credential: it is taken out here, whatever the dialect, before anybody could record or forward it. Reading runs on the
event loop, so a body whose reading would hold it for more than a tenth of a second is refused as well.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from common.errors import BadRequest

CREDENTIAL = "auth"
MAX_DEPTH = 64
# Of values in a body: a million numbers take 0.08 s to read and check, a million empty lists 0.4 s. As token numbers
# they fill the longest contexts of today's models.
MAX_VALUES = 1_000_000
# Objects and lists are looked into one by one: so many take some 30 ms. A long conversation has thousands.
MAX_CONTAINERS = 50_000
# No encoder in use writes a colon as an escape; each is looked for by itself.
MAX_ESCAPED_COLONS = 10_000

_BOM = b"\xef\xbb\xbf"
_LONGEST_RUN = 1_000  # backslashes that are counted before an escape
# A string, or the rest of the body where it is not closed: so each byte is looked at once, whatever a client sends.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def parse(body: bytes) -> Any:
    """Any JSON value, without the credential of `parse_with_credential`. BadRequest in words otherwise."""
    return parse_with_credential(body)[0]


def parse_with_credential(body: bytes) -> tuple[Any, Any]:
    """Any JSON value, and the inline credential that came in it; None without one. A UTF-8 byte order mark is
    tolerated. BadRequest in words otherwise (security.md, H6).
    """
    value = _decoded(body)
    if not isinstance(value, dict):
        return value, None
    spellings = [key for key in value if len(key) == len(CREDENTIAL) and key.casefold() == CREDENTIAL]
    if len(spellings) > 1:
        raise _collision("the request", spellings)
    return value, value.pop(spellings[0]) if spellings else None


def _decoded(body: bytes) -> Any:
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    if not body.strip():
        raise BadRequest("missing request body")
    if _containers(body) > MAX_CONTAINERS or _marks(body) > MAX_VALUES:
        bare = _STRING.sub(b"", body)
        if _marks(bare) > MAX_VALUES:
            raise BadRequest(f"the request body has more than {MAX_VALUES:,} values")
        if _containers(bare) > MAX_CONTAINERS:
            raise BadRequest(f"the request body has more than {MAX_CONTAINERS:,} objects and lists")
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise BadRequest("the request body is not UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRequest(f"the request body is not JSON: {error}") from error
    keys, colons = _count(value)
    # Each colon of a body stands after a key or inside a string. The reader keeps the last of two equal keys, so where
    # there were two, fewer colons are left in what it returns than stand in the body. Counting costs microseconds;
    # a reader that looks at every key itself costs many times the parsing.
    if body.count(b":") + _escaped_colons(body) != keys + colons:
        raise BadRequest("the request body has the same key twice in one object")
    return value


def read(body: bytes) -> dict[str, Any]:
    """A JSON object; BadRequest otherwise."""
    value = parse(body)
    if not isinstance(value, dict):
        raise BadRequest(f"the request body must be a JSON object, not {kind_of(value)}")
    return value


def canonicalise(document: dict[str, Any], known: AbstractSet[str], where: str = "the request") -> dict[str, Any]:
    """`document` with its `known` keys spelled as known, in the same order; unknown keys stay as they are.

    Ollama's decoder takes `MODEL`, and `ſ` for s, as well, and of two spellings the last one. So two spellings of one
    key are refused (BadRequest naming `where`), or a policy would check one and the upstream obey the other.
    """
    folded = {key.casefold(): key for key in document}
    if len(folded) != len(document):
        raise _collision(where, _colliding(document))
    if all(fold == key or fold not in known for fold, key in folded.items()):
        return document
    return {(fold if fold in known else key): document[key] for fold, key in folded.items()}


def kind_of(value: Any) -> str:
    """The JSON kind of a value, as Go's decoder names it in its errors."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _count(value: Any) -> tuple[int, int]:
    """How many keys, and how many colons in its strings, a JSON value has; BadRequest where it is nested too deeply."""
    if not isinstance(value, dict | list):
        return 0, value.count(":") if isinstance(value, str) else 0
    keys = colons = 0
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for node in level:
            children = node
            if type(node) is dict:
                keys += len(node)
                for key in node:
                    colons += key.count(":")
                children = node.values()
            for child in children:
                kind = type(child)
                if kind is str:
                    colons += child.count(":")
                elif kind is dict or kind is list:
                    deeper.append(child)
        if not deeper:
            return keys, colons
        level = deeper
    raise _too_deep()


def _marks(body: bytes) -> int:
    """An upper bound of the values in a body: what opens a container or parts two values."""
    return body.count(b",") + _containers(body)


def _containers(body: bytes) -> int:
    """An upper bound of the objects and lists in a body."""
    return body.count(b"[") + body.count(b"{")


def _escaped_colons(body: bytes) -> int:
    """Colons written as an escape (\\u003a), which no encoder in use does but JSON allows."""
    written = body.count(b"\\u003a") + body.count(b"\\u003A")
    if written > MAX_ESCAPED_COLONS:
        raise BadRequest(f"the request body writes more than {MAX_ESCAPED_COLONS:,} colons as escapes")
    found = 0
    for escape in (b"\\u003a", b"\\u003A") if written else ():
        at = body.find(escape)
        while at >= 0:
            before = body[max(0, at - _LONGEST_RUN) : at]
            run = len(before) - len(before.rstrip(b"\\"))
            if run == _LONGEST_RUN:
                raise BadRequest(f"the request body has more than {_LONGEST_RUN:,} backslashes before an escape")
            found += run % 2 == 0  # else that backslash is itself escaped
            at = body.find(escape, at + 1)
    return found


def _colliding(document: dict[str, Any]) -> list[str]:
    spellings: dict[str, list[str]] = {}
    for key in document:
        spellings.setdefault(key.casefold(), []).append(key)
    return [key for same in spellings.values() if len(same) > 1 for key in same]


def _collision(where: str, keys: list[str]) -> BadRequest:
    return BadRequest(f"{where} has keys that differ only in case: {', '.join(map(repr, keys))}")


def _too_deep() -> BadRequest:
    return BadRequest(f"the request body is nested more than {MAX_DEPTH} levels deep")
