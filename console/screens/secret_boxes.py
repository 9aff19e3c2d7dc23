"""What the daemon tells once, in its box: a key, a one-time password; whether a form asked for it or the `:` line.

Rule: a secret goes from the daemon's answer into the box; nobody keeps it, and no page of text ever shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from common.protocol import IssuedKey, OneTimePassword, RotatedKey, UserAdded
from common.untrusted import clean
from console import entries
from console.moments import day_and_time

if TYPE_CHECKING:
    from console.app import Lodge

Told = IssuedKey | RotatedKey | UserAdded | OneTimePassword
TELLING: dict[tuple[str, ...], type[Told]] = {  # the commands whose answer holds a secret
    ("keys", "issue"): IssuedKey,
    ("keys", "rotate"): RotatedKey,
    ("users", "add"): UserAdded,
    ("users", "reset-password"): OneTimePassword,
}


async def show_key(lodge: Lodge, heading: str, key_id: str, secret: str, note: str) -> None:
    """A key; `note` says what becomes of the one before it, if any."""
    file = entries.file_name(f"gatelodge-key-{key_id}.txt")
    await lodge.show_secret(heading, secret, f"Shown this once: only its hash is kept. {note}".rstrip(), file_name=file)


async def show_password(lodge: Lodge, email: str, password: str, expires: str | None) -> None:
    """A one-time password."""
    until = f"Good until {day_and_time(expires)}, and only" if expires else "Good only"
    note = f"Shown this once. {until} to set a new one: POST /auth/password"
    file = entries.file_name(f"one-time-password-{email}.txt")
    await lodge.show_secret(f"One-time password of {email}", password, note, file_name=file)


def after_rotation(previous_until: str | None) -> str:
    """What becomes of the secret that was rotated."""
    if previous_until:
        return f"The old secret works until {day_and_time(previous_until)}."
    return "The old secret no longer works."


async def show_told(lodge: Lodge, told: Told) -> str:
    """The box for what a command was answered; a sentence about what was done."""
    match told:
        case IssuedKey():
            key_id = clean(told.id)
            await show_key(lodge, f"The key {key_id}", key_id, told.key, "")
            return f"key {key_id} is issued"
        case RotatedKey():
            key_id = clean(told.id)
            await show_key(lodge, f"The new key {key_id}", key_id, told.key, after_rotation(told.previous_until))
            return f"key {key_id} is rotated"
        case UserAdded() | OneTimePassword():
            email = clean(told.email)
            if told.one_time_password is not None:
                await show_password(lodge, email, told.one_time_password, told.one_time_expires)
            done = "is created" if isinstance(told, UserAdded) else "has a one-time password"
            return f"{email} {done}"


def telling(words: list[str]) -> type[Told] | None:
    """What the command that was typed is answered with, where that holds a secret."""
    return None if "--help" in words else TELLING.get(tuple(words[:2]))


def told_in(printed: bytes, kind: type[Told]) -> Told | None:
    """The answer in what a command printed with `--json`; None where there is none."""
    try:
        return msgspec.json.decode(printed, type=kind)
    except msgspec.DecodeError:
        return None
