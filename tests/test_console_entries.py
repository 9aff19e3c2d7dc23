"""What is typed into the console's forms, and what they say: pure functions."""

from __future__ import annotations

import pytest

from common.protocol import LimitsTried, LimitValues, TriedLimit, TriedUser
from console import entries, moments
from console.screens.key_forms import key_question
from console.screens.limit_forms import limit_fields, windows_of
from console.screens.limits import LimitLine, limit_lines
from console.widgets.gauges import frees_in, gauge, gauges, in_short
from console.widgets.trial import change_paragraphs, trial_paragraphs

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "value"),
    [("20", 20), ("50k", 50_000), ("2m", 2_000_000), ("2M", 2_000_000), ("1_000", 1000), ("Unlimited", "unlimited")],
)
def test_a_limit_is_written_as_people_do(text: str, value: object) -> None:
    """And what is shown for it can be typed again."""
    assert entries.amount(text) == value
    assert entries.amount(entries.short_amount(value)) == value  # type: ignore[arg-type]
    assert entries.an_amount("tokens_per_day", text) == ""


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "10/min", "٣", "1e9", "0x10", "9" * 17, "99999999999m", "½"])
def test_what_is_no_limit_is_told(text: str) -> None:
    """Before it is sent."""
    assert entries.an_amount("requests_per_minute", text)


def test_nothing_at_once_would_lock_everybody_out() -> None:
    """As in the daemon: concurrency is at least 1, a window may be of 0."""
    assert entries.an_amount("concurrency", "0")
    assert not entries.an_amount("requests_per_minute", "0")


@pytest.mark.parametrize("value", [1, 999, 1000, 1001, 1500, 50_000, 1_000_000, 1_500_000, 10**15 - 1])
def test_a_limit_is_shown_exactly(value: int) -> None:
    """1500 is not 2k."""
    assert entries.amount(entries.short_amount(value)) == value


@pytest.mark.parametrize(
    "text", ["default", "ana@example.org", "user:ana@example.org", "key:abc", "model:llama3:8b", "address:10.0.0.0/8"]
)
def test_targets_that_are_one(text: str) -> None:
    """Every kind; a bare address is a user."""
    assert entries.target(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "user: key:"),
        ("ana", "user: key:"),
        ("key:", "which key?"),
        ("user:ana", "no e-mail address"),
        ("address:10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("address:here", "192.0.2.7"),
    ],
)
def test_targets_that_are_none_are_told(text: str, said: str) -> None:
    """With what is missing."""
    assert said in entries.target(text)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (entries.an_address, ["ana@example.org", "root@localhost"], ["", "ana", "@x", "a@", "a b@x", "a@b@c"]),
        (entries.a_label, ["ana's laptop", "模型", "x" * 64], ["", "x" * 65, "a\tb"]),
        (entries.an_expiry, ["", "90d", "12h", "45"], ["0", "soon", "-1d", "1y"]),
        (entries.a_grace, ["0", "1h", "30d"], ["", "31d", "later"]),
        (entries.patterns, ["", "llama3* qwen3:4b", "a,b"], ["x" * 257, "a " * 101]),
        (entries.networks, ["", "10.0.0.0/8, ::1", "10.1.2.3/8"], ["here", "10.0.0.0/33"]),
        (entries.one_of(["Ana@example.org"], "user"), ["ana@example.org"], ["", "bob@example.org"]),
    ],
)
def test_fields_are_checked(check: object, good: list[str], bad: list[str]) -> None:
    """What is good is not refused, what is not is told in a few words."""
    for text in good:
        assert check(text) == "", text  # type: ignore[operator]
    for text in bad:
        said = check(text)  # type: ignore[operator]
        assert said, text
        assert len(said) < 45


@pytest.mark.parametrize(
    "text", ["../../etc/x", "a/b@example.org", "..", ".ssh", "-rf", "", "名@例", "a\nb", "x" * 300]
)
def test_a_file_is_saved_in_this_folder_whatever_it_is_called(text: str) -> None:
    """An address may have a slash in it; a file name has not."""
    name = entries.file_name(text)
    assert name and "/" not in name and not name.startswith((".", "-")) and len(name) <= 100 and name.isascii()


def test_only_what_was_changed_is_sent() -> None:
    """What is typed as it was, or left empty, is not said."""
    typed = {"requests_per_minute": "10", "tokens_per_day": "50k", "concurrency": "", "requests_per_day": "unlimited"}
    assert entries.changed_limits({"requests_per_minute": 10}, typed) == LimitValues(
        tokens_per_day=50_000, requests_per_day="unlimited"
    )
    assert entries.changed_limits({"requests_per_minute": 10}, {"requests_per_minute": " 10 "}) == LimitValues()


def test_the_form_of_a_key_is_the_question() -> None:
    """Empty fields restrict nothing."""
    typed = {"user": "a@b", "label": "x", "expires": "", "models": "", "addresses": "", "metrics": "n"}
    question = key_question(typed)
    assert (question.expires_seconds, question.models, question.addresses, question.metrics) == (None, [], [], False)
    typed |= {"expires": "90d", "models": "llama3*, qwen3:4b", "addresses": "10.0.0.0/8", "metrics": "y"}
    question = key_question(typed)
    assert question.expires_seconds == 90 * 86400
    assert question.models == ["llama3*", "qwen3:4b"]
    assert question.addresses == ["10.0.0.0/8"]
    assert question.metrics


def line(target: str = "user:ana@example.org", **own: int | str) -> LimitLine:
    default = {"requests_per_minute": 10}
    return LimitLine(target, own, default | own if target.startswith("user:") else own, ())


def test_a_field_tells_old_and_new_while_one_types() -> None:
    """Its own as it was; the default where it has none; and that one limit alone cannot be unsaid."""
    minute = next(field for field in limit_fields(line(), LimitValues()) if field.name == "requests_per_minute")
    assert callable(minute.hint)
    assert minute.hint("") == "default: 10"
    assert minute.hint("5") == "10 (default) → 5"
    assert minute.hint("0") == "10 (default) → 0 (nothing!)"
    fields = limit_fields(line(requests_per_minute=30), LimitValues(tokens_per_day=5))
    assert next(field.value for field in fields if field.name == "tokens_per_day") == "5"
    own = next(field for field in fields if field.name == "requests_per_minute")
    assert callable(own.hint)
    assert own.value == "30"
    assert own.hint("30") == "as it is"
    assert own.hint("50k") == "30 → 50k"
    assert own.check("") == "a number, or unlimited"
    assert own.below is not None
    assert own.below("") == "For the default again: Esc, then x, which takes back all of its own limits."
    assert own.below("30") == "" == minute.below("")  # type: ignore[misc]
    assert "unlimited" in own.check("x")


def test_what_changes_is_shown_old_and_new() -> None:
    """Only what changes; a default that is replaced is called one."""
    after = LimitValues(requests_per_minute=5, tokens_per_day="unlimited")
    said = [each[0] for each in change_paragraphs({"requests_per_minute": 30}, after, {"tokens_per_day": 200})]
    assert said == ["requests/minute   30 → 5", "tokens/day        200 (default) → unlimited"]
    assert change_paragraphs({}, after, {})[0][0] == "requests/minute   unlimited → 5"


def tried(**given: object) -> LimitsTried:
    values = {"target": "default", "since": "2027-01-14T08:00:00Z", "until": "2027-01-15T08:00:00Z"}
    values |= {"requests": 1204, "refused": 37, "refused_now": 3, "refused_then": 2, "complete": True, "seconds": 0.2}
    users = [TriedUser("ana@example.org", 800, 30, 3), TriedUser("[/]\x1b[2J", 404, 7, 0)]
    limits = [TriedLimit("user:ana@example.org", "requests_per_minute", 37)]
    return LimitsTried(**values | {"users": users, "limits": limits} | given)  # type: ignore[arg-type]


def words(*args: object) -> list[str]:
    return [each if isinstance(each, str) else each[0] for each in trial_paragraphs(*args)]  # type: ignore[arg-type]


def test_a_trial_says_how_many_of_whom() -> None:
    """The sentence an administrator decides by."""
    said = words(tried(), "24 h")
    assert said[0] == "Last 24 h: 37 of 1,204 requests refused (as it is: 3), of these users:"
    assert said[1].split() == ["ana@example.org", "30", "of", "800", "as", "it", "is:", "3"]
    assert "37 by req/min of user:ana@example.org" in said[-1]


def test_a_trial_that_proves_nothing_says_so() -> None:
    """No traffic, none of it the target's, no refusal, or not the whole time."""
    of_joe = {"target": "user:joe@example.org", "requests": 9, "refused": 0, "users": [], "limits": []}
    assert words(tried(concerned=0, **of_joe), "24 h") == [
        "Last 24 h: none of the 9 recorded requests comes under user:joe@example.org.",
        "So these limits were not tested.",
    ]
    assert words(tried(concerned=4, **of_joe), "24 h")[-1] == "  4 of the 9 come under user:joe@example.org"
    assert len(words(tried(concerned=9, **of_joe), "24 h")) == len(words(tried(**of_joe), "24 h")) == 1
    assert "no request is recorded" in words(tried(requests=0, refused=0), "24 h")[0]
    assert words(tried(refused=0, users=[], limits=[]), "7 d")[0].startswith("Last 7 d: 0 of 1,204")
    assert "ran out of time" in words(tried(complete=False), "30 d")[0]
    assert "and 95 more" in "\n".join(words(tried(users=[TriedUser(f"u{n}", 9, 9, 0) for n in range(100)]), "24 h"))


def test_windows_are_tried_and_what_runs_at_once_is_not() -> None:
    """Concurrency never refuses."""
    assert windows_of(LimitValues(concurrency=3)) == LimitValues()
    assert windows_of(LimitValues(concurrency=3, tokens_per_day=5)) == LimitValues(tokens_per_day=5)


def test_targets_with_limits_and_targets_that_use_something_are_lines() -> None:
    """A user under the default has a line while something is used; what is in force is the default's."""
    use = {"target": "user:b@c", "limit": "requests_per_minute", "used": 8, "max": 10, "frees_at": None}
    default = {"target": "default", "requests_per_minute": 10, "effective": {"requests_per_minute": 10}}
    lines = limit_lines([default, {"target": "model:m", "tokens_per_day": 5, "effective": None}], [use])
    assert list(lines) == ["default", "model:m", "user:b@c"]
    assert lines["user:b@c"].in_force == {"requests_per_minute": 10}
    assert lines["user:b@c"].fullest == use
    assert lines["model:m"].own == {"tokens_per_day": 5}


def test_a_bar_has_its_numbers_beside_it() -> None:
    """Full is a word; nothing used is an empty bar."""
    use = {"target": "t", "limit": "requests_per_minute", "used": 8, "max": 10, "frees_at": None}
    assert frees_in(use | {"frees_at": "2027-01-15T07:59:59.000000Z"}, NOW) == "now"
    assert gauge(use)[0] == "████▊·  80%"
    assert gauge(use | {"used": 10})[0] == "██████ full"
    assert gauge(use | {"max": 0, "used": 0})[0] == "██████ full"
    assert gauge(None)[0] == "······   0%"
    lines = gauges({"requests_per_minute": 10, "tokens_per_day": 0}, [use], NOW, own={"tokens_per_day": 0})
    texts = ["".join(part if isinstance(part, str) else part[0] for part in each) for each in lines]
    assert texts[0] == "requests/minute ████▊· 8/10  (default)"
    assert texts[1] == "requests/hour   unlimited"
    assert texts[4] == "tokens/day      ██████ 0/0"


def test_limits_in_few_words() -> None:
    """What is unlimited is left out."""
    said = in_short(
        {"requests_per_minute": 10, "tokens_per_day": 50_000, "concurrency": 4, "requests_per_day": "unlimited"}
    )
    assert said == "10/min · 50k tok/day · 4 at once"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59, "59s"), (60, "1m"), (3600, "1h"), (47 * 3600, "47h"), (48 * 3600, "2d"), (800 * 86400, "2y")],
)
def test_spans_are_coarse(seconds: float, text: str) -> None:
    """So that a list of ages does not flicker."""
    assert moments.coarse(seconds) == text


def test_moments_as_spans_from_now() -> None:
    """Before, after, never."""
    assert moments.age("2027-01-15T07:59:00.000000Z", NOW) == "1m"
    assert moments.age(None, NOW) == "-"
    assert moments.time_left("2027-01-15T09:00:00.000000Z", NOW) == "in 1h"
    assert moments.time_left("2027-01-15T07:00:00.000000Z", NOW) == "over"
    for seconds, text in (
        (90 * 86400 - 0.3, "90d"),  # what was just given ninety days
        (86400 * 2 - 1, "2d"),
        (86400 * 1.5, "36h"),
        (3600 - 1, "1h"),
        (59.6, "1m"),
        (41, "41s"),
        (100 * 60, "2h"),
        (730 * 86400, "2y"),
        (0.2, "0s"),
    ):
        assert moments.nearest(seconds) == text
    assert moments.time_left(None, NOW) == "never"
    assert moments.time_left("9999-12-31T23:59:59Z", NOW) == "never"  # how llama.cpp's models and Go say it
