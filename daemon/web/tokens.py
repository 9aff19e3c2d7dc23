"""The OAuth face: tokens for automation, refresh, revocation, and what others need to know about them.

After RFC 6749 (token endpoint), 7009 (revocation), 8414 (metadata), 7517 (keys). Rule: errors are the RFCs' own, as
JSON, also where the request never got as far; nothing here is kept by a cache except what is public.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.errors import GatewayError
from daemon.access.sessions import InvalidGrant
from daemon.access.tokens import LOGIN_CLIENT
from daemon.web.accounts import LARGEST_BODY, Tokens, token_answer
from daemon.web.base import Handler
from daemon.web.described import described

# RFC 6749's words for what our own errors mean at the edge of an OAuth route.
_OAUTH_WORDS = {429: "temporarily_unavailable", 503: "temporarily_unavailable", 500: "server_error"}


class OAuthError(GatewayError):
    """An error in OAuth's own words: `code` is one of RFC 6749, 5.2."""

    status = 400
    code = "invalid_request"


class OAuthErrorAnswer(msgspec.Struct, kw_only=True):
    """RFC 6749, 5.2."""

    error: str
    error_description: str


class OAuthHandler(Handler):
    """A route of the OAuth face."""

    public = True
    group = "Tokens"
    error_types = (OAuthErrorAnswer,)

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Pragma", "no-cache")

    def error_shape(self, error: GatewayError) -> Any:
        word = error.code if error.status in (400, 401) else _OAUTH_WORDS.get(error.status, "invalid_request")
        return {"error": word, "error_description": error.message, **error.detail}

    def form(self) -> dict[str, str]:
        """The parameters of the body, each at most once (RFC 6749, 3.2); empty ones count as absent."""
        if len(self.request.body) > LARGEST_BODY:
            raise OAuthError("the request body is too large", status=413)
        content_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded":
            raise OAuthError("send the parameters as application/x-www-form-urlencoded")
        try:
            pairs = parse_qsl(
                self.request.body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20
            )
        except ValueError as error:
            raise OAuthError("the form cannot be read") from error
        parameters = dict(pairs)
        if len(parameters) != len(pairs):
            raise OAuthError("a parameter is given twice")
        return {name: value for name, value in parameters.items() if value}

    def client(self, form: dict[str, str]) -> tuple[str, str]:
        """The client's id and secret, from Basic or from the form; "" where not given."""
        header = self.request.headers.get("Authorization", "")
        scheme, _, text = header.strip().partition(" ")
        if scheme.lower() != "basic":
            return form.get("client_id", ""), form.get("client_secret", "")
        if "client_secret" in form:
            raise OAuthError("send the client's secret in one way only")
        try:
            decoded = base64.b64decode(text.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise _invalid_client() from error
        name, _, secret = decoded.partition(":")
        name, secret = unquote_plus(name), unquote_plus(secret)
        if form.get("client_id", name) != name:
            raise OAuthError("two different clients are named")
        return name, secret


class TokenRequest(msgspec.Struct, kw_only=True):
    """What for: `client_credentials` with a key's id and secret (here or as Basic), or `refresh_token` with a token."""

    grant_type: Literal["client_credentials", "refresh_token"]
    client_id: Annotated[str | UnsetType, Meta(description="glk_ and the key's id.")] = UNSET
    client_secret: Annotated[str | UnsetType, Meta(description="The key's secret.")] = UNSET
    refresh_token: str | UnsetType = UNSET


class TokenEndpoint(OAuthHandler):
    """POST /oauth/token: `client_credentials` with an API key, `refresh_token` without client authentication."""

    @described(
        "Get an access token for a key, or for a refresh token",
        takes=TokenRequest,
        form=True,
        answers=Tokens,
        errors=(401,),
        credential="client",
        example={"grant_type": "client_credentials", "client_id": "glk_ID", "client_secret": "SECRET"},
    )
    async def post(self) -> None:
        form = self.form()
        grant = form.get("grant_type", "")
        if grant == "client_credentials":
            name, secret = self.client(form)
            key = self.house.access.key_of_client(name, secret, address=self.client_address)
            if key is None:
                raise _invalid_client()
            issued = self.house.sessions.issue_to_client(key)
        elif grant == "refresh_token":
            issued = await self._refreshed(form)
        elif not grant:
            raise OAuthError("grant_type is missing")
        else:
            raise OAuthError("grant_type is client_credentials or refresh_token", code="unsupported_grant_type")
        self.answer(200, token_answer(issued))

    async def _refreshed(self, form: dict[str, str]) -> Any:
        token = form.get("refresh_token")
        if token is None:
            raise OAuthError("refresh_token is missing")
        if form.get("client_id", LOGIN_CLIENT) != LOGIN_CLIENT:
            raise OAuthError("the refresh token was issued to another client", code="invalid_grant")
        try:
            return await self.house.sessions.refresh(token)
        except InvalidGrant as error:
            # One sentence for whatever is wrong with it.
            raise OAuthError("the refresh token is unknown, used or expired", code="invalid_grant") from error


class Revocation(msgspec.Struct, kw_only=True):
    """RFC 7009."""

    token: str
    token_type_hint: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET


class Done(msgspec.Struct):
    """Nothing to tell."""


class Revoke(OAuthHandler):
    """POST /oauth/revoke: 200 whether the token was known or not. Who holds a token may end it."""

    @described(
        "End a token, known or not",
        takes=Revocation,
        form=True,
        answers=Done,
        errors=(401,),
        credential="client",
        example={"token": "REFRESH_TOKEN"},
    )
    async def post(self) -> None:
        form = self.form()
        token = form.get("token")
        if token is None:
            raise OAuthError("token is missing")
        name, secret = self.client(form)
        if secret and self.house.access.key_of_client(name, secret, address=self.client_address) is None:
            raise _invalid_client()
        await self.house.sessions.revoke(token)
        self.answer(200, Done())


class Jwk(msgspec.Struct, kw_only=True):
    """RFC 7517 and 8037."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str
    use: Literal["sig"]
    alg: Literal["EdDSA"]


class JwkSet(msgspec.Struct):
    """The public keys."""

    keys: list[Jwk]


class Jwks(Handler):
    """GET /.well-known/jwks.json: the keys that access tokens are signed with, the coming one too."""

    public = True
    group = "Tokens"

    @described("The public keys of access tokens", answers=JwkSet)
    async def get(self) -> None:
        # Half of the time that a key is shown before it first signs.
        self.set_header("Cache-Control", "public, max-age=300")
        self.answer(200, self.house.sessions.tokens.keys.jwks())


class MetadataAnswer(msgspec.Struct, kw_only=True):
    """RFC 8414."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]


class Metadata(Handler):
    """GET /.well-known/oauth-authorization-server (RFC 8414): what works, and nothing else."""

    public = True
    group = "Tokens"

    @described("Where tokens are had", answers=MetadataAnswer)
    async def get(self) -> None:
        here = f"{self._scheme()}://{self.request.host}"
        methods = ["client_secret_basic", "client_secret_post", "none"]
        self.answer(
            200,
            MetadataAnswer(
                issuer=self.house.sessions.tokens.issuer,
                token_endpoint=f"{here}/oauth/token",
                revocation_endpoint=f"{here}/oauth/revoke",
                jwks_uri=f"{here}/.well-known/jwks.json",
                grant_types_supported=["client_credentials", "refresh_token"],
                response_types_supported=[],
                token_endpoint_auth_methods_supported=methods,
                revocation_endpoint_auth_methods_supported=methods,
            ),
        )

    def _scheme(self) -> str:
        """What the client speaks; a configured proxy that ends TLS says so in X-Forwarded-Proto."""
        said = self.request.headers.get("X-Forwarded-Proto", "")
        through_proxy = self.client_address != self.request.remote_ip
        return said if through_proxy and said in ("http", "https") else str(self.request.protocol)


def _invalid_client() -> OAuthError:
    return OAuthError(
        "the client is unknown, its secret wrong, or it may not ask from here",
        status=401,
        code="invalid_client",
        headers={"WWW-Authenticate": 'Basic realm="gatelodge"'},
    )


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/oauth/token", TokenEndpoint),
    (r"/oauth/revoke", Revoke),
    (r"/\.well-known/jwks\.json", Jwks),
    (r"/\.well-known/oauth-authorization-server", Metadata),
)
