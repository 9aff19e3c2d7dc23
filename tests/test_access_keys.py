"""API keys: their form, what is kept of them, where they may be used from."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.access import keys


def test_a_key_is_written_as_promised() -> None:
    """`glk_<id>_<secret>`, both parts letters and digits; the secret holds 256 bits."""
    key_id, secret = keys.new_key_id(), keys.new_secret()
    text = keys.written(key_id, secret)
    assert re.fullmatch(r"glk_[0-9A-Za-z]+_[0-9A-Za-z]+", text)
    assert keys.read(text) == (key_id, secret)
    assert 62 ** len(secret) >= 2**256


def test_no_two_keys_are_alike() -> None:
    """Ids and secrets are random."""
    assert len({keys.new_key_id() for _ in range(1000)}) == 1000
    assert len({keys.new_secret() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        *("", "glk_", "glk__", "glk_a_", "glk__b", "glk_a", "a_b", "GLK_a_b", " glk_a_b", "glk_a_b ", "glk_a_b\n"),
        *("glk_a_b_c", "glk_ä_b", "glk_a_٣", "glk_a_b=", "glk_a-_b", "glk_" + "a" * 33 + "_b", "glk_a_" + "b" * 129),
    ],
)
def test_what_is_not_written_so_is_no_key(text: str) -> None:
    """ASCII only, nothing before or behind, bounded."""
    assert keys.read(text) is None


def test_only_a_digest_is_kept() -> None:
    """P7: SHA-256 of the secret."""
    assert keys.secret_hash("secret") == hashlib.sha256(b"secret").digest()


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_secret_opens_its_own_hash_and_no_other(one: str, other: str) -> None:
    """Either of two accepted hashes opens; None and nobody's hash never."""
    kept = keys.secret_hash(one)
    assert keys.is_secret(one, kept)
    assert keys.is_secret(one, keys.secret_hash(one + "x"), kept)
    assert keys.is_secret(other, kept) == (one == other)
    assert not keys.is_secret(one, None, bytes(32))
    assert not keys.is_secret(one)


@pytest.mark.parametrize(
    ("address", "networks", "within"),
    [
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("11.1.2.3", ("10.0.0.0/8",), False),
        ("11.1.2.3", ("10.0.0.0/8", "11.1.2.3/32"), True),
        ("::ffff:10.1.2.3", ("10.0.0.0/8",), True),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("2001:db9::1", ("2001:db8::/32", "10.0.0.0/8"), False),
        ("10.1.2.3", (), False),
        ("", ("0.0.0.0/0",), False),
        ("elsewhere", ("0.0.0.0/0",), False),
    ],
)
def test_addresses_are_matched_by_network(address: str, networks: tuple[str, ...], within: bool) -> None:
    """IPv4 inside IPv6 counts as IPv4; what is no address lies nowhere."""
    assert keys.is_within(address, networks) is within


def test_networks_have_one_spelling() -> None:
    """A host's address within a range names the range; nonsense is named in the error."""
    assert keys.canonical_networks([" 10.1.2.3/8", "192.168.0.1", "2001:DB8::1/32"]) == (
        "10.0.0.0/8",
        "192.168.0.1/32",
        "2001:db8::/32",
    )
    with pytest.raises(ValueError, match="office"):
        keys.canonical_networks(["office"])
