"""The limits that the database holds, kept in memory for the hot path, and changed for administrators.

Rule: a change is one transaction with its audit record; it acts on the next request after that commit. The values of
the configuration seed `default` in a new store and come back when `default` is cleared; otherwise the database rules.
Counting is not done here (`daemon/traffic/admission.py`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from common.errors import Conflict, NotFound, Unavailable
from daemon.access.actor import DAEMON, Actor
from daemon.clock import Clock
from daemon.config import Limits as Seed
from daemon.store.database import Database
from daemon.store.journal import append_admin
from daemon.store.limits import all_limits, delete_limits, limits_of, put_limits
from daemon.traffic.refusals import FIELDS
from daemon.traffic.rules import DEFAULT, Rule, Rules, check_values, in_words, kind_of, read_target

Exists = Callable[[str], bool]


@dataclass(frozen=True)
class TargetLimits:
    """What one target says, and for `default` and users what is in force. None as a value is unlimited."""

    target: str
    own: dict[str, int | None]  # only the fields that the target says itself
    effective: dict[str, int | None] | None  # all six; None for keys, models and addresses, where `own` is all there is


class Limits:
    """The rules in force, and the three things that people do with them: show, set, clear."""

    def __init__(
        self, database: Database, clock: Clock, *, seed: Seed, user_exists: Exists, key_exists: Exists
    ) -> None:
        """`user_exists` is asked with an e-mail address, `key_exists` with a key's bare id, both from memory."""
        self._database = database
        self._clock = clock
        self._seed = {name: getattr(seed, name) for name in FIELDS}
        self._exists = {"user": user_exists, "key": key_exists}
        self._rules = Rules()
        # Changes are applied to memory in the order in which they were committed.
        self._changing = asyncio.Lock()
        self._applying: set[asyncio.Task[TargetLimits]] = set()
        self.changed: list[Callable[[str], None]] = []  # told the target, after each change; must not wait
        # Set by whoever counts: called when a window looks further back than what is remembered.
        self.recall: Callable[[], Awaitable[None]] | None = None

    @classmethod
    async def load(
        cls, database: Database, clock: Clock, *, seed: Seed, user_exists: Exists, key_exists: Exists
    ) -> Limits:
        """The limits of `database`; in a new store `default` is set to the configuration's values first."""
        limits = cls(database, clock, seed=seed, user_exists=user_exists, key_exists=key_exists)
        rows = await database.read(all_limits)
        if not any(target == DEFAULT for target, _, _ in rows):
            rows.extend((DEFAULT, name, value) for name, value in (await limits._seed_default()).items())
        limits._rules.load(rows)
        return limits

    # --- the hot path: from memory ---

    def applying(self, email: str, key_id: str | None, model: str, address: str) -> list[tuple[str, Rule]]:
        """Every rule that such a request is under, with the target that it is counted for."""
        return self._rules.applying(email, key_id, model, address)

    def rule(self, target: str) -> Rule:
        """The rule in force for a target."""
        return self._rules.rule(target)

    @property
    def any_concurrency(self) -> bool:
        """Whether any target has a concurrency limit."""
        return self._rules.any_concurrency

    def needed_history(self) -> int:
        """How far back, in microseconds, the longest window of any target looks."""
        return self._rules.needed_history()

    @property
    def configured(self) -> Mapping[str, int | None]:
        """The configuration's values, which `default` returns to where it is cleared."""
        return self._seed

    # --- what people do ---

    def show(self, target: str | None = None) -> list[TargetLimits]:
        """What one target says (nothing of its own is an answer, too), or all that say something, `default` first."""
        if target is None:
            return [self._described(each) for each in self._rules.targets()]
        name = read_target(target)
        if not self._rules.own(name):
            self._check_exists(name)
        return [self._described(name)]

    async def set(
        self,
        actor: Actor,
        target: str,
        values: Mapping[str, int | None],
        *,
        seen: Mapping[str, int | None] | None = None,
    ) -> TargetLimits:
        """`target` says `values` (None = unlimited) on the next request; what it says of other fields stays.

        `seen` is what the target said when the administrator looked: Conflict if it says something else now.
        BadRequest where target or values cannot be, NotFound where the user or key does not exist.
        """
        name = read_target(target)
        checked = check_values(values)
        self._check_exists(name)

        def put(conn: sqlite3.Connection) -> None:
            _check_seen(conn, name, seen)
            put_limits(conn, name, checked)

        return await self._change(actor, "limits set", name, put)

    async def clear(self, actor: Actor, target: str, *, seen: Mapping[str, int | None] | None = None) -> TargetLimits:
        """`target` says nothing of its own any more; `default` returns to the configuration's values. `seen`: as for
        `set`."""
        name = read_target(target)
        if not self._rules.own(name):
            self._check_exists(name)

        def clear(conn: sqlite3.Connection) -> None:
            _check_seen(conn, name, seen)
            delete_limits(conn, name)
            if name == DEFAULT:
                put_limits(conn, DEFAULT, self._seed)

        return await self._change(actor, "limits clear", name, clear)

    async def _change(
        self, actor: Actor, verb: str, target: str, change: Callable[[sqlite3.Connection], None]
    ) -> TargetLimits:
        # A caller that leaves does not stop the write, so it must not stop what follows from it either.
        applying = asyncio.ensure_future(self._apply(target, self._recorded(actor, verb, target, change)))
        self._applying.add(applying)
        applying.add_done_callback(self._applied)
        return await asyncio.shield(applying)

    async def _apply(self, target: str, job: Callable[[sqlite3.Connection], dict[str, int | None]]) -> TargetLimits:
        async with self._changing:
            said = await self._database.write(job)
            further_back = self._rules.replace(target, said)
            for listener in self.changed:
                listener(target)
            if further_back and self.recall is not None:
                await self._recall()
            return self._described(target)

    async def _recall(self) -> None:
        assert self.recall is not None
        try:
            await self.recall()
        except Unavailable as error:
            raise Unavailable(
                f"the limit is in force, but counts only what is used from now on: {error.message}", code=error.code
            ) from error

    def _applied(self, applying: asyncio.Task[TargetLimits]) -> None:
        self._applying.discard(applying)
        if not applying.cancelled():
            applying.exception()  # its caller may have left: nobody is scolded for not asking

    def _recorded(
        self, actor: Actor, verb: str, target: str, change: Callable[[sqlite3.Connection], None]
    ) -> Callable[[sqlite3.Connection], dict[str, int | None]]:
        """A write job: the change and its audit record; its result is what `target` says afterwards."""

        def job(conn: sqlite3.Connection) -> dict[str, int | None]:
            old = limits_of(conn, target)
            change(conn)
            new = limits_of(conn, target)
            append_admin(
                conn,
                actor=actor,
                verb=verb,
                target=target,
                detail={"old": _in_json(old), "new": _in_json(new)},
                at_us=self._clock.wall(),
                clock_us=self._clock.now(),
            )
            return new

        return job

    async def _seed_default(self) -> dict[str, int | None]:
        # All six are written, unlimited ones too: that `default` says something is the sign that it was seeded.
        return await self._database.write(
            self._recorded(DAEMON, "limits set", DEFAULT, lambda conn: put_limits(conn, DEFAULT, self._seed))
        )

    def _check_exists(self, target: str) -> None:
        kind, _, name = target.partition(":")
        exists = self._exists.get(kind)
        if exists is not None and not exists(name):
            raise NotFound(f"there is no {in_words(target)}")

    def _described(self, target: str) -> TargetLimits:
        in_force = self._rules.effective(target) if kind_of(target) in {"default", "user"} else None
        return TargetLimits(target, self._rules.own(target), in_force)


def _check_seen(conn: sqlite3.Connection, target: str, seen: Mapping[str, int | None] | None) -> None:
    if seen is not None and limits_of(conn, target) != seen:
        raise Conflict("the limits were changed in the meantime; look again", code="changed_meanwhile")


def _in_json(values: Mapping[str, int | None]) -> dict[str, int | str]:
    return {name: "unlimited" if value is None else value for name, value in values.items()}
