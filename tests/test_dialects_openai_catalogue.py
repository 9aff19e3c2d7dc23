"""An OpenAI upstream's models are listed as Ollama lists models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.dialects.openai_catalogue import catalogue
from daemon.dialects.translator import UpstreamGarbled

CAPTURES = Path(__file__).parent / "captures"


def test_the_built_in_engines_model_is_listed_with_what_it_tells():
    """llama.cpp's real list: size, parameters, quantization and context."""
    (entry,) = catalogue((CAPTURES / "llama_cpp_models.json").read_bytes(), {})
    assert entry.name == "smollm2:135m"
    assert (entry.tags["name"], entry.tags["model"], entry.tags["size"]) == ("smollm2:135m", "smollm2:135m", 96576768)
    assert entry.tags["details"] == {
        "parent_model": "", "format": "gguf", "family": "", "families": [], "parameter_size": "134.52M",
        "quantization_level": "Q4_1",
    }  # fmt: skip
    assert entry.tags["modified_at"].startswith("20")
    assert (entry.ps["context_length"], entry.ps["size_vram"], entry.ps["size"]) == (2048, 0, 96576768)
    assert entry.show["capabilities"] == ["completion"]
    assert entry.show["model_info"] == {
        "general.architecture": "unknown", "general.parameter_count": 134515008,
        "unknown.context_length": 8192, "unknown.embedding_length": 576,
    }  # fmt: skip


def test_a_server_that_tells_only_names_is_listed_too():
    """What is not told is empty or absent; the digest tells models apart and stays the same."""
    raw = b'{"object":"list","data":[{"id":"org/a","object":"model","created":1767323045},{"id":"b"}]}'
    first, second = catalogue(raw, {})
    assert first.tags["modified_at"] == "2026-01-02T03:04:05Z"
    assert (first.tags["size"], first.tags["details"]["parameter_size"]) == (0, "")
    assert first.show["model_info"] is None, "where it is empty `ollama show` panics"
    assert "context_length" not in first.ps
    assert first.tags["digest"] != second.tags["digest"]
    assert first.ps["digest"] == catalogue(raw.replace(b"1767323045", b"1"), {})[0].tags["digest"]
    assert len(first.tags["digest"]) == 64


def test_a_model_keeps_the_time_that_was_told_first():
    """llama.cpp tells as `created` when it was asked; a model that is the same was not modified meanwhile."""
    raw = (CAPTURES / "llama_cpp_models.json").read_bytes()
    created = json.loads(raw)["data"][0]["created"]
    later = raw.replace(str(created).encode(), str(created + 3600).encode())
    told: dict[str, float] = {}
    (before,), (after,) = catalogue(raw, told), catalogue(later, told)
    assert after.tags["modified_at"] == before.tags["modified_at"]
    assert after.show["modified_at"] == before.show["modified_at"]
    other = later.replace(b'"n_params":134515008', b'"n_params":134515009')
    assert catalogue(other, told)[0].tags["modified_at"] != before.tags["modified_at"], "another model of that name"


@pytest.mark.parametrize(
    ("count", "words"),
    [(134_515_008, "134.52M"), (7_615_616_512, "7.6B"), (70_000_000_000, "70B"), (2_000_000, "2M"), (999, "999")],
)
def test_sizes_are_written_as_ollama_writes_them(count: int, words: str):
    """With its digits."""
    (entry,) = catalogue(
        b'{"data":[{"id":"m","meta":{"n_params":%d},"architecture":{"input_modalities":["image"]}}]}' % count, {}
    )
    assert entry.tags["details"]["parameter_size"] == words
    assert entry.show["capabilities"] == ["completion", "vision"]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"data":[{}]}', b"<html>"])
def test_what_is_no_list_of_models_is_an_error(raw: bytes):
    """Rather than an empty list."""
    with pytest.raises(UpstreamGarbled):
        catalogue(raw, {})
