"""Refusals, counted in memory by caller, reason and minute until they are written.

Rule: a refused request costs a dictionary lookup and never a disk. What is lost with a crash is the count of the last
minute.
"""

from __future__ import annotations

import msgspec

from daemon.audit.chain import Record
from daemon.exchange import EndState

MINUTE = 60_000_000
MOST = 10_000  # different callers and reasons in memory; more are counted together, nameless


class Refusals:
    """The counts that are not written yet."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int | None, str | None, str], Record] = {}
        self._numbers: dict[tuple[int, int | None, str | None, str], int] = {}

    def count(
        self, at_us: int, *, reason: str, user_id: int | None, user: str, key_id: str | None, address: str, model: str
    ) -> None:
        """Count one; address and model are those of the first of its minute."""
        name = (at_us // MINUTE, user_id, key_id, reason)
        if name not in self._numbers:
            if len(self._numbers) >= MOST:
                user_id, user, key_id, address, model = None, "", None, "", ""
                name = (at_us // MINUTE, None, None, reason)
            self._counts.setdefault(
                name,
                Record(
                    event="refused",
                    at_us=at_us,
                    clock_us=0,
                    user_id=user_id,
                    user=user,
                    key_id=key_id,
                    address=address,
                    model=model,
                    state=EndState.REFUSED.value,
                    received_us=at_us,
                ),
            )
        self._numbers[name] = self._numbers.get(name, 0) + 1

    def of_past_minutes(self, now_us: int) -> list[Record]:
        """Take the records of every minute but the running one."""
        return self._take([name for name in self._numbers if name[0] != now_us // MINUTE])

    def all(self) -> list[Record]:
        """Take every record."""
        return self._take(list(self._numbers))

    def put_back(self, records: list[Record]) -> None:
        """Count again what could not be written."""
        for record in records:
            detail = msgspec.json.decode(record.detail or "{}")
            name = (record.at_us // MINUTE, record.user_id, record.key_id, detail["reason"])
            self._counts.setdefault(name, record)
            self._numbers[name] = self._numbers.get(name, 0) + detail["count"]

    def _take(self, names: list[tuple[int, int | None, str | None, str]]) -> list[Record]:
        taken = []
        for name in names:
            record = self._counts.pop(name)
            record.detail = msgspec.json.encode({"reason": name[3], "count": self._numbers.pop(name)}).decode()
            taken.append(record)
        return taken
