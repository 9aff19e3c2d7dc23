"""What people do about their own account: register, log in, change the password; and a password sent with a request.

Rule (security.md P2, P3): who asks learns nothing about an account whose password they do not know. Every refused
attempt costs the same: one look into the store, one check against a hash (of nobody, where there is no account) and
one against the pending registrations of that address, and gets the same words.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from common.errors import BadRequest, Conflict, Forbidden, GatewayError, Unauthenticated, Unavailable
from daemon.access.actor import Actor
from daemon.access.directory import Directory, canonical_email, new_code
from daemon.access.identity import CHALLENGE
from daemon.access.inline import Verified
from daemon.access.passwords import PasswordPool, check_new_password, same_hash
from daemon.access.sessions import Issued, Sessions
from daemon.access.throttle import FORGOTTEN_AFTER_US, Attempt, PerAddress, Throttle
from daemon.clock import MICROSECONDS, Clock
from daemon.config import Registration
from daemon.store import registrations as registration_rows
from daemon.store import throttle as throttle_rows
from daemon.store import users as user_rows
from daemon.store.database import Database
from daemon.store.users import Credentials, User

log = logging.getLogger("gatelodge.access")

FORGET_EVERY = 600.0  # seconds
_MOST_SHADOWS = 1_000
_MOST_SHADOWS_EACH = 20


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a password turned out to be."""

    kind: Literal["password", "one_time", "pending", "wrong"]
    credentials: Credentials | None = None


class Accounts:
    """Registration, login, password change."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        directory: Directory,
        sessions: Sessions,
        passwords: PasswordPool,
        registration: Registration,
    ) -> None:
        self._database = database
        self._directory = directory
        self._sessions = sessions
        self._passwords = passwords
        self._clock = clock
        self._throttle = Throttle(clock)
        self._verified = Verified(clock)
        self._checking: dict[bytes, asyncio.Task[User]] = {}  # inline credentials that are being checked now
        self._registered_from = PerAddress(clock, most=registration.per_address_per_hour, period_us=3600 * MICROSECONDS)
        self._most_pending = registration.pending
        # What was "registered" for addresses that are users already: nothing is stored of it, but whoever tries the
        # password hears "pending" as for any other, else registering and logging in would tell who is a user.
        self._shadows: OrderedDict[str, list[str]] = OrderedDict()

    async def take_up(self) -> None:
        """Remember the failed logins of before; once, at the start."""
        since = self._clock.now() - FORGOTTEN_AFTER_US
        self._throttle.restore(await self._database.read(partial(throttle_rows.load, since_clock=since)))

    async def run(self) -> None:
        """Forget old failures; the owner cancels it."""
        while True:
            await asyncio.sleep(FORGET_EVERY)
            try:
                await self.look_after()
            except Unavailable as error:
                log.warning("old failed logins could not be dropped, next try in ten minutes: %s", error)

    async def look_after(self) -> None:
        """One round of `run`."""
        self._registered_from.forget_old()
        self._verified.forget_old()
        void_before = self._throttle.forget_old()
        await self._database.write(partial(throttle_rows.forget_old, before_clock=void_before))

    async def register(self, email: str, password: str, address: str, *, counted: bool = True) -> str:
        """Ask to be let in; the code to tell the administrator. The same for who is a user already.

        `counted`: whether the bound per address applies. BadRequest for no e-mail address or an unfit password,
        LimitExceeded, Unavailable.
        """
        email = canonical_email(email)
        check_new_password(password)
        if counted:
            self._registered_from.admit(address, "registrations")
        waiting = await self._waiting(email)
        password_hash = await self._passwords.hash(password, like=waiting[0] if waiting else None)
        code = await self._directory.add_registration(email, password_hash, address, most=self._most_pending)
        if code is None:
            self._cast_shadow(email, password_hash)
            return new_code()
        return code

    async def login(self, email: str, password: str, address: str) -> Issued:
        """A new session. Unauthenticated for whatever is wrong; Forbidden, in words, for a right password that waits
        for approval or for being changed."""
        credentials, _ = await self._proven(email, password, address)
        try:
            issued = await self._sessions.start(credentials.user_id, credentials.epoch, address)
        except Conflict as error:
            raise _wrong() from error
        await self._rehash(credentials, password)
        return issued

    async def inline(self, email: str, password: str, address: str) -> User:
        """Whose password came with a request; checked as a login is, then for a minute by its MAC (`inline.py`).

        Refused as a login is; Forbidden, too, where the user's inline credentials are switched off.
        """
        mark = self._verified.mark(email, password, address)
        known = self._verified.find(mark)
        if known is not None:
            # Failures count here as well: who may not guess now must not be told that this guess is right.
            self._throttle.check(known.email, address)
            user = self._directory.users.get(known.user_id)
            if user is not None and user.status == "active" and known.is_of(user):
                return _inline_allowed(user)
        checking = self._checking.get(mark)
        if checking is None:
            # Of many requests that begin at once with the same password one has it checked, and all wait for that.
            checking = asyncio.ensure_future(self._checked_inline(mark, email, password, address))
            self._checking[mark] = checking
            checking.add_done_callback(partial(self._inline_checked, mark))
        return await asyncio.shield(checking)

    async def change_password(self, email: str, old: str, new: str, address: str) -> None:
        """Set a password of one's own; ends all sessions. Throttled and refused as a login is."""
        check_new_password(new)
        if new == old:
            raise BadRequest("the new password is the old one; choose another", code="password_unchanged")
        attempt, email = self._begin(email, address)
        verdict = await self._verdict(attempt, email, old)
        credentials = verdict.credentials
        if credentials is None:
            raise _wrong()
        actor = Actor(uid=None, name=email, via="http")
        password_hash = await self._passwords.hash(new)
        try:
            await self._directory.set_password(actor, credentials.user_id, credentials.epoch, password_hash)
        except GatewayError as error:
            if isinstance(error, Unavailable):
                raise
            raise _wrong() from error  # changed, disabled or deleted in the meantime

    # -- parts --------------------------------------------------------------------------------------------------------

    async def _proven(self, email: str, password: str, address: str) -> tuple[Credentials, str]:
        """What the password proves, and the address's canonical spelling. Refuses as `login` tells."""
        attempt, email = self._begin(email, address)
        verdict = await self._verdict(attempt, email, password)
        if verdict.kind == "one_time":
            raise Forbidden(
                "this one-time password only opens POST /auth/password: set a password of your own first",
                code="password_change_required",
            )
        if verdict.credentials is None:
            raise _wrong()
        return verdict.credentials, email

    async def _checked_inline(self, mark: bytes, email: str, password: str, address: str) -> User:
        credentials, email = await self._proven(email, password, address)
        user = self._directory.users.get(credentials.user_id)
        if user is None or user.status != "active" or user.epoch != credentials.epoch:
            raise _wrong()  # disabled, deleted or changed while the password was looked at
        _inline_allowed(user)
        self._verified.keep(mark, user_id=user.id, epoch=credentials.epoch, version=credentials.version, email=email)
        await self._rehash(credentials, password)
        return user

    def _inline_checked(self, mark: bytes, checking: asyncio.Task[User]) -> None:
        del self._checking[mark]
        if not checking.cancelled():
            checking.exception()  # whoever waited for it may have left

    def _begin(self, email: str, address: str) -> tuple[Attempt, str]:
        try:
            email = canonical_email(email)
        except BadRequest:
            email = email[:254]  # nobody's, and treated like anybody else who is unknown
        return self._throttle.begin(email, address), email

    async def _verdict(self, attempt: Attempt, email: str, password: str) -> _Verdict:
        """What the password is, counted; raises for "wrong" and "pending"."""
        try:
            verdict = await self._judge(email, password)
        except BaseException:
            self._throttle.abandoned(attempt)
            raise
        if verdict.kind == "wrong":
            rows = self._throttle.failed(attempt)
            self._keep(lambda conn: throttle_rows.put(conn, rows))
            raise _wrong()
        if verdict.kind == "pending":
            # Neither a failure nor a success: anybody can register any address with a password of their own.
            self._throttle.abandoned(attempt)
            raise Forbidden("the registration waits for an administrator's approval", code="pending_approval")
        scope = self._throttle.succeeded(attempt)
        if scope is not None:
            self._keep(lambda conn: throttle_rows.drop(conn, scope))
        return verdict

    async def _judge(self, email: str, password: str) -> _Verdict:
        def read(conn: sqlite3.Connection) -> tuple[Credentials | None, list[str]]:
            return user_rows.credentials(conn, email), registration_rows.password_hashes(conn, email)

        credentials, waiting = await self._database.read(read)
        waiting = waiting + self._shadows.get(email, [])
        one_time = credentials is not None and credentials.one_time_hash is not None
        stored = None if credentials is None else credentials.one_time_hash or credentials.password_hash
        right = await self._passwords.is_right(password, stored)
        if right and credentials is not None and credentials.status == "active":
            if not one_time:
                return _Verdict("password", credentials)
            if self._clock.wall() < (credentials.one_time_expires_us or 0):
                return _Verdict("one_time", credentials)
        # Everything else costs one computation more, whether anything waits under this address or not.
        computed = await self._passwords.hash(password, like=waiting[0] if waiting else None)
        if any(same_hash(computed, other) for other in waiting):
            return _Verdict("pending")
        return _Verdict("wrong")

    async def _waiting(self, email: str) -> list[str]:
        stored = await self._database.read(partial(registration_rows.password_hashes, email=email))
        return stored + self._shadows.get(email, [])

    def _cast_shadow(self, email: str, password_hash: str) -> None:
        hashes = self._shadows.setdefault(email, [])
        hashes.append(password_hash)
        del hashes[:-_MOST_SHADOWS_EACH]
        self._shadows.move_to_end(email)
        if len(self._shadows) > _MOST_SHADOWS:
            self._shadows.popitem(last=False)

    async def _rehash(self, credentials: Credentials, password: str) -> None:
        """Raise the cost of an old hash (P7); if there is no room for it now, at the next login."""
        old_hash = credentials.password_hash
        if old_hash is None or not self._passwords.is_outdated(old_hash):
            return
        try:
            new_hash = await self._passwords.hash(password)
        except Unavailable:
            return
        self._keep(lambda conn: user_rows.rehash(conn, credentials.user_id, old_hash, new_hash))

    def _keep(self, job: Callable[[sqlite3.Connection], Any]) -> None:
        """Write without waiting: the answer does not depend on it."""
        try:
            self._database.submit(job, size=256)
        except Unavailable as error:
            log.warning("failed logins could not be stored: %s", error)


def _inline_allowed(user: User) -> User:
    if not user.inline_auth:
        raise Forbidden(
            "a password in the body is switched off for this account; send an API key or a token",
            code="inline_auth_off",
        )
    return user


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "the e-mail address or the password is wrong",
        code="login_failed",
        headers={"WWW-Authenticate": CHALLENGE},
    )
