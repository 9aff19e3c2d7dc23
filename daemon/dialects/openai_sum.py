"""What the deltas of OpenAI's streams add up to, for a client that wants one answer.

Rule: only the texts that the dialect tells in deltas are joined. Any other text may be repeated with every chunk (ids,
names, formats, verdicts): the last one that says something counts. Entries of a list that have an `index` are merged by
it, other lists are joined, objects are merged, the rest is replaced.
"""

from __future__ import annotations

from typing import Any

# The texts that come in deltas, by their way within a choice; lists on it are not named.
_JOINED = {
    "text": True,  # completions
    "delta": {
        "content": True,
        "refusal": True,
        "reasoning": True,
        "reasoning_content": True,
        "audio": {"data": True, "transcript": True},
        "function_call": {"arguments": True},
        "tool_calls": {"function": {"arguments": True}, "custom": {"input": True}},
        "reasoning_details": {"text": True, "summary": True},  # OpenRouter's
    },
}


def add_choice(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a chunk's choice to what came of it before."""
    _add(whole, part, _JOINED)


def _add(whole: dict[str, Any], part: dict[str, Any], joined: Any) -> None:
    for name, value in part.items():
        known = whole.get(name)
        way = joined.get(name) if isinstance(joined, dict) else None
        if value is None:
            whole.setdefault(name, None)
        elif known is None:
            whole[name] = _fresh(value, way)
        elif isinstance(value, str) and isinstance(known, str):
            whole[name] = known + value if way is True else value or known
        elif isinstance(value, dict) and isinstance(known, dict):
            _add(known, value, way)
        elif isinstance(value, list) and isinstance(known, list):
            _add_list(known, value, way)
        elif name == "content" and isinstance(value, str | list) and isinstance(known, str | list):
            whole[name] = [*_parts(known), *_parts(value)]
        else:
            whole[name] = value


def _parts(content: str | list[Any]) -> list[Any]:
    """Content as parts; a model of Mistral's thinks in parts and goes on in plain text."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _fresh(value: Any, way: Any) -> Any:
    if isinstance(value, dict):
        fresh: dict[str, Any] = {}
        _add(fresh, value, way)
        return fresh
    if isinstance(value, list):
        entries: list[Any] = []
        _add_list(entries, value, way)
        return entries
    return value


def _add_list(known: list[Any], added: list[Any], way: Any) -> None:
    for entry in added:
        same = next((each for each in reversed(known) if _goes_on(each, entry)), None)
        if same is None:
            known.append(_fresh(entry, way))
        else:
            _add(same, entry, way)


def _goes_on(known: Any, entry: Any) -> bool:
    """Whether a numbered entry goes on with a known one; some servers give every tool call the same number."""
    if not isinstance(known, dict) or not isinstance(entry, dict) or entry.get("index") is None:
        return False
    if known.get("index") != entry["index"]:
        return False
    return all(known[name] == entry[name] for name in ("id", "type") if known.get(name) and entry.get(name))
