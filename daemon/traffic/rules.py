"""Which limits apply to a request: targets, their values, and the rule that is in force for each.

A target is text: `default`, `user:EMAIL`, `key:ID`, `model:NAME`, `address:CIDR`. `default` is per user and `user:`
replaces it field by field; the other three apply in addition, `model:` and `address:` as one window for all that match.
Rule: pure and synchronous, from memory; a rule set (`Rules`) is only ever replaced target by target. A value is a
number, or None for unlimited; a field that is not there is not said by that target.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.errors import BadRequest
from daemon.traffic.refusals import CONCURRENCY, FIELDS, Field
from daemon.traffic.windows import SlidingWindow

DEFAULT = "default"
LARGEST = 10**15 - 1  # what an integer of a structured header field may be (RFC 9651, 3.3.1)

Values = Mapping[str, int | None]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEY_ID = re.compile(r"[0-9A-Za-z]{1,64}")
_MOST_CACHED_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Rule:
    """The limits in force for one target, ready to be asked."""

    requests: tuple[tuple[Field, SlidingWindow], ...]
    tokens: tuple[tuple[Field, SlidingWindow], ...]
    concurrency: int | None
    request_history: int  # how far back (microseconds) its request windows look; 0: no history is needed
    token_history: int

    @classmethod
    def of(cls, values: Values) -> Rule:
        """The rule that `values` make; what is not in them is unlimited."""
        requests: list[tuple[Field, SlidingWindow]] = []
        tokens: list[tuple[Field, SlidingWindow]] = []
        for name, value in values.items():
            field = FIELDS[name]
            if value is not None and field.period:
                windows = requests if field.unit == "requests" else tokens
                windows.append((field, SlidingWindow(value, field.period)))
        return cls(
            requests=tuple(requests),
            tokens=tuple(tokens),
            concurrency=values.get(CONCURRENCY.name),
            request_history=max((window.period for _, window in requests), default=0),
            token_history=max((window.period for _, window in tokens), default=0),
        )

    def needs_more_than(self, other: Rule) -> bool:
        """Whether it looks further back than `other` did."""
        return self.request_history > other.request_history or self.token_history > other.token_history


NO_RULE = Rule.of({})


class Rules:
    """The limits of every target, and which of them apply to a request."""

    def __init__(self) -> None:
        self._own: dict[str, dict[str, int | None]] = {}
        self._default = NO_RULE
        self._by_target: dict[
            str, Rule
        ] = {}  # effective; without `default` and without users that have none of their own
        self._networks: list[tuple[Network, str]] = []
        self._any_model = False
        self._addresses: dict[str, tuple[tuple[str, Rule], ...]] = {}  # address -> what applies to it
        self.any_concurrency = False  # whether any target has a concurrency limit

    def own(self, target: str) -> dict[str, int | None]:
        """What `target` itself says."""
        return dict(self._own.get(target, {}))

    def targets(self) -> list[str]:
        """Every target that says something: `default` first, then users, keys, models, addresses by name."""
        order = {"default": 0, "user": 1, "key": 2, "model": 3, "address": 4}
        return sorted(self._own, key=lambda target: (order[kind_of(target)], target))

    def effective(self, target: str) -> dict[str, int | None]:
        """All six limits as they are in force for `target`: what it says itself, for a user else the default."""
        said = {**self._own.get(DEFAULT, {})} if kind_of(target) in {"default", "user"} else {}
        said.update(self._own.get(target, {}))
        return {name: said.get(name) for name in FIELDS}

    def rule(self, target: str) -> Rule:
        """The rule in force for `target`."""
        rule = self._by_target.get(target)
        if rule is not None:
            return rule
        return self._default if kind_of(target) in {"default", "user"} else NO_RULE

    def applying(self, email: str, key_id: str | None, model: str, address: str) -> list[tuple[str, Rule]]:
        """Every rule that such a request is under, each with the target that it is counted for."""
        rules = self._by_target
        target = "user:" + email
        found = [(target, rules.get(target) or self._default)]
        if not self._networks and not self._any_model and len(rules) == 0:
            return found
        if key_id is not None:
            target = "key:" + key_id
            if target in rules:
                found.append((target, rules[target]))
        if self._any_model:
            target = "model:" + canonical_model(model)
            if target in rules:
                found.append((target, rules[target]))
        if self._networks:
            found.extend(self._of_address(address))
        return found

    def needed_history(self) -> int:
        """How far back (microseconds) the journal must be read so that every window can be restored."""
        rules = [self._default, *self._by_target.values()]
        return max(max(rule.request_history, rule.token_history) for rule in rules)

    def replace(self, target: str, values: Values) -> bool:
        """`target` says `values` from now on (nothing: it is gone). Whether some window now looks further back."""
        before = dict(self._by_target)
        default_before = self._default
        if values:
            self._own[target] = dict(values)
        else:
            self._own.pop(target, None)
        self._rebuild()
        if self._default.needs_more_than(default_before):
            return True
        for each, rule in self._by_target.items():
            was = before.get(each) or (default_before if each.startswith("user:") else NO_RULE)
            if rule.needs_more_than(was):
                return True
        # A user whose own limits were cleared is under the default again.
        return any(
            self._default.needs_more_than(rule)
            for each, rule in before.items()
            if each.startswith("user:") and each not in self._by_target
        )

    def load(self, rows: Iterable[tuple[str, str, int | None]]) -> None:
        """Take (target, field, value) rows for everything that is said."""
        self._own = {}
        for target, name, value in rows:
            self._own.setdefault(target, {})[name] = value
        self._rebuild()

    def _rebuild(self) -> None:
        self._default = Rule.of(self.effective(DEFAULT))
        self._by_target = {target: Rule.of(self.effective(target)) for target in self._own if target != DEFAULT}
        self._networks = [
            (ipaddress.ip_network(target.removeprefix("address:")), target)
            for target in self._own
            if target.startswith("address:")
        ]
        self._any_model = any(target.startswith("model:") for target in self._own)
        self._addresses = {}
        rules = [self._default, *self._by_target.values()]
        self.any_concurrency = any(rule.concurrency is not None for rule in rules)

    def _of_address(self, address: str) -> tuple[tuple[str, Rule], ...]:
        found = self._addresses.get(address)
        if found is None:
            if len(self._addresses) >= _MOST_CACHED_ADDRESSES:
                self._addresses.clear()
            parsed = _parsed(address)
            found = tuple(
                (target, self._by_target[target])
                for network, target in self._networks
                if parsed is not None and parsed.version == network.version and parsed in network
            )
            self._addresses[address] = found
        return found


def kind_of(target: str) -> str:
    """`default`, `user`, `key`, `model` or `address`."""
    return target.partition(":")[0]


def in_words(target: str) -> str:
    """A target as people say it: `user ana@example.org`."""
    kind, _, name = target.partition(":")
    return f"{kind} {name}" if name else "every user"


def canonical_model(name: str) -> str:
    """How a model is named as a target: without regard to case, and without the tag that Ollama assumes anyway."""
    return name.casefold().removesuffix(":latest")


def read_target(text: str) -> str:
    """The target that a person named, in its one spelling; a bare e-mail address is a user. BadRequest if none."""
    text = text.strip()
    kind, colon, name = text.partition(":")
    name = name.strip()
    if text == DEFAULT:
        return DEFAULT
    if kind == "user" and colon and "@" in name:
        return "user:" + name.casefold()
    if kind == "key" and colon and name:
        return "key:" + _key_id(name)
    if kind == "model" and colon and name and name.isprintable() and len(name) <= 256:
        return "model:" + canonical_model(name)
    if kind == "address" and colon and name:
        return "address:" + _network(name)
    if "@" in text and not colon:
        return "user:" + text.casefold()
    raise BadRequest(
        f"{text[:100]!r} is no target of limits: "
        "write default, user:EMAIL (or just EMAIL), key:ID, model:NAME or address:CIDR"
    )


def check_values(values: Mapping[str, object]) -> dict[str, int | None]:
    """`values` if each is a limit that can be set (None = unlimited); BadRequest naming the one that cannot."""
    if not values:
        raise BadRequest("no limit is named; set at least one of: " + ", ".join(FIELDS))
    checked: dict[str, int | None] = {}
    for name, value in values.items():
        if name not in FIELDS:
            raise BadRequest(f"there is no limit {name!r}; there are: {', '.join(FIELDS)}")
        least = 1 if name == CONCURRENCY.name else 0
        if value is None:
            checked[name] = None
        elif isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise BadRequest(f"{name} must be a whole number from {least} to {LARGEST}, or unlimited; not {value!r}")
        else:
            checked[name] = value
    return checked


def _key_id(name: str) -> str:
    identifier, underscore, secret = name.removeprefix("glk_").partition("_")
    if underscore or secret:
        # Not shown again: it may be a whole key, secret included.
        raise BadRequest("a key is named by its id alone, as `keys list` shows it: key:ID")
    if not _KEY_ID.fullmatch(identifier):
        raise BadRequest("a key's id consists of letters and digits, as `keys list` shows it: key:ID")
    return identifier


def _network(name: str) -> str:
    try:
        return str(ipaddress.ip_network(name))
    except ValueError as error:
        try:
            meant = str(ipaddress.ip_network(name, strict=False))
        except ValueError:
            raise BadRequest(f"{name[:100]!r} is no address or network: write 192.0.2.7 or 192.0.2.0/24") from error
        raise BadRequest(f"{name} is an address inside a network; for the whole network write {meant}") from error


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address as it is to be matched: where IPv6 only wraps an IPv4 address, that one. None where it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
