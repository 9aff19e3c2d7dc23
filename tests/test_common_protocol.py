"""The protocol: what the two sides of the admin socket agree on."""

from typing import Annotated, get_origin

import msgspec
import pytest

from common import protocol
from common.protocol import VERBS, Batch, Changed, Goodbye, Heartbeat, Hello, LimitValues, Named, Snapshot, Totals


def test_every_verb_has_a_path_of_its_own() -> None:
    """The table of verbs names each once, and nothing that is a verb is missing from it."""
    paths = [verb.name for verb in VERBS]
    assert len(paths) == len(set(paths))
    assert {"status", "users/approve", "keys/issue", "limits/set", "cancel", "audit/verify"} <= set(paths)
    assert len(paths) >= 30


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_misspelt_field_of_a_question_is_an_error(verb: protocol.Verb[protocol.Request, object]) -> None:
    """A field that the verb does not know is never ignored: a misspelt `expires` must not issue an eternal key."""
    known = {
        field.name: _example(field.type)
        for field in msgspec.structs.fields(verb.request)
        if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
    }
    msgspec.convert(known, verb.request)
    with pytest.raises(msgspec.ValidationError, match="surprise"):
        msgspec.convert({**known, "surprise": 1}, verb.request)


def _example(kind: object) -> object:
    if kind is LimitValues:
        return {}
    if get_origin(kind) is Annotated:
        return 1
    if get_origin(kind) is list:
        return []
    return {str: "x", int: 1, bool: True}.get(kind, "user")  # type: ignore[call-overload]


TOTALS = Totals(running=1, seats=4, queued=2, oldest_queued=None)


@pytest.mark.parametrize(
    "message",
    [
        Hello(protocol_version=1, version="0.1", boot_id="b"),
        Snapshot(seq=7, rows=[Changed("live", "r", msgspec.Raw(b'{"request_id":"r"}'))], totals=TOTALS),
        Batch(after=7, seq=9, changed=[], gone=[Named("user", "a@b")], totals=TOTALS),
        Heartbeat(seq=9),
        Goodbye(reason="stopping"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_watch_message_says_what_it_is_and_survives_the_wire(message: protocol.WatchMessage) -> None:
    """`type` names it in lower case; decoding gives back what was sent."""
    wire = msgspec.json.encode(message)
    assert msgspec.json.decode(wire)["type"] == type(message).__name__.lower()
    again = msgspec.json.decode(wire, type=protocol.WatchMessage)
    assert msgspec.json.encode(again) == wire


def test_a_limit_is_a_number_unlimited_or_not_set() -> None:
    """The words of the flags are the words of the JSON."""
    values = msgspec.json.decode(b'{"requests_per_minute":10,"concurrency":"unlimited"}', type=LimitValues)
    assert (values.requests_per_minute, values.concurrency, values.tokens_per_day) == (10, "unlimited", None)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"requests_per_minute":"lots"}', type=LimitValues)
    assert tuple(field.name for field in msgspec.structs.fields(LimitValues)) == protocol.LIMIT_FIELDS
