"""The search line of the audit: what is wrong with it while one types, what Tab makes of it. Pure.

It reads the words of `audit search` (`console/filters.py`); blanks in a value want quotation marks.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence

import msgspec

from common import times
from common.protocol import AuditFilter
from console import states
from console.filters import WORDS, read_filter

TEXT_SINCE = 24 * 3600 * times.SECOND  # how far back `text:` looks where nothing else is said
OFFERED = ("user:", "model:", "key:", "state:", "since:", "until:", "client:", "text:", "upstream:", "route:")
MOMENTS = ("10m", "1h", "24h", "7d", "30d")
STATES = states.NAMES
LONGEST = 4_000  # characters of a line: it is read anew with every key


def read_search(line: str, *, now: int | None = None) -> AuditFilter:
    """The filter that `line` means; ValueError says what is wrong. What it looks through is fixed here: `text:` without
    `since:` is the last day before `now`, Unix microseconds, on every further page of the answer, too."""
    now = time.time_ns() // 1000 if now is None else now
    if len(line) > LONGEST:
        raise ValueError(f"at most {LONGEST:,} characters")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError("a quotation mark is open") from error
    wanted = read_filter(words, now=now)
    if wanted.text and wanted.since is None:
        wanted = msgspec.structs.replace(wanted, since=times.iso(now - TEXT_SINCE))
    if wanted.state is not None and wanted.state not in STATES:
        raise ValueError(f"there is no state {wanted.state!r}; Tab shows them")
    if wanted.since is not None and wanted.until is not None and wanted.since >= wanted.until:
        raise ValueError("since: is not before until:")
    return wanted


def problem_of(line: str) -> str:
    """What is wrong with a search line; empty where it is good."""
    try:
        read_search(line)
    except ValueError as error:
        return str(error)
    return ""


def is_scan(wanted: AuditFilter) -> bool:
    """Whether the daemon must look at every row that the other words leave: that takes its time."""
    return any((wanted.text, wanted.route, wanted.upstream, wanted.address, wanted.client_label))


def completions(line: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines that `line` may become with its last word whole; `known` are the values there are, by word."""
    before, _, last = line.rpartition(" ")
    beginning = f"{before} " if before else ""
    name, colon, value = last.partition(":")
    if not colon:
        return [beginning + word for word in OFFERED if word.startswith(name.casefold()) and word not in line]
    fixed = {"state": STATES, "since": MOMENTS, "until": MOMENTS}
    values = fixed.get(name) or known.get(WORDS.get(name, name), ())
    fitting = sorted({each for each in values if each.casefold().startswith(value.casefold())})
    return [f"{beginning}{name}:{shlex.quote(each)}" for each in fitting]
