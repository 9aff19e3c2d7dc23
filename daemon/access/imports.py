"""Tokens that another gateway issued become keys here, so that its clients go on as they are.

Rule: all of a file or nothing of it; a second time changes nothing. Of a token only its digest is kept, and that for
good: one that was rotated away or revoked does not come back with the next import. A token is as strong as whoever
chose it made it, not 256 random bits; the weak ones are pointed out. A file that is written the other way round, token
before name, is refused: its tokens would be names, in clear, and its names keys.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from common.errors import BadRequest, Conflict
from daemon.access.actor import Actor
from daemon.access.book import canonical_email, one_change
from daemon.access.key_changes import LONGEST_LABEL, KeyChanges
from daemon.access.keys import PREFIX, secret_hash
from daemon.access.passwords import is_common
from daemon.store import keys as key_rows
from daemon.store import users as user_rows
from daemon.store.keys import Key
from daemon.store.users import User

MOST_TOKENS = 5_000  # of one import
LONGEST_TOKEN = 512
STRONG_LENGTH, STRONG_LETTERS = 20, 10
_PLACEHOLDERS = ("admin", "token_for_", "your_secret", "your-secret", "changeme", "example")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one token; see `common.protocol.ImportedKey`."""

    name: str
    user: User
    key: Key
    state: Literal["imported", "known", "ended"]
    new_user: bool
    weak: str


class Imports(KeyChanges):
    """The import."""

    @one_change
    async def import_tokens(
        self, actor: Actor, found: Sequence[tuple[str, str]], *, source: str, domain: str
    ) -> list[Imported]:
        """Keys for the (name, token) pairs, under users that are made where there are none (service accounts).

        Conflict, naming the entry, where one is no usable token, stands there twice, or is somebody else's already.
        """
        if not 1 <= len(found) <= MOST_TOKENS:
            raise Conflict(f"{source} has {len(found)} tokens: one import brings 1 to {MOST_TOKENS}")
        for number, (name, token) in enumerate(found, 1):
            if _reversed(name, token):
                words = 'reads as a token before a name: it must be {"user": "token"}; or write the name as an address'
                raise Conflict(f"entry {number} of {source} {words}", code="reversed")
        wanted = [(name, _address(name, domain), _usable(name, token)) for name, token in found]
        digests = {secret_hash(token) for _, _, token in wanted}
        if len(digests) != len(wanted):
            raise Conflict(f"{source} has the same token twice: whose is it?", code="token_twice")
        label = f"imported from {source}"[:LONGEST_LABEL]
        now_us = self._clock.wall()

        def job(conn: sqlite3.Connection) -> list[Imported]:
            users = {user.email: user for user in self.users.values()}
            result = []
            for name, email, token in wanted:
                known = self.keys.get(self.imported.get(secret_hash(token), ""))
                if known is not None:
                    result.append(self._as_known(name, email, token, known, now_us))
                    continue
                new_user = email not in users
                if new_user:
                    users[email] = user_rows.add(conn, email=email, role="user", service=True, now_us=now_us)
                    self.record(conn, actor, "users add", f"user:{email}", {"role": "user", "service": True})
                key, _ = self._new_key(users[email].id, label)
                digest = secret_hash(token)
                key = replace(key, secret_hash=digest, imported_hash=digest)
                key_rows.add(conn, key)
                weak = weakness(token)
                detail = {"user": email, "label": key.label, "source": source, "name": name, "weak": bool(weak)}
                self.record(conn, actor, "keys import", f"key:{key.id}", detail)
                result.append(Imported(name, users[email], key, "imported", new_user, weak))
            return result

        imported = await self._database.write(job)
        for each in imported:
            if each.state == "imported":
                if each.new_user:
                    self._put_user(each.user)
                self._put_key(each.key)
        return imported

    def _as_known(self, name: str, email: str, token: str, key: Key, now_us: int) -> Imported:
        """A token that an earlier import brought."""
        user = self._user(key.user_id)
        if user.email != email:
            raise Conflict(f"the token of {name!r} is that of {user.email} already", code="token_twice")
        counts = key.is_live(now_us) and key.imported_hash in key.accepted_hashes(now_us)
        return Imported(name, user, key, "known" if counts else "ended", False, weakness(token))


def weakness(token: str) -> str:
    """Why a token is easily guessed, in words; empty where it does not look so."""
    if any(word in token.casefold() for word in _PLACEHOLDERS) or is_common(token):
        return "it stands in documents and lists, where anybody can read it"
    if len(token) < STRONG_LENGTH:
        return f"it has fewer than {STRONG_LENGTH} characters"
    if len(set(token)) < STRONG_LETTERS:
        return f"it has fewer than {STRONG_LETTERS} different characters"
    return ""


_NAME = re.compile(r"[A-Za-z][A-Za-z._ -]{0,40}\d{0,4}")  # what people and pipelines are called
_ADDRESS = re.compile(r"[\w.+-]+@(localhost|([\w-]+\.)+[A-Za-z]{2,})")


def _reversed(name: str, token: str) -> bool:
    """Whether a pair reads as if the token stood first. An e-mail address is a name wherever it stands."""
    if "@" in name:
        return False
    if _ADDRESS.fullmatch(token):
        return True
    return _like_a_token(name) and not _like_a_token(token) and _NAME.fullmatch(token) is not None


def _like_a_token(text: str) -> bool:
    digits = sum(letter.isdigit() for letter in text)
    mixed = digits > 0 and not (text.islower() or text.isupper())
    return (
        not weakness(text)
        or text.startswith(("token", "sk-", PREFIX))
        or (len(text) >= 8 and mixed)
        or (len(text) >= 12 and digits >= 4)
    )


def _address(name: str, domain: str) -> str:
    """The e-mail address of the user of that name."""
    try:
        return canonical_email(name if "@" in name else f"{name}@{domain}")
    except BadRequest as error:
        raise Conflict(f"{name!r} cannot be made a user: {error.message}", code="name_unusable") from error


def _usable(name: str, token: str) -> str:
    if not token.strip():
        raise Conflict(f"the token of {name!r} is empty: everybody would have it", code="token_empty")
    if len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable() or token != token.strip():
        words = f"at most {LONGEST_TOKEN} printable ASCII characters, without a space at either end"
        raise Conflict(f"the token of {name!r} could not be sent in a header: {words}", code="token_unusable")
    if token.startswith(PREFIX):
        raise Conflict(
            f"the token of {name!r} is a key of a gateway like this one: issue one here", code="token_foreign"
        )
    return token
