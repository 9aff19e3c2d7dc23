"""The directory of the house: users, keys and registrations, with every change of them.

`book.py` holds what is known and how a change is made, `user_changes.py` and `key_changes.py` the changes one by one.
Here are the two that belong to no administrator: a stranger's registration, and the first start.
"""

from __future__ import annotations

import re
import secrets
import sqlite3

from common.errors import Conflict, Unavailable
from daemon.access.actor import DAEMON, Actor
from daemon.access.book import canonical_email, one_change
from daemon.access.events import Change, Cut
from daemon.access.imports import Imports
from daemon.access.keys import written
from daemon.access.user_changes import UserChanges
from daemon.store import keys as key_rows
from daemon.store import registrations as registration_rows
from daemon.store import users as user_rows
from daemon.store.keys import Key
from daemon.store.registrations import Registration
from daemon.store.users import User

__all__ = ["Change", "Cut", "Directory", "Key", "Registration", "User", "canonical_email"]

_CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without what is mistaken on the telephone


class Directory(UserChanges, Imports):
    """Users and keys in memory; each change durable, audited and told to the listeners before it returns."""

    @one_change
    async def add_registration(self, email: str, password_hash: str, address: str, *, most: int) -> str | None:
        """Note who asks to be let in; returns the entry's code, or None where `email` is a user's already.

        Then nothing is stored, but as long as an entry would take. Unavailable beyond `most` pending entries, for
        either. `email` is canonical, `password_hash` shares its salt with the address's other entries.
        """
        if len(self.registrations) >= most:
            raise Unavailable("too many registrations wait for approval", code="registrations_full", retry_after=3600)
        code = new_code()
        while code in self.registrations:
            code = new_code()
        exists = email in self._ids

        def job(conn: sqlite3.Connection) -> Registration | None:
            if exists:
                return None
            entry = registration_rows.add(
                conn,
                code=code,
                email=email,
                password_hash=password_hash,
                address=address,
                now_us=self._clock.wall(),
            )
            stranger = Actor(uid=None, name=email, via="http")
            self.record(conn, stranger, "users register", f"user:{email}", {"code": code, "address": address})
            return entry

        entry = await self._database.write(job)
        if entry is None:
            return None
        self.registrations[code] = entry
        self.tell(Change("registration", code, entry))
        return code

    @one_change
    async def first_user(self, email: str) -> tuple[User, str]:
        """An approved administrator `email` with an API key, returned in full this once; Conflict if anybody is there.

        For the person at the terminal of the very first start (USER@localhost; what cannot stand in an address is left
        out of the account's name). No password: `users reset-password` gives a one-time one.
        """
        if self.users:
            raise Conflict("there are users already", code="user_exists")
        name = email.partition("@")[0]
        email = canonical_email(f"{re.sub(r'[^A-Za-z0-9._-]', '', name) or 'admin'}@localhost")

        def job(conn: sqlite3.Connection) -> tuple[User, Key, str]:
            user = user_rows.add(conn, email=email, role="admin", service=False, now_us=self._clock.wall())
            key, secret = self._new_key(user.id, "first key")
            key_rows.add(conn, key)
            self.record(conn, DAEMON, "users add", f"user:{email}", {"role": "admin", "service": False})
            self.record(conn, DAEMON, "keys issue", f"key:{key.id}", {"user": email, "label": key.label})
            return user, key, secret

        user, key, secret = await self._database.write(job)
        self._put_user(user)
        self._put_key(key)
        return user, written(key.id, secret)


def new_code() -> str:
    """A registration's code, such as K7-42QX: short enough to be read out, only good for an administrator."""
    letters = "".join(secrets.choice(_CODE_ALPHABET) for _ in range(6))
    return f"{letters[:2]}-{letters[2:]}"
