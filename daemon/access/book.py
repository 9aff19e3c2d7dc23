"""Users, keys and pending registrations in memory, as the store has them; the ground that every change stands on.

Rule: one change at a time, and in this order: decide on memory, write (the change and its audit record in one
transaction), memory, listeners. A change that has begun is finished even if who asked for it leaves, so memory and
store never disagree. Lookups are synchronous and never touch the store.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
import unicodedata
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from common.errors import BadRequest, Conflict, NotFound, Unavailable
from common.untrusted import is_unsafe
from daemon.access.actor import Actor
from daemon.access.events import Change, Cut
from daemon.access.passwords import PasswordPool
from daemon.access.unfinished import Unfinished
from daemon.clock import Clock
from daemon.store import keys as key_rows
from daemon.store import registrations as registration_rows
from daemon.store import users as user_rows
from daemon.store.database import Database
from daemon.store.journal import append_admin
from daemon.store.keys import Key
from daemon.store.registrations import Registration
from daemon.store.users import User

log = logging.getLogger("gatelodge.access")
P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", bound="Book")

FLUSH_USES_EVERY = 15.0  # seconds


class Book:
    """What is known of users, keys and registrations. `Directory` adds the changes."""

    def __init__(self, database: Database, clock: Clock, passwords: PasswordPool) -> None:
        """Empty; `load` gives one with what the store has."""
        self.users: dict[int, User] = {}
        self.keys: dict[str, Key] = {}
        self.imported: dict[bytes, str] = {}  # digest of a token that another gateway issued -> key
        self.registrations: dict[str, Registration] = {}  # by code, oldest first
        self.listeners: list[Callable[[Change | Cut], None]] = []
        self._database = database
        self._clock = clock
        self._passwords = passwords
        self._ids: dict[str, int] = {}  # e-mail address -> user
        self._uses: dict[str, tuple[int, str]] = {}  # key -> when and from where, since the last flush
        self._changing = asyncio.Lock()
        self.unfinished = Unfinished()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {len(self.users)} users, {len(self.keys)} keys, {len(self.registrations)} pending>"
        )

    @classmethod
    async def load(cls, database: Database, clock: Clock, passwords: PasswordPool) -> Self:
        """With everything that the store has."""
        book = cls(database, clock, passwords)

        def read(conn: sqlite3.Connection) -> tuple[list[User], list[Key], list[Registration]]:
            return user_rows.load(conn), key_rows.load(conn), registration_rows.load(conn)

        users, keys, registrations = await database.read(read)
        book.users = {user.id: user for user in users}
        book._ids = {user.email: user.id for user in users}
        book.keys = {key.id: key for key in keys}
        book.imported = {key.imported_hash: key.id for key in keys if key.imported_hash is not None}
        book.registrations = {entry.code: entry for entry in registrations}
        return book

    async def run(self) -> None:
        """Write the last uses of keys now and then; the owner cancels it."""
        while True:
            await asyncio.sleep(FLUSH_USES_EVERY)
            try:
                await self.flush_uses()
            except Unavailable as error:
                log.warning("the last uses of keys could not be stored, they are kept for later: %s", error)

    async def close(self) -> None:
        """Finish the changes that have begun."""
        await self.unfinished.wait()
        try:
            await self.flush_uses()
        except Unavailable as error:  # a full disk or a damaged database must not keep the daemon from stopping
            log.warning("the last uses of keys could not be stored: %s", error)

    # -- lookups ------------------------------------------------------------------------------------------------------

    def find(self, email: str) -> User | None:
        """The user with that address, spelled however."""
        try:
            return self.users.get(self._ids.get(canonical_email(email), 0))
        except BadRequest:
            return None

    def has_email(self, email: str) -> bool:
        """Whether there is a user with that address."""
        return self.find(email) is not None

    def user_named(self, email: str) -> User:
        """The user with that address; NotFound without one."""
        user = self.find(email)
        if user is None:
            waiting = [entry for entry in self.registrations.values() if entry.email == email.strip().casefold()]
            hint = "; it waits for approval" if waiting else ""
            raise NotFound(f"there is no user {email}{hint}", code="user_unknown")
        return user

    def keys_of(self, user_id: int) -> list[Key]:
        """A user's keys, oldest first, revoked and expired ones too."""
        return [key for key in self.keys.values() if key.user_id == user_id]

    def registrations_of(self, email: str) -> list[Registration]:
        """What waits for approval under `email` (in its canonical spelling), oldest first."""
        return [entry for entry in self.registrations.values() if entry.email == email]

    def note_use(self, key_id: str, address: str) -> None:
        """The key has been used just now; costs no I/O."""
        self._uses[key_id] = (self._clock.wall(), address)

    async def flush_uses(self) -> None:
        """Write the last uses that `note_use` has collected."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        rows = [(key_id, at_us, address) for key_id, (at_us, address) in uses.items()]
        try:
            await self._database.write(lambda conn: key_rows.used(conn, rows))
        except Unavailable:
            self._uses = uses | self._uses
            raise
        for key_id, at_us, address in rows:
            if (key := self.keys.get(key_id)) is not None:  # else deleted meanwhile
                self._put_key(replace(key, last_used_us=at_us, last_address=address))

    # -- for the changes ----------------------------------------------------------------------------------------------

    def _user(self, user_id: int, version: int | None = None) -> User:
        user = self.users.get(user_id)
        if user is None:
            raise NotFound("there is no such user (any more)", code="user_unknown")
        if version is not None and version != user.version:
            raise Conflict("the user was changed in the meantime; look again", code="changed_meanwhile")
        return user

    def _key(self, key_id: str, version: int | None = None) -> Key:
        key = self.keys.get(key_id)
        if key is None:
            raise NotFound(f"there is no key {key_id}", code="key_unknown")
        if version is not None and version != key.version:
            raise Conflict("the key was changed in the meantime; look again", code="changed_meanwhile")
        return key

    def record(
        self, conn: sqlite3.Connection, actor: Actor, verb: str, target: str, detail: dict[str, Any] | None = None
    ) -> None:
        """The audit record of a change, in the change's own transaction. No secret may stand in `detail`."""
        append_admin(
            conn,
            actor=actor,
            verb=verb,
            target=target,
            detail=detail or {},
            at_us=self._clock.wall(),
            clock_us=self._clock.now(),
        )

    def _put_user(self, user: User) -> None:
        self.users[user.id] = user
        self._ids[user.email] = user.id
        self.tell(Change("user", str(user.id), user))

    def _remove_user(self, user: User) -> None:
        for key in self.keys_of(user.id):
            del self.keys[key.id]
            if key.imported_hash is not None:
                del self.imported[key.imported_hash]
            self.tell(Change("key", key.id, None))
        del self.users[user.id], self._ids[user.email]
        self.tell(Change("user", str(user.id), None))

    def _put_key(self, key: Key) -> None:
        self.keys[key.id] = key
        if key.imported_hash is not None:
            self.imported[key.imported_hash] = key.id
        self.tell(Change("key", key.id, key))

    def _remove_registrations(self, email: str) -> None:
        for entry in self.registrations_of(email):
            del self.registrations[entry.code]
            self.tell(Change("registration", entry.code, None))

    def tell(self, event: Change | Cut) -> None:
        """Tell every listener, at once and in order."""
        for listener in self.listeners:
            listener(event)

    async def _alone(self, change: Coroutine[Any, Any, T]) -> T:
        async with self._changing:
            return await change


def one_change(
    method: Callable[Concatenate[B, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[B, P], Coroutine[Any, Any, T]]:
    """A method that changes the book: it runs alone, and to its end even if its caller is cancelled."""

    @functools.wraps(method)
    async def wrapper(self: B, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.unfinished.finish(self._alone(method(self, *args, **kwargs)))

    return wrapper


def canonical_email(text: str) -> str:
    """The one spelling under which an address is kept and looked up; BadRequest where it is none."""
    email = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold())
    local, at, domain = email.rpartition("@")
    if not (at and local and domain) or len(email) > 254 or "@" in local:
        raise BadRequest("that is not an e-mail address", code="email_invalid")
    # What nobody sees would make two users of one look, and a name that cannot be typed.
    if not email.isprintable() or any(letter in " \"'(),:;<>[]\\`" or is_unsafe(letter) for letter in email):
        raise BadRequest("that e-mail address has characters that are not allowed", code="email_invalid")
    return email
