"""Access tokens and the keys that sign them (security.md J1-J3)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from common.errors import StartError, Unauthenticated
from daemon import config as configuration
from daemon.access import signing
from daemon.access.identity import Access
from daemon.access.signing import SigningKey, SigningKeys, encode, read_signing_key
from daemon.access.tokens import Claims, InvalidToken, Tokens, header_of, issuer_of
from tests.rigs.lodge import HERE, SECOND, lodge
from tests.rigs.traffic import MovedClock

VECTORS = Path(__file__).with_name("vectors")
ISSUER = "http://gate.test:7000"
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def tokens(tmp_path: Path, clock: MovedClock) -> Tokens:
    keys = SigningKeys.open(tmp_path / "signing", clock, lifetime=30 * 86400)
    return Tokens(keys, clock, issuer=ISSUER, lifetime=600)


def issued(tokens: Tokens, **more: Any) -> str:
    return tokens.issue(sub="1", client_id="gatelodge-login", epoch=1, sid="family", **more)[0]


def part(value: Any) -> str:
    return encode(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


def signed(key: SigningKey, header: Any, payload: Any) -> str:
    """A token with any header and payload, rightly signed by `key`."""
    text = f"{header if isinstance(header, str) else part(header)}.{part(payload)}"
    return f"{text}.{encode(key.private.sign(text.encode()))}"


def good_claims(clock: MovedClock) -> dict[str, Any]:
    now = clock.wall() // SECOND
    return {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": "1",
        "client_id": "gatelodge-login",
        "iat": now,
        "exp": now + 600,
        "jti": "one",
        "epoch": 1,
        "sid": "family",
    }


def test_a_token_is_an_at_jwt_with_every_claim_of_rfc_9068(tokens: Tokens, clock: MovedClock) -> None:
    """EdDSA, typ at+jwt, a kid of the key set, the required claims, the epoch, at most ten minutes."""
    token = issued(tokens)
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "EdDSA", "kid": tokens.keys.signer.kid, "typ": "at+jwt"}
    assert token.split(".")[0] == header_of(tokens.keys.signer)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "epoch"} <= claims.keys()
    assert claims["exp"] - claims["iat"] <= 600
    assert tokens.verify(token) == msgspec.convert(claims, Claims)


def test_an_independent_verifier_accepts_it_by_the_published_keys(tokens: Tokens) -> None:
    """The JWKS is enough for anybody to check a token (RFC 7517, RFC 8037)."""
    keys = jwt.PyJWKSet.from_dict(tokens.keys.jwks())
    token = issued(tokens)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience=ISSUER, issuer=ISSUER, options=options)["sub"] == "1"


def test_no_private_part_is_published(tokens: Tokens) -> None:
    """Exactly the public members."""
    for jwk in tokens.keys.jwks()["keys"]:
        assert jwk.keys() == {"kty", "crv", "x", "kid", "use", "alg"}


def test_a_token_ends_with_its_time(tokens: Tokens, clock: MovedClock) -> None:
    """Valid to the second before exp, and not at it."""
    token = issued(tokens)
    clock.advance(599 * SECOND)
    tokens.verify(token)
    clock.advance(1 * SECOND)
    with pytest.raises(InvalidToken):
        tokens.verify(token)


def test_a_token_ends_with_what_it_was_made_from(tokens: Tokens, clock: MovedClock) -> None:
    """A token made from a key does not outlive the key."""
    claims = tokens.verify(issued(tokens, until_us=clock.wall() + 30 * SECOND))
    assert claims.exp - claims.iat == 30


def test_a_token_that_seems_to_come_from_the_future_is_refused(tokens: Tokens, clock: MovedClock) -> None:
    """A little skew passes (the wall clock is corrected now and then), an hour does not."""
    now = clock.wall() // SECOND
    key = tokens.keys.signer
    ahead = good_claims(clock) | {"iat": now + 3600, "exp": now + 3900}
    with pytest.raises(InvalidToken):
        tokens.verify(signed(key, header_of(key), ahead))
    little = good_claims(clock) | {"iat": now + 30, "exp": now + 330}
    tokens.verify(signed(key, header_of(key), little))


HEADERS: dict[str, Any] = {
    "alg none": {"alg": "none", "kid": "KID", "typ": "at+jwt"},
    "alg None": {"alg": "None", "kid": "KID", "typ": "at+jwt"},
    "key confusion": {"alg": "HS256", "kid": "KID", "typ": "at+jwt"},
    "other EdDSA name": {"alg": "Ed25519", "kid": "KID", "typ": "at+jwt"},
    "foreign typ": {"alg": "EdDSA", "kid": "KID", "typ": "JWT"},
    "no typ": {"alg": "EdDSA", "kid": "KID"},
    "no kid": {"alg": "EdDSA", "typ": "at+jwt"},
    "unknown kid": {"alg": "EdDSA", "kid": "other", "typ": "at+jwt"},
    "kid as a path": {"alg": "EdDSA", "kid": "../../../../dev/null", "typ": "at+jwt"},
    "kid as SQL": {"alg": "EdDSA", "kid": "' UNION SELECT 'k", "typ": "at+jwt"},
    "kid as a list": {"alg": "EdDSA", "kid": ["KID"], "typ": "at+jwt"},
    "jku": {"alg": "EdDSA", "jku": "http://127.0.0.1:PORT/keys", "kid": "KID", "typ": "at+jwt"},
    "x5u": {"alg": "EdDSA", "kid": "KID", "typ": "at+jwt", "x5u": "http://127.0.0.1:PORT/cert"},
    "jwk": {"alg": "EdDSA", "jwk": "OWN", "kid": "KID", "typ": "at+jwt"},
    "crit": {"alg": "EdDSA", "crit": ["b64"], "b64": False, "kid": "KID", "typ": "at+jwt"},
    "duplicate alg": b'{"alg":"none","alg":"EdDSA","kid":"KID","typ":"at+jwt"}',
    "deep": b"[" * 1400 + b"]" * 1400,
    "not JSON": b"alg=EdDSA",
    "a number": b"1",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_not_one_of_ours_is_refused(name: str, tokens: Tokens, clock: MovedClock) -> None:
    """J2, J3: whatever stands in a header, rightly signed or not, nothing of it is obeyed and no address is asked."""
    key = tokens.keys.signer
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        header = HEADERS[name]
        raw = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
        own = Ed25519PrivateKey.generate()
        raw = raw.replace(b"KID", key.kid.encode()).replace(b"PORT", str(listener.getsockname()[1]).encode())
        raw = raw.replace(b'"OWN"', json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}).encode())
        text = f"{encode(raw)}.{part(good_claims(clock))}"
        for signature in (
            key.private.sign(text.encode()),
            own.sign(text.encode()),
            hmac.digest(key.public.public_bytes_raw(), text.encode(), "sha256"),
            b"",
        ):
            with pytest.raises(InvalidToken):
                tokens.verify(f"{text}.{encode(signature)}")
        with pytest.raises(BlockingIOError):
            listener.accept()


CLAIMS: dict[str, dict[str, Any]] = {
    **{f"without {name}": {name: ...} for name in ("iss", "aud", "sub", "client_id", "iat", "exp", "jti", "epoch")},
    "exp as text": {"exp": "1700000600"},  # which would be right as a number
    "iat as text": {"iat": "1700000000"},
    "exp as a fraction": {"exp": 1700000599.5},
    "exp true": {"exp": True},
    "exp in the past": {"exp": 1},
    "a day long": {"exp": 1_700_086_400},
    "foreign issuer": {"iss": "http://elsewhere"},
    "foreign audience": {"aud": "http://elsewhere"},
    "several audiences": {"aud": [ISSUER]},
    "an unknown claim": {"admin": True},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_that_are_not_ours_are_refused_though_rightly_signed(
    name: str, tokens: Tokens, clock: MovedClock
) -> None:
    """J3: all of RFC 9068's claims are required, of exactly their types; ten minutes are the longest."""
    key = tokens.keys.signer
    tokens.verify(signed(key, header_of(key), good_claims(clock)))
    claims = {claim: value for claim, value in (good_claims(clock) | CLAIMS[name]).items() if value is not ...}
    with pytest.raises(InvalidToken):
        tokens.verify(signed(key, header_of(key), claims))


def test_stray_bits_in_the_signature_are_refused(tokens: Tokens) -> None:
    """86 characters hold 516 bits, a signature 512: of four spellings of its last character one counts."""
    header, payload, signature = issued(tokens).split(".")
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = alphabet[alphabet.index(last) ^ 1]
    assert base64.urlsafe_b64decode(signature[:-1] + stray + "==") == base64.urlsafe_b64decode(signature + "==")
    with pytest.raises(InvalidToken, match="canonical"):
        tokens.verify(f"{header}.{payload}.{signature[:-1]}{stray}")


def test_each_token_has_one_spelling_only(tokens: Tokens) -> None:
    """Padding, white space, other alphabets: a second spelling would slip past whatever tells tokens apart."""
    token = issued(tokens)
    header, payload, signature = token.split(".")
    for other in (
        f"{token}=",
        f"{token}==",
        f"{header}=.{payload}.{signature}",
        f"{header}.{payload}=.{signature}",
        f" {token}",
        f"{token}\n",
        f"{token}.",
        f".{token}",
        f"{header}..{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        token.replace("-", "+").replace("_", "/") + "+",
        token + "\u00df",
    ):
        with pytest.raises(InvalidToken):
            tokens.verify(other)


def test_stray_bits_in_the_payload_are_refused_though_rightly_signed(tokens: Tokens, clock: MovedClock) -> None:
    """The check does not lean on the signature."""
    key = tokens.keys.signer
    payload = part(json.dumps(good_claims(clock)).encode() + b" " * 3)
    while len(payload) % 4 != 2:
        payload = part(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)) + b" ")
    stray = payload[:-1] + chr(ord(payload[-1]) + 1)
    text = f"{header_of(key)}.{stray}"
    with pytest.raises(InvalidToken, match="canonical"):
        tokens.verify(f"{text}.{encode(key.private.sign(text.encode()))}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "a.b",
        "a.b.c.d",
        "a.b.c=",
        "a.b.+",
        "ä.b.c",
        "a.b.c\n",
        " a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
        "x" * 4097,
    ],
)
def test_what_has_not_the_shape_of_a_token_never_reaches_pyjwt(
    text: str, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J3: neither do headers that are none of ours; the library sees only what we might have signed."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("PyJWT was asked")

    for name in ("decode", "decode_complete", "get_unverified_header"):
        monkeypatch.setattr(f"daemon.access.tokens._jws.{name}", reached)
    with pytest.raises(InvalidToken):
        tokens.verify(text)
    _, payload, signature = issued(tokens).split(".")
    with pytest.raises(InvalidToken):
        tokens.verify(f"{part({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': tokens.keys.signer.kid})}.{payload}.{signature}")
    with pytest.raises(AssertionError, match="PyJWT"):
        tokens.verify(issued(tokens))


def test_oversize_tokens_are_refused_before_anything_is_computed(tokens: Tokens, clock: MovedClock) -> None:
    """4 KiB are the most, whatever they hold."""
    key = tokens.keys.signer
    long = signed(key, header_of(key), good_claims(clock) | {"sid": "x" * 4096})
    with pytest.raises(InvalidToken, match="shape"):
        tokens.verify(long)


def test_forged_and_malleable_signatures_are_refused(tokens: Tokens) -> None:
    """J1, our own Ed25519 vectors: a flipped bit, S + L, all zero, a small-order R, another key's."""
    header, payload, signature = issued(tokens).split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = int.from_bytes(raw[32:], "little")
    other = Ed25519PrivateKey.generate()
    small_order = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
    for forged in (
        bytes([raw[0] ^ 1]) + raw[1:],
        raw[:32] + (s + ORDER).to_bytes(32, "little"),
        bytes(64),
        small_order + bytes(32),
        b"\x01" + bytes(63),
        raw[:63],
        raw + b"\0",
        other.sign(f"{header}.{payload}".encode()),
    ):
        with pytest.raises(InvalidToken):
            tokens.verify(f"{header}.{payload}.{encode(forged)}")


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_-]{1,40}(\.[A-Za-z0-9_-]{1,40}){2}", fullmatch=True)
    )
)
def test_nothing_but_a_token_is_a_token(text: str, tokens_once: Tokens) -> None:
    """Whatever is presented: InvalidToken, never another error."""
    with pytest.raises(InvalidToken):
        tokens_once.verify(text)


@pytest.fixture(scope="module")
def tokens_once(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    clock = MovedClock()
    keys = SigningKeys.open(tmp_path_factory.mktemp("keys"), clock, lifetime=86400)
    return Tokens(keys, clock, issuer=ISSUER, lifetime=600)


# -- others' vectors --------------------------------------------------------------------------------------------------


def vectors(name: str) -> Iterator[dict[str, Any]]:
    content = json.loads((VECTORS / f"wycheproof_json_web_{name}_test.json").read_text(encoding="utf-8"))
    seen = 0
    for group in content["testGroups"]:
        for test in group["tests"]:
            seen += 1
            yield {**test, "group": group}
    assert seen == content["numberOfTests"]


async def test_every_wycheproof_signature_is_refused_as_a_bearer(tmp_path: Path) -> None:
    """J1: valid under their own keys or not, none of them is ours: 401, and no other error."""
    async with lodge(tmp_path) as it:
        count = 0
        for vector in vectors("signature"):
            jws = vector["jws"] if isinstance(vector["jws"], str) else json.dumps(vector["jws"])
            with pytest.raises(Unauthenticated) as refusal:
                it.bearer(jws)
            assert refusal.value.status == 401
            count += 1
        assert count == 401


async def test_every_wycheproof_key_vector_is_refused_as_a_bearer(tmp_path: Path) -> None:
    """The tokens of the key vectors, likewise."""
    async with lodge(tmp_path) as it:
        for vector in vectors("key"):
            with pytest.raises(Unauthenticated):
                it.bearer(vector["jws"])


def test_no_wycheproof_key_is_taken_for_a_signing_key() -> None:
    """J1, on our key reader: sets, symmetric, RSA, EC keys, wrong curves and uses: none is an Ed25519 pair of ours."""
    for vector in [*vectors("key"), *vectors("signature")]:
        group = vector["group"]
        for jwk in (group.get("private"), group.get("public")):
            if jwk is None:
                continue
            for one in (jwk, *jwk.get("keys", [])):
                with pytest.raises(ValueError):
                    read_signing_key(json.dumps(one).encode())


# -- signing keys -----------------------------------------------------------------------------------------------------


def damaged_keys() -> Iterator[tuple[str, dict[str, Any]]]:
    other = json.loads(SigningKey.generate(1).file_content())
    yield "another key's public part", {"x": other["x"]}
    yield "another key's private part", {"d": other["d"]}
    yield "another key's kid", {"kid": other["kid"]}
    yield "short", {"d": encode(b"\1" * 31)}
    yield "padded", {"d": other["d"] + "="}
    yield "a small-order public part", {"x": encode(b"\1" + bytes(31))}
    yield "X25519", {"crv": "X25519"}
    yield "Ed448", {"crv": "Ed448"}
    yield "for encryption", {"use": "enc"}
    yield "HS256", {"alg": "HS256"}
    yield "key_ops", {"key_ops": ["sign"]}
    yield "no private part", {"d": None}


@pytest.mark.parametrize(("name", "change"), list(damaged_keys()))
def test_a_damaged_signing_key_is_refused(name: str, change: dict[str, Any]) -> None:
    """The reader takes exactly what was written, down to the thumbprint."""
    content = json.loads(SigningKey.generate(5).file_content())
    assert read_signing_key(json.dumps(content).encode()).created_us == 5
    with pytest.raises(ValueError):
        read_signing_key(json.dumps(content | change).encode())


def test_signing_keys_are_private_files_and_outlive_a_restart(tmp_path: Path, clock: MovedClock) -> None:
    """0600, under their thumbprint; a token verifies after a restart."""
    folder = tmp_path / "secrets" / "signing"
    keys = SigningKeys.open(folder, clock, lifetime=86400)
    token = issued(Tokens(keys, clock, issuer=ISSUER, lifetime=600))
    (file,) = folder.iterdir()
    assert file.name == f"{keys.signer.kid}.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    again = SigningKeys.open(folder, clock, lifetime=86400)
    Tokens(again, clock, issuer=ISSUER, lifetime=600).verify(token)


def test_a_kid_is_the_keys_thumbprint(tokens: Tokens) -> None:
    """RFC 7638, so that nobody chooses it."""
    (jwk,) = tokens.keys.jwks()["keys"]
    canonical = json.dumps({name: jwk[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    assert jwk["kid"] == encode(hashlib.sha256(canonical.encode()).digest())


def test_an_exposed_or_damaged_signing_key_stops_the_start(tmp_path: Path, clock: MovedClock) -> None:
    """One line that names the file and what to do."""
    folder = tmp_path / "signing"
    SigningKeys.open(folder, clock, lifetime=86400)
    (file,) = folder.iterdir()
    file.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        SigningKeys.open(folder, clock, lifetime=86400)
    file.chmod(0o600)
    file.write_text("{}")
    with pytest.raises(StartError, match="damaged"):
        SigningKeys.open(folder, clock, lifetime=86400)
    file.write_bytes(SigningKey.generate(1).file_content())
    with pytest.raises(StartError, match="name"):
        SigningKeys.open(folder, clock, lifetime=86400)


def test_a_key_is_published_before_it_signs_and_after(tmp_path: Path, clock: MovedClock) -> None:
    """Rotation: whoever fetched the key set within ten minutes can verify every valid token at any time."""
    day = 86400
    folder = tmp_path / "signing"
    keys = SigningKeys.open(folder, clock, lifetime=day)
    tokens = Tokens(keys, clock, issuer=ISSUER, lifetime=600)
    first = keys.signer
    assert not keys.rotate()
    clock.advance(day * SECOND)
    assert keys.rotate()
    assert len(keys.jwks()["keys"]) == 2
    assert keys.signer == first
    clock.advance(599 * SECOND)
    assert keys.signer == first
    last_of_first = issued(tokens)
    clock.advance(1 * SECOND)
    second = keys.signer
    assert second != first
    clock.advance(590 * SECOND)
    assert not keys.rotate()
    tokens.verify(last_of_first)
    clock.advance(signing.LONGEST_TOKEN_US)
    assert keys.rotate()
    assert [key.kid for key in keys] == [second.kid]
    assert [file.stem for file in folder.iterdir()] == [second.kid]


async def test_a_token_is_verified_once_and_then_known_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot path: a second use costs no signature; it ends in time all the same."""
    async with lodge(tmp_path) as it:
        await it.person("ana@example.org", "a good password")
        token = (await it.accounts.login("ana@example.org", "a good password", HERE)).access_token
        verified = []
        verify = it.sessions.tokens.verify
        monkeypatch.setattr(it.sessions.tokens, "verify", lambda text: verified.append(text) or verify(text))
        for _ in range(3):
            it.bearer(token)
        assert verified == [token]
        it.clock.advance(600 * SECOND)
        with pytest.raises(Unauthenticated):
            it.bearer(token)
        assert verified == [token]


async def test_the_cache_of_tokens_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fetches a token for each call does not grow the gateway's memory."""
    monkeypatch.setattr("daemon.access.identity._REMEMBERED_TOKENS", 20)
    async with lodge(tmp_path) as it:
        user = await it.person("ana@example.org", "a good password")
        access = Access(it.directory, it.sessions, it.clock)
        for _ in range(60):
            token, _ = it.sessions.tokens.issue(
                sub=str(user.id), client_id="gatelodge-login", epoch=user.epoch, sid="family"
            )
            access.identify(HTTPHeaders({"Authorization": f"Bearer {token}"}), address=HERE)
        assert int(repr(access).split()[1]) <= 20


@pytest.mark.parametrize(
    ("flags", "issuer"),
    [
        ({}, "http://127.0.0.1:7000"),
        ({"server.host": "::1"}, "http://[::1]:7000"),
        ({"server.port": 80}, "http://127.0.0.1"),
        ({"server.allowed_hosts": ["gate.example.org"]}, "http://gate.example.org:7000"),
        ({"server.host": "0.0.0.0"}, f"http://{socket.gethostname()}:7000"),
    ],
)
def test_the_issuer_comes_from_the_configuration(flags: dict[str, Any], issuer: str) -> None:
    """Never from a request's Host, which whoever asks may choose."""
    assert issuer_of(configuration.load(environment={}, flags=flags)) == issuer
