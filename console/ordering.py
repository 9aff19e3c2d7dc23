"""The order of a table's rows: by a column, filtered, and held still for a moment under the cursor. Pure.

Rule: a row that somebody is looking at does not jump away. While the order is held, rows that went are taken out and
new ones stand at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

HOLD = 3.0  # seconds after a key in which rows keep their places


def sorted_ids(rows: Mapping[str, Any], key: Callable[[Any], Any] | None, *, descending: bool) -> list[str]:
    """The ids of `rows` by `key`; rows whose key is None stand last either way, equal ones keep their order."""
    if key is None:
        return list(rows)
    keyed = [(key(row), row_id) for row_id, row in rows.items()]
    with_value = [pair for pair in keyed if pair[0] is not None]
    with_value.sort(key=lambda pair: pair[0], reverse=descending)
    return [row_id for _, row_id in with_value] + [row_id for value, row_id in keyed if value is None]


def held(before: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The rows of `wanted`, those that stood there `before` in their old places."""
    present = set(wanted)
    kept = [row_id for row_id in before if row_id in present]
    known = set(kept)
    return kept + [row_id for row_id in wanted if row_id not in known]


class Matcher:
    """Whether a row has every word of a filter in it, upper or lower case; `!word` must not be in it."""

    def __init__(self, text: str) -> None:
        words = text.casefold().split()
        self._wanted = [word for word in words if not word.startswith("!")]
        self._unwanted = [word[1:] for word in words if word.startswith("!") and len(word) > 1]

    def __bool__(self) -> bool:
        return bool(self._wanted or self._unwanted)

    def __call__(self, texts: Iterable[str]) -> bool:
        whole = "\n".join(texts).casefold()
        return all(word in whole for word in self._wanted) and not any(word in whole for word in self._unwanted)
