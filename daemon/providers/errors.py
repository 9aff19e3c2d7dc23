"""What can go wrong between the gate and an upstream, as far as the wire goes.

Rule: each is an `UpstreamFailed`, so that it is 502 wherever nobody treats it specially, but for the one that is our
own failing. What an upstream *says* (an error answer, an error in its stream) is the dialect's business.
"""

from __future__ import annotations

from common.errors import GatewayError, UpstreamFailed


class ConnectFailed(UpstreamFailed):
    """No connection to the upstream: nothing was sent. (Refused, unresolvable, not verifiable.)"""


class ConnectTimedOut(ConnectFailed):
    """The connection did not stand within its deadline: nothing was sent."""

    code = "timeout_connect"


class Resting(ConnectFailed):
    """The upstream failed with this model lately and is left alone for a moment: nothing was sent."""

    status = 503
    code = "upstream_resting"


class UpstreamBroken(UpstreamFailed):
    """The connection broke, or what came over it is not HTTP: the answer, if one began, is not whole."""


class OutOfDescriptors(GatewayError):
    """This process may open no further connection: nothing was sent, and the upstream is not to blame."""

    status = 503
    code = "out_of_descriptors"
