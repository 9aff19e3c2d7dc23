"""What is typed into forms: checked while one types, and read once it is good. Pure.

A check gives what is wrong in a few words, or an empty string. Rule: these only save a way to the daemon, which checks
everything again and has the last word; what it allows must not be refused here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping

from common import times
from common.protocol import LIMIT_FIELDS, LimitValues, Unlimited

LONGEST_LABEL = 64
LONGEST_NOTES = 2000
LARGEST_AMOUNT = 10**15 - 1
LONGEST_GRACE = 30 * 86400
YES = ("y", "yes")
NO_OR_YES = ("no", "yes")  # the choices of a field
UNLIMITED = "unlimited"

_AMOUNT = re.compile(r"([0-9]+)([kKmM]?)", re.ASCII)
_THOUSANDS = {"": 1, "k": 1000, "m": 1_000_000}


def words(text: str) -> list[str]:
    """What stands between blanks and commas."""
    return text.replace(",", " ").split()


def an_address(text: str) -> str:
    """An e-mail address."""
    local, at, domain = text.rpartition("@")
    if not text:
        return "an e-mail address"
    if not (at and local and domain) or "@" in local or " " in text:
        return "that is no e-mail address"
    return ""


def one_of(known: Collection[str], noun: str) -> Callable[[str], str]:
    """A check: a name out of `known`, upper or lower case."""
    folded = {name.strip().casefold() for name in known}

    def check(text: str) -> str:
        if not text:
            return f"which {noun}?"
        return "" if text.casefold() in folded else f"there is no such {noun}"

    return check


def a_label(text: str) -> str:
    """What a key is for."""
    if not text:
        return "what is it for?"
    if len(text) > LONGEST_LABEL:
        return f"at most {LONGEST_LABEL} characters"
    return "" if text.isprintable() else "printable characters only"


def an_expiry(text: str) -> str:
    """How long something lives; empty is for ever."""
    if not text:
        return ""
    try:
        return "" if times.seconds_of(text) >= 1 else "at least a second"
    except ValueError:
        return "90d, 12h, 30m; empty: never"


def a_grace(text: str) -> str:
    """How long the secret of before works on."""
    try:
        return "" if times.seconds_of(text) <= LONGEST_GRACE else "at most 30d"
    except ValueError:
        return "1h, 30m, 7d; 0: not at all"


def patterns(text: str) -> str:
    """Patterns of models; none is every model."""
    found = words(text)
    return "" if len(found) <= 100 and all(len(each) <= 256 for each in found) else "at most 100 patterns"


def networks(text: str) -> str:
    """Addresses and ranges; none is everywhere."""
    for each in words(text):
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError:
            return f"{each[:20]!r} is no address"
    return ""


def is_yes(text: str) -> bool:
    """Whether `y` was typed."""
    return text.casefold() in YES


def file_name(text: str) -> str:
    """`text` as a name in the current folder, wherever it came from."""
    return re.sub(r"[^A-Za-z0-9@+_.-]", "_", text).lstrip(".-")[:100] or "_"


# -- limits -----------------------------------------------------------------------------------------------------------


def amount(text: str) -> int | Unlimited:
    """A limit as people write it: 20, 50k, 2m, unlimited. ValueError if it is none."""
    text = text.strip().casefold()
    if text == UNLIMITED:
        return "unlimited"
    match = _AMOUNT.fullmatch(text.replace("_", ""))
    if match is None or len(match[1]) > 16:
        raise ValueError(f"{text!r} is no limit")
    return int(match[1]) * _THOUSANDS[match[2]]


def an_amount(name: str, text: str) -> str:
    """A limit of this name; empty says nothing."""
    if not text:
        return ""
    try:
        value = amount(text)
    except ValueError:
        return "a number, 50k, 2m, unlimited"
    least = 1 if name == "concurrency" else 0
    if value != "unlimited" and not least <= value <= LARGEST_AMOUNT:
        return f"from {least} to {LARGEST_AMOUNT}"
    return ""


def short_amount(value: int | str | None) -> str:
    """A limit as it is shown, and may be typed: 20, 50k, 2M, unlimited; exact."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if value >= size and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def about(value: int) -> str:
    """An amount that was used, in few cells: 812, 12.3k, 1.2M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if value >= size:
            scale = 1000 if unit == "k" else size
            return f"{value / scale:.1f}{unit}"
    return str(value)


def target(text: str) -> str:
    """A target of limits, bare e-mail addresses too."""
    kind, colon, name = text.partition(":")
    if text == "default" or (not colon and "@" in text and not an_address(text)):
        return ""
    name = name.strip()
    if not colon or kind not in ("user", "key", "model", "address"):
        return "user: key: model: address:"
    if not name:
        return f"which {kind}?"
    if kind == "user":
        return an_address(name)
    if kind == "address":
        return _network(name)
    return ""


def _network(name: str) -> str:
    try:
        ipaddress.ip_network(name)
    except ValueError:
        try:
            return f"the network is {ipaddress.ip_network(name, strict=False)}"
        except ValueError:
            return "192.0.2.7 or 192.0.2.0/24"
    return ""


def changed_limits(before: Mapping[str, int | str | None], typed: Mapping[str, str]) -> LimitValues:
    """What is typed otherwise than it was; what is empty is not said."""
    found = LimitValues()
    for name in LIMIT_FIELDS:
        text = typed.get(name, "").strip()
        if text and (value := amount(text)) != before.get(name):
            setattr(found, name, value)
    return found
