"""What a model's name means: pure functions over the names that are installed.

Rule: `name:tag`, the tag after the last slash; without one Ollama means `latest`. Names differ by more than case, and
`registry.ollama.ai/library/x` is `x`, as Ollama has it (types/model/name.go). What leaves the LAN is told here as well.
"""

from __future__ import annotations

from collections.abc import Collection

_IMPLIED = ("registry.ollama.ai/", "library/")  # host and namespace that Ollama fills in by itself


def meant_by(name: str, installed: Collection[str]) -> list[str]:
    """The installed models that `name` may mean: none, the one, or several among which only the client can choose.

    The very name wins, then its `:latest`, then the only installed tag of an untagged name.
    """
    if name in installed:
        return [name]
    short = _short(name)
    wanted = short if _tag(short) else f"{short}:latest"
    same = [each for each in installed if _short(each) == wanted]
    if same or _tag(short):
        return sorted(same)
    return sorted(each for each in installed if _base(_short(each)) == short)


def is_remote_name(name: str) -> bool:
    """Whether the name itself asks for Ollama's cloud (`glm-4.6:cloud`, `gpt-oss:120b-cloud`).

    Ollama serves those without their being installed (internal/modelref); `my-cloud`, without a tag, is a local name.
    """
    tag = _tag(name.strip()).strip().casefold()
    return tag == "cloud" or tag.endswith("-cloud")


def _short(name: str) -> str:
    name = name.strip().casefold()
    for implied in _IMPLIED:
        name = name.removeprefix(implied)
    return name


def _tag(name: str) -> str:
    _, colon, tag = name.rpartition(":")
    return tag if colon and "/" not in tag else ""


def _base(name: str) -> str:
    tag = _tag(name)
    return name[: -len(tag) - 1] if tag else name
