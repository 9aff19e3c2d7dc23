"""An Ollama: its lists of models, told as they are; those that it has answered elsewhere are marked."""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import GatewayError, UpstreamFailed
from daemon.clock import Clock
from daemon.config import Queue, UpstreamConfig
from daemon.providers.names import is_remote_name
from daemon.providers.upstream import SHOW_PATIENCE, Model, Upstream


class OllamaUpstream(Upstream):
    """Speaks Ollama's dialect."""

    kind = "ollama"

    def __init__(self, config: UpstreamConfig, *, queue: Queue, connect_timeout: float, clock: Clock) -> None:
        super().__init__(config, queue=queue, connect_timeout=connect_timeout, clock=clock)
        self._in_memory: frozenset[str] = frozenset()
        self._chatting: dict[str, bool] = {}  # digest of a model -> whether it chats, as /api/show told

    async def list_models(self) -> list[Model]:
        entries = self._entries(await self.fetch_json("/api/tags"))
        return [Model.of(entry, remote=self.cloud or is_remote(entry)) for entry in entries]

    def has_loaded(self, model: str) -> bool:
        return model in self._in_memory

    def went_well(self, model: str, user: int) -> None:
        super().went_well(model, user)
        if model not in self._in_memory:
            self._in_memory |= {model}  # until the next look tells

    async def look_at_memory(self) -> None:
        try:
            self.loaded = await self.running()
        except UpstreamFailed:
            return  # what only passes for an Ollama may not tell
        self._in_memory = frozenset(str(entry["name"]) for entry in self.loaded)

    async def ask_version(self) -> str | None:
        answer = await self.fetch_json("/api/version")
        version = answer.get("version") if isinstance(answer, dict) else None
        return version if isinstance(version, str) else None

    async def running(self) -> list[dict[str, Any]]:
        return [entry for entry in self._entries(await self.fetch_json("/api/ps")) if not is_remote(entry)]

    async def show(self, model: str, question: dict[str, Any]) -> tuple[int, bytes]:
        asked = {key: value for key, value in question.items() if key != "name"}
        return await self.fetch("POST", "/api/show", {**asked, "model": model}, patience=SHOW_PATIENCE)

    async def can_chat(self, model: Model) -> bool:
        # The list tells no capabilities; a name like qwen3-embedding has the family of one that chats.
        digest = str(model.entry.get("digest") or model.name)
        if digest not in self._chatting:
            try:
                status, body = await self.show(model.name, {})
                capabilities = msgspec.json.decode(body, type=_Shown).capabilities if status == 200 else None
            except (GatewayError, msgspec.DecodeError):
                return model.chats  # asked again next time
            self._chatting[digest] = model.chats if capabilities is None else "completion" in capabilities
        return self._chatting[digest]

    def _entries(self, answer: Any) -> list[dict[str, Any]]:
        entries = answer.get("models", ()) if isinstance(answer, dict) else ()
        if entries is None:  # Go's nil slice
            entries = []
        if not isinstance(entries, list) or not all(isinstance(each, dict) and "name" in each for each in entries):
            raise UpstreamFailed(f"the upstream {self.name} told its models in a form that is not Ollama's")
        return entries


class _Shown(msgspec.Struct):
    """What matters here of /api/show; before 0.6.4 it tells no capabilities."""

    capabilities: list[str] | None = None


def is_remote(entry: dict[str, Any]) -> bool:
    """Whether a model of Ollama's list runs elsewhere: asking it would send the prompt out of the LAN."""
    return bool(entry.get("remote_host")) or bool(entry.get("remote_model")) or is_remote_name(str(entry["name"]))
