"""Sessions of people (refresh families) and tokens of automation: issue, refresh, revoke.

Rule (RFC 9700, J4): a refresh token is 256 random bits, kept as its hash, good once; each use gives the next, and a
second use ends the whole family, because one of the two users is a thief. What was revoked lately is known in memory,
so that a revoked access token is refused on its next use and after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import sqlite3
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.errors import Conflict, Unavailable
from daemon.access.actor import Actor
from daemon.access.directory import Directory, Key
from daemon.access.events import Cut
from daemon.access.keys import PREFIX
from daemon.access.signing import LONGEST_TOKEN_US, SigningKeys
from daemon.access.tokens import LOGIN_CLIENT, Claims, InvalidToken, Tokens, issuer_of
from daemon.access.unfinished import Unfinished
from daemon.clock import MICROSECONDS, Clock
from daemon.config import Config
from daemon.exchange import EndState
from daemon.store import sessions as session_rows
from daemon.store import users as user_rows
from daemon.store.database import Database

log = logging.getLogger("gatelodge.access")

LOOK_AFTER_EVERY = 60.0  # seconds between two looks at what is over
_FORM = re.compile(r"glr_[A-Za-z0-9_-]{43}", re.ASCII)
# After this long no access token of a revoked family can be valid, also if the wall clock was set back a little.
_REMEMBERED_US = LONGEST_TOKEN_US + 120 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class Issued:
    """What a client gets; `expires_in` in seconds, `refresh_token` None for automation."""

    access_token: str
    expires_in: int
    refresh_token: str | None

    def __repr__(self) -> str:
        return f"<Issued for {self.expires_in} s>"


class InvalidGrant(Exception):
    """The refresh token is unknown, used, over or of an ended session."""


class Sessions:
    """Sessions and tokens. `refresh_lifetime`: seconds that a refresh token lives unused. `load` gives a ready one."""

    def __init__(
        self, database: Database, directory: Directory, tokens: Tokens, clock: Clock, *, refresh_lifetime: float
    ) -> None:
        self.tokens = tokens
        self._database = database
        self._directory = directory
        self._clock = clock
        self._refresh_lifetime_us = int(refresh_lifetime * MICROSECONDS)
        self._ended_families: dict[str, int] = {}  # family -> Unix microseconds until which it must be remembered
        self._revoked_tokens: dict[str, int] = {}  # jti -> Unix microseconds of its end
        self._unfinished = Unfinished()

    def __repr__(self) -> str:
        return f"<Sessions {len(self._ended_families)} families and {len(self._revoked_tokens)} tokens revoked lately>"

    @classmethod
    async def load(
        cls, database: Database, clock: Clock, directory: Directory, config: Config, secrets_folder: Path
    ) -> Sessions:
        """With the signing keys in `secrets_folder`/signing and what was revoked lately."""
        keys = SigningKeys.open(secrets_folder / "signing", clock, lifetime=config.tokens.signing_key_lifetime)
        tokens = Tokens(keys, clock, issuer=issuer_of(config), lifetime=config.tokens.access_lifetime)
        sessions = cls(database, directory, tokens, clock, refresh_lifetime=config.tokens.refresh_lifetime)
        await sessions._take_up()
        return sessions

    async def _take_up(self) -> None:
        now_us = self._clock.wall()

        def read(conn: sqlite3.Connection) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
            families = session_rows.families_revoked_since(conn, now_us - _REMEMBERED_US)
            return families, session_rows.revoked_tokens(conn, now_us)

        families, tokens = await self._database.read(read)
        self._ended_families = {family: at_us + _REMEMBERED_US for family, at_us in families}
        self._revoked_tokens = dict(tokens)

    async def run(self) -> None:
        """Rotate signing keys and forget what is over; the owner cancels it."""
        while True:
            await asyncio.sleep(LOOK_AFTER_EVERY)
            try:
                await self.look_after()
            except (Unavailable, OSError) as error:
                log.warning("sessions and signing keys could not be looked after, next try in a minute: %s", error)

    async def look_after(self) -> None:
        """One round of `run`."""
        if self.tokens.keys.rotate():
            log.info("signing keys rotated: %r", self.tokens.keys)
        now_us = self._clock.wall()
        self._ended_families = {family: until for family, until in self._ended_families.items() if until > now_us}
        self._revoked_tokens = {jti: until for jti, until in self._revoked_tokens.items() if until > now_us}
        forget = partial(session_rows.forget_old, now_us=now_us, revoked_before_us=now_us - _REMEMBERED_US)
        await self._database.write(forget)

    async def close(self) -> None:
        """Finish what has begun."""
        await self._unfinished.wait()

    def is_revoked(self, claims: Claims) -> bool:
        """Whether the token or its session was revoked. (The user's epoch is another matter.)"""
        return claims.jti in self._revoked_tokens or claims.sid in self._ended_families

    def is_ended(self, session: str) -> bool:
        """Whether `session` (`Caller.session`) was revoked."""
        return session in self._ended_families or session in self._revoked_tokens

    async def start(self, user_id: int, epoch: int, address: str) -> Issued:
        """A new session of the user, whose password was right in `epoch`; Conflict if that epoch has ended since."""
        user = self._directory.users.get(user_id)
        if user is None:
            raise Conflict("the user was deleted in the meantime", code="changed_meanwhile")
        family_id, refresh_token = secrets.token_urlsafe(12), _new_refresh_token()
        now_us = self._clock.wall()

        def job(conn: sqlite3.Connection) -> None:
            # In the transaction: a session must not begin after the change that ended all sessions.
            if not user_rows.is_current(conn, user_id, epoch):
                raise Conflict("the password was changed in the meantime", code="changed_meanwhile")
            session_rows.start(
                conn,
                family_id=family_id,
                user_id=user_id,
                client_id=LOGIN_CLIENT,
                token_hash=_hash(refresh_token),
                now_us=now_us,
                expires_us=now_us + self._refresh_lifetime_us,
            )
            actor = Actor(uid=None, name=user.email, via="http")
            self._directory.record(conn, actor, "sessions start", f"user:{user.email}", {"address": address})

        await self._database.write(job)
        return self._issued(user_id, epoch, family_id, refresh_token)

    async def refresh(self, refresh_token: str) -> Issued:
        """The next tokens of a session; InvalidGrant. A token that was used before ends its session."""
        if not _FORM.fullmatch(refresh_token):
            raise InvalidGrant("not the form of a refresh token")
        token_hash = _hash(refresh_token)
        # Read first: guesses of strangers must not cost a commit each.
        known = await self._database.read(lambda conn: session_rows.find(conn, token_hash))
        if known is None:
            raise InvalidGrant("unknown")
        return await self._unfinished.finish(self._refresh(token_hash, known.user_id))

    def issue_to_client(self, key: Key) -> Issued:
        """An access token for automation that presented `key`; ends with it. No refresh token (RFC 6749, 4.4.3)."""
        client_id = PREFIX + key.id
        epoch = self._directory.users[key.user_id].epoch
        token, claims = self.tokens.issue(sub=client_id, client_id=client_id, epoch=epoch, until_us=key.expires_us)
        return Issued(token, claims.exp - claims.iat, None)

    async def revoke(self, token: str) -> bool:
        """End an access token alone, or with a refresh token its session (RFC 7009); whether it was one of ours."""
        if _FORM.fullmatch(token):
            return await self._unfinished.finish(self._revoke_session(_hash(token)))
        try:
            claims = self.tokens.verify(token)
        except InvalidToken:
            return False
        expires_us = claims.exp * MICROSECONDS
        # In memory first: it is refused from now on, even if the store fails and its holder has to ask again.
        self._revoked_tokens[claims.jti] = expires_us
        await self._database.write(lambda conn: session_rows.revoke_token(conn, claims.jti, expires_us))
        if not claims.sid:
            self._directory.tell(Cut(EndState.CREDENTIAL_REVOKED, "the token was revoked", session=claims.jti))
        return True

    # -- parts --------------------------------------------------------------------------------------------------------

    async def _refresh(self, token_hash: bytes, user_id: int) -> Issued:
        user = self._directory.users.get(user_id)
        if user is None or user.status != "active":
            raise InvalidGrant("the user is disabled or deleted")
        # The epoch of before the write: if it ends meanwhile, either the family is found revoked or the token is void.
        epoch = user.epoch
        next_token = _new_refresh_token()
        now_us = self._clock.wall()

        def job(conn: sqlite3.Connection) -> tuple[str, bool]:
            found = session_rows.find(conn, token_hash)
            if found is None or found.family_revoked_us is not None:
                raise InvalidGrant("the session has ended")
            if found.used_us is not None:
                session_rows.revoke_family(conn, found.family_id, now_us)
                actor = Actor(uid=None, name=user.email, via="http")
                self._directory.record(
                    conn, actor, "sessions reuse", f"user:{user.email}", {"session": found.family_id}
                )
                return found.family_id, True
            if found.expires_us <= now_us:
                raise InvalidGrant("the refresh token is over")
            session_rows.use(conn, token_hash, now_us)
            session_rows.add_token(
                conn,
                family_id=found.family_id,
                token_hash=_hash(next_token),
                now_us=now_us,
                expires_us=now_us + self._refresh_lifetime_us,
            )
            return found.family_id, False

        family_id, reused = await self._database.write(job)
        if reused:
            log.warning("a refresh token of %s was used twice: its session was ended", user.email)
            self._family_ended(family_id, "a refresh token was used twice")
            raise InvalidGrant("used before")
        return self._issued(user_id, epoch, family_id, next_token)

    async def _revoke_session(self, token_hash: bytes) -> bool:
        found = await self._database.read(lambda conn: session_rows.find(conn, token_hash))
        if found is None:
            return False
        if found.family_revoked_us is not None:
            return True
        now_us = self._clock.wall()
        user = self._directory.users.get(found.user_id)

        def job(conn: sqlite3.Connection) -> None:
            if session_rows.revoke_family(conn, found.family_id, now_us) and user is not None:
                actor = Actor(uid=None, name=user.email, via="http")
                self._directory.record(
                    conn, actor, "sessions revoke", f"user:{user.email}", {"session": found.family_id}
                )

        await self._database.write(job)
        self._family_ended(found.family_id, "the session was ended")
        return True

    def _family_ended(self, family_id: str, reason: str) -> None:
        self._ended_families[family_id] = self._clock.wall() + _REMEMBERED_US
        self._directory.tell(Cut(EndState.CREDENTIAL_REVOKED, reason, session=family_id))

    def _issued(self, user_id: int, epoch: int, family_id: str, refresh_token: str) -> Issued:
        token, claims = self.tokens.issue(sub=str(user_id), client_id=LOGIN_CLIENT, epoch=epoch, sid=family_id)
        return Issued(token, claims.exp - claims.iat, refresh_token)


def _new_refresh_token() -> str:
    return "glr_" + secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
