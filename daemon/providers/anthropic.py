"""A server that speaks Anthropic's dialect: Anthropic itself, and what is compatible. Its models as Ollama shows them.

Rule: such a server tells names and dates of its models and nothing else; nothing else is claimed.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

import msgspec

from common.errors import UpstreamFailed
from daemon.providers.discretion import Discretion
from daemon.providers.upstream import Model, Upstream

VERSION = "2023-06-01"  # the version of the dialect that the translators speak
PAGES = 20  # of a list of models, a thousand on each: a server that goes on for ever is not believed


class AnthropicUpstream(Upstream):
    """Speaks Anthropic's dialect."""

    kind = "anthropic"

    def use_key(self, key: str) -> None:
        self.has_key = bool(key)
        self.discretion = Discretion(self.name, key)
        self.pool.identify([("anthropic-version", VERSION), *([("x-api-key", key)] if key else [])])

    async def list_models(self) -> list[Model]:
        models: list[Model] = []
        after = ""
        for _ in range(PAGES):
            page = await self._page(after)
            models += [Model.of(_tags(each), remote=self.cloud) for each in page.data]
            after = page.last_id or ""
            if not page.has_more or not after:
                return models
        raise UpstreamFailed(f"the upstream {self.name} has a list of models without an end")

    async def ask_version(self) -> str | None:
        return None

    async def running(self) -> list[dict[str, Any]]:
        return []  # it does not tell

    async def show(self, model: str, question: dict[str, Any]) -> tuple[int, bytes]:
        known = (self.models or {}).get(model)
        if known is None:
            return 404, msgspec.json.encode({"error": f"model '{model}' not found"})
        shown = {
            "modelfile": "",
            "template": "",
            "details": known.entry["details"],
            "model_info": None,  # with an empty one Ollama's own command line panics
            "capabilities": known.entry["capabilities"],
            "modified_at": known.entry["modified_at"],
        }
        return 200, msgspec.json.encode(shown)

    async def can_chat(self, model: Model) -> bool:
        return True

    async def count_tokens(self, model: str, document: dict[str, Any]) -> int | None:
        status, body = await self.fetch("POST", "/v1/messages/count_tokens", {**document, "model": model})
        try:
            return msgspec.json.decode(body, type=_Counted).input_tokens if status == 200 else None
        except msgspec.DecodeError:
            return None

    async def _page(self, after: str) -> _Page:
        status, body = await self.fetch("GET", f"/v1/models?limit=1000{f'&after_id={quote(after)}' if after else ''}")
        if status != 200:
            raise UpstreamFailed(f"the upstream {self.name} answered {status} to /v1/models")
        try:
            return msgspec.json.decode(body, type=_Page)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UpstreamFailed(
                f"the upstream {self.name} told its models in a form that is not Anthropic's"
            ) from error


class _Entry(msgspec.Struct):
    id: str
    created_at: str | None = None


class _Page(msgspec.Struct):
    data: list[_Entry]
    has_more: bool = False
    last_id: str | None = None


class _Counted(msgspec.Struct):
    input_tokens: int


def _tags(entry: _Entry) -> dict[str, Any]:
    """A row of Ollama's list; the digest only has to be the same for the same model."""
    details = {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": [],
        "parameter_size": "",
        "quantization_level": "",
    }
    return {
        "name": entry.id,
        "model": entry.id,
        "modified_at": entry.created_at or "1970-01-01T00:00:00Z",
        "size": 0,
        "digest": hashlib.sha256(entry.id.encode()).hexdigest(),
        "details": details,
        "capabilities": ["completion", "vision", "tools"],
    }
