"""A POST to an inference route, from its body to the end of its answer: identify -> read -> the gate.

Rule: these requests are carried without Tornado's `RequestHandler` (measured: it costs a seventh of the whole request);
what holds for every request, whoever carries it, is in `base.py`. Which routes there are and how their bodies are read
is each dialect's matter (`ollama.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine

from common.errors import GatewayError
from daemon.access.identity import Caller
from daemon.dialects import errors
from daemon.dialects.asks import Ask
from daemon.dialects.errors import ErrorShape, Reading
from daemon.dialects.translator import TEXT, in_stream_error
from daemon.exchange import new_request_id
from daemon.house import House
from daemon.underway import Visit
from daemon.web import base
from daemon.web.described import Operation
from daemon.web.stream import ClientStream

JSON = "application/json; charset=utf-8"
SMALL = 16 * 1024  # bytes of a body whose reading costs next to nothing

# Makes the reader of a request whose head is there (`bounds.py`).
Carrier = Callable[[HTTP1Connection, RequestStartLine, HTTPHeaders], "InferenceRequest"]


@dataclass(frozen=True)
class InferenceRoute:
    """How the body of such a route is read: (body, default model) -> what it asks."""

    path: str
    read: Callable[[bytes, str], Ask]
    names_a_default: bool = False  # Ollama's own routes want a model named
    beside: Callable[[Ask, HTTPHeaders, str], Ask] | None = None  # what the headers and the query say, too
    whole: Callable[[bytes], bytes] | None = None  # what an alias adds to an unstreamed answer
    errors: ErrorShape = errors.ollama
    reading: Reading | None = None  # what this route makes of an error before it is told
    request_id_names: tuple[str, ...] = ()  # further headers under which the request id goes out
    told: Operation | None = None  # how the route describes itself


def carriers(house: House, routes: Iterable[InferenceRoute]) -> dict[str, Carrier]:
    """What carries a POST to one of `routes`, by path."""
    return {route.path: partial(InferenceRequest, house, route) for route in routes}


class Carriers:
    """Who carries a POST, by its path: the very path, or the beginning of one that goes on with a model's name."""

    def __init__(self, exact: Mapping[str, Carrier], beneath: Mapping[str, Carrier] | None = None) -> None:
        self._exact = exact
        self._beneath = beneath or {}

    def get(self, path: str) -> Carrier | None:
        """The carrier of `path`; None where the application has it."""
        carrier = self._exact.get(path)
        if carrier is not None:
            return carrier
        return next((beneath for start, beneath in self._beneath.items() if path.startswith(start)), None)


class InferenceRequest(HTTPMessageDelegate):
    """One request."""

    def __init__(
        self,
        house: House,
        route: InferenceRoute,
        connection: HTTP1Connection,
        asked: RequestStartLine,
        headers: HTTPHeaders,
    ) -> None:
        self._house = house
        self._route = route
        self._connection = connection
        self._headers = headers
        self._query = asked.path.partition("?")[2]
        self._address = base.client_address(connection, headers, house)
        self._body: list[bytes] = []
        self.request_id = new_request_id()
        self.known = True  # whether the head says who asks, or else that nobody does
        self._visit: Visit | None = None
        self._left = False
        allowed = base.origin_headers(headers, house)
        names = [(name, self.request_id) for name in ("X-Request-Id", *route.request_id_names)]
        self._answer = ClientStream(connection, asked, headers, [*names, *allowed.items()])

    def unwelcome(self) -> bool:
        """Whether the caller has no credential that counts: `finish` answers so, however little of the body came."""
        try:
            base.check_reception(self._headers, self._house)
            self._house.access.identify(self._headers, address=self._address)
        except GatewayError:
            return True
        return False

    def data_received(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def finish(self) -> None:
        """The body is whole."""
        self._connection.set_close_callback(self.on_connection_close)
        self._house.begin_answer()
        # Held by the connection's callback; whoever must know that it is over waits for the house's answers.
        self._carrying = asyncio.ensure_future(self._carry())

    def on_connection_close(self) -> None:
        """The client left."""
        self._left = True
        self._body.clear()
        if self._visit is not None:
            self._visit.left()

    async def _carry(self) -> None:
        try:
            await self._serve()
        except GatewayError as error:
            await self._refuse(error)
        except Exception as error:
            base.log_failure(self.request_id, self._route.path, error)
            if self._answer.started:
                self._answer.abort()
            else:
                await self._refuse(base.unexpected(self.request_id, error))
        finally:
            self._house.end_answer()

    async def _serve(self) -> None:
        house, headers = self._house, self._headers
        received = house.clock.wall()
        address = self._address
        base.check_reception(headers, house)
        self._visit = visit = Visit(
            request_id=self.request_id,
            address=address,
            route=self._route.path,
            client_label=headers.get("X-Client-Label", ""),
            user_agent=headers.get("User-Agent", "")[:200],
            received=received,
        )
        caller, ask = await self._asked(visit)
        if self._left:
            visit.left()
        try:
            if self._route.whole is not None and not ask.stream:
                self._answer.whole = self._route.whole
            await house.gate.serve(caller, ask, self._answer, visit)
        except GatewayError as failure:
            if not self._answer.started:
                raise
            # The status is out already: an error in the stream, so that the answer cannot be taken for a whole one.
            last = in_stream_error(ask.shape, failure.message, failure.detail)
            if last is None:
                self._answer.abort()
            else:
                await self._answer.finish(last)

    async def _asked(self, visit: Visit) -> tuple[Caller, Ask]:
        """Who asks, and what."""
        house = self._house
        caller = house.access.identify(self._headers, address=self._address)
        default = await house.registry.default_model() if self._route.names_a_default else ""
        body = self._take_body()
        if len(body) > SMALL:
            house.gate.foresee(caller, visit)
        ask = self._route.read(body, default)
        return caller, ask if self._route.beside is None else self._route.beside(ask, self._headers, self._query)

    def _take_body(self) -> bytes:
        """The whole body, which is not kept for as long as the answer takes."""
        body = b"".join(self._body)
        self._body.clear()
        return body

    async def _refuse(self, error: GatewayError) -> None:
        """Answer with `error`, as the route's dialect says it."""
        base.count_refusal(error, self._house, self._address, self._route.path, self.request_id)
        error, content_type, body = self.worded(error)
        self._answer.whole = None
        self._answer.begin(content_type, base.error_headers(error), error.status)
        await self._answer.finish(body)

    def worded(self, error: GatewayError) -> tuple[GatewayError, str, bytes]:
        """`error` as the route's dialect says it: what it makes of it, the content type, the body."""
        if self._route.reading is not None:
            error = self._route.reading(error)
        said = self._route.errors(error, self.request_id)
        if isinstance(said, str):
            return error, TEXT, said.encode()
        return error, JSON, msgspec.json.encode(said)
