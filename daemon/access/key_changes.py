"""Every change of an API key: issue, rotate with a grace period, revoke.

Rule: a secret is returned once, by the call that made it; only its hash is kept. What a key is for, where and until
when it may be used never changes; make another one instead.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from common.errors import BadRequest, Conflict
from daemon.access.actor import Actor
from daemon.access.book import Book, one_change
from daemon.access.events import Cut
from daemon.access.keys import canonical_networks, new_key_id, new_secret, secret_hash, written
from daemon.clock import MICROSECONDS
from daemon.exchange import EndState
from daemon.store import keys as key_rows
from daemon.store.keys import Key

LONGEST_LABEL = 64
LONGEST_GRACE = 30 * 24 * 3600  # seconds
_LONGEST_LIFE_US = 100 * 366 * 24 * 3600 * MICROSECONDS
_MOST_RESTRICTIONS = 100
_MOST_LIVE_KEYS = 200  # of one user


class KeyChanges(Book):
    """The changes of keys."""

    @one_change
    async def issue_key(
        self,
        actor: Actor,
        user_id: int,
        label: str,
        *,
        expires_us: int | None = None,
        models: Sequence[str] = (),
        addresses: Sequence[str] = (),
        metrics: bool = False,
        in_path: bool = False,
    ) -> tuple[Key, str]:
        """A new key of the user, and the key as its owner keeps it, shown this once."""
        user = self._user(user_id)
        key, secret = self._new_key(
            user_id,
            label,
            expires_us=expires_us,
            models=models,
            addresses=addresses,
            metrics=metrics,
            in_path=in_path,
        )
        if sum(other.is_live(key.created_us) for other in self.keys_of(user_id)) >= _MOST_LIVE_KEYS:
            raise Conflict(f"{user.email} has {_MOST_LIVE_KEYS} keys; revoke some first", code="too_many_keys")

        def job(conn: sqlite3.Connection) -> None:
            key_rows.add(conn, key)
            detail = {
                "user": user.email,
                "label": key.label,
                "purpose": key.purpose,
                "expires_us": key.expires_us,
                "models": list(key.models),
                "addresses": list(key.addresses),
                "in_path": key.in_path,
            }
            self.record(conn, actor, "keys issue", f"key:{key.id}", detail)

        await self._database.write(job)
        self._put_key(key)
        return key, written(key.id, secret)

    @one_change
    async def rotate_key(self, actor: Actor, key_id: str, grace_seconds: int = 0, version: int | None = None) -> str:
        """Give the key a new secret, returned in full this once; the one before works on for `grace_seconds`.

        `version`, where given, is the one that was seen; Conflict if it is no longer.
        """
        key = self._key(key_id, version)
        now_us = self._clock.wall()
        if not key.is_live(now_us):
            raise Conflict("the key is revoked or expired; issue a new one", code="key_over")
        if not 0 <= grace_seconds <= LONGEST_GRACE:
            raise BadRequest(f"the grace period is 0 to {LONGEST_GRACE} seconds", code="grace_invalid")
        secret = new_secret()

        def job(conn: sqlite3.Connection) -> Key:
            changed = key_rows.rotate(
                conn,
                key.id,
                key.version,
                secret_hash=secret_hash(secret),
                previous_hash=key.secret_hash if grace_seconds else None,
                previous_until_us=now_us + grace_seconds * MICROSECONDS if grace_seconds else None,
            )
            self.record(conn, actor, "keys rotate", f"key:{key.id}", {"grace_seconds": grace_seconds})
            return changed

        self._put_key(await self._database.write(job))
        return written(key.id, secret)

    @one_change
    async def revoke_key(self, actor: Actor, key_id: str, version: int | None = None) -> Key:
        """End the key, the tokens made from it and what runs under it. Revoking twice changes nothing."""
        key = self._key(key_id, version)
        if key.revoked_us is not None:
            return key

        def job(conn: sqlite3.Connection) -> Key:
            changed = key_rows.revoke(conn, key.id, key.version, self._clock.wall())
            self.record(conn, actor, "keys revoke", f"key:{key.id}", {"label": key.label})
            return changed

        changed = await self._database.write(job)
        self._put_key(changed)
        self.tell(Cut(EndState.CREDENTIAL_REVOKED, "the key was revoked", key_id=key_id))
        return changed

    def _new_key(
        self,
        user_id: int,
        label: str,
        *,
        expires_us: int | None = None,
        models: Sequence[str] = (),
        addresses: Sequence[str] = (),
        metrics: bool = False,
        in_path: bool = False,
    ) -> tuple[Key, str]:
        now_us = self._clock.wall()
        label = label.strip()
        if not 1 <= len(label) <= LONGEST_LABEL or not label.isprintable():
            raise BadRequest(f"a label has 1 to {LONGEST_LABEL} printable characters", code="label_invalid")
        if expires_us is not None and expires_us <= now_us:
            raise BadRequest("the expiry lies in the past", code="expiry_invalid")
        if expires_us is not None and expires_us > now_us + _LONGEST_LIFE_US:
            raise BadRequest("a key lives at most a hundred years; leave the expiry out", code="expiry_invalid")
        if len(models) > _MOST_RESTRICTIONS or any(not 1 <= len(pattern) <= 256 for pattern in models):
            raise BadRequest("models are up to 100 patterns such as llama3* or qwen3:4b", code="models_invalid")
        try:
            networks = canonical_networks(addresses[: _MOST_RESTRICTIONS + 1])
        except ValueError as error:
            raise BadRequest(str(error), code="addresses_invalid") from error
        if len(networks) > _MOST_RESTRICTIONS:
            raise BadRequest("a key has at most 100 addresses", code="addresses_invalid")
        secret = new_secret()
        key = Key(
            id=new_key_id(),
            user_id=user_id,
            label=label,
            purpose="metrics" if metrics else "inference",
            models=tuple(models),
            addresses=networks,
            in_path=in_path,
            created_us=now_us,
            expires_us=expires_us,
            revoked_us=None,
            previous_until_us=None,
            last_used_us=None,
            last_address="",
            version=1,
            secret_hash=secret_hash(secret),
            previous_hash=None,
        )
        return key, secret
