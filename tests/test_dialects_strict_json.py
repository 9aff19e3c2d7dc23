"""Request bodies that two readers could read differently never get past us (security.md, H6)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadRequest
from daemon.dialects import strict_json
from daemon.dialects.strict_json import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_ESCAPED_COLONS,
    MAX_VALUES,
    canonicalise,
    parse,
    read,
)

SUITE = Path(__file__).parent / "vectors" / "jsontestsuite" / "test_parsing"
DUPLICATES = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}


def cases(prefix: str) -> list[Path]:
    return sorted(SUITE.glob(f"{prefix}_*.json"))


def refused(body: bytes) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(body)
    assert caught.value.status == 400
    return caught.value.message


def test_the_whole_suite_is_here():
    """A fresh clone has JSONTestSuite: its absence is a failure, not a skip."""
    assert [len(cases(prefix)) for prefix in "yni"] == [95, 188, 35]


@pytest.mark.parametrize("path", cases("n"), ids=lambda path: path.name)
def test_what_is_not_json_is_refused(path: Path):
    """Every n_ case of JSONTestSuite is a 400."""
    refused(path.read_bytes())


@pytest.mark.parametrize("path", cases("y"), ids=lambda path: path.name)
def test_what_is_json_is_read(path: Path):
    """Every y_ case parses to what Python's own reader sees, but the two with a duplicate key."""
    body = path.read_bytes()
    if path.name in DUPLICATES:
        assert "same key twice" in refused(body)
    else:
        assert parse(body) == json.loads(body)


@pytest.mark.parametrize("path", cases("i"), ids=lambda path: path.name)
def test_what_json_leaves_open_is_read_or_refused_but_never_breaks(path: Path):
    """An i_ case is either a value or a 400, nothing else."""
    try:
        parse(path.read_bytes())
    except BadRequest as refusal:
        assert refusal.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"c":2,"b":3}}',
        b'{"a":[{"b":1},{"b":1,"b":2}]}',
        b'{"a":":","a":2}',
        b'{"a":"\\u003a","a":"x"}',
        b'{"a":1,"\\u0061":2}',
        b'{"a:b":1,"a\\u003Ab":2}',
        b'{"a":{"x":{"y":":::"}},"a":0}',
    ],
)
def test_a_key_that_stands_twice_is_refused_wherever_it_stands(body: bytes):
    """Two readers would disagree on which one counts."""
    assert "same key twice" in refused(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":":","b":"::","c:d":{":":1}}',
        b'{"a":"\\u003a\\u003A","b":"\\\\u003a"}',
        b'{"a":"\\":\\"","b":1}',
        b'[{"a":1},{"a":2}]',
        b'":"',
        b'"\\u003a"',
    ],
)
def test_colons_in_strings_are_no_keys(body: bytes):
    """Plain, escaped, beside quotes or in a key: only real duplicates are refused."""
    assert parse(body) == json.loads(body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(alphabet='ab:"\\\n{}é'), children),
    max_leaves=20,
)


@given(value=JSON_VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_every_honest_document_is_read_as_it_is(value: object, ascii_only: bool, indent: int | None):
    """However another encoder writes it, a document without duplicates is read to the same value."""
    assert parse(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(
    value=st.dictionaries(st.text(alphabet=':"\\ab'), JSON_VALUES, min_size=1),
    twice=st.integers(min_value=0),
    other=JSON_VALUES,
)
def test_every_document_with_a_duplicate_is_refused(value: dict[str, object], twice: int, other: object):
    """Whatever the values hold, a key written twice is found."""
    key = list(value)[twice % len(value)]
    fields = [*value.items(), (key, other)]
    body = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(item)}" for name, item in fields) + "}"
    assert "same key twice" in refused(body.encode())


def test_depth_is_bounded():
    """64 levels are read, 65 are refused, and a hundred thousand harm nobody."""
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert parse(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    assert "nested" in refused(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    assert "nested" in refused(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1))
    refused(b"[" * 100_000)


def test_a_body_of_too_many_objects_and_lists_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch):
    """Each is looked into by itself: what nests costs more than what does not. Braces in a text are none."""
    text = b'{"prompt":"' + b"{}[]" * MAX_CONTAINERS + b'"}'
    assert parse(text)["prompt"].startswith("{}[]")
    monkeypatch.setattr(strict_json.msgspec.json, "decode", pytest.fail)
    nest = b"[" * 58 + b"]" * 58
    assert "objects and lists" in refused(b'{"x":[' + b",".join([nest] * (MAX_CONTAINERS // 58 + 1)) + b"]}")
    assert "objects and lists" in refused(b"[" + b'{"role":"user"},' * MAX_CONTAINERS + b"1]")


@pytest.mark.parametrize("backslashes", range(4))
def test_colons_written_as_escapes_are_told_from_escaped_backslashes(backslashes: int):
    """Either way the body is read for what it says, and no key is taken for two."""
    body = b'{"a":"' + rb"\\" * backslashes + rb"\u003a" + rb"\\u003A" + b'"}'
    assert parse(body) == {"a": "\\" * backslashes + ":" + r"\u003A"}


def test_escapes_are_bounded_where_each_is_looked_for():
    """No encoder writes colons so; line ends and quotes as escapes are as many as anybody likes."""
    assert parse(rb'{"a":"\u003a' + rb"\n" * 1_000_000 + b'"}')["a"].count("\n") == 1_000_000
    assert "escapes" in refused(b'{"a":"' + rb"\u003a" * (MAX_ESCAPED_COLONS + 1) + b'"}')
    assert "backslashes" in refused(b'{"a":"' + rb"\\" * 1_000 + rb"\u003a" + b'"}')


def test_a_body_of_too_many_values_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch):
    """Ten million empty lists would hold every stream for seconds; as many commas in a prompt are nothing special."""
    text = b'{"prompt":"' + b'[,]{\\",' * (MAX_VALUES // 4) + b'"}'
    assert parse(text)["prompt"].startswith('[,]{",')
    monkeypatch.setattr(strict_json.msgspec.json, "decode", pytest.fail)
    assert "values" in refused(b"[" + b"1," * MAX_VALUES + b"1]")
    assert "values" in refused(b'["' + b'\\",' * MAX_VALUES + b'",' + b"1," * MAX_VALUES)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing request body"),
        (b" \r\n\t", "missing request body"),
        (b"\xef\xbb\xbf", "missing request body"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":Infinity}', "not JSON"),
        (b'{"a":-Infinity}', "not JSON"),
        (b'{"a":1e400}', "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":1} x', "not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_refusals_say_what_is_wrong(body: bytes, words: str):
    """Each refusal names its reason."""
    assert words in refused(body)


def test_what_is_unusual_but_right_is_read():
    """A byte order mark (PowerShell writes one), numbers beyond 64 bits, and every kind of value."""
    assert read(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
    assert parse(b"[123456789012345678901234567890]") == [123456789012345678901234567890]
    assert parse(b"[-0, 1.0, true, null]") == [0, 1.0, True, None]


@pytest.mark.parametrize(("body", "kind"), [(b"[]", "array"), (b"1", "number"), (b"true", "bool"), (b"null", "null")])
def test_a_request_is_an_object(body: bytes, kind: str):
    """Other values are refused by their kind."""
    with pytest.raises(BadRequest, match=kind):
        read(body)


KNOWN = frozenset(["model", "messages", "stream"])


@pytest.mark.parametrize(
    "document",
    [
        {"model": 1, "MODEL": 2},
        {"messages": 1, "meſſages": 2},
        {"unknown": 1, "Unknown": 2},
        {"K": 1, "\u212a": 2},  # the Kelvin sign folds to k
    ],
)
def test_keys_that_differ_only_in_case_are_refused(document: dict[str, int]):
    """A policy would check one, Ollama obey the other."""
    with pytest.raises(BadRequest, match="differ only in case") as caught:
        canonicalise(document, KNOWN)
    assert all(repr(key) in caught.value.message for key in document)


def test_a_lone_key_in_another_case_gets_its_own_spelling():
    """As Ollama reads it: `MODEL`, and `ſ` for s; the order stays, unknown keys are left alone."""
    document = {"MODEL": 1, "Unknown": 2, "ſtream": 3, "messages": 4}
    assert list(canonicalise(document, KNOWN).items()) == [
        ("model", 1), ("Unknown", 2), ("stream", 3), ("messages", 4)
    ]  # fmt: skip


def test_a_document_in_order_is_not_copied():
    """The usual request costs no copy."""
    document = {"model": 1, "other": 2}
    assert canonicalise(document, KNOWN) is document
