"""Which limits apply to whom, how they are named, and what a refusal says."""

from __future__ import annotations

import pytest

from common.errors import BadRequest
from daemon.traffic.refusals import (
    FIELDS,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_DAY,
    FullWindow,
    rate_limit_headers,
    refusal,
)
from daemon.traffic.rules import LARGEST, Rules, check_values, read_target
from tests.rigs.traffic import DAY, HOUR, MINUTE, SECOND, START


def rules_of(**targets: dict[str, int | None]) -> Rules:
    rules = Rules()
    for target, values in targets.items():
        rules.replace(read_target(target.replace("__", ":")), values)
    return rules


def targets(rules: Rules, **who: str) -> list[str]:
    asked = {"email": "ana@x.org", "key_id": "ab12", "model": "llama3:latest", "address": "10.1.2.3"} | who
    return [target for target, _ in rules.applying(**asked)]


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("default", "default"),
        ("user:Ana@Example.ORG", "user:ana@example.org"),
        (" ana@example.org ", "user:ana@example.org"),
        ("key:Ab12", "key:Ab12"),
        ("key:glk_Ab12", "key:Ab12"),
        ("model:Llama3:latest", "model:llama3"),
        ("model:hf.co/x/Y-GGUF:Q4_K_M", "model:hf.co/x/y-gguf:q4_k_m"),
        ("address:10.0.0.0/8", "address:10.0.0.0/8"),
        ("address:192.0.2.7", "address:192.0.2.7/32"),
        ("address:2001:db8::/32", "address:2001:db8::/32"),
    ],
)
def test_a_target_has_one_spelling(written: str, target: str) -> None:
    """However a person writes it, it is one row and one window."""
    assert read_target(written) == target


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("", "user:EMAIL"),
        ("ana", "user:EMAIL"),
        ("user:ana", "user:EMAIL"),
        ("group:x@y", "user:EMAIL"),
        ("key:", "key:ID"),
        ("key:glk_ab12_c2VjcmV0", "by its id alone"),
        ("key:a b", "letters and digits"),
        ("model:", "model:NAME"),
        ("model:a\x1b[2J", "model:NAME"),
        ("address:10.1.2.3/8", "10.0.0.0/8"),
        ("address:10.0.0", "no address"),
        ("address:x@y", "no address"),
    ],
)
def test_what_is_no_target_is_refused_with_what_to_write(written: str, word: str) -> None:
    """The error says what would have been right; a whole key is not echoed."""
    with pytest.raises(BadRequest) as error:
        read_target(written)
    assert word in error.value.message
    assert "c2VjcmV0" not in error.value.message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"requests_per_fortnight": 1},
        {"requests_per_minute": -1},
        {"requests_per_minute": LARGEST + 1},
        {"requests_per_minute": True},
        {"requests_per_minute": "10"},
        {"requests_per_minute": 1.5},
        {"concurrency": 0},
    ],
)
def test_a_value_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    """Nothing is guessed; a concurrency of none at all would let people wait for nothing."""
    with pytest.raises(BadRequest):
        check_values(values)


def test_a_users_own_limits_replace_the_default_field_by_field() -> None:
    """Contract: `user:` replaces `default` field by field, `unlimited` included."""
    rules = rules_of(
        default={"requests_per_minute": 10, "requests_per_day": 100, "concurrency": 2},
        **{"ana@x.org": {"requests_per_minute": None, "tokens_per_day": 5}},
    )
    assert rules.effective("user:ana@x.org") == dict.fromkeys(FIELDS) | {
        "requests_per_day": 100,
        "tokens_per_day": 5,
        "concurrency": 2,
    }
    assert rules.effective("user:joe@x.org")["requests_per_minute"] == 10
    rules.replace("user:ana@x.org", {})
    assert rules.effective("user:ana@x.org") == rules.effective("default")


def test_key_model_and_every_matching_network_apply_in_addition() -> None:
    """Contract: `key:`, `model:`, `address:` apply in addition; only what says something is counted for."""
    rules = rules_of(
        default={"requests_per_minute": 10},
        key__ab12={"requests_per_minute": 1},
        model__llama3={"requests_per_minute": 2},
        **{
            "address:10.0.0.0/8": {"requests_per_minute": 3},
            "address:10.1.0.0/16": {"requests_per_minute": 4},
            "address:2001:db8::/32": {"requests_per_minute": 5},
        },
    )
    everything = ["user:ana@x.org", "key:ab12", "model:llama3", "address:10.0.0.0/8", "address:10.1.0.0/16"]
    assert targets(rules) == everything
    assert targets(rules, address="::ffff:10.1.2.3") == everything
    rules.replace("address:10.1.2.0/24", {"requests_per_minute": 9})
    assert targets(rules) == [*everything, "address:10.1.2.0/24"], "at once, though the address was met before"
    rules.replace("address:10.1.2.0/24", {})
    assert targets(rules, model="LLAMA3", address="10.9.9.9") == everything[:4]
    assert targets(rules, key_id="zz", model="phi3:latest", address="2001:db8::1") == [
        "user:ana@x.org",
        "address:2001:db8::/32",
    ]
    assert targets(rules, key_id="zz", model="llama3:70b", address="not an address") == ["user:ana@x.org"]


def test_the_history_that_is_needed_is_that_of_the_longest_window() -> None:
    """Nothing limited: no history at all; each target as far back as it looks."""
    rules = rules_of(default={"requests_per_minute": 10})
    assert rules.needed_history() == MINUTE
    assert rules.replace("user:ana@x.org", {"requests_per_minute": 5}) is False
    assert rules.replace("user:ana@x.org", {"requests_per_hour": 5}) is True
    assert rules.needed_history() == HOUR
    assert rules.replace("user:ana@x.org", {"requests_per_minute": 7}) is False
    assert rules.replace("model:llama3", {"tokens_per_day": 7}) is True
    assert rules.needed_history() == DAY
    assert rules.replace("model:llama3", {}) is False
    assert rules.replace("user:ana@x.org", {"requests_per_minute": None}) is False
    assert rules.replace("user:ana@x.org", {}) is True, "back under the default, which looks back a minute"
    assert rules.replace("default", {}) is False
    assert rules.needed_history() == 0


def test_limits_are_listed_default_first() -> None:
    """As `limits show` prints them."""
    one = {"concurrency": 1}
    rules = rules_of(model__a=one, **{"b@x": one, "address:10.0.0.0/8": one}, default=one)
    assert rules.targets() == ["default", "user:b@x", "model:a", "address:10.0.0.0/8"]


def window(**more: object) -> FullWindow:
    given: dict[str, object] = {
        "field": REQUESTS_PER_MINUTE,
        "scope": "user ana@x.org",
        "policy": "",
        "used": 10,
        "max": 10,
        "period": MINUTE,
        "frees_at": START + 12 * SECOND,
    }
    return FullWindow(**(given | more))  # type: ignore[arg-type]


def test_a_refusal_says_which_limit_how_much_and_when() -> None:
    """Row 74: words for people, fields for programs, header lines after the draft; rounded up."""
    error = refusal(window(), now=START + 1, wall=1_700_000_000 * SECOND)
    assert error.status == 429
    assert error.retry_after == 12
    assert error.message == "user ana@x.org: 10 requests per minute, and 10 are used; try again in 12 s"
    assert error.detail == {
        "limit": "requests_per_minute",
        "scope": "user ana@x.org: 10 requests per minute",
        "used": 10,
        "max": 10,
        "frees_at": "2023-11-14T22:13:31.999999Z",
        "retry_after": 12,
        "estimate": False,
    }
    assert error.headers == {"RateLimit-Policy": '"rpm";q=10;w=60', "RateLimit": '"rpm";r=0;t=12'}


def test_a_limit_of_nothing_promises_no_time() -> None:
    """Where no waiting helps, no Retry-After is given."""
    error = refusal(window(max=0, used=0, frees_at=None), now=START, wall=0)
    assert error.retry_after is None
    assert error.detail["frees_at"] is None
    assert "none are allowed" in error.message
    assert error.headers["RateLimit"] == '"rpm";r=0'


def test_token_windows_name_their_unit_and_their_wait_is_an_estimate() -> None:
    """Contract: true for a request window, "estimate" otherwise (what is in flight is not known yet)."""
    tokens = window(field=TOKENS_PER_DAY, policy="model", used=120, max=100, period=DAY)
    assert refusal(tokens, now=START, wall=0).detail["estimate"] is True
    assert rate_limit_headers(tokens, now=START) == {
        "RateLimit-Policy": '"model-tpd";q=100;w=86400;qu="tokens"',
        "RateLimit": '"model-tpd";r=0;t=12',
    }
