"""The scripted upstream's routes besides inference: models and their upkeep, as Ollama and OpenAI serve them.

Rule: they work on the rig's own state (`models`, `blobs`, `loaded`), so that what a test creates is there afterwards.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.rigs import upstream_shapes

if TYPE_CHECKING:
    from tests.rigs.scripted_upstream import Turn

VERSION = "0.9.3"
OLLAMA_ROUTES = {
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/api/version"),
    ("GET", "/api/tags"),
    ("GET", "/api/ps"),
    ("POST", "/api/show"),
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
}


async def answer(turn: Turn) -> None:
    """Answer a request that is not inference; unknown routes get Ollama's 404."""
    seen, upstream = turn.seen, turn.upstream
    method, path = seen.method, seen.path
    if method == "GET" and path.startswith("/v1/models"):
        await _openai_models(turn)
    elif upstream.kind == "anthropic" and path == "/v1/messages/count_tokens":
        await turn.whole(200, upstream_shapes.compact({"input_tokens": upstream_shapes.tokens_of(seen.document)}))
    elif upstream.kind != "ollama":
        if path in {"/health", "/"}:
            await turn.whole(200, b'{"status":"ok"}')
        else:
            await turn.whole(404, upstream_shapes.error_body("/v1/", "File Not Found", 404))
    elif path.startswith("/api/blobs/"):
        await _blob(turn)
    elif (method, path) in OLLAMA_ROUTES:
        await _ollama(turn)
    else:
        await turn.whole(404, b"404 page not found", {"Content-Type": "text/plain"})


async def _openai_models(turn: Turn) -> None:
    names = list(turn.upstream.models)
    if turn.upstream.kind == "anthropic":
        rows = [upstream_shapes.anthropic_model(name) for name in names]
        await turn.whole(200, upstream_shapes.compact({"data": rows, "has_more": False}))
        return
    wanted = turn.seen.path.removeprefix("/v1/models").lstrip("/")
    if not wanted:
        rows = [upstream_shapes.openai_model(name) for name in names]
        await turn.whole(200, upstream_shapes.compact({"object": "list", "data": rows}))
    elif wanted in names:
        await turn.whole(200, upstream_shapes.compact(upstream_shapes.openai_model(wanted)))
    else:
        await turn.whole(404, upstream_shapes.error_body("/v1/", f"The model '{wanted}' does not exist", 404))


async def _blob(turn: Turn) -> None:
    digest = turn.seen.path.removeprefix("/api/blobs/")
    if turn.seen.method == "HEAD":
        await turn.whole(200 if digest in turn.upstream.blobs else 404, b"")
    elif digest != "sha256:" + hashlib.sha256(turn.seen.raw).hexdigest():
        await turn.whole(400, upstream_shapes.compact({"error": "digest mismatch"}))
    else:
        turn.upstream.blobs[digest] = turn.seen.raw
        await turn.whole(201, b"")


async def _ollama(turn: Turn) -> None:
    upstream, document = turn.upstream, turn.seen.document
    name = str(document.get("model") or document.get("name") or "")
    match turn.seen.path:
        case "/":
            await turn.whole(200, b"Ollama is running", {"Content-Type": "text/plain; charset=utf-8"})
        case "/api/version":
            await turn.whole(200, upstream_shapes.compact({"version": VERSION}))
        case "/api/tags":
            await turn.whole(200, upstream_shapes.compact({"models": list(upstream.models.values())}))
        case "/api/ps":
            rows = [{**upstream.models[name], "size_vram": 0, "context_length": 2048} for name in upstream.loaded]
            await turn.whole(200, upstream_shapes.compact({"models": rows}))
        case "/api/show" if name in upstream.models:
            await turn.whole(200, upstream_shapes.compact(upstream_shapes.model_shown(upstream.models[name])))
        case "/api/delete" if name in upstream.models:
            del upstream.models[name]
            await turn.whole(200, b"")
        case "/api/copy" if document.get("source") in upstream.models:
            upstream.add_model(str(document.get("destination", "")))
            await turn.whole(200, b"")
        case "/api/pull" | "/api/create":
            await _progress(turn, ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"])
            upstream.add_model(name)
        case "/api/push" if name in upstream.models:
            await _progress(turn, ["retrieving manifest", "pushing manifest", "success"])
        case _:
            missing = document.get("source", name)
            await turn.whole(404, upstream_shapes.compact({"error": f"model '{missing}' not found"}))


async def _progress(turn: Turn, steps: list[str]) -> None:
    if turn.seen.document.get("stream") is False:
        await turn.whole(200, upstream_shapes.compact({"status": steps[-1]}))
        return
    await turn.head(200, {"Content-Type": "application/x-ndjson"})
    for step in steps:
        await turn.send(upstream_shapes.compact({"status": step}) + b"\n")
    await turn.finish()
