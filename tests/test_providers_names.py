"""Rows 7, 10 and 13: what the name of a model means, and which names ask for somebody else's computer."""

from __future__ import annotations

import pytest

from daemon.providers.names import is_remote_name, meant_by

INSTALLED = [
    "llama2:latest",
    "llama2:13b",
    "phi:2.7b",
    "qwen3:0.6b",
    "qwen3:8b",
    "ana/notes:v1",
    "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
    "bare",
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llama2:13b", ["llama2:13b"]),
        ("llama2", ["llama2:latest"]),
        ("llama2:latest", ["llama2:latest"]),
        ("phi", ["phi:2.7b"]),  # the only installed tag
        ("qwen3", ["qwen3:0.6b", "qwen3:8b"]),  # which one, only the client can say
        ("qwen3:4b", []),  # another tag never stands in for the one that was asked for
        ("mistral", []),
        ("", []),
        (":latest", []),
        ("llama", []),  # a beginning is not a name
        ("LLama2", ["llama2:latest"]),
        (" phi ", ["phi:2.7b"]),
        ("library/llama2", ["llama2:latest"]),
        ("registry.ollama.ai/library/qwen3:8b", ["qwen3:8b"]),
        ("ana/notes", ["ana/notes:v1"]),
        ("notes", []),  # somebody's own namespace is not the library
        ("hf.co/bartowski/llama-3.2-1b-instruct-gguf:q4_k_m", [INSTALLED[6]]),
        ("bare", ["bare"]),  # OpenAI-like servers have names without tags
        ("bare:latest", []),
    ],
)
def test_a_name_means_what_ollama_takes_it_for(name: str, meant: list[str]) -> None:
    """The very name, then `:latest`, then the only tag; several are told, none is none."""
    assert meant_by(name, INSTALLED) == meant


def test_the_very_name_wins_over_one_that_differs_by_case() -> None:
    """Two servers may spell a model differently: who spells it exactly is not asked back."""
    both = ["Phi:latest", "phi:latest"]
    assert meant_by("Phi:latest", both) == ["Phi:latest"]
    assert meant_by("PHI", both) == both


@pytest.mark.parametrize(
    "name", ["glm-4.6:cloud", "gpt-oss:120b-cloud", "GLM:CLOUD", "ana/x:Big-Cloud", "x: cloud ", "qwen3:8b:cloud"]
)
def test_names_of_the_cloud_are_recognised(name: str) -> None:
    """Ollama forwards these to ollama.com, installed or not (internal/modelref)."""
    assert is_remote_name(name)


@pytest.mark.parametrize("name", ["my-cloud", "cloudy:7b", "cloud/phi:latest", "phi:cloudless", "a:b-cloud/c", "cloud"])
def test_names_that_only_sound_like_it_are_local(name: str) -> None:
    """The cloud is in the tag, nowhere else."""
    assert not is_remote_name(name)
