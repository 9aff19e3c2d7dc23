"""Refusals, counted in memory by caller, reason and minute until they are written.

Rule: a refused request costs a dictionary lookup and never a disk. The running counts are set down beside it, once a
second (`changed`), and become records of the journal when their minute is over (`of_past_minutes`): a crash loses what
was refused since they were last set down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from daemon.audit.chain import Record
from daemon.exchange import EndState
from daemon.store.refusing import Refusing

MINUTE = 60_000_000
MOST = 10_000  # different callers and reasons in memory; more are counted together, nameless
MOST_EACH = 20  # different models and labels of one caller and reason; a client may call itself what it likes

_Caller = tuple[int, int, str, str]  # minute, user_id, key_id, reason
_Name = tuple[int, int, str, str, str, str]  # and model, client_label


class Refusals:
    """The counts that are not in the journal yet."""

    def __init__(self) -> None:
        self._first: dict[_Name, Refusing] = {}
        self._numbers: dict[_Name, int] = {}
        self._kinds: dict[_Caller, int] = {}  # how many models and labels each has
        self._changed: set[_Name] = set()

    def count(
        self,
        at_us: int,
        *,
        reason: str,
        user_id: int | None,
        user: str,
        key_id: str | None,
        address: str,
        model: str,
        client_label: str = "",
    ) -> None:
        """Count one; the address is that of the first of its kind in its minute."""
        caller = (at_us // MINUTE, user_id or 0, key_id or "", reason)
        name = (*caller, model, client_label)
        if name not in self._numbers:
            if len(self._numbers) >= MOST:
                caller, user, address = (at_us // MINUTE, 0, "", reason), "", ""
                name = (*caller, "", "")
            elif self._kinds.get(caller, 0) >= MOST_EACH:
                name = (*caller, "", "")
            self._add(Refusing(*name, user, address, at_us, 1))
            return
        self._numbers[name] += 1
        self._changed.add(name)

    def changed(self) -> list[Refusing]:
        """Take the counts that moved since they were last taken: as they are now."""
        changed = [self._now(name) for name in self._changed]
        self._changed.clear()
        return changed

    def not_set_down(self, counts: Iterable[Refusing]) -> None:
        """What `changed` gave could not be written: it comes again."""
        self._changed.update(count[:6] for count in counts if count[:6] in self._numbers)

    def of_past_minutes(self, now_us: int) -> list[Refusing]:
        """Take every minute but the running one."""
        return self._take([name for name in self._numbers if name[0] != now_us // MINUTE])

    def all(self) -> list[Refusing]:
        """Take everything."""
        return self._take(list(self._numbers))

    def put_back(self, counts: Sequence[Refusing]) -> None:
        """Count again what could not be written, or what the last run was counting."""
        for count in counts:
            self._add(count)

    def _now(self, name: _Name) -> Refusing:
        return self._first[name]._replace(number=self._numbers[name])

    def _add(self, count: Refusing) -> None:
        name = count[:6]
        if name not in self._numbers:
            self._kinds[name[:4]] = self._kinds.get(name[:4], 0) + 1
            self._first[name] = count
        self._numbers[name] = self._numbers.get(name, 0) + count.number
        self._changed.add(name)

    def _take(self, names: list[_Name]) -> list[Refusing]:
        taken = [self._now(name) for name in names]
        for name in names:
            self._kinds.pop(name[:4], None)
            del self._first[name], self._numbers[name]
        self._changed.difference_update(names)
        return taken


def record_of(count: Refusing) -> Record:
    """The journal's record of a minute's refusals."""
    return Record(
        event="refused",
        at_us=count.at_us,
        clock_us=0,
        user_id=count.user_id or None,
        user=count.user,
        key_id=count.key_id or None,
        client_label=count.client_label,
        address=count.address,
        model=count.model,
        state=EndState.REFUSED.value,
        received_us=count.at_us,
        detail=msgspec.json.encode({"reason": count.reason, "count": count.number}).decode(),
    )
