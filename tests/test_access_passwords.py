"""Passwords: what they cost, how many are checked at once, which are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import extract_parameters

from common.errors import BadRequest, Unavailable
from daemon.access import passwords
from daemon.access.passwords import PasswordPool, check_new_password, is_common, one_time_password
from daemon.config import Passwords
from tests.rigs.common_passwords import common_passwords
from tests.rigs.until import until


@pytest.fixture
def pool() -> Iterator[PasswordPool]:
    pool = PasswordPool()
    yield pool
    pool.close()


async def test_a_password_is_kept_as_argon2id_of_the_demanded_cost(pool: PasswordPool) -> None:
    """P1: argon2id, 19 MiB, two passes, one lane, a salt of its own."""
    first, second = await pool.hash("correct horse"), await pool.hash("correct horse")
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert await pool.is_right("correct horse", first)
    assert not await pool.is_right("correct horsf", first)


async def test_nothing_is_right_where_there_is_no_password(pool: PasswordPool) -> None:
    """P2: an account without a hash accepts nothing, not even an empty password."""
    assert not await pool.is_right("", None)
    assert not await pool.is_right("anything", None)
    assert extract_parameters(pool._decoy) == pool._cost, "what it is checked against is written as a real hash is"
    pool._decoy = await pool.hash("guessed")
    assert not await pool.is_right("guessed", None)


async def test_checking_against_nothing_costs_as_much_as_against_a_hash(pool: PasswordPool) -> None:
    """P2: who does not exist is not told apart by time. (The processor's: other processes share the machine.)"""
    stored = await pool.hash("right password")

    async def fastest(against: str | None) -> float:
        times = []
        for _ in range(7):
            begin = time.process_time()
            assert not await pool.is_right("wrong password", against)
            times.append(time.process_time() - begin)
        return min(times)

    known, unknown = await fastest(stored), await fastest(None)
    assert unknown > known / 2
    assert known > unknown / 2


@pytest.mark.parametrize("raised", [Passwords(time=3), Passwords(time=8), Passwords(memory_kib=3 * 19 * 1024)])
async def test_an_old_cheaper_hash_is_checked_at_the_new_cost(
    pool: PasswordPool, raised: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2 after P7: who has not logged in since the cost was raised is not told apart from who does not exist."""
    stored = await pool.hash("right password")
    work: list[int] = []

    def counted(name: str) -> None:
        compute = getattr(passwords, name)

        def counting(*arguments: Any) -> Any:
            cost = extract_parameters(arguments[1]) if name == "_matches" else arguments[2]
            work.append(cost.time_cost * cost.memory_cost)
            return compute(*arguments)

        monkeypatch.setattr(passwords, name, counting)

    stronger = PasswordPool(raised)
    try:
        counted("_matches")
        counted("_computed")
        done = []
        for against in (stored, None):
            work.clear()
            assert not await stronger.is_right("wrong password", against)
            done.append(sum(work))
        assert done[0] == done[1] == raised.time * raised.memory_kib
        assert await stronger.is_right("right password", stored)
        work.clear()
        assert not await pool.is_right("wrong password", await pool.hash("right password"))
        assert len(work) == 2, "a hash of today's cost costs nothing more"
    finally:
        stronger.close()


async def test_the_same_characters_composed_differently_are_the_same_password(pool: PasswordPool) -> None:
    """A keyboard that sends a letter and an accent, and one that sends the accented letter, both open."""
    stored = await pool.hash("Stra\u00dfencaf\u00e9")
    assert await pool.is_right("Stra\u00dfencafe\u0301", stored)


async def test_hashes_that_share_a_salt_show_equal_passwords_only(pool: PasswordPool) -> None:
    """One computation tells which of an address's pending entries a password belongs to."""
    first = await pool.hash("the first one")
    assert await pool.hash("the first one", like=first) == first
    assert await pool.hash("the second one", like=first) != first


async def test_a_hash_of_another_cost_is_outdated(pool: PasswordPool) -> None:
    """P7: raising the parameters shows at the next login."""
    stronger = PasswordPool(Passwords(time=3))
    try:
        stored = await pool.hash("some password")
        assert not pool.is_outdated(stored)
        assert stronger.is_outdated(stored)
        assert await stronger.is_right("some password", stored)
    finally:
        stronger.close()


async def test_more_than_two_running_and_32_waiting_are_unavailable(pool: PasswordPool) -> None:
    """P1: the 35th at once gets a 503 that says when to come again; the others are served."""
    stored = await pool.hash("right password")
    checks = [asyncio.ensure_future(pool.is_right("right password", stored)) for _ in range(40)]
    results = await asyncio.gather(*checks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Unavailable)]
    assert results.count(True) == 34
    assert len(refused) == 6
    assert all(error.retry_after for error in refused)
    assert await pool.is_right("right password", stored)


async def test_an_administrator_gets_a_hash_while_strangers_fill_the_pool(pool: PasswordPool) -> None:
    """A flood of logins must not keep anybody from resetting a password."""
    checks = [asyncio.ensure_future(pool.is_right("some password", None)) for _ in range(34)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await pool.hash("some password")
    assert await pool.hash("some password", always=True)
    await asyncio.gather(*checks)


async def test_who_leaves_gives_the_place_back_only_when_the_computation_is_over(pool: PasswordPool) -> None:
    """A client that connects and leaves in a loop must not pile up computations behind the bound."""
    checks = [asyncio.ensure_future(pool.is_right("some password", None)) for _ in range(34)]
    await asyncio.sleep(0)
    for check in checks:
        check.cancel()
    await asyncio.gather(*checks, return_exceptions=True)
    await until(lambda: repr(pool) == "<PasswordPool 0 of 34>")
    assert not await pool.is_right("some password", None)


async def test_the_event_loop_runs_on_while_passwords_are_hashed(pool: PasswordPool) -> None:
    """P1: a hundred logins, 34 at a time, hold the loop for less than ten times the stated 50 ms."""
    lags: list[float] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            begin = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - begin - 0.005)

    watcher = asyncio.ensure_future(watch())
    for _ in range(3):
        await asyncio.gather(*(pool.is_right("wrong password", None) for _ in range(34)))
    done.set()
    await watcher
    lags.sort()
    assert lags[int(len(lags) * 0.99)] < 0.5


@pytest.mark.parametrize("password", ["", "short12", "a" * 7, "\u0065\u0301" * 7, "x" * 129])
def test_too_short_and_too_long_passwords_are_refused_in_words(password: str) -> None:
    """P5: 8 to 128 characters, counted as people see them."""
    with pytest.raises(BadRequest) as refusal:
        check_new_password(password)
    assert "characters" in refusal.value.message
    assert password == "" or password not in refusal.value.message


@pytest.mark.parametrize("letter", ["q", "\u00e9", "\U0001f511"])
def test_the_bounds_of_a_password_belong_to_it(letter: str) -> None:
    """P5: 8 and 128 characters are right, 7 and 129 are not, whatever a character weighs in bytes."""
    for length in (8, 128):
        check_new_password("x" + letter * (length - 1))
    for length in (7, 129):
        with pytest.raises(BadRequest):
            check_new_password("x" + letter * (length - 1))


async def test_the_longest_password_counts_to_its_last_character(pool: PasswordPool) -> None:
    """P5: nothing is cut off, as bcrypt would after 72 bytes."""
    stored = await pool.hash("\u00e9" * 127 + "a")
    assert await pool.is_right("\u00e9" * 127 + "a", stored)
    assert not await pool.is_right("\u00e9" * 127 + "b", stored)


@pytest.mark.parametrize("password", ["        ", "n" + "o rules" * 18, "wgtlqxzk", "日本語のパスワード"])
def test_composition_is_free(password: str) -> None:
    """P5: no rules of composition: spaces, one case, any script."""
    check_new_password(password)


@pytest.mark.parametrize(
    "password", ["password", "Password1", "12345678", "qwertyuiop", "iloveyou", "Sommer2024!", "admin123", "LETMEIN1"]
)
def test_the_common_ones_are_refused(password: str) -> None:
    """P5: the list of what is tried first holds regardless of case."""
    assert is_common(password)
    with pytest.raises(BadRequest, match="tried first"):
        check_new_password(password)


def test_part_of_a_line_or_several_lines_are_not_on_the_list() -> None:
    """Only whole entries count: the list is searched as one text."""
    assert not is_common("assword1x")
    assert not is_common("asswor")


def test_the_common_list_is_what_its_generator_makes() -> None:
    """Nobody edits the file by hand: tests/rigs/common_passwords.py says where each line comes from."""
    file = Path(passwords.__file__).with_name("common_passwords.txt")
    assert file.read_text(encoding="utf-8").split("\n") == [*common_passwords(), ""]


def test_a_one_time_password_has_at_least_128_bits() -> None:
    """P4: 32 characters of 32 kinds are 160 bits; no two are alike."""
    made = {one_time_password() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        letters = password.replace("-", "")
        assert len(letters) == 32
        assert set(letters) <= set("abcdefghijkmnpqrstuvwxyz23456789")
        check_new_password(password)
    # Each place takes nearly all of its 32 kinds (200 fair draws leave out more than 8 once in a million years).
    assert all(len(set(kinds)) >= 24 for kinds in zip(*(each.replace("-", "") for each in made), strict=True))
