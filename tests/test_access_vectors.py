"""Hostile tokens at the door of a whole daemon (security.md J1, J2): 401 each, nothing in the log, nothing reached.

One daemon serves the module; its log, its connections and the files it opens are looked at after each table.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from daemon.access.signing import SigningKey, decode, encode, read_signing_key
from tests.rigs.watched import WatchedDaemon, watched_daemon

VECTORS = Path(__file__).with_name("vectors")
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group
IDENTITY = bytes([1]) + bytes(31)  # a public key of order 1: R = the same, S = 0 verifies under it for every message
SMALL = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")  # of order 8


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedDaemon]:
    with watched_daemon(tmp_path_factory.mktemp("watched")) as running:
        yield running


@pytest.fixture(scope="module")
def token(daemon: WatchedDaemon) -> str:
    """A token that is good: made from the first user's key."""
    name, _, secret = (daemon.data / "first-key").read_text().strip().rpartition("_")
    form = f"grant_type=client_credentials&client_id={name}&client_secret={secret}".encode()
    kind = {"Content-Type": b"application/x-www-form-urlencoded"}
    status, answer = daemon.ask("POST", "/oauth/token", kind, form)
    assert status == 200, answer
    return str(json.loads(answer)["access_token"])


@pytest.fixture(scope="module")
def key(daemon: WatchedDaemon) -> SigningKey:
    """The daemon's own signing key."""
    (file,) = (daemon.data / "secrets" / "signing").iterdir()
    return read_signing_key(file.read_bytes())


def all_refused(daemon: WatchedDaemon, hostile: dict[str, str | bytes], good: str) -> None:
    """Each is 401 at an inference route; the good one is known before and after; the daemon reached nothing."""
    for _ in range(2):
        status, _ = daemon.ask("GET", "/auth/me", {"Authorization": f"Bearer {good}".encode()})
        assert status == 200, "the token that the others are made from is good"
        assert {name: status for name, each in hostile.items() if (status := daemon.bearer(each)) != 401} == {}
    assert daemon.failures() == []
    with pytest.raises(BlockingIOError):
        daemon.trap.accept()
    elsewhere = {note for note in daemon.reached() if daemon.upstream.replace(":", " ") not in note}
    assert elsewhere == set(), "connected, resolved or opened something that a token named"


def vectors(name: str) -> dict[str, str | bytes]:
    content = json.loads((VECTORS / f"wycheproof_json_web_{name}_test.json").read_text(encoding="utf-8"))
    found = {
        f"{test['tcId']} {test['comment']}": test["jws"] for group in content["testGroups"] for test in group["tests"]
    }
    assert len(found) == content["numberOfTests"]
    return found


def part(value: Any) -> str:
    return encode(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


def signed(key: SigningKey | Ed25519PrivateKey, header: Any, payload: str) -> str:
    """Rightly signed, whatever it says; `payload` is encoded already."""
    text = f"{part(header)}.{payload}"
    private = key.private if isinstance(key, SigningKey) else key
    return f"{text}.{encode(private.sign(text.encode()))}"


@pytest.mark.parametrize(("name", "count"), [("signature", 401), ("key", 26)])
def test_every_wycheproof_token_is_refused_by_a_whole_daemon(
    daemon: WatchedDaemon, token: str, name: str, count: int
) -> None:
    """J1: each of the vectors as a Bearer: 401, no traceback, valid under their own keys or not."""
    found = vectors(name)
    assert len(found) == count
    all_refused(daemon, found, token)


def test_our_own_ed25519_vectors_are_refused_by_a_whole_daemon(
    daemon: WatchedDaemon, token: str, key: SigningKey
) -> None:
    """J1: forged, malleable S, small-order keys and points, the wrong kid."""
    header, payload, signature = token.split(".")
    raw = decode(signature)
    s = int.from_bytes(raw[32:], "little")
    other = SigningKey.generate(key.created_us)
    ours = {"alg": "EdDSA", "kid": key.kid, "typ": "at+jwt"}
    signatures = {
        "a flipped bit of R": bytes([raw[0] ^ 1]) + raw[1:],
        "a flipped bit of S": raw[:32] + bytes([raw[32] ^ 1]) + raw[33:],
        "S + L": raw[:32] + (s + ORDER).to_bytes(32, "little"),
        "S + 2L": raw[:32] + (s + 2 * ORDER).to_bytes(32, "little"),
        "S = L": raw[:32] + ORDER.to_bytes(32, "little"),
        "S = 0": raw[:32] + bytes(32),
        "all zero": bytes(64),
        "R of order 1": IDENTITY + bytes(32),
        "R of order 8": SMALL + bytes(32),
        "R not canonical": b"\xee" + b"\xff" * 30 + b"\x7f" + raw[32:],
        "cut": raw[:63],
        "longer": raw + b"\0",
        "twice": raw + raw,
        "another key's": other.private.sign(f"{header}.{payload}".encode()),
    }
    hostile: dict[str, str | bytes] = {
        f"signature: {name}": f"{header}.{payload}.{encode(each)}" for name, each in signatures.items()
    }
    changed = json.loads(decode(payload)) | {"epoch": 2}
    hostile |= {
        "forged claims": f"{header}.{part(changed)}.{signature}",
        "signed by a stranger under our kid": signed(other, ours, payload),
        "signed by a stranger under their own kid": signed(other, ours | {"kid": other.kid}, payload),
        "signed by us under a stranger's kid": signed(key, ours | {"kid": other.kid}, payload),
        "no kid": signed(key, {name: value for name, value in ours.items() if name != "kid"}, payload),
    }
    forged = encode(IDENTITY + bytes(32))
    for order, point in ((1, IDENTITY), (8, SMALL)):
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": encode(point)}
        for place in ({"jwk": jwk}, {"kid": encode(point)}, {"kid": key.kid, "jwk": jwk}):
            hostile[f"a key of order {order}, {place}"] = f"{part(ours | place)}.{payload}.{forged}"
    all_refused(daemon, hostile, token)


def test_no_header_is_obeyed_by_a_whole_daemon(daemon: WatchedDaemon, token: str, key: SigningKey) -> None:
    """J2: none, key confusion, kid injection, jku, jwk, blank signature, padding, oversize, deep JSON: 401 each.

    Every one is signed by our key, by a stranger's, by the public key as an HMAC secret, and not at all.
    """
    _, payload, signature = token.split(".")
    stranger = Ed25519PrivateKey.generate()
    ours = {"alg": "EdDSA", "kid": key.kid, "typ": "at+jwt"}
    url = f"http://127.0.0.1:{daemon.trap_port}"
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": encode(stranger.public_key().public_bytes_raw())}
    headers: dict[str, Any] = {
        "alg none": ours | {"alg": "none"},
        "alg NONE": ours | {"alg": "NONE"},
        "alg empty": ours | {"alg": ""},
        "alg absent": {"kid": key.kid, "typ": "at+jwt"},
        "alg null": ours | {"alg": None},
        "alg list": ours | {"alg": ["EdDSA", "none"]},
        "key confusion": ours | {"alg": "HS256"},
        "Ed25519": ours | {"alg": "Ed25519"},
        "ES256": ours | {"alg": "ES256"},
        "typ": ours | {"typ": "JWT"},
        "kid: a file": ours | {"kid": str(daemon.bait)},
        "kid: a path": ours | {"kid": f"../../{daemon.bait.name}"},
        "kid: SQL": ours | {"kid": "' UNION SELECT 'x' --"},
        "kid: a command": ours | {"kid": f"| cat {daemon.bait}"},
        "kid: an address": ours | {"kid": f"{url}/kid"},
        "kid: a prefix": ours | {"kid": key.kid[:-1]},
        "kid: NUL": ours | {"kid": f"{key.kid}\0"},
        "jku": ours | {"jku": f"{url}/jku"},
        "jku alone": {"alg": "EdDSA", "jku": f"{url}/jku", "typ": "at+jwt"},
        "jku by name": ours | {"jku": "http://keys.invalid/jku"},
        "x5u": ours | {"x5u": f"{url}/x5u"},
        "x5c": ours | {"x5c": ["AAAA"]},
        "jwk": ours | {"jwk": jwk},
        "jwk alone": {"alg": "EdDSA", "jwk": jwk, "typ": "at+jwt"},
        "crit": ours | {"crit": ["b64"], "b64": False},
        "zip": ours | {"zip": "DEF"},
        "another order": {"typ": "at+jwt", "kid": key.kid, "alg": "EdDSA"},
        "duplicate alg": b'{"alg":"none","alg":"EdDSA","kid":"%s","typ":"at+jwt"}' % key.kid.encode(),
        "duplicate kid": b'{"alg":"EdDSA","kid":"x","kid":"%s","typ":"at+jwt"}' % key.kid.encode(),
        "deep": b"[" * 1400 + b"]" * 1400,
        "deeper than a token": b'{"alg":' * 20_000,
        "white space": b'{"alg":"EdDSA", "kid":"%s","typ":"at+jwt"}' % key.kid.encode(),
        "not JSON": b"alg=EdDSA",
        "not UTF-8": b"\xff\xfe",
        "empty object": {},
    }
    public_pem = key.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    hostile: dict[str, str | bytes] = {}
    for name, header in headers.items():
        text = f"{part(header)}.{payload}"
        if len(text) > 16_000:
            text = text[:16_000]  # what still passes the bound of a head
        for by, made in {
            "us": key.private.sign(text.encode()),
            "a stranger": stranger.sign(text.encode()),
            "the public key": hmac.digest(key.public.public_bytes_raw(), text.encode(), "sha256"),
            "the public key as PEM": hmac.digest(public_pem, text.encode(), "sha256"),
            "nobody": b"",
        }.items():
            hostile[f"{name}, signed by {by}"] = f"{text}.{encode(made)}"
    right = part(ours)
    deep = part(b'{"iss":' * 400 + b"1" + b"}" * 400)
    hostile |= {
        "blank signature": f"{right}.{payload}.",
        "no signature": f"{right}.{payload}",
        "blank payload": f"{right}..{signature}",
        "blank": "",
        "dots": "..",
        "four parts": f"{token}.{signature}",
        "encrypted form": f"{token}.AAAA.AAAA",
        "padding": f"{token}=",
        "padded payload": f"{right}.{payload}==.{signature}",
        "padded header": f"{right}=.{payload}.{signature}",
        "inner space": f"{right}. {payload}.{signature}",
        "inner tab": f"{right}.\t{payload}.{signature}",
        "standard alphabet": f"{right}.{payload}.{base64.b64encode(decode(signature)).decode()}",
        "not ASCII": token.encode() + b"\xc3\x9f",
        "not UTF-8": token.encode() + b"\xff",
        "JSON serialisation": json.dumps({"protected": right, "payload": payload, "signature": signature}),
        "oversize": signed(key, ours, part(json.loads(decode(payload)) | {"sid": "x" * 4096})),
        "oversize text": "A" * 20_000,
        "deep payload": signed(key, ours, deep),
        "deep claim": signed(key, ours, part(b'{"aud":' + b"[" * 1000 + b"]" * 1000 + b"}")),
        "no claims": signed(key, ours, part(b"")),
        "a number": signed(key, ours, part(b"1")),
        "a huge exp": signed(key, ours, part(decode(payload).replace(b'"exp":', b'"exp":1' + b"0" * 400))),
    }
    assert len(hostile) > 190
    all_refused(daemon, hostile, token)


def test_the_watch_sees_what_a_daemon_reaches(daemon: WatchedDaemon) -> None:
    """The control: the one connection that a daemon has cause to make, to its upstream, is in the notes."""
    host, _, port = daemon.upstream.partition(":")
    assert f"create_connection {host} {port}" in daemon.notes.read_text(encoding="utf-8")
