"""One inference server behind the gate: its connections, its seats, its models, how it is doing.

    unknown -> ok <-> down          down: no connection, three broken answers in a row, or no list when asked
                                    ok: an answer that was whole

Rules: what it has is what it last said (`look`); how it is doing is told by every request to it, so that a dead one is
known without asking. What leaves the LAN (a cloud provider, an Ollama's cloud models) is neither asked nor listed until
an administrator enabled it. What differs between kinds of servers is in the sub-classes (`ollama.py`, `openai.py`,
`anthropic.py`); what its answers mean is the dialects' business.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.errors import GatewayError, UpstreamFailed
from daemon.clock import Clock
from daemon.config import Queue, UpstreamConfig
from daemon.dialects.asks import Ask
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import Translator
from daemon.providers.circuit import EVERYBODY, Circuits
from daemon.providers.discretion import Discretion
from daemon.providers.errors import ConnectFailed, OutOfDescriptors
from daemon.providers.http import Body, Pool, Request, verifying_context
from daemon.traffic.seats import Seats

log = logging.getLogger("gatelodge.upstream")

PATIENCE = 5.0  # seconds for a list or a look
SHOW_PATIENCE = 30.0  # seconds for the details of one model, which Ollama may have to read from a slow disk
LARGEST_LIST = 16 * 1024 * 1024
FAILURES_UNTIL_DOWN = 3  # broken answers in a row; one refused connection is enough

State = Literal["unknown", "ok", "down"]


@dataclass(frozen=True, slots=True)
class Model:
    """An installed model. `entry` is what Ollama's list of models says of it, `installed` since when (Unix seconds).

    `chats`: whether it looks as if it were for talking; `Upstream.can_chat` knows better. `remote`: asking it sends the
    prompt out of the LAN.
    """

    name: str
    entry: dict[str, Any]
    chats: bool
    installed: float
    remote: bool = False

    @classmethod
    def of(cls, entry: dict[str, Any], *, remote: bool = False) -> Model:
        """From a row of Ollama's list."""
        return cls(str(entry["name"]), entry, _looks_chatting(entry), _installed(entry), remote)


class Upstream(ABC):
    """See the module. `models` is None until it first answered."""

    kind: str
    authorization = ""  # the header's value by which the gate shows itself; a secret

    def __init__(self, config: UpstreamConfig, *, queue: Queue, connect_timeout: float, clock: Clock) -> None:
        self.config = config
        self.name = config.name
        self.url = config.url
        self.cloud = config.is_cloud
        self.enabled = False  # whether what leaves the LAN may be asked; the rest needs no enabling
        self.has_key = False
        self.configured_seats = config.seats  # `seats.size` is what holds now
        # The SDKs' base URL of an OpenAI-like server ends in /v1, which our targets begin with.
        base = config.url if self.kind == "ollama" else config.url.rstrip("/").removesuffix("/v1")
        self.pool = Pool(
            base,
            name=config.name,
            connect_timeout=connect_timeout,
            tls=verifying_context(Path(config.authority)) if config.authority else None,
            proxy=config.proxy,
            outcome=self._noted,
        )
        self.use_key("")
        self.seats = Seats(
            config.name,
            config.seats,
            queue_size=queue.size,
            per_user=queue.per_user,
            longest_wait=queue.longest_wait,
        )
        self.models: dict[str, Model] | None = None
        self.version: str | None = None
        self.state: State = "unknown"
        self.error = ""  # how it failed last; kept when it recovers, for people
        self.latency: float | None = None  # seconds of the last look
        self.probed_seats: int | None = None
        self.loaded: list[dict[str, Any]] | None = None  # what was in its memory when it was looked at last
        self.looked_at = -math.inf  # event-loop time of the last look
        self.changed: Callable[[], None] = lambda: None  # told when its state changed; must not wait
        self._clock = clock
        self._failures = 0
        self._here: dict[str, Model] = {}  # of `models`, those that stay on the LAN
        self._remote: dict[str, Model] = {}
        self._circuits = Circuits()  # of models that failed lately

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {self.kind} {self.state}, {self.seats!r}>"

    @property
    def healthy(self) -> bool:
        """Whether it served what it was last asked."""
        return self.state == "ok"

    def use_key(self, key: str) -> None:
        """Show it this secret from now on; empty: none."""
        self.has_key = bool(key)
        self.discretion = Discretion(self.name, key)
        self.authorization = f"Bearer {key}" if key else ""
        self.pool.identify([("Authorization", self.authorization)] if key else [])

    # --- what it has ---

    @property
    def is_asked(self) -> bool:
        """Whether it may be asked at all."""
        return self.enabled or not self.cloud

    def models_of(self, remote: bool) -> dict[str, Model]:
        """Its models that leave the LAN, or those that do not."""
        return self._remote if remote else self._here

    def leaves_lan(self, model: str) -> bool:
        """Whether asking the model sends the prompt out of the LAN."""
        return self.cloud or model in self._remote

    def has_loaded(self, model: str) -> bool:
        """Whether the model is in its memory, as far as is known. Servers that are no Ollama load nothing on demand."""
        return True

    def have(self, models: Iterable[Model]) -> None:
        """From now on it has these."""
        served = [model for model in models if self.enabled or not model.remote]
        self.models = {model.name: model for model in served}
        self._here = {model.name: model for model in served if not model.remote}
        self._remote = {model.name: model for model in served if model.remote}

    # --- whether a model of it may be asked now: `circuit.py` ---

    def rests(self, model: str, user: int = EVERYBODY) -> float:
        """Seconds that `user` is to leave it alone with this model; 0: it may be asked."""
        return self._circuits.wait(model, user, self._now())

    def resting(self) -> list[str]:
        """The models that everybody leaves alone for a while."""
        return self._circuits.resting(self._now())

    def may_ask(self, model: str, user: int) -> bool:
        """Whether a request may go out to the model now; of one that rested, this is the one that tries."""
        return self._circuits.ask(model, user, self._now())

    def went_well(self, model: str, user: int) -> None:
        """The model answered."""
        if self._circuits.succeeded(model, user):
            self.changed()

    def went_wrong(self, model: str, user: int, come_back: float | None = None) -> None:
        """The model failed by the upstream's fault; `come_back`: it said after how many seconds to ask again."""
        now = self._now()
        if come_back is not None:
            self._circuits.rest(model, now, come_back)
        else:
            self._circuits.failed(model, user, now)
        wait = self._circuits.wait(model, user, now)
        if wait:
            whose = "everybody" if self._circuits.wait(model, EVERYBODY, now) else f"user {user}"
            log.warning("the upstream %s is not asked for %s for %.0f s by %s", self.name, model, wait, whose)
            self.changed()

    def told_nothing(self, model: str, user: int) -> None:
        """A request to the model ended without telling how it is doing."""
        self._circuits.left(model, user)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: Body | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Request:
        """A request to it; see `Pool.request`. UpstreamFailed for a cloud provider that nobody enabled."""
        if not self.is_asked:
            raise UpstreamFailed(f"the upstream {self.name} is outside of this network and not enabled")
        given = headers if body is None or any(name == "Content-Type" for name, _ in headers) else (*headers, _JSON)
        return self.pool.request(method, target, headers=given, body=body, on_sent=on_sent)

    def translator(self, ask: Ask) -> Translator:
        """Between the client's dialect and this server's. BadRequest where it cannot do what is asked."""
        return translator_for(ask, self.kind, self._clock, host=self.pool.host)

    async def look(self) -> None:
        """Ask what it has. What goes wrong is noted, not raised."""
        loop = asyncio.get_running_loop()
        started = self.looked_at = loop.time()
        if not self.is_asked:
            self.have(())
            return
        try:
            async with asyncio.timeout(PATIENCE):
                models = await self.list_models()
                self.version = await self.ask_version()
        except TimeoutError:
            self._down(f"the upstream {self.name} did not tell its models within {PATIENCE:g} seconds")
        except OutOfDescriptors:
            pass  # ours, and soon over: it says nothing about the upstream
        except GatewayError as error:
            # The wire's failures were noted already; what it said in an error answer was not.
            self._down(error.message)
        else:
            self.have(models)
            self.latency = loop.time() - started
            self._up()

    async def look_at_memory(self) -> None:  # noqa: B027 - most have nothing to look at
        """See what is loaded, which decides who serves a model. What goes wrong is nobody's business."""

    async def close(self) -> None:
        """Close its connections."""
        await self.pool.close()

    @abstractmethod
    async def list_models(self) -> list[Model]:
        """The models it has; those that leave the LAN are marked. UpstreamFailed."""

    @abstractmethod
    async def ask_version(self) -> str | None:
        """Ollama's version, None where it is no Ollama. UpstreamFailed."""

    @abstractmethod
    async def running(self) -> list[dict[str, Any]]:
        """What is loaded, as Ollama's /api/ps says it. UpstreamFailed."""

    @abstractmethod
    async def show(self, model: str, question: dict[str, Any]) -> tuple[int, bytes]:
        """(status, body) of Ollama's /api/show for `model`; `question` is what the client asked. UpstreamFailed."""

    @abstractmethod
    async def can_chat(self, model: Model) -> bool:
        """Whether the model is for talking rather than for embedding; where it does not tell, by its looks."""

    async def count_tokens(self, model: str, document: dict[str, Any]) -> int | None:
        """The tokens of a request of Anthropic's messages, as the server counts them; None where it cannot.

        UpstreamFailed where it does not answer; what it says in an error answer is passed on.
        """
        return None

    async def fetch(
        self, method: str, target: str, question: Any = None, *, patience: float = PATIENCE
    ) -> tuple[int, bytes]:
        """A small answer as a whole: (status, body). UpstreamFailed, 504 after `patience` seconds."""
        body = None if question is None else msgspec.json.encode(question)
        try:
            async with asyncio.timeout(patience):
                async with self.request(method, target, body=body) as response:
                    answer = await response.read(LARGEST_LIST)
                    return response.status, self.discretion.body(response.status, answer)
        except TimeoutError as error:
            raise UpstreamFailed(
                f"the upstream {self.name} did not answer {target} within {patience:g} seconds", status=504
            ) from error

    async def fetch_json(self, target: str) -> Any:
        """The JSON of a GET that must succeed. UpstreamFailed."""
        status, body = await self.fetch("GET", target)
        if status != 200:
            raise UpstreamFailed(f"the upstream {self.name} answered {status} to {target}")
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise UpstreamFailed(
                f"the upstream {self.name} answered {target} with something that is no JSON"
            ) from error

    # --- health, as requests tell it ---

    def _noted(self, failure: UpstreamFailed | None) -> None:
        if failure is None:
            self._failures = 0
            self._up()
            return
        self._failures += 1
        if isinstance(failure, ConnectFailed) or self._failures >= FAILURES_UNTIL_DOWN:
            self._down(failure.message)

    def _up(self) -> None:
        if self.state != "ok":
            if self.state == "down":
                log.info("the upstream %s answers again", self.name)
            self.state = "ok"
            self.changed()

    def _down(self, why: str) -> None:
        self.error = why
        if self.state != "down":
            self.state = "down"
            log.warning("the upstream %s is down: %s", self.name, why)
            self.changed()


_JSON = ("Content-Type", "application/json")

# What tells a model that only embeds, where nothing tells its capabilities: its family, or its name.
_EMBEDDING_FAMILIES = ("bert", "nomic-bert", "nomic-bert-moe", "xlm-roberta", "jina-bert-v2")
_EMBEDDING_NAMES = ("embed", "minilm", "bge-")


def _looks_chatting(entry: dict[str, Any]) -> bool:
    capabilities = entry.get("capabilities")
    if isinstance(capabilities, list):
        return "completion" in capabilities
    details = entry.get("details")
    family = details.get("family") if isinstance(details, dict) else None
    name = str(entry["name"]).casefold()
    return family not in _EMBEDDING_FAMILIES and not any(word in name for word in _EMBEDDING_NAMES)


def _installed(entry: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(entry.get("modified_at"))).timestamp()
    except (ValueError, OverflowError):
        return math.inf  # unknown: after those of which it is known
