"""What Tab makes of the words of a command: the daemon's own names, and the few fixed ones. In a shell and behind `:`.

Rule: it is silent where it cannot help, asks nothing that would be recorded, and offers only words that no shell reads
as anything but words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from common import paths, protocol
from common.protocol import JobsList, KeysList, LimitsShow, ModelsList, Nothing, Request, UsersList, Verb
from console.client import Client, Refused, Unreachable

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
SPANS = ("1h", "24h", "7d", "30d", "90d")
PATIENCE = 2.0  # seconds for the daemon
_STATES = ("open", "ok", "refused")


def names(context: click.Context, verb: Verb[Any, Any], request: Request, *fields: str) -> set[str]:
    """The values of these fields in the rows that `verb` answers; none where it cannot be asked."""
    try:
        socket = paths.find_socket(context.find_root().params.get("socket"))
        rows = Client(socket, timeout=PATIENCE).ask(verb, request)
    except (Unreachable, Refused):
        return set()
    return {str(value) for row in rows for name in fields if (value := getattr(row, name))}


def fitting(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of `words` that begin so. Foreign words end up in the shell's line: only those that are plain."""
    return [CompletionItem(word) for word in sorted(set(words)) if word.startswith(incomplete) and _is_plain(word)]


def completes(verb: Verb[Any, Any], request: Request, *fields: str) -> Complete:
    """Completion from the daemon: the fields of the rows that `verb` answers."""
    return lambda context, _, incomplete: fitting(names(context, verb, request, *fields), incomplete)


def one_of(*words: str) -> Complete:
    """Completion from a few fixed words; others may be typed."""
    return lambda _, __, incomplete: fitting(words, incomplete)


def targets(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whom limits are of: `default`, everybody by address, keys, models, and the addresses that have some."""
    words = {"default"} | names(context, protocol.LIMITS_SHOW, LimitsShow(), "target")
    people = names(context, protocol.USERS_LIST, UsersList(), "email")
    words |= people
    if incomplete:  # who has typed nothing yet need not see each of them twice
        words |= {f"user:{email}" for email in people}
    words |= {f"key:{key}" for key in names(context, protocol.KEYS_LIST, KeysList(), "id")}
    words |= {f"model:{model}" for model in names(context, protocol.MODELS_LIST, ModelsList(), "name")}
    return fitting(words, incomplete)


def search_words(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The filters of `audit search`, then the values that there are."""
    name, colon, _value = incomplete.partition(":")
    if not colon:
        offered = ("user:", "model:", "key:", "state:", "since:", "until:", "client:", "text:", "upstream:", "route:")
        return fitting((*offered, "address:", "request:"), incomplete)
    values: Iterable[str] = ()
    match name:
        case "user":
            values = names(context, protocol.USERS_LIST, UsersList(), "email")
        case "key":
            values = names(context, protocol.KEYS_LIST, KeysList(all=True), "id")
        case "model":
            values = names(context, protocol.MODELS_LIST, ModelsList(), "name")
        case "upstream":
            values = names(context, protocol.UPSTREAMS_LIST, Nothing(), "name")
        case "request":
            values = request_names(context)
        case "state":
            from typing import get_args

            values = {*_STATES, *get_args(protocol.EndedState)}
        case "since" | "until":
            values = SPANS
    return fitting((f"{name}:{value}" for value in values), incomplete)


def admin_words(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The filters of `audit admin`."""
    verbs = {f"verb:{verb.name.partition('/')[0]}" for verb in protocol.VERBS}
    spans = {f"{word}:{span}" for word in ("since", "until") for span in SPANS}
    if ":" in incomplete:
        return fitting(verbs | spans, incomplete)
    return fitting(("actor:", "verb:", "target:", "since:", "until:"), incomplete)


def request_names(context: click.Context) -> set[str]:
    """The requests that run, wait or ended a moment ago."""
    running = names(context, protocol.LIVE, Nothing(), "request_id")
    return running | names(context, protocol.LIVE_ENDED, Nothing(), "request_id")


def requests(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As `request_names`."""
    return fitting(request_names(context), incomplete)


users = completes(protocol.USERS_LIST, UsersList(), "email")
models = completes(protocol.MODELS_LIST, ModelsList(), "name")
jobs = completes(protocol.JOBS_LIST, JobsList(), "id")


def _is_plain(word: str) -> bool:
    return word.isascii() and word.isprintable() and not set(word) & set(" \t\"'`$\\;&|<>(){}[]*?!#~")
