"""What every route of the LAN face shares: request id, client address, identity, errors in the route's own shape.

Rule: a handler raises `GatewayError`; it is turned into an answer here and nowhere else. Every answer carries
`X-Request-Id`. What happens to be unexpected is logged with the request id and answered 500 without a traceback. HEAD
is answered as GET is: Tornado tells the body's length and keeps the body (RFC 9110, 9.3.2).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from http.client import responses
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote

import msgspec
from tornado import httputil, iostream
from tornado.web import HTTPError, RequestHandler

from common.errors import BadRequest, Forbidden, GatewayError, NotFound, Unavailable
from daemon.access.identity import CHALLENGE, Caller
from daemon.dialects import errors, strict_json
from daemon.dialects.translator import TEXT
from daemon.exchange import new_request_id
from daemon.house import House
from daemon.traffic.windows import AddressBound
from daemon.web.described import serves

log = logging.getLogger("gatelodge.web")
_CREDENTIAL_MARKS = ("/k/", "glk_", "glr_", "eyJ", "%")
T = TypeVar("T", bound=msgspec.Struct)
# What a page of an allowed origin may send: what the gate reads, and what the SDKs of the dialects send by themselves.
_ALLOWED_HEADERS = (
    *("Authorization", "Content-Type", "X-API-KEY", "X-Client-Label"),
    *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"),
    *("OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta"),
)
_SDKS_HEADER = re.compile(r"x-stainless-[a-z-]{1,40}")  # the client's system and version: more with each release
_SDKS_HEADERS = 30


class Handler(RequestHandler):
    """A route. Sub-classes set `error_shape` where their dialect has an error shape of its own."""

    SUPPORTED_METHODS: tuple[str, ...] = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
    public: ClassVar[bool] = False  # served without a credential
    group: ClassVar[str] = "The gateway"  # under which it is described (`described.py`)
    error_types: ClassVar[tuple[Any, ...]] = (errors.Error,)  # what `error_shape` makes
    while_stopping: ClassVar[bool] = False  # served while the gateway lets what runs come to its end

    house: House
    request_id: str
    client_address: str

    def initialize(self, house: House) -> None:
        self.house = house
        self.request_id = new_request_id()
        self.client_address = ""
        self.left = False
        self._is_counted = True
        house.begin_answer()
        self.set_header("X-Request-Id", self.request_id)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json; charset=utf-8")
        if hasattr(self, "request_id"):
            self.set_header("X-Request-Id", self.request_id)

    def prepare(self) -> None:
        self.client_address = client_address(self.request.connection, self.request.headers, self.house)
        self._allow_origin()
        check_reception(self.request.headers, self.house, while_stopping=self.while_stopping)
        self.address_bound.admit(self.client_address)

    @property
    def address_bound(self) -> AddressBound:
        """The generous bound per address on what is not inference."""
        return self.house.admission.address_bound

    def caller(self) -> Caller:
        """Who is asking; Unauthenticated where nobody can tell."""
        return self.house.access.identify(self.request.headers, address=self.client_address)

    def administrator(self) -> Caller:
        """The caller, who must be an administrator (of Ollama's models, over HTTP)."""
        caller = self.caller()
        if caller.user.role != "admin":
            raise Forbidden("only an administrator's key may do this; ask the administrator of this gateway")
        return caller

    def read_json(self, kind: type[T]) -> T:
        """The request body as `kind`, read strictly; BadRequest in words where it is not."""
        document = strict_json.read(self.request.body)
        try:
            return msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the request body is wrong: {error}") from error

    def answer(self, status: int, content: Any) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.finish(msgspec.json.encode(content))

    def error_shape(self, error: GatewayError) -> Any:
        """The body of an error in this route's dialect, text where it is a string; Ollama's is our own as well."""
        return errors.ollama(error, self.request_id)

    def refuse(self, error: GatewayError) -> None:
        """Answer with `error` in the route's shape."""
        count_refusal(error, self.house, self.client_address, self.request.path, self.request_id)
        self.clear()
        self.set_status(error.status)
        for name, value in error_headers(error).items():
            self.set_header(name, value)
        self._allow_origin()
        said = self.error_shape(error)
        if isinstance(said, str):
            self.set_header("Content-Type", TEXT)
        self.finish(said if isinstance(said, str) else msgspec.json.encode(said))

    async def options(self, *_: str) -> None:
        """A browser's preflight: answered only where an origin is allowed."""
        if not self._allow_origin():
            raise NotFound("no browser origin is allowed here (server.cors_origins)")
        self.set_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
        asked = self.request.headers.get("Access-Control-Request-Headers", "").lower().split(",")
        sdks = sorted({name.strip() for name in asked if _SDKS_HEADER.fullmatch(name.strip())})[:_SDKS_HEADERS]
        self.set_header("Access-Control-Allow-Headers", ", ".join([*_ALLOWED_HEADERS, *sdks]))
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)
        self.finish()

    @classmethod
    def methods(cls) -> list[str]:
        """What the route can be asked (RFC 9110, 15.5.6). A handler without any stands where a POST is carried."""
        return [method for method in ("GET", "HEAD", "POST", "DELETE") if serves(cls, method)] or ["POST"]

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tornado's way out for every exception."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, GatewayError):
            self.refuse(error)
        elif isinstance(error, HTTPError):
            headers = {"Allow": ", ".join(self.methods())} if error.status_code == 405 else {}
            words = _words(error)
            self.refuse(GatewayError(words, status=error.status_code, code="invalid_request", headers=headers))
        else:
            self.refuse(unexpected(self.request_id, error))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if isinstance(value, GatewayError | HTTPError | iostream.StreamClosedError | asyncio.CancelledError):
            return
        log_failure(self.request_id, self.request.path, value)

    def on_connection_close(self) -> None:
        self.left = True
        super().on_connection_close()

    def on_finish(self) -> None:
        self.no_longer_answering()

    def no_longer_answering(self) -> None:
        """The answer is out, or there will be none."""
        if self._is_counted:
            self._is_counted = False
            self.house.end_answer()

    def _allow_origin(self) -> bool:
        allowed = origin_headers(self.request.headers, self.house)
        for name, value in allowed.items():
            self.set_header(name, value)
        return bool(allowed)


class UnknownRoute(Handler):
    """What is not listed anywhere: 404 for who may ask, 401 for who may not; never an upstream."""

    SUPPORTED_METHODS = (*RequestHandler.SUPPORTED_METHODS, "TRACE", "CONNECT")

    @classmethod
    def methods(cls) -> list[str]:
        return []

    async def prepare(self) -> None:  # type: ignore[override]
        super().prepare()
        self.caller()
        raise NotFound(f"there is nothing at {self.request.path}")


# --- the same for every request, whoever carries it ---


def check_reception(headers: httputil.HTTPHeaders, house: House, *, while_stopping: bool = False) -> None:
    """Refuse what no route answers: a host that is not ours, anything while the gateway stops."""
    allowed = house.config.server.allowed_hosts
    if allowed:
        host = httputil.split_host_and_port(headers.get("Host", "").lower())[0]
        if host not in allowed:
            raise GatewayError(f"this gateway does not serve the host {host!r}", status=421, code="misdirected")
    if house.stopping and not while_stopping:
        raise Unavailable("the gateway is shutting down; try again in a moment", code="shutdown", retry_after=5)


def origin_headers(headers: httputil.HTTPHeaders, house: House) -> dict[str, str]:
    """What tells a browser that its page may read the answer; nothing where no page of that origin may."""
    origin = headers.get("Origin")
    if origin is None or origin not in house.config.server.cors_origins:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Vary": "Origin",
        "Access-Control-Expose-Headers": "X-Request-Id, request-id, Retry-After, RateLimit, RateLimit-Policy,"
        " X-Gatelodge-Ignored, X-Gatelodge-Estimate",
    }


def count_refusal(error: GatewayError, house: House, address: str, route: str, request_id: str) -> None:
    """A refusal costs no fsync: without a credential it is counted and logged, else the journal adds it up."""
    if error.status == 401:
        house.metrics.unauthenticated()
        fields = {"address": address, "route": without_credentials(route), "request_id": request_id}
        log.info("no valid credential", extra=fields)
    elif error.status == 429 or error.code.startswith("queue_full"):
        house.metrics.refused()


def error_headers(error: GatewayError) -> dict[str, str]:
    """The headers of an error's answer."""
    headers = dict(error.headers)
    if error.status == 401:
        # Whoever refuses may say it better; a credential that was revoked in mid-exchange has nobody who does.
        headers.setdefault("WWW-Authenticate", f'{CHALLENGE}, error="invalid_token"')
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 413:
        headers["Connection"] = "close"
    return headers


def log_failure(request_id: str, path: str, error: BaseException | None) -> None:
    """Note a failure that nobody foresaw, under the request id that the client is told."""
    log.error("request %s to %s failed", request_id, without_credentials(path), exc_info=error)


def without_credentials(path: str) -> str:
    """A request's path as it may be logged: what stands where a key does (/k/KEY), or looks like one, is left out."""
    if not any(mark in path for mark in _CREDENTIAL_MARKS):
        return path
    segments = unquote(path).split("/")
    shown = list(segments)
    for number, segment in enumerate(segments):
        if segment.startswith(("glk_", "glr_", "eyJ")) or segments[number - 1 : number] == ["k"]:
            shown[number] = "…"
    return path if shown == segments else "/".join(shown)


def unexpected(request_id: str, error: BaseException | None = None) -> GatewayError:
    """What the client is told of a failure that nobody foresaw, or of too little memory for what it sent."""
    if isinstance(error, MemoryError):
        words = "the gateway has too little memory for this request now; try again in a moment"
        return Unavailable(words, code="busy", retry_after=5)
    return GatewayError(f"the gateway failed on this request; its log tells more under request id {request_id}")


def client_address(connection: httputil.HTTPConnection | None, headers: httputil.HTTPHeaders, house: House) -> str:
    """The client's address: the peer's, or what a configured proxy says of it in X-Forwarded-For."""
    peer = connection.context.address  # type: ignore[union-attr]
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    proxies = house.trusted_proxies
    if not proxies or not _within(address, proxies):
        return address
    hops = [hop.strip() for hop in headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
    for hop in reversed(hops):
        try:
            address = str(ipaddress.ip_address(hop))
        except ValueError:
            return address  # a proxy of ours would not write this: believe no further
        if not _within(address, proxies):
            return address
    return address


def _within(address: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _words(error: HTTPError) -> str:
    if error.status_code == 405:
        return "this route does not have that method"
    return error.log_message or responses.get(error.status_code, "the request is wrong")
