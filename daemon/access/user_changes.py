"""Every change of a user: approve, add, disable, enable, passwords, role, notes, delete.

Rule (contract, "Routes and credentials"): disabling, a new or reset password raise the epoch, so that all sessions
end; API keys survive a password change and rest while their user is disabled.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from common.errors import BadRequest, Conflict, NotFound
from daemon.access.actor import Actor
from daemon.access.book import Book, canonical_email, one_change
from daemon.access.events import Change, Cut
from daemon.access.passwords import one_time_password
from daemon.clock import MICROSECONDS
from daemon.exchange import EndState
from daemon.store import registrations as registration_rows
from daemon.store import sessions as session_rows
from daemon.store import users as user_rows
from daemon.store.journal import append_user_deletion
from daemon.store.registrations import Registration
from daemon.store.users import Role, User

ONE_TIME_LIFETIME_US = 24 * 3600 * MICROSECONDS
LONGEST_NOTES = 2000
_VISIBLE = frozenset({"status", "role", "notes", "inline_auth", "cloud"})  # columns whose change the audit tells


class UserChanges(Book):
    """The changes of users. `version`, where given, is the one the administrator saw; Conflict if it is no longer."""

    @one_change
    async def approve(self, actor: Actor, email_or_code: str) -> User:
        """Make a pending registration a user; the others for the same address are discarded.

        Conflict, with the codes, where an address has several entries: only a code tells whose password it will be.
        """
        entry = self._pending(email_or_code)
        discarded = [other.code for other in self.registrations_of(entry.email) if other is not entry]

        def job(conn: sqlite3.Connection) -> User:
            password_hash = registration_rows.password_hash(conn, entry.id)
            if password_hash is None:
                raise NotFound("the registration is gone", code="registration_unknown")
            user = user_rows.add(
                conn,
                email=entry.email,
                role="user",
                service=False,
                now_us=self._clock.wall(),
                created_us=entry.created_us,
                password_hash=password_hash,
            )
            registration_rows.discard(conn, entry.email)
            detail = {"code": entry.code, "address": entry.address, "discarded": discarded}
            self.record(conn, actor, "users approve", f"user:{entry.email}", detail)
            return user

        user = await self._database.write(job)
        self._remove_registrations(entry.email)
        self._put_user(user)
        return user

    @one_change
    async def discard(self, actor: Actor, code: str) -> Registration:
        """Refuse one pending registration; returns which it was."""
        entry = self._pending(code)

        def job(conn: sqlite3.Connection) -> None:
            registration_rows.discard_one(conn, entry.id)
            self.record(conn, actor, "users discard", f"user:{entry.email}", {"code": entry.code})

        await self._database.write(job)
        del self.registrations[entry.code]
        self.tell(Change("registration", entry.code, None))
        return entry

    @one_change
    async def add_user(
        self, actor: Actor, email: str, role: Role = "user", service: bool = False
    ) -> tuple[User, str | None]:
        """A new, approved user, with the one-time password to hand over; a service account has none.

        Pending registrations for the address are discarded. Conflict where the address is taken.
        """
        email = canonical_email(email)
        password, columns = (None, {}) if service else await self._one_time()

        def job(conn: sqlite3.Connection) -> User:
            user = user_rows.add(conn, email=email, role=role, service=service, now_us=self._clock.wall(), **columns)
            registration_rows.discard(conn, email)
            self.record(conn, actor, "users add", f"user:{email}", {"role": role, "service": service})
            return user

        user = await self._database.write(job)
        self._remove_registrations(email)
        self._put_user(user)
        return user, password

    @one_change
    async def disable(self, actor: Actor, user_id: int, version: int | None = None) -> User:
        """No request of the user counts any more; running ones are cut. Disabling twice changes nothing."""
        user = self._user(user_id, version)
        if user.status == "disabled":
            return user
        changed = await self._change(actor, "users disable", user, ends_sessions=True, status="disabled")
        self.tell(Cut(EndState.USER_DISABLED, "the user was disabled", user_id=user_id))
        return changed

    @one_change
    async def enable(self, actor: Actor, user_id: int, version: int | None = None) -> User:
        """The user counts again, with password and keys as before, without the sessions of before."""
        user = self._user(user_id, version)
        if user.status == "active":
            return user
        return await self._change(actor, "users enable", user, status="active")

    @one_change
    async def reset_password(self, actor: Actor, user_id: int, version: int | None = None) -> str:
        """Take the user's password and sessions away; returns the one-time password to hand over (P4).

        It is good for 24 hours (`User.one_time_expires_us`), once, and only for setting a new one.
        """
        user = self._user(user_id, version)
        if user.service:
            raise Conflict("a service account has no password; issue a key instead", code="service_account")
        password, columns = await self._one_time()
        await self._change(actor, "users reset-password", user, ends_sessions=True, password_hash=None, **columns)
        self._cut_sessions(user_id, "the password was reset")
        return password

    @one_change
    async def set_password(self, actor: Actor, user_id: int, epoch: int, password_hash: str) -> User:
        """The user's own new password; ends all sessions and uses up a one-time password.

        `epoch` is the one in which the old password was right: Conflict if it has ended since. So a one-time password
        opens once, and of two changes at once the second has to know the first one's password.
        """
        user = self._user(user_id)
        if user.epoch != epoch:
            raise Conflict("the password was changed in the meantime", code="changed_meanwhile")
        changed = await self._change(
            actor,
            "users password",
            user,
            ends_sessions=True,
            password_hash=password_hash,
            one_time_hash=None,
            one_time_expires_us=None,
        )
        self._cut_sessions(user_id, "the password was changed")
        return changed

    @one_change
    async def set_role(self, actor: Actor, user_id: int, role: Role, version: int | None = None) -> User:
        """Acts on the user's next request."""
        user = self._user(user_id, version)
        if role not in ("user", "admin"):
            raise BadRequest(f"there is no role {role!r}: user or admin", code="role_unknown")
        return user if user.role == role else await self._change(actor, "users role", user, role=role)

    @one_change
    async def set_notes(self, actor: Actor, user_id: int, notes: str, version: int | None = None) -> User:
        """What administrators want to remember about the user."""
        user = self._user(user_id, version)
        if len(notes) > LONGEST_NOTES:
            raise BadRequest(f"notes have at most {LONGEST_NOTES} characters", code="notes_too_long")
        return user if user.notes == notes else await self._change(actor, "users notes", user, notes=notes)

    @one_change
    async def set_inline_auth(self, actor: Actor, user_id: int, allowed: bool, version: int | None = None) -> User:
        """Whether the user's password counts in the body of `POST /chat`; acts on the next one."""
        user = self._user(user_id, version)
        if user.inline_auth == allowed:
            return user
        return await self._change(actor, "users inline-auth", user, inline_auth=allowed)

    @one_change
    async def set_cloud(self, actor: Actor, user_id: int, allowed: bool, version: int | None = None) -> User:
        """Whether the user's requests may leave the LAN; acts on the next one."""
        user = self._user(user_id, version)
        return user if user.cloud == allowed else await self._change(actor, "users cloud", user, cloud=allowed)

    @one_change
    async def delete_user(self, actor: Actor, user_id: int, version: int | None = None) -> User:
        """Erase the user's credentials and bodies; a tombstone and the chain's skeleton stay. Returns who it was.

        Conflict unless the user is disabled and all exchanges are in a verified export.
        """
        user = self._user(user_id, version)
        if user.status != "disabled":
            raise Conflict("only a disabled user can be deleted; disable the user first", code="not_disabled")

        def job(conn: sqlite3.Connection) -> None:
            missing = user_rows.exchanges_beyond_export(conn, user_id)
            if missing is not None:
                advice = f"export first: gatelodge audit export --job --user {user.email}, or with --output FILE"
                # The question for `jobs/export`, so that whoever is refused can offer to begin it.
                detail = {"export": {"filter": {"user": user.email}}}
                raise Conflict(f"{missing}; {advice}", code="not_exported", detail=detail)
            append_user_deletion(
                conn,
                actor=actor,
                user_id=user_id,
                target=f"user:{user.email}",
                detail={},
                at_us=self._clock.wall(),
                clock_us=self._clock.now(),
            )
            user_rows.bury(conn, user_id, self._clock.wall())

        await self._database.write(job)
        self._remove_user(user)
        return user

    # -- parts --------------------------------------------------------------------------------------------------------

    async def _change(
        self, actor: Actor, verb: str, user: User, *, ends_sessions: bool = False, **columns: Any
    ) -> User:
        now_us = self._clock.wall()
        visible = {name: value for name, value in columns.items() if name in _VISIBLE}
        detail = {"old": {name: getattr(user, name) for name in visible}, "new": visible} if visible else {}
        if ends_sessions:
            columns["epoch"] = user.epoch + 1

        def job(conn: sqlite3.Connection) -> User:
            changed = user_rows.update(conn, user.id, user.version, **columns)
            if ends_sessions:
                session_rows.revoke_families_of(conn, user.id, now_us)
            self.record(conn, actor, verb, f"user:{user.email}", detail)
            return changed

        changed = await self._database.write(job)
        self._put_user(changed)
        return changed

    async def _one_time(self) -> tuple[str, dict[str, Any]]:
        password = one_time_password()
        return password, {
            "one_time_hash": await self._passwords.hash(password, always=True),
            "one_time_expires_us": self._clock.wall() + ONE_TIME_LIFETIME_US,
        }

    def _cut_sessions(self, user_id: int, reason: str) -> None:
        self.tell(Cut(EndState.CREDENTIAL_REVOKED, reason, user_id=user_id, sessions_only=True))

    def _pending(self, email_or_code: str) -> Registration:
        text = email_or_code.strip()
        if "@" not in text:
            entry = self.registrations.get(text.upper())
            if entry is None:
                raise NotFound(f"no registration with the code {text} waits for approval", code="registration_unknown")
            return entry
        entries = self.registrations_of(canonical_email(text))
        if not entries:
            if self.find(text) is not None:
                raise Conflict(f"{text} is a user already", code="user_exists")
            raise NotFound(f"no registration of {text} waits for approval", code="registration_unknown")
        if len(entries) > 1:
            codes = [entry.code for entry in entries]
            raise Conflict(
                f"{text} has {len(entries)} pending registrations; ask which code is theirs, then approve that code:"
                f" {', '.join(codes)}",
                code="several_pending",
                detail={"codes": codes},
            )
        return entries[0]
