"""The words of an audit search (`user:ana@example.org state:ok since:1h text:"three words"`) made a filter.

Pure. The command line and the console's search field read the same words.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from common import times
from common.protocol import AuditFilter
from console import states

# What people may write -> the field of AuditFilter.
WORDS = {
    "user": "user",
    "key": "key",
    "model": "model",
    "state": "state",
    "route": "route",
    "upstream": "upstream",
    "address": "address",
    "client": "client_label",
    "client_label": "client_label",
    "request": "request_id",
    "request_id": "request_id",
    "since": "since",
    "until": "until",
    "text": "text",
}
_MOMENTS = ("since", "until")


def read_filter(words: Sequence[str], *, now: int | None = None) -> AuditFilter:
    """The filter that `words` mean; ValueError says which word is wrong. A word without a known name is searched for.

    A duration (`since:1h`) is counted back from `now`, Unix microseconds.
    """
    now = time.time_ns() // 1000 if now is None else now
    found: dict[str, str] = {}
    text: list[str] = []
    for word in words:
        name, colon, value = word.partition(":")
        field = WORDS.get(name.casefold()) if colon else None
        if field is None:
            if colon and name.isidentifier() and not value.startswith("//"):
                raise ValueError(f"{name!r} is nothing to filter by; there is {', '.join(sorted(WORDS))}")
            text.append(word)
        elif not value:
            raise ValueError(f"{word!r} lacks its value: write for instance user:ana@example.org")
        elif field == "text":
            text.append(value)
        elif field in found:
            raise ValueError(f"{name!r} is given twice")
        elif field == "state":
            found[field] = states.named(value)
        else:
            found[field] = times.iso(times.moment_of(value, now=now)) if field in _MOMENTS else value
    if text:
        found["text"] = " ".join(text)
    return msgspec.convert(found, AuditFilter)
