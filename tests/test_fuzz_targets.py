"""The fuzzers' targets with their own seeds, and with some of them spoiled: what `python -m tests.fuzz` begins with."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import TARGETS

SPOILED = 300  # inputs a target, from a fixed beginning: the same in each run


def spoil(seed: bytes, dice: random.Random) -> bytes:
    """A seed with a few bytes changed, left out, put in or said twice."""
    data = bytearray(seed)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0:
                data[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del data[place : place + dice.randrange(16)]
            case 2:
                data[place:place] = dice.choice(
                    [b"\r\n", b"\n", b'"', b"{", b"]", b":", b"\x00", b"\xff", b"0", b"1e999"]
                )
            case _:
                data[place:place] = data[place : place + dice.randrange(16)]
    return bytes(data)


@pytest.mark.parametrize("name", list(TARGETS))
def test_no_seed_and_no_spoiled_one_is_a_find(name: str) -> None:
    """Nonsense is answered with the errors that a reader promises, and two ways to read it agree."""
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    dice = random.Random(name)
    for data in [*seeds, *(spoil(dice.choice(seeds), dice) for _ in range(SPOILED))]:
        try:
            target.try_it(data)
        except Exception as find:
            raise AssertionError(f"{name}: {data[:300]!r}") from find
