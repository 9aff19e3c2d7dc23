"""Ollama's model commands: pull, push, create, copy, delete and blobs, for administrators' keys only.

Rule: each is recorded in the audit before the upstream hears of it (names, never bodies). They take no seat and no
limit; the client's leaving ends them at the upstream too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import msgspec
from tornado.web import HTTPError, stream_request_body

from common.errors import BadRequest, Forbidden, NotFound, UpstreamFailed
from daemon.access.actor import Actor
from daemon.access.identity import Caller
from daemon.dialects import asks, ollama_bodies, strict_json
from daemon.dialects.errors import Error
from daemon.dialects.translator import in_stream_error
from daemon.providers.errors import ConnectFailed, UpstreamBroken
from daemon.providers.names import is_remote_name
from daemon.providers.upstream import Upstream
from daemon.web.described import BYTES, F, Lines, Text, described
from daemon.web.ollama import OllamaHandler

_NAMES = ("model", "name", "source", "destination", "from")


_ERROR_BODY = 64 * 1024
# What Ollama itself may answer goes through as it is.
_OLLAMAS = (403, 404, 500, 502)


def _command(summary: str, takes: type, example: dict[str, str], *answers: Lines) -> Callable[[F], F]:
    """Tell of a command whose body and answer are Ollama's."""
    return described(
        summary,
        takes=takes,
        answers=(*answers, ollama_bodies.Progress) if answers else (),
        errors=_OLLAMAS,
        credential="administrator",
        example=example,
    )


class ModelCommand(OllamaHandler):
    """A command about models, relayed to the Ollama behind the gate as it is."""

    group = "Ollama's models"
    error_types = (Error, ollama_bodies.Progress, Lines(ollama_bodies.Progress))
    verb: ClassVar[str]
    fetches: ClassVar[bool] = True  # the upstream may ask elsewhere for the model that is named
    task: asyncio.Task[Any] | None = None

    def upstream(self) -> Upstream:
        """The Ollama that holds the models."""
        for upstream in self.house.registry.upstreams:
            if upstream.kind == "ollama":
                return upstream
        raise NotFound("no Ollama is behind this gateway; its engine's models are fixed")

    async def record(self, caller: Caller, target: str, detail: dict[str, Any]) -> None:
        """Put the command into the audit."""
        actor = Actor(uid=None, name=caller.user.email, via="http")
        await self.house.journal.admin(actor, self.verb, target, {"address": self.client_address, **detail})

    async def command(self, method: str, path: str) -> None:
        """Read, record, relay."""
        caller = self.administrator()
        document = strict_json.canonicalise(strict_json.read(self.request.body), frozenset(_NAMES))
        names = {key: asks.expect(document, key, str, "string", of="Request") for key in _NAMES if key in document}
        # Ollama's own command line sends `model` empty beside `name`; Ollama takes the one that says something.
        target = next((name for name in names.values() if name), "")
        if not target:
            raise BadRequest("model is required")
        upstream = self.upstream()
        remote = next((name for name in names.values() if name and is_remote_name(name)), "")
        if remote and self.fetches and not upstream.enabled:
            words = f"{remote} runs outside of this network, which is not enabled: gatelodge upstreams enable"
            raise Forbidden(f"{words} {upstream.name}", code="model_not_allowed")
        await self.record(caller, target, names)
        await self.relay(upstream, method, path, msgspec.json.encode(document))
        await self.house.registry.refresh()

    async def relay(self, upstream: Upstream, method: str, path: str, body: bytes) -> None:
        """The upstream's answer to the client as it arrives."""
        self.task = asyncio.current_task()
        begun = False
        try:
            async with upstream.request(method, path, body=body) as response:
                self.set_status(response.status)
                self.set_header("Content-Type", response.headers.get("content-type", "application/json; charset=utf-8"))
                if response.status >= 400:
                    self.write(upstream.discretion.body(response.status, await response.read(_ERROR_BODY)))
                else:
                    async for data in response:
                        begun = True
                        self.write(data)
                        await self.flush()
            await self.finish()
        except (ConnectFailed, UpstreamBroken) as error:
            if not begun:
                raise UpstreamFailed(str(error)) from error
            await self.finish(in_stream_error("ollama.chat", str(error)))
        except asyncio.CancelledError:
            if not self.left or self.task is None:
                raise
            self.task.uncancel()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self.task is not None:
            self.task.cancel()


class Pull(ModelCommand):
    """POST /api/pull."""

    verb = "models pull"

    @_command("Fetch a model", ollama_bodies.ModelNamed, {"model": "llama3.2"}, Lines(ollama_bodies.Progress))
    async def post(self) -> None:
        await self.command("POST", "/api/pull")


class Push(ModelCommand):
    """POST /api/push."""

    verb = "models push"

    @_command("Publish a model", ollama_bodies.ModelNamed, {"model": "me/mine"}, Lines(ollama_bodies.Progress))
    async def post(self) -> None:
        await self.command("POST", "/api/push")


class Create(ModelCommand):
    """POST /api/create."""

    verb = "models create"

    @_command(
        "Make a model of another",
        ollama_bodies.ModelNamed,
        {"model": "mine", "from": "llama3.2", "system": "You are brief."},
        Lines(ollama_bodies.Progress),
    )
    async def post(self) -> None:
        await self.command("POST", "/api/create")


class Copy(ModelCommand):
    """POST /api/copy."""

    verb = "models copy"

    @_command("Copy a model", ollama_bodies.ModelCopied, {"source": "llama3.2", "destination": "mine"})
    async def post(self) -> None:
        await self.command("POST", "/api/copy")


class Delete(ModelCommand):
    """DELETE /api/delete."""

    verb = "models delete"
    fetches = False

    @_command("Delete a model", ollama_bodies.ModelNamed, {"model": "mine"})
    async def delete(self) -> None:
        await self.command("DELETE", "/api/delete")


@stream_request_body
class Blob(ModelCommand):
    """HEAD and POST /api/blobs/:digest: a model file on its way in, streamed through, never held and never recorded."""

    verb = "models blob"

    async def prepare(self) -> None:  # type: ignore[override]
        super().prepare()
        if self.request.method not in {"POST", "HEAD"}:
            raise HTTPError(405)
        caller = self.administrator()
        if self.request.method == "HEAD":
            return
        digest = self.request.path.rpartition("/")[2]
        upstream = self.upstream()
        await self.record(caller, digest, {})
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(8)
        length = self.request.headers.get("Content-Length")
        headers = [("Content-Length", length)] if length is not None else []
        self.task = asyncio.ensure_future(self._upload(upstream, digest, headers))

    async def data_received(self, chunk: bytes) -> None:
        await self._put(chunk)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        # In the middle of the body there is no `post` yet, and Tornado calls nothing else any more.
        self.no_longer_answering()

    @described(
        "Bring a model file in",
        takes=Text(BYTES),
        status=201,
        more=(200,),
        errors=_OLLAMAS,
        credential="administrator",
    )
    async def post(self, digest: str) -> None:
        assert self.task is not None
        await self._put(None)
        status, body = await self.task
        self.set_status(status)
        self.finish(body)

    @described("Whether a model file is there", errors=_OLLAMAS, credential="administrator")
    async def head(self, digest: str) -> None:
        try:
            async with self.upstream().request("HEAD", f"/api/blobs/{digest}") as response:
                self.set_status(response.status)
        except (ConnectFailed, UpstreamBroken) as error:
            raise UpstreamFailed(str(error)) from error
        self.finish()

    async def _put(self, piece: bytes | None) -> None:
        """Hand a piece on at the upstream's pace; where the upload ended early, nobody takes it any more."""
        assert self.task is not None
        put = asyncio.ensure_future(self._pieces.put(piece))
        await asyncio.wait({put, self.task}, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()

    async def _upload(self, upstream: Upstream, digest: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await self._pieces.get()) is not None:
                yield piece

        try:
            async with upstream.request("POST", f"/api/blobs/{digest}", headers=headers, body=pieces()) as response:
                body = await response.read(_ERROR_BODY)
                return response.status, upstream.discretion.body(response.status, body)
        except (ConnectFailed, UpstreamBroken) as error:
            raise UpstreamFailed(str(error)) from error
