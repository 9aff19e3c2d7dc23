"""What clients of Ollama ask is read as Ollama reads it, and refused in Ollama's words.

The errors marked so were taken from a real Ollama 0.9.3, word for word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from common.errors import BadRequest
from daemon.dialects.asks import (
    Ask,
    Shape,
    keep_alive_seconds,
    read_chat,
    read_embed,
    read_embeddings,
    read_generate,
)

Read = Callable[..., Ask]
READERS: list[Read] = [read_chat, read_generate, read_embed, read_embeddings]
HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_each_route_has_its_shape():
    """The four inference routes, where they go upstream and whether they stream."""
    asks = [read(body(model="m")) for read in READERS]
    assert [(ask.route, ask.shape, ask.stream) for ask in asks] == [
        ("/api/chat", Shape.CHAT, True),
        ("/api/generate", Shape.GENERATE, True),
        ("/api/embed", Shape.EMBED, False),
        ("/api/embeddings", Shape.EMBEDDINGS, False),
    ]


@pytest.mark.parametrize(("stream", "streams"), [(True, True), (None, True), (False, False)])
@pytest.mark.parametrize("read", [read_chat, read_generate])
def test_streaming_is_on_unless_switched_off(read: Read, stream: bool | None, streams: bool):
    """As Ollama has it; null is as good as absent."""
    assert read(body(model="m", stream=stream)).stream is streams


def test_everything_else_passes_through():
    """Unknown fields, and what only Ollama understands, stay as they are, in their order."""
    fields = {
        "model": "m",
        "brand_new": {"Deep": [1, {"X": 1, "x": 2}]},
        "messages": [{"role": "user", "content": "hi", "novel": 1, "images": ["aGk="]}],
        "tools": [{"type": "function", "function": {"parameters": {"properties": {"A": 1, "a": 2}}}}],
        "format": {"properties": {"B": {}, "b": {}}},
        "options": {"num_ctx": 4096, "unheard_of": [1]},
        "keep_alive": "5m",
    }
    ask = read_chat(body(**fields))
    assert list(ask.document.items()) == list(fields.items())


@pytest.mark.parametrize("read", [read_chat, read_generate, read_embed, read_embeddings])
@pytest.mark.parametrize("name", ["auth", "AUTH"])
def test_an_inline_credential_is_taken_out(read: Read, name: str):
    """Contract C5: it is neither forwarded nor recorded, in whatever spelling; only there, where it is one."""
    ask = read(body(model="m", options={"auth": 1}, **{name: {"username": "a", "password": "secret"}}))
    assert ask.document == {"model": "m", "options": {"auth": 1}}
    with pytest.raises(BadRequest, match="differ only in case"):
        read(body(model="m", auth=1, Auth=2))


def test_a_body_needs_no_content_type_and_may_be_long():
    """A prompt of five thousand ampersands is a prompt."""
    assert read_generate(body(model="m", prompt="&" * 5000)).document["prompt"] == "&" * 5000


def test_keys_in_another_case_count_and_are_forwarded_in_their_own():
    """Ollama takes `MODEL`, `meſſages`, `Role` and so do we, before any policy looks."""
    raw = '{"MODEL":"m","meſſages":[{"Role":"user","CONTENT":"x"}],"Options":{"NUM_CTX":1},"STREAM":false}'
    ask = read_chat(raw.encode())
    assert (ask.model, ask.stream) == ("m", False)
    assert ask.document == {
        "model": "m", "messages": [{"role": "user", "content": "x"}], "options": {"num_ctx": 1}, "stream": False
    }  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        '{"model":"a","MODEL":"b"}',
        '{"model":"m","options":{"num_ctx":1,"Num_Ctx":2}}',
        '{"model":"m","messages":[{"role":"user","content":"x"},{"role":"user","Content":"y","content":"z"}]}',
        '{"model":"m","messages":[{"role":"user","ſtuff":1,"stuff":2}]}',
    ],
)
def test_two_spellings_of_one_key_are_refused(raw: str):
    """At the top, in options and in messages: the last one would win in Ollama, whatever a policy saw."""
    with pytest.raises(BadRequest, match="differ only in case"):
        read_chat(raw.encode())


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"model": None}])
def test_a_model_must_be_named_unless_there_is_a_default(read: Read, fields: dict[str, Any]):
    """Ollama's words for a chat without a model; with a default the default serves."""
    for default in (None, ""):
        with pytest.raises(BadRequest, match=r"^model is required$"):
            read(body(**fields), default)
    assert read(body(**fields), "house").model == "house"
    assert read(body(model="own"), "house").model == "own"


IN_OLLAMAS_WORDS = [
    (read_chat, b"", "missing request body"),
    (read_chat, b"[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
    (read_chat, body(model=5), "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
    (
        read_chat,
        body(model="m", messages="x"),
        "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
    ),
    (
        read_chat,
        body(model="m", messages=[{"role": 5}]),
        "json: cannot unmarshal number into Go struct field ChatRequest.messages.role of type string",
    ),
    (
        read_chat,
        body(model="m", messages=[{"role": "user", "content": ["x"]}]),
        "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
    ),
    (
        read_chat,
        body(model="m", stream="no"),
        "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool",
    ),
    (
        read_chat,
        body(model="m", options=[]),
        "json: cannot unmarshal array into Go struct field ChatRequest.options of type map[string]interface {}",
    ),
    (
        read_generate,
        body(model="m", prompt=5),
        "json: cannot unmarshal number into Go struct field GenerateRequest.prompt of type string",
    ),
    (
        read_embeddings,
        body(model="m", prompt={}),
        "json: cannot unmarshal object into Go struct field EmbeddingRequest.prompt of type string",
    ),
    (
        read_embed,
        body(model=True),
        "json: cannot unmarshal bool into Go struct field EmbedRequest.model of type string",
    ),
]


@pytest.mark.parametrize(("read", "raw", "words"), IN_OLLAMAS_WORDS)
def test_wrong_types_are_refused_in_ollamas_words(read: Read, raw: bytes, words: str):
    """A client that knows Ollama's errors meets them here."""
    with pytest.raises(BadRequest) as caught:
        read(raw)
    assert (caught.value.status, caught.value.message) == (400, words)


def test_a_message_is_an_object():
    """Not a string in a list."""
    with pytest.raises(BadRequest, match=r"cannot unmarshal string into Go struct field ChatRequest\.messages"):
        read_chat(body(model="m", messages=["hello"]))


@pytest.mark.parametrize(
    ("ask", "empty"),
    [
        (read_chat(body(model="m")), True),
        (read_chat(body(model="m", messages=[])), True),
        (read_chat(body(model="m", messages=HELLO)), False),
        (read_generate(body(model="m", keep_alive=0)), True),
        (read_generate(body(model="m", prompt="")), True),
        (read_generate(body(model="m", prompt="x", keep_alive=0)), False),
        (read_embed(body(model="m")), True),
        (read_embed(body(model="m", input=[])), True),
        (read_embed(body(model="m", input=["x"])), False),
        (read_embeddings(body(model="m", prompt="x")), False),
    ],
)
def test_a_request_to_load_or_unload_is_told_from_one_to_infer(ask: Ask, empty: bool):
    """Without messages, prompt or input there is nothing to infer."""
    assert ask.empty is empty


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0),
        (300, 300),
        (1.5, 1.5),
        (-1, math.inf),
        ("0", 0),
        ("0s", 0),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("250ms", 0.25),
        ("-1s", math.inf),
        ("+2s", 2),
    ],
)
def test_keep_alive_is_a_number_or_a_duration(value: Any, seconds: float | None):
    """As Ollama reads it; what is negative is for ever."""
    assert keep_alive_seconds(value) == seconds


@pytest.mark.parametrize("value", ["", "abc", "5", "5 m", "m", "1d", "5m ", "--5m", "٥m", {}, [], True])
def test_no_other_keep_alive_is_taken(value: Any):
    """`5` has no unit, `1d` one that Go does not know; other kinds are none."""
    with pytest.raises(BadRequest, match=r"time: invalid duration|keep_alive must be"):
        keep_alive_seconds(value)
