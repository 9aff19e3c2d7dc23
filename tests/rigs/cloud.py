"""A provider outside of the LAN, for tests: a scripted server over TLS with an authority of its own, and how it fails.

async with cloud(tmp_path) as provider, gatehouse(tmp_path, near, upstreams=[…, provider.configured()]) as gate:
    await provider.open_to(gate)        # enabled, with its key, and ana may use it
    provider.server.next(overloaded(), behaviours.error(500))
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.protocol import UpstreamsKey, UpstreamTarget
from daemon.access.directory import User
from daemon.admin import cloud as cloud_verbs
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.certificates import make_certificate, server_context
from tests.rigs.gatehouse import ADMIN, Gatehouse
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream

SECRET = "sk-pelargonium-0123456789"
MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5")


@dataclass
class Cloud:
    """The provider: `server` is scripted, `authority` vouches for its certificate."""

    server: ScriptedUpstream
    authority: Path
    name: str = "cloud"

    def configured(self, **more: Any) -> dict[str, Any]:
        """Its table in the configuration; by its address it would pass for a server on the LAN."""
        return {
            "name": self.name,
            "kind": self.server.kind,
            "url": self.server.url,
            "seats": 4,
            "cloud": True,
            "authority": str(self.authority),
        } | more

    async def open_to(self, gate: Gatehouse, *users: User, key: str = SECRET) -> None:
        """Give it a key, enable it, and let these users (ana) use it."""
        await cloud_verbs.set_key(gate.house, ADMIN, UpstreamsKey(self.name, key))
        await cloud_verbs.enable(gate.house, ADMIN, UpstreamTarget(self.name))
        for user in users or (gate.user,):
            await gate.house.directory.set_cloud(ADMIN, user.id, True)


@asynccontextmanager
async def cloud(
    folder: Path, *, kind: str = "anthropic", models: tuple[str, ...] = MODELS, name: str = "cloud"
) -> AsyncIterator[Cloud]:
    """One such provider; its certificate lies in a folder of its own in `folder`."""
    place = folder / f"{name}-tls"
    place.mkdir()
    certificate, key = make_certificate(place)
    tls = server_context(certificate, key)
    async with ScriptedUpstream(kind=kind, models=models, tls=tls) as server:
        yield Cloud(server, certificate, name)


def slow_down(seconds: int | str) -> Behaviour:
    """429 with Retry-After."""
    return behaviours.error(429, "slow down", {"Retry-After": str(seconds)})


def overloaded() -> Behaviour:
    """Anthropic's 529."""
    return behaviours.error(529, "Overloaded")
