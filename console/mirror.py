"""What we know of the daemon: the rows of the watch stream, kept up message by message. Pure; no I/O, no screen.

Rule: foreign text is cleaned here, where it is decoded (T1), so that nothing behind this page can forget it.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from common.protocol import Batch, Changed, Hello, Kind, LiveRow, Message, Snapshot, Totals
from common.untrusted import clean

Row = dict[str, Any]


class Gap(Exception):
    """Something is missing between two messages: only a new snapshot helps."""


class Mirror:
    """`rows[kind][id]` is a row with the field names of `common/protocol.py`, its strings clean."""

    def __init__(self) -> None:
        self.boot_id = ""
        self.seq = -1
        self.rows: dict[Kind, dict[str, Row]] = {kind: {} for kind in get_args(Kind)}
        self.changes: dict[Kind, int] = dict.fromkeys(get_args(Kind), 0)  # goes up when a row of this kind changed
        self.totals = Totals(running=0, seats=0, queued=0, oldest_queued=None)

    def apply(self, message: Message) -> bool:
        """Take in one message; whether a row or the totals changed. Gap where something is missing."""
        match message:
            case Hello():
                self.boot_id = message.boot_id
                self.seq = -1
                return False
            case Snapshot():
                for kind, rows in self.rows.items():
                    rows.clear()
                    self.changes[kind] += 1
                self._put(message.rows)
                self.seq, self.totals = message.seq, message.totals
                return True
            case Batch():
                if message.after != self.seq:
                    raise Gap(f"after {self.seq} came what follows {message.after}")
                self._put(message.changed)
                for gone in message.gone:
                    self.rows[gone.kind].pop(gone.id, None)
                    self.changes[gone.kind] += 1
                self.seq, self.totals = message.seq, message.totals
                return True
        return False

    def live(self) -> list[LiveRow]:
        """The live exchanges: running ones first, longest first; then the queue in its order."""
        rows = [msgspec.convert(row, LiveRow) for row in self.rows["live"].values()]
        return sorted(rows, key=lambda row: (row.state == "queued", row.position or 0, row.received))

    def _put(self, changed: list[Changed]) -> None:
        for entry in changed:
            self.rows[entry.kind][entry.id] = cleaned(msgspec.json.decode(entry.row))
            self.changes[entry.kind] += 1


def cleaned(value: Any) -> Any:
    """A decoded JSON value with every string in it made safe for a line of a terminal."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [cleaned(entry) for entry in value]
    if isinstance(value, dict):
        return {clean(str(name)): cleaned(entry) for name, entry in value.items()}
    return value
