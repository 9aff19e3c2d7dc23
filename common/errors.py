"""The few errors that cross module borders. Each is one sentence about what a caller did or met.

Rule: an error carries what happened, why, and what to do; it is translated once, at the edge, into the
shape of the route's dialect (`daemon/web/base.py`) or of the admin socket (`daemon/admin/server.py`).
"""

from __future__ import annotations

from typing import Any


class GatewayError(Exception):
    """A refusal or failure that a client is told about.

    `status` is the HTTP status, `code` a stable machine word, `message` one sentence for people,
    `retry_after` whole seconds (rounded up) where waiting helps, `detail` further fields of the answer's body,
    `headers` further response headers.
    """

    status = 500
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        detail: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if code is not None:
            self.code = code
        self.retry_after = retry_after
        self.detail = detail or {}
        self.headers = headers or {}


class BadRequest(GatewayError):
    """The request itself is wrong: it will fail again as it stands."""

    status = 400
    code = "invalid_request"


class Unauthenticated(GatewayError):
    """No credential, or one that does not count (any more)."""

    status = 401
    code = "unauthenticated"


class Forbidden(GatewayError):
    """We know who it is, and they may not."""

    status = 403
    code = "forbidden"


class NotFound(GatewayError):
    """What was named does not exist, or not for this caller."""

    status = 404
    code = "not_found"


class Conflict(GatewayError):
    """It changed since the caller looked, or the state does not allow the step."""

    status = 409
    code = "conflict"


class LimitExceeded(GatewayError):
    """A sliding window is full. `detail` names limit, used, max and when it frees."""

    status = 429
    code = "rate_limited"


class Unavailable(GatewayError):
    """Not now: queue full, journal not writable, shutting down."""

    status = 503
    code = "unavailable"


class UpstreamFailed(GatewayError):
    """The upstream did not answer as it should, before a byte was relayed."""

    status = 502
    code = "upstream_error"


class StartError(Exception):
    """The daemon cannot start; the text is one line that says what is wrong and what to do."""
