"""Which translator stands between a client's ask and an upstream's kind: the one table of them.

Rule: the relay and the providers ask here and know no translator by name; a new pair is a row.
"""

from __future__ import annotations

from collections.abc import Callable

from common.errors import BadRequest
from daemon.clock import Clock
from daemon.dialects.asks import Ask, Shape
from daemon.dialects.ollama import OllamaStream, OllamaVectors, OllamaWhole
from daemon.dialects.ollama_to_openai import NothingOverOpenAi, OllamaOverOpenAi, VectorsOverOpenAi
from daemon.dialects.translator import Translator

_VECTORS = (Shape.EMBED, Shape.EMBEDDINGS)


def translator_for(ask: Ask, upstream_kind: str, clock: Clock) -> Translator:
    """The translator for one exchange. `upstream_kind` is "ollama" or "openai".

    BadRequest where the upstream could only answer something else than what was asked.
    """
    choose = _PAIRS.get((ask.shape.partition(".")[0], upstream_kind))
    if choose is None:
        raise BadRequest(f"{ask.route} is not possible with the model {ask.model!r}: its server does not speak it")
    return choose(ask, clock)


def _ollama(ask: Ask, clock: Clock) -> Translator:
    if ask.shape in _VECTORS:
        return OllamaVectors(ask)
    return OllamaStream(ask) if ask.stream else OllamaWhole(ask)


def _ollama_to_openai(ask: Ask, clock: Clock) -> Translator:
    if ask.empty:
        return NothingOverOpenAi(ask, clock)
    return VectorsOverOpenAi(ask, clock) if ask.shape in _VECTORS else OllamaOverOpenAi(ask, clock)


_PAIRS: dict[tuple[str, str], Callable[[Ask, Clock], Translator]] = {
    ("ollama", "ollama"): _ollama,
    ("ollama", "openai"): _ollama_to_openai,
}
