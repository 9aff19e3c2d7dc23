"""The real Ollama that other tests lean on is what its rig says: the version, both models, streaming, embeddings."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.rigs.real_ollama import CHAT_MODEL, EMBEDDING_MODEL, RealOllama

pytestmark = pytest.mark.real_ollama


def test_it_is_the_version_that_the_wire_page_speaks_of(real_ollama: RealOllama) -> None:
    """Ollama 0.9.3, with a chat model and an embedding model installed."""
    assert httpx.get(f"{real_ollama.url}/api/version").json() == {"version": "0.9.3"}
    models = httpx.get(f"{real_ollama.url}/api/tags").json()["models"]
    assert {model["name"] for model in models} == {CHAT_MODEL, EMBEDDING_MODEL}


def test_it_streams_and_embeds(real_ollama: RealOllama) -> None:
    """A streamed chat ends with `done:true` and its counts; an embedding has 384 dimensions."""
    chat = {
        "model": CHAT_MODEL,
        "messages": [{"role": "user", "content": "Say hello."}],
        "options": {"num_predict": 5},
    }
    lines = httpx.post(f"{real_ollama.url}/api/chat", json=chat, timeout=60).text.splitlines()
    last = json.loads(lines[-1])
    assert last["done"] is True
    assert last["eval_count"] == 5
    embed = {"model": EMBEDDING_MODEL, "input": "hello"}
    vectors = httpx.post(f"{real_ollama.url}/api/embed", json=embed, timeout=60).json()["embeddings"]
    assert [len(vector) for vector in vectors] == [384]
