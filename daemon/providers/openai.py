"""A server that speaks OpenAI's dialect: llama.cpp, vLLM, LM Studio, OpenAI itself and what is compatible.

Its models are shown as Ollama would show them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.errors import UpstreamFailed
from daemon.clock import Clock
from daemon.config import Queue, UpstreamConfig
from daemon.dialects.openai_catalogue import CatalogueEntry, catalogue
from daemon.providers.names import is_remote_name
from daemon.providers.upstream import Model, Upstream


class OpenAiUpstream(Upstream):
    """Speaks OpenAI's dialect."""

    kind = "openai"

    def __init__(self, config: UpstreamConfig, *, queue: Queue, connect_timeout: float, clock: Clock) -> None:
        super().__init__(config, queue=queue, connect_timeout=connect_timeout, clock=clock)
        self._told: dict[str, float] = {}  # see `catalogue`

    async def list_models(self) -> list[Model]:
        # Where it is an Ollama's other face, its cloud models can be told by their names alone.
        return [Model.of(each.tags, remote=self.cloud or is_remote_name(each.name)) for each in await self._catalogue()]

    async def ask_version(self) -> str | None:
        return None

    async def running(self) -> list[dict[str, Any]]:
        # Such a server has its models loaded as long as it runs.
        return [each.ps for each in await self._catalogue() if not is_remote_name(each.name)]

    async def show(self, model: str, question: dict[str, Any]) -> tuple[int, bytes]:
        for each in await self._catalogue():
            if each.name == model:
                return 200, msgspec.json.encode(each.show)
        return 404, msgspec.json.encode({"error": f"model '{model}' not found"})

    async def can_chat(self, model: Model) -> bool:
        return model.chats

    async def count_tokens(self, model: str, document: dict[str, Any]) -> int | None:
        # llama.cpp and vLLM have Anthropic's route as well; who has not answers 404 or the like.
        status, body = await self.fetch("POST", "/v1/messages/count_tokens", {**document, "model": model})
        try:
            counted = msgspec.json.decode(body, type=_Counted) if status == 200 else None
        except msgspec.DecodeError:
            return None
        return None if counted is None else counted.input_tokens

    async def _catalogue(self) -> list[CatalogueEntry]:
        status, body = await self.fetch("GET", "/v1/models")
        if status != 200:
            raise UpstreamFailed(f"the upstream {self.name} answered {status} to /v1/models")
        return catalogue(body, self._told)


class _Counted(msgspec.Struct):
    input_tokens: int
