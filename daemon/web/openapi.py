"""The description of the LAN face, OpenAPI 3.1: made of the table of routes and of what each route tells of itself.

Rule: nothing about a single route is said here (`described.py` has where). What is said here holds for all: how a
credential is shown, which headers an answer has, what a request can meet before its route is asked.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import responses
from typing import Any

import msgspec
from tornado.web import RequestHandler

from common.errors import GatewayError
from common.version import version
from daemon.dialects import errors
from daemon.dialects.errors import Reading
from daemon.web.base import Handler
from daemon.web.described import EVENTS, FORM, JSON, TEXT, Lines, Operation, Text, operation_of, serves
from daemon.web.inference import InferenceRoute

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SCHEMAS = "#/components/schemas/{name}"
_GROUP = re.compile(r"\(((?:[^()]|\([^()]*\))*)\)")  # one that captures; within one more pair of brackets at most

_ABOUT = """\
One gate for everybody's models: the same keys, limits, queue and audit whichever dialect a client speaks.

Every answer carries `X-Request-Id`. Errors come in the dialect of their route; what a request meets before its route is
asked (its size, its head) is told as `Error`. Where an answer streams, its status is out: a failure then is its last
line or event, and the stream's end is missing.
"""
# What is said of a status beyond its name.
_WORDS = {
    400: "The request is wrong as it stands.",
    401: "No credential, or one that does not count (any more).",
    403: "Known, but not allowed.",
    404: "Not there, or not for this caller.",
    408: "The request's body did not come in time.",
    409: "It changed meanwhile, or its state does not allow this.",
    413: "The request's body is too large.",
    415: "The request's body is compressed.",
    421: "The gateway does not serve this Host name.",
    422: "The upstream cannot do what is asked.",
    429: "A limit is reached; wait `Retry-After` seconds.",
    431: "Too many header lines, or too long.",
    500: "What Ollama itself says.",
    502: "The upstream failed, or cannot be reached.",
    503: "Not now; try again after `Retry-After` seconds.",
    504: "The upstream took too long.",
}
_EVERYWHERE = (400, 421, 429, 431, 503)
_OF_BODIES = (408, 413, 415)
_OF_INFERENCE = (403, 404, 422, 502, 504)
# What is told before a route is asked has one shape.
_BEFORE_ROUTES = {400, 408, 413, 415, 431, 503}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "open": [],
    "any": [{"bearer": []}, {"key": []}],
    "optional": [{}, {"bearer": []}],
    "inline": [{"bearer": []}, {"key": []}, {}],
    "session": [{"bearer": []}],
    "administrator": [{"bearer": []}, {"key": []}],
    "metrics": [{"bearer": []}, {"key": []}],
    "client": [{}, {"client": []}],
}
_WHO = {
    "inline": "Or with `auth` in the body, a user's address and password; then always one answer.",
    "session": "In a login session: a token from `/auth/login`, not an API key.",
    "administrator": "Administrators only; recorded.",
    "metrics": "With a key that was issued for this (`gatelodge keys issue EMAIL --metrics`).",
}
_KEY = "An API key; also `x_api_key`, and in the path, `/k/KEY` before the route, where it was issued for that."
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token, or an API key (`glk_…`)."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-KEY", "description": _KEY},
    "client": {"type": "http", "scheme": "basic", "description": "A key's `glk_` and id, and its secret."},
}
_HEADERS = {
    "RequestId": {"description": "Names this request, also for your administrator.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds, rounded up.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "RateLimit": {
        "description": 'What remains of the limit that is nearest to its end: `"rpm";r=3;t=41`.',
        "schema": {"type": "string"},
    },
    "RateLimitPolicy": {"description": 'That limit: `"rpm";q=10;w=60`.', "schema": {"type": "string"}},
}
_REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_LIMITS = {
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
}


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    method: str
    path: str  # with {name} for what varies
    parameters: dict[str, str]  # name -> the pattern that it must match
    operation: Operation | None
    errors: tuple[Any, ...]  # the types of its errors
    group: str
    public: bool
    reading: Reading | None = None  # what the route makes of an error


def routes(table: Iterable[tuple[str, type[Handler]]], relayed: Iterable[InferenceRoute]) -> Iterator[Route]:
    """Everything that is served, in the table's order; of whatever tells nothing, `operation` is None."""
    carried: dict[str, InferenceRoute] = {route.path: route for route in relayed}
    for pattern, handler in table:
        served = [method for method in METHODS if serves(handler, method)]
        for method in served:
            path, parameters = template(pattern, handler, method)
            operation = operation_of(handler, method)
            group = (operation.group if operation else "") or handler.group
            yield Route(method, path, parameters, operation, handler.error_types, group, handler.public)
        if not served:
            carried_here = [path for path in carried if re.fullmatch(pattern, re.sub(r"\{\w+\}", "x", path))]
            for path in carried_here:
                yield _of(carried.pop(path))
    yield from map(_of, carried.values())


def _of(route: InferenceRoute) -> Route:
    names = dict.fromkeys(re.findall(r"\{(\w+)\}", route.path), "")
    group = route.told.group if route.told else ""
    return Route("POST", route.path, names, route.told, (errors.TYPES[route.errors],), group, False, route.reading)


def template(pattern: str, handler: type[RequestHandler], method: str) -> tuple[str, dict[str, str]]:
    """A pattern of the table as a path, its groups called as the method calls them; and what each must match."""
    arguments = [name.strip("_") for name in inspect.signature(getattr(handler, method.lower())).parameters][1:]
    groups = _GROUP.findall(pattern)
    names = dict(zip(arguments, groups, strict=True))
    path = pattern
    for name, group in names.items():
        path = path.replace(f"({group})", f"{{{name}}}", 1)
    return path.replace("\\", ""), {name: "" if group == ".+" else f"^{group}$" for name, group in names.items()}


def document(table: Iterable[tuple[str, type[Handler]]], relayed: Iterable[InferenceRoute]) -> dict[str, Any]:
    """The description; some 40 ms."""
    told = [(route, route.operation) for route in routes(table, relayed) if route.operation is not None]
    types = list(dict.fromkeys(kind for route, operation in told for kind in _types(route, operation)))
    schemas, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
    of_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    shared: dict[str, Any] = {}  # answers that many have
    for route, operation in told:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, operation, of_type, shared)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gatelodge",
            "version": version(),
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": group} for group in dict.fromkeys(route.group for route, _ in told)],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": shared,
            "securitySchemes": _SCHEMES,
            "headers": _HEADERS,
        },
    }


def _types(route: Route, operation: Operation) -> Iterator[Any]:
    """Every type that describing it takes."""
    yield errors.Error
    for kind in (operation.takes, *operation.answers, *route.errors):
        plain = kind.of if isinstance(kind, Lines) else kind
        if plain is not None and plain is not str and not isinstance(plain, Text):
            yield plain


def _operation(route: Route, operation: Operation, of_type: dict[Any, Any], shared: dict[str, Any]) -> dict[str, Any]:
    credential = "open" if route.public and operation.credential == "any" else operation.credential
    words = "\n\n".join(filter(None, (operation.description, _WHO.get(credential, ""))))
    told: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": operation.summary,
        "tags": [route.group],
        "security": _SECURITY[credential],
        "parameters": [*_in_path(route), *_in_query(operation)],
        "responses": _responses(route, operation, of_type, shared),
    }
    if words:
        told["description"] = words
    if operation.takes is not None:
        told["requestBody"] = _body(operation, of_type)
    return {name: value for name, value in told.items() if name == "security" or value}


def _identifier(route: Route) -> str:
    return "_".join([route.method.lower(), *re.findall(r"[A-Za-z0-9]+", route.path)])


def _in_path(route: Route) -> Iterator[dict[str, Any]]:
    for name, pattern in route.parameters.items():
        schema = {"type": "string", "minLength": 1} | ({"pattern": pattern} if pattern else {})
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(operation: Operation) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    (_,), components = msgspec.json.schema_components([operation.query])
    for name, told in components[operation.query.__name__]["properties"].items():
        words = told.pop("description", "")
        # Nobody sends a null in a query: it is absent then.
        several = [each for each in told.pop("anyOf", []) if each != {"type": "null"}]
        schema = told | (several[0] if len(several) == 1 else {"anyOf": several} if several else {})
        if schema.get("default", 0) is None:
            del schema["default"]
        yield {"name": name, "in": "query", "description": words, "schema": schema}


def _body(operation: Operation, of_type: dict[Any, Any]) -> dict[str, Any]:
    if isinstance(operation.takes, Text):
        return {"required": True, "content": {operation.takes.media: {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {"schema": of_type[operation.takes]}
    if operation.example is not None:
        content["example"] = operation.example
    return {"required": not operation.optional, "content": {FORM if operation.form else JSON: content}}


def _responses(route: Route, operation: Operation, of_type: dict[Any, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """By status; those of errors stand in `shared`."""
    good: dict[str, Any] = {"headers": _REQUEST_ID | (_LIMITS if operation.relayed else {})}
    content: dict[str, Any] = _json_of(operation.answers, of_type)
    for answer in operation.answers:
        match answer:
            case Text():
                content[answer.media] = {"schema": {"type": "string"}}
            case Lines():
                content[answer.media] = {"schema": _lines(answer, of_type)}
    if content:
        good["content"] = content
    told = {}
    refused = {_as_told(route, status) for status in _statuses(route, operation)}
    for status in sorted({*refused, operation.status, *operation.more}):
        if status < 400:
            told[str(status)] = {"description": responses[status], **good}
        else:
            kinds = _kinds(route, operation, status)
            name = ("Or".join(dict.fromkeys(map(_name, kinds))) or "Head") + str(status)
            answer = _refusal(status, kinds, of_type)
            if shared.setdefault(name, answer) != answer:
                raise ValueError(f"two different answers are called {name}")
            told[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return told


def _kinds(route: Route, operation: Operation, status: int) -> list[Any]:
    """The types of what a route answers under the status of an error."""
    if route.method == "HEAD":
        return []
    before = [errors.Error] if status in _BEFORE_ROUTES else []
    unready = operation.answers if status in operation.more else ()
    return list(dict.fromkeys([*route.errors, *before, *unready]))


def _refusal(status: int, kinds: list[Any], of_type: dict[Any, Any]) -> dict[str, Any]:
    """The answer under the status of an error."""
    headers = dict(_REQUEST_ID)
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    content = {"content": _error_content(kinds, of_type)} if kinds else {}
    return {"description": _WORDS[status], "headers": headers, **content}


def _statuses(route: Route, operation: Operation) -> Iterator[int]:
    yield from _EVERYWHERE
    yield from operation.errors
    varies = any(route.parameters.values())  # what does not fit is a path that is nowhere
    if varies or (not route.public and operation.credential not in ("open", "client")):
        yield 401
    if varies:
        yield 404
    if operation.takes is not None:
        yield from _OF_BODIES
    if operation.relayed:
        yield from _OF_INFERENCE


def _as_told(route: Route, status: int) -> int:
    """The status under which the route tells of an error that is `status` elsewhere."""
    if route.reading is None or status in _BEFORE_ROUTES:
        return status
    return route.reading(GatewayError("", status=status)).status


def _error_content(kinds: list[Any], of_type: dict[Any, Any]) -> dict[str, Any]:
    content = _json_of(kinds, of_type) | ({TEXT: {"schema": {"type": "string"}}} if str in kinds else {})
    return content | {kind.media: {"schema": _lines(kind, of_type)} for kind in kinds if isinstance(kind, Lines)}


def _name(kind: Any) -> str:
    """What an answer of that type is called."""
    if isinstance(kind, Lines):
        return _name(kind.of)
    return "Text" if kind is str or isinstance(kind, Text) else str(kind.__name__)


def _lines(lines: Lines, of_type: dict[Any, Any]) -> dict[str, Any]:
    """A stream: the schema is that of each line, or event."""
    each: dict[str, Any] = {"type": "string", "contentMediaType": JSON, "contentSchema": of_type[lines.of]}
    if lines.last:
        each = {"anyOf": [{"const": lines.last}, each]}
    if lines.media != EVENTS:
        return each
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": each}, "required": ["data"]}


def _json_of(kinds: Iterable[Any], of_type: dict[Any, Any]) -> dict[str, Any]:
    """What can come as JSON."""
    schemas = [of_type[kind] for kind in dict.fromkeys(kinds) if kind is not str and not isinstance(kind, Text | Lines)]
    if not schemas:
        return {}
    return {JSON: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
