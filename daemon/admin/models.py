"""Verbs about the models on the upstreams. A pull or deletion is in the audit before the upstream hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from common.errors import BadRequest, Forbidden, GatewayError, NotFound, UpstreamFailed
from common.protocol import ModelAccess, ModelDeleted, ModelDetail, ModelRow, ModelsList, ModelTarget, PullProgress
from common.times import from_iso, iso
from daemon.access.actor import Actor
from daemon.admin.rows import number_of
from daemon.dialects.lines import LineReader
from daemon.providers.names import is_remote_name
from daemon.providers.upstream import Model, Upstream

if TYPE_CHECKING:
    from daemon.house import House

PATIENCE = 60.0  # seconds for what is no pull; deleting many gigabytes takes its time
PATIENCE_FOR_LISTS = 5.0
_ERROR_BODY = 64 * 1024


async def listed(house: House, _: Actor, request: ModelsList) -> list[ModelRow]:
    """What is installed now, upstream by upstream."""
    registry = house.registry
    upstreams = registry.upstreams if request.upstream is None else [registry.upstream(request.upstream)]
    await registry.refresh()
    default = await registry.default_model()
    rows = []
    for upstream in upstreams:
        loaded = await _loaded(upstream)
        rows += [_row(upstream, model, loaded=loaded, default=default) for model in (upstream.models or {}).values()]
    return rows


async def shown(house: House, _: Actor, request: ModelTarget) -> ModelDetail:
    """What the upstream knows of a model."""
    upstream, name = await _place(house, request)
    status, body = await _in_time(upstream, upstream.show(name, {}))
    if status != 200:
        raise _said(upstream, status, body)
    return ModelDetail(name=name, upstream=upstream.name, information=msgspec.json.decode(body, type=dict[str, Any]))


async def access(house: House, _: Actor, request: ModelTarget) -> list[ModelAccess]:
    """Who may use a model: active people by login, and the live keys whose patterns let it in."""
    upstream, name = await _place(house, request)
    leaves_lan = upstream.leaves_lan(name)
    directory, now_us = house.directory, house.clock.wall()
    found: list[ModelAccess] = []
    for user in sorted(directory.users.values(), key=lambda user: user.email):
        if user.status != "active" or (leaves_lan and not user.cloud):
            continue
        if not user.service:
            found.append(ModelAccess(user=user.email, by="login", key=None, label="", pattern=None))
        for key in directory.keys_of(user.id):
            if key.purpose != "inference" or not key.is_live(now_us):
                continue
            letting = [each for each in key.models if fnmatchcase(name, each) or fnmatchcase(request.model, each)]
            if letting or not key.models:
                pattern = letting[0] if letting else None
                found.append(ModelAccess(user=user.email, by="key", key=key.id, label=key.label, pattern=pattern))
    return found


async def pull(house: House, actor: Actor, request: ModelTarget) -> AsyncGenerator[PullProgress, None]:
    """Fetch a model, telling each step; leaving ends it at the upstream, too."""
    upstream = _ollama(house, request.upstream)
    if is_remote_name(request.model) and not upstream.enabled:
        raise Forbidden(f"{request.model} runs outside of this network: gatelodge upstreams enable {upstream.name}")
    await house.journal.admin(actor, "models pull", f"model:{request.model}", {"upstream": upstream.name})
    last = PullProgress(status="")
    question = msgspec.json.encode({"model": request.model, "stream": True})
    async with upstream.request("POST", "/api/pull", body=question) as response:
        if response.status != 200:
            body = upstream.discretion.body(response.status, await response.read(_ERROR_BODY))
            raise _said(upstream, response.status, body)
        lines = LineReader()
        async for data in response:
            for line in lines.feed(data):
                if line.strip():
                    last = _step(upstream, line)
                    yield last
    if last.status != "success":
        raise UpstreamFailed(f"the upstream {upstream.name} ended the pull without success; pull again to go on")
    await house.registry.refresh()


async def delete(house: House, actor: Actor, request: ModelTarget) -> ModelDeleted:
    """Delete a model from the upstream's disk."""
    upstream, name = await _place(house, request)
    if upstream.kind != "ollama":
        raise BadRequest(f"the models of {upstream.name} are fixed: it is no Ollama")
    await house.journal.admin(actor, "models delete", f"model:{name}", {"upstream": upstream.name})
    status, body = await _in_time(upstream, upstream.fetch("DELETE", "/api/delete", {"model": name}))
    if status != 200:
        raise _said(upstream, status, body)
    await house.registry.refresh()
    return ModelDeleted(name=name, upstream=upstream.name, deleted=True)


async def _in_time(upstream: Upstream, answer: Awaitable[tuple[int, bytes]]) -> tuple[int, bytes]:
    try:
        async with asyncio.timeout(PATIENCE):
            return await answer
    except TimeoutError as error:
        raise UpstreamFailed(f"the upstream {upstream.name} did not answer within {PATIENCE:.0f} seconds") from error


async def _place(house: House, target: ModelTarget) -> tuple[Upstream, str]:
    """The upstream that is meant, and the model's name there."""
    if target.upstream is None:
        route = await house.registry.resolve(target.model, cloud=True)
        return route.upstream, route.model
    upstream = house.registry.upstream(target.upstream)
    await house.registry.refresh()
    for name in (target.model, f"{target.model}:latest"):
        if name in (upstream.models or {}):
            return upstream, name
    raise NotFound(f"{upstream.name} has no model {target.model!r}", code="model_not_found")


def _ollama(house: House, name: str | None) -> Upstream:
    """The Ollama that is to fetch a model."""
    if name is not None:
        upstream = house.registry.upstream(name)
        if upstream.kind != "ollama":
            raise BadRequest(f"the models of {upstream.name} are fixed: it is no Ollama")
        return upstream
    having = [upstream for upstream in house.registry.upstreams if upstream.kind == "ollama"]
    if not having:
        raise NotFound("no Ollama is behind this gateway: its models are fixed; start it with --ollama URL")
    if len(having) > 1:
        names = ", ".join(upstream.name for upstream in having)
        raise BadRequest(f"there are several Ollamas; say which with --upstream: {names}")
    return having[0]


async def _loaded(upstream: Upstream) -> dict[str, dict[str, Any]] | None:
    """What is in its memory, by name; None where it does not tell."""
    try:
        async with asyncio.timeout(PATIENCE_FOR_LISTS):
            upstream.loaded = await upstream.running()
    except (UpstreamFailed, TimeoutError):
        upstream.loaded = None
        return None
    return {str(entry["name"]): entry for entry in upstream.loaded}


def _row(upstream: Upstream, model: Model, *, loaded: dict[str, dict[str, Any]] | None, default: str) -> ModelRow:
    details = model.entry.get("details")
    details = details if isinstance(details, dict) else {}
    size = model.entry.get("size")
    running = (loaded or {}).get(model.name, {})
    return ModelRow(
        name=model.name,
        upstream=upstream.name,
        size=size if isinstance(size, int) and size > 0 else None,
        family=_text(details.get("family")),
        parameters=_text(details.get("parameter_size")),
        quantization=_text(details.get("quantization_level")),
        modified=_moment(model.entry.get("modified_at")),
        loaded=None if loaded is None else model.name in loaded,
        default=model.name == default,
        memory=number_of(running, "size"),
        vram=number_of(running, "size_vram"),
        expires=_moment(running.get("expires_at")),
        context=number_of(running, "context_length"),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _moment(value: Any) -> str | None:
    """The upstream's moment as the protocol has them, in UTC; None where it is none."""
    try:
        return iso(from_iso(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _step(upstream: Upstream, line: bytes) -> PullProgress:
    try:
        document = msgspec.json.decode(line, type=dict[str, Any])
        if "error" in document:
            words = upstream.discretion.text(str(document["error"]))
            raise UpstreamFailed(f"the upstream {upstream.name} says: {words}")
        return msgspec.convert(document, PullProgress)
    except msgspec.DecodeError as error:
        raise UpstreamFailed(
            f"the upstream {upstream.name} told its progress in a form that is not Ollama's"
        ) from error


def _said(upstream: Upstream, status: int, body: bytes) -> GatewayError:
    """An error answer of the upstream, in its own words."""
    try:
        words = str(msgspec.json.decode(body, type=dict[str, Any])["error"])
    except (msgspec.DecodeError, KeyError):
        words = f"status {status}"
    if status == 404:
        return NotFound(words, code="model_not_found")
    return UpstreamFailed(f"the upstream {upstream.name} says: {words}")
