"""`selftest`: the whole way of a request, tried from outside: a key, the daemon's own HTTP port, a real streamed chat.

Rule: nothing is short-cut. The key is issued, used and revoked as anybody's would be; the chat is admitted, limited,
queued, recorded and answered like any other, under a service account of its own. A step that fails ends the test; the
key is revoked whatever happens.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from common.errors import Conflict, GatewayError, Unavailable
from common.protocol import SelftestRequest, SelftestStep
from daemon.access.actor import Actor
from daemon.admin import audit
from daemon.clock import MICROSECONDS
from daemon.dialects.lines import LineReader
from daemon.providers.http import Pool
from daemon.store.users import User

if TYPE_CHECKING:
    from daemon.house import House

ACCOUNT = "selftest@gatelodge.internal"
KEY_LIFETIME = 600  # seconds; it is revoked long before
LONGEST_CHAT = 300.0  # seconds; a model may have to be loaded first
QUESTION = "Say hello."


async def selftest(house: House, actor: Actor, request: SelftestRequest) -> AsyncGenerator[SelftestStep, None]:
    """Each step as it has been taken; the first that fails is the last but for the key's end."""
    trial = _Trial(house, actor, request.model)
    try:
        for name, step in (
            ("service account", trial.account),
            ("issue a key", trial.issue),
            ("reach the HTTP port", trial.reach),
            ("stream a chat", trial.chat),
            ("find it in the audit", trial.find),
        ):
            taken = await _taken(name, step)
            yield taken
            if not taken.ok:
                break
    finally:
        # Also where the caller left: a key that nobody knows of must not live on.
        revoked = asyncio.ensure_future(_taken("revoke the key", trial.revoke))
        await asyncio.shield(revoked)
    if trial.key_id:
        yield revoked.result()


async def _taken(name: str, step: Callable[[], Awaitable[str]]) -> SelftestStep:
    started = time.monotonic()
    try:
        message, ok = await step(), True
    except GatewayError as error:
        message, ok = error.message, False
    except TimeoutError:
        message, ok = f"no end within {LONGEST_CHAT:.0f} s", False
    return SelftestStep(step=name, ok=ok, seconds=round(time.monotonic() - started, 3), message=message)


class _Trial:
    """What one run has in its hands."""

    def __init__(self, house: House, actor: Actor, model: str | None) -> None:
        self._house = house
        self._actor = actor
        self._model = model
        self._user: User | None = None
        self._key = ""
        self._request_id = ""
        self.key_id = ""

    async def account(self) -> str:
        """The service account, made at the first self-test."""
        directory = self._house.directory
        user = directory.find(ACCOUNT)
        if user is None:
            user, _ = await directory.add_user(self._actor, ACCOUNT, "user", True)
        elif user.status != "active":
            raise Conflict(f"{ACCOUNT} is disabled; to use the self-test: gatelodge users enable {ACCOUNT}")
        self._user = user
        return user.email

    async def issue(self) -> str:
        """A key that would end by itself soon."""
        assert self._user is not None
        expires_us = self._house.clock.wall() + KEY_LIFETIME * MICROSECONDS
        key, self._key = await self._house.directory.issue_key(
            self._actor, self._user.id, "selftest", expires_us=expires_us
        )
        self.key_id = key.id
        return f"key {key.id}"

    async def reach(self) -> str:
        """The port answers."""
        async with self._port() as pool, pool.request("GET", "/health") as response:
            await response.read(64 * 1024)
            if response.status != 200:
                raise Unavailable(f"GET /health gives status {response.status}")
        return self._url()

    async def chat(self) -> str:
        """A real chat, streamed to its end."""
        model = self._model or await self._house.registry.default_model()
        if not model:
            silent = await self._house.registry.why_not_ready()
            raise Unavailable(silent or "no model is installed; fetch one: gatelodge models pull NAME")
        document = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "options": {"num_predict": 16}}
        headers = [("Authorization", f"Bearer {self._key}"), ("Content-Type", "application/json")]
        started = time.monotonic()
        first, pieces = 0.0, 0
        async with asyncio.timeout(LONGEST_CHAT), self._port() as pool:
            async with pool.request(
                "POST", "/api/chat", headers=headers, body=msgspec.json.encode(document)
            ) as response:
                self._request_id = response.headers.get("x-request-id", "")
                if response.status != 200:
                    raise Unavailable(_error_of(await response.read(64 * 1024), response.status))
                lines = LineReader()
                async for data in response:
                    first = first or time.monotonic() - started
                    for line in lines.feed(data):
                        pieces += 1
                        last = msgspec.json.decode(line)
                if not pieces or "error" in last or not last.get("done"):
                    raise Unavailable(str(last.get("error") if pieces else "the answer was empty"))
        return f"{model}: first piece after {first:.3f} s, {pieces} pieces"

    async def find(self) -> str:
        """What was asked and answered is recorded, with a good end."""
        row = await audit.find(self._house, self._request_id)
        if row is None or row.state != "ok":
            state = "is not there" if row is None else f"ended as {row.state}"
            raise Unavailable(f"request {self._request_id} {state} in the audit")
        return f"request {self._request_id}, log id {row.log_id}"

    async def revoke(self) -> str:
        """The key counts no more."""
        if not self.key_id:
            return ""
        await self._house.directory.revoke_key(self._actor, self.key_id)
        return f"key {self.key_id}"

    def _url(self) -> str:
        host, port, tls = self._house.addresses[0]
        if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            host = "127.0.0.1" if host != "::" else "::1"
        return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    def _port(self) -> _Port:
        return _Port(self._url())


class _Port:
    """Our own HTTP port, as a client sees it; its connections are closed at the end."""

    def __init__(self, url: str) -> None:
        context = None
        if url.startswith("https:"):
            # Our own process at the other end: what its certificate is named for is not what is tried here.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._pool = Pool(url, name="own HTTP port", tls=context)

    async def __aenter__(self) -> Pool:
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()


def _error_of(body: bytes, status: int) -> str:
    try:
        document = msgspec.json.decode(body)
        return f"status {status}: {document['error']}"
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"status {status}"
