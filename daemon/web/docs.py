"""The description of the interface: `/openapi.json`, and `/docs`, a page that shows it to people.

Rule: everything the page is made of lies in `page/` beside this file and is served from here; the policy that goes out
with it lets a browser run nothing else and speak to nobody else, so it works where there is no other network. Open to
everybody: it tells what the documentation tells, and of this installation the version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from daemon.web import openapi
from daemon.web.base import Handler
from daemon.web.described import Text, described
from daemon.web.inference import InferenceRoute

_PAGE = Path(__file__).parent / "page"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


class DocsHandler(Handler):
    """A part of the description; small, and the same for everybody."""

    public = True

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-cache")  # looked at again each time; mostly it is a 304
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    def send(self, name: str) -> None:
        """One of the files of the page."""
        self.set_header("Content-Type", _KINDS[name[name.rindex(".") :]])
        self.finish(_file(name))


class Description(DocsHandler):
    """GET /openapi.json"""

    @described("This description", answers=dict[str, Any])
    async def get(self) -> None:
        self.finish(await self.settings["description"].get())

    async def head(self) -> None:
        await self.get()


class Page(DocsHandler):
    """GET /docs"""

    @described("This description as a page", answers=Text("text/html"))
    async def get(self) -> None:
        self.send("docs.html")

    async def head(self) -> None:
        await self.get()


class Part(DocsHandler):
    """GET /docs/{part}: what the page is made of."""

    @described("What that page is made of", answers=(Text("text/css"), Text("text/javascript"), Text("image/svg+xml")))
    async def get(self, part: str) -> None:
        self.send(part)

    async def head(self, part: str) -> None:
        await self.get(part)


@cache
def _file(name: str) -> bytes:
    return (_PAGE / name).read_bytes()


class Made:
    """The description as it is served, made when somebody first asks.

    In a thread: it takes some 40 ms, measured, which on the event loop every stream would stand still for.
    """

    def __init__(self, table: Iterable[tuple[str, type[Handler]]], relayed: Iterable[InferenceRoute]) -> None:
        self._table = table
        self._relayed = relayed
        self._making: asyncio.Task[bytes] | None = None

    async def get(self) -> bytes:
        """JSON."""
        if self._making is None:
            self._making = asyncio.ensure_future(asyncio.to_thread(self._make))
        # Who leaves does not stop it for the others.
        return await asyncio.shield(self._making)

    def _make(self) -> bytes:
        return msgspec.json.encode(openapi.document(self._table, self._relayed))


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/openapi\.json", Description),
    (r"/docs", Page),
    (r"/docs/(docs\.css|docs\.js|icon\.svg)", Part),
)
