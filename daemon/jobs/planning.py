"""The child's half of retention's erasing: which parts go, judged by the whole journal.

Rule: a part goes if a record that a rule covers refers to it and none that no rule covers does. What records behind
the look refer to is the daemon's to see (`LiveParts`), as it erases. A bit a part: ten million parts are 2.5 MB.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress

from daemon.jobs.lines import Doomed, Planned, Progress, Telling
from daemon.store.bodies import DamagedBody, unpack_ids
from daemon.store.journal import head
from daemon.store.retention import parts_there, references_after, rules
from daemon.store.verifying import last_part

# What the daemon erases in one step: short for everybody else's writes, and of a size that a full disk's reserve holds.
PARTS_A_STEP = 200
BYTES_A_STEP = 256 * 1024
PAGE = 5_000


def plan(conn: sqlite3.Connection, look: Callable[[], None], tell: Telling) -> None:
    """Tell `Planned`, then `Doomed` until all are told. `look` is called each page and may raise to stop."""
    known = rules(conn)
    through, last = head(conn).seq, last_part(conn)
    covered, live = bytearray(last // 8 + 1), bytearray(last // 8 + 1)
    seq = 0
    steps: list[list[int]]
    while seq < through:
        look()
        page, seq = references_after(conn, seq, through)
        for record in page:
            closed = record.closed_seq
            is_covered = closed is not None and any(rule.covers(record.received_us, closed) for rule in known)
            marks = covered if is_covered else live
            with suppress(DamagedBody):  # `audit verify` names it; its parts, unknown, stay
                for id_ in unpack_ids(record.body):
                    if id_ <= last:
                        marks[id_ >> 3] |= 1 << (id_ & 7)
        tell(Progress("looking for what is shared", seq, through, "records"))
    for n, byte in enumerate(live):
        covered[n] &= ~byte
    steps, room = [[]], BYTES_A_STEP
    id_ = 0
    while there := parts_there(conn, id_, last, PAGE):
        look()
        id_ = there[-1][0]
        for each, size in there:
            if covered[each >> 3] & 1 << (each & 7):
                if size > room or len(steps[-1]) >= PARTS_A_STEP:
                    steps.append([])
                    room = BYTES_A_STEP
                steps[-1].append(each)
                room -= size
    tell(Planned(through, sum(map(len, steps))))
    for ids in steps:
        tell(Doomed(ids))
