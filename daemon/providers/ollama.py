"""An Ollama: its lists of models, told as they are, less what would leave the LAN."""

from __future__ import annotations

from typing import Any

from common.errors import UpstreamFailed
from daemon.providers.upstream import Model, Upstream

# Families of models that embed and cannot chat; older Ollamas tell no capabilities in their list.
_EMBEDDING_FAMILIES = ("bert", "nomic-bert", "nomic-bert-moe", "xlm-roberta", "jina-bert-v2")


class OllamaUpstream(Upstream):
    """Speaks Ollama's dialect."""

    kind = "ollama"

    async def list_models(self) -> list[Model]:
        return [
            Model(name=str(entry["name"]), entry=entry, chats=_chats(entry))
            for entry in self._entries(await self.fetch_json("/api/tags"))
            if not is_remote(entry)
        ]

    async def ask_version(self) -> str | None:
        answer = await self.fetch_json("/api/version")
        version = answer.get("version") if isinstance(answer, dict) else None
        return version if isinstance(version, str) else None

    async def running(self) -> list[dict[str, Any]]:
        return [entry for entry in self._entries(await self.fetch_json("/api/ps")) if not is_remote(entry)]

    async def show(self, model: str, question: dict[str, Any]) -> tuple[int, bytes]:
        asked = {key: value for key, value in question.items() if key != "name"}
        return await self.fetch("POST", "/api/show", {**asked, "model": model})

    def _entries(self, answer: Any) -> list[dict[str, Any]]:
        entries = answer.get("models") if isinstance(answer, dict) else None
        if entries is None:
            entries = []
        if not isinstance(entries, list) or not all(isinstance(each, dict) and "name" in each for each in entries):
            raise UpstreamFailed(f"the upstream {self.name} told its models in a form that is not Ollama's")
        return entries


def is_remote(entry: dict[str, Any]) -> bool:
    """Whether a model of Ollama's list runs elsewhere: asking it would send the prompt out of the LAN."""
    return bool(entry.get("remote_host")) or bool(entry.get("remote_model")) or is_remote_name(str(entry["name"]))


def is_remote_name(name: str) -> bool:
    """Whether the name alone tells that (`glm-4.6:cloud`, `gpt-oss:120b-cloud`); Ollama serves those uninstalled."""
    tag = name.rpartition(":")[2].casefold()
    return tag == "cloud" or tag.endswith("-cloud")


def _chats(entry: dict[str, Any]) -> bool:
    capabilities = entry.get("capabilities")
    if isinstance(capabilities, list):
        return "completion" in capabilities
    details = entry.get("details")
    return not isinstance(details, dict) or details.get("family") not in _EMBEDDING_FAMILIES
