"""Passwords: hashing and checking with argon2id in a small pool, and what a new password may be.

Rule: every check costs one argon2 computation, whether there is anything to check against or not; the event loop
never computes one itself. What the outcome means (which account, which answer) is decided in `accounts.py`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import math
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from argon2 import Parameters, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION, hash_secret, verify_secret

from common.errors import BadRequest, Unavailable
from daemon.config import Passwords

T = TypeVar("T")

SHORTEST, LONGEST = 8, 128  # characters (code points after NFKC)
_SALT_BYTES, _HASH_BYTES = 16, 32
_USUAL_COST = Passwords()


class PasswordPool:
    """argon2id in `threads` threads, with at most `waiting` computations in line; a further one is Unavailable.

    `cost` is that of new hashes (security.md P1). Cancelling a caller does not stop a computation that runs, and its
    thread counts as taken until it is done.
    """

    def __init__(self, cost: Passwords = _USUAL_COST, *, threads: int = 2, waiting: int = 32) -> None:
        self._cost = Parameters(
            type=Type.ID,
            version=ARGON2_VERSION,
            salt_len=_SALT_BYTES,
            hash_len=_HASH_BYTES,
            time_cost=cost.time,
            memory_cost=cost.memory_kib,
            parallelism=cost.parallelism,
        )
        self._most = threads + waiting
        self._executor = ThreadPoolExecutor(threads, "argon2", initializer=_give_way)
        self._count = threading.Lock()
        self._unfinished = 0
        # What an account that does not exist is checked against: nobody knows its password, we neither. As a random
        # digest it costs nothing to make; checking against it costs what checking against any other does.
        self._decoy = _written(self._cost, secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES))

    def __repr__(self) -> str:
        return f"<PasswordPool {self._unfinished} of {self._most}>"

    async def hash(self, password: str, *, like: str | None = None, always: bool = False) -> str:
        """The PHC string of `password`, under a new salt.

        `always`: however many wait, for administrators, who must be able to act while strangers flood the login. With
        `like`, under the salt and cost of that PHC string: equal passwords then have equal strings, so that one
        computation tells which of several hashes that share a salt a password belongs to.
        """
        text = _normal(password)
        if like is not None:
            cost, salt = extract_parameters(like), _salt_of(like)
        else:
            cost, salt = self._cost, secrets.token_bytes(_SALT_BYTES)
        return await self._run(lambda: _computed(text, salt, cost), always=always)

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether `password` is the one behind `stored`; with None, False after the same work."""
        text = _normal(password)
        against = stored if stored is not None else self._decoy
        right = await self._run(lambda: self._checked(text, against))
        return right and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether `stored` was made at another cost than new hashes are (P7)."""
        cost = extract_parameters(stored)
        return (cost.type, cost.time_cost, cost.memory_cost, cost.parallelism) != (
            Type.ID,
            self._cost.time_cost,
            self._cost.memory_cost,
            self._cost.parallelism,
        )

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _checked(self, text: bytes, stored: str) -> bool:
        """Whether they match, at the cost of a new hash: after the cost was raised, an account whose hash is still the
        old, cheaper one would else be told apart from an account that does not exist."""
        right = _matches(text, stored)
        old, new = extract_parameters(stored), self._cost
        missing = _work(new) - _work(old)
        if missing > 0:
            passes = math.ceil(missing / new.memory_cost)  # so that it takes no more memory than a new hash
            memory = max(missing // passes, 8 * new.parallelism)
            _computed(text, _salt_of(stored), replace(new, time_cost=passes, memory_cost=memory))
        return right

    async def _run(self, compute: Callable[[], T], *, always: bool = False) -> T:
        with self._count:
            if self._unfinished >= self._most and not always:
                raise Unavailable("too many passwords are being checked just now; try again in a moment", retry_after=1)
            self._unfinished += 1
        try:
            future = self._executor.submit(compute)
        except RuntimeError as error:  # the pool is closed: the gateway is stopping
            self._finished(None)
            raise Unavailable("the gateway is shutting down", code="shutdown", retry_after=5) from error
        # The thread's own future: the awaiting one ends early when the caller leaves, its thread would still be busy.
        future.add_done_callback(self._finished)
        return await asyncio.wrap_future(future)

    def _finished(self, _: Future[T] | None) -> None:
        with self._count:
            self._unfinished -= 1


def check_new_password(password: str) -> None:
    """BadRequest, in words for the user, where `password` may not be chosen (P5). Its composition is free."""
    text = unicodedata.normalize("NFKC", password)
    if len(text) < SHORTEST:
        raise BadRequest(f"the password is too short: at least {SHORTEST} characters", code="password_too_short")
    if len(text) > LONGEST:
        raise BadRequest(f"the password is too long: at most {LONGEST} characters", code="password_too_long")
    if is_common(text):
        raise BadRequest("this password is one of those that are tried first; choose another", code="password_common")


def is_common(password: str) -> bool:
    """Whether `password`, regardless of case, is on the list of those that attackers try first."""
    return b"\n" + password.casefold().encode() + b"\n" in _common_passwords()


def one_time_password() -> str:
    """A temporary password: 160 random bits as eight groups of four characters that are easily told apart (P4)."""
    number = secrets.randbits(160)
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    letters = "".join(alphabet[(number >> shift) & 31] for shift in range(0, 160, 5))
    return "-".join(letters[at : at + 4] for at in range(0, 32, 4))


@cache
def _common_passwords() -> bytes:
    # One search through some 80 KiB takes microseconds; a set of its lines would take a megabyte for good.
    return b"\n" + Path(__file__).with_name("common_passwords.txt").read_bytes()


def _normal(password: str) -> bytes:
    """One spelling of what looks the same, however the keyboard composed it (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password).encode()


def _computed(password: bytes, salt: bytes, cost: Parameters) -> str:
    return hash_secret(
        password,
        salt,
        time_cost=cost.time_cost,
        memory_cost=cost.memory_cost,
        parallelism=cost.parallelism,
        hash_len=_HASH_BYTES,
        type=cost.type,
        version=cost.version,
    ).decode("ascii")


def _written(cost: Parameters, salt: bytes, digest: bytes) -> str:
    """The PHC string of a digest."""
    numbers = f"v={cost.version}$m={cost.memory_cost},t={cost.time_cost},p={cost.parallelism}"
    encoded = (base64.b64encode(part).decode("ascii").rstrip("=") for part in (salt, digest))
    return "$".join(("$argon2id", numbers, *encoded))


def _work(cost: Parameters) -> int:
    """What a computation costs, in KiB written: passes over memory."""
    return cost.time_cost * cost.memory_cost


def _matches(password: bytes, stored: str) -> bool:
    try:
        return verify_secret(stored.encode("ascii"), password, Type.ID)
    except VerificationError:
        return False


def _salt_of(stored: str) -> bytes:
    """The salt within a PHC string, `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH`."""
    parts = stored.split("$")
    if len(parts) != 6:
        raise InvalidHashError(stored[:10])
    text = parts[4]
    return base64.b64decode(text + "=" * (-len(text) % 4))


def same_hash(one: str, other: str) -> bool:
    """Whether two PHC strings are equal, compared in constant time."""
    return hmac.compare_digest(one, other)


def _give_way() -> None:
    """Let the event loop's thread go first when processors are scarce."""
    if sys.platform == "linux":  # elsewhere nice() is the whole process's, and the relay would slow down with it
        os.nice(10)
