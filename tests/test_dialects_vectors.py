"""`dimensions` on every way: what a server read over is cut and normalised here, what it obeyed stays as it came."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from common.errors import BadRequest
from daemon.dialects.asks import Ask, read_embed
from daemon.dialects.openai_asks import read_embedding
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import UpstreamGarbled
from tests.rigs.feeding import SetClock, carried

LONG = [3.0, 4.0, 12.0]
CUT = [0.6, 0.8]


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def asked(client: str, **fields: Any) -> Ask:
    read = read_embed if client == "ollama" else read_embedding
    return read(json.dumps({"model": "m", "input": ["x", "y"]} | fields).encode())


def said(server: str, vector: Any) -> bytes:
    if server == "ollama":
        return json.dumps({"model": "m", "embeddings": [vector, vector], "prompt_eval_count": 2}).encode()
    data = [{"object": "embedding", "index": number, "embedding": vector} for number in range(2)]
    return json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}).encode()


def got(ask: Ask, server: str, answer: bytes) -> list[Any]:
    _, end = carried(translator_for(ask, server, SetClock()), [answer])
    whole = json.loads(end)
    return whole["embeddings"] if "embeddings" in whole else [entry["embedding"] for entry in whole["data"]]


@pytest.mark.parametrize("server", ["ollama", "openai"])
@pytest.mark.parametrize("client", ["ollama", "openai"])
def test_a_vector_has_as_many_numbers_as_it_was_to_have(client: str, server: str):
    """Whoever asks, and whatever the server made of the wish."""
    ask = asked(client, dimensions=2)
    assert got(ask, server, said(server, LONG)) == [pytest.approx(CUT), pytest.approx(CUT)]
    obeyed = [0.5, 0.25]  # not of length one: it is the server's own
    assert got(ask, server, said(server, obeyed)) == [obeyed, obeyed]
    assert got(asked(client, dimensions=9), server, said(server, LONG)) == [LONG, LONG]
    assert got(asked(client), server, said(server, LONG)) == [LONG, LONG]


@pytest.mark.parametrize("server", ["ollama", "openai"])
def test_a_vector_in_base64_is_cut_too(server: str):
    """Whether the server packs it or we do."""
    ask = asked("openai", dimensions=2, encoding_format="base64")
    assert got(ask, server, said(server, LONG)) == [packed(CUT)] * 2
    if server == "openai":
        assert got(ask, server, said(server, packed(LONG))) == [packed(CUT)] * 2
        assert got(ask, server, said(server, packed(CUT))) == [packed(CUT)] * 2


def test_what_the_server_obeyed_leaves_byte_for_byte():
    """And so does what nobody asked to be cut."""
    for client, ask in (("ollama", asked("ollama", dimensions=3)), ("ollama", asked("ollama")),
                        ("openai", asked("openai"))):  # fmt: skip
        answer = said(client, LONG).replace(b": ", b" :  ")
        assert carried(translator_for(ask, client, SetClock()), [answer])[1] == answer


@pytest.mark.parametrize("dimensions", [0, -1, "8", 1.5, True])
def test_dimensions_are_a_whole_number(dimensions: Any):
    """From one on; Ollama's dialect reads over what is less, as Ollama does."""
    with pytest.raises(BadRequest) as caught:
        asked("openai", dimensions=dimensions)
    assert caught.value.detail["param"] == "dimensions"
    if type(dimensions) is int:
        assert got(asked("ollama", dimensions=dimensions), "ollama", said("ollama", LONG)) == [LONG, LONG]


@pytest.mark.parametrize("junk", ["!", "AAA=", [1.0, "x", 2.0], 5])
@pytest.mark.parametrize("server", ["ollama", "openai"])
def test_what_is_no_vector_is_the_servers_failure(server: str, junk: Any):
    """Never a crash."""
    with pytest.raises(UpstreamGarbled):
        got(asked("openai", dimensions=2, encoding_format="base64"), server, said(server, junk))
    with pytest.raises(UpstreamGarbled):
        got(asked("ollama", dimensions=2), server, said(server, junk))
