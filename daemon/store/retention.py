"""What retention may erase, and the erasing: bodies of exchanges that a verified export holds.

A *rule* is an `admin` record in the chain: "what was received before `before_us` and closed by record `through_seq` is
in a verified export". Rules: nothing is erased that no such record covers, and no record without its `exports` row; a
part lives while a record that is not covered refers to it; of a part there remains its commitment, so that the chain
holds. Each step here is short: one page read, or few parts written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from daemon.access.actor import Actor
from daemon.store.bodies import DamagedBody, unpack_ids
from daemon.store.exports import Export
from daemon.store.journal import AUDIT_RETAIN, append_admin
from daemon.store.search import Criteria, Found, Place, by_seq, oldest

PAGE = 500
RECORDS_PAGE = 2_000


class Rule(NamedTuple):
    """One record of retention."""

    seq: int  # of the record
    before_us: int  # exclusive, by `received_us`
    through_seq: int  # inclusive, of the closing record

    def covers(self, received_us: int, closed_seq: int) -> bool:
        """Whether the exchange of these two may be erased."""
        return received_us < self.before_us and closed_seq <= self.through_seq


class _Detail(msgspec.Struct):
    verb: str
    before_us: int
    through: int


_decode = msgspec.json.Decoder(_Detail).decode


def rule_of(seq: Any, detail: Any) -> Rule | None:
    """The rule that an `admin` record is; None where it is about something else."""
    try:
        told = _decode(detail)
    except (msgspec.DecodeError, TypeError):
        return None
    return Rule(seq, told.before_us, told.through) if told.verb == AUDIT_RETAIN else None


def rules(conn: sqlite3.Connection) -> list[Rule]:
    """Every rule that is not wholly within another one, in the order of the journal."""
    rows = conn.execute(
        "SELECT seq, detail FROM journal WHERE event = 'admin' AND detail LIKE ? ORDER BY seq",
        (f'%"verb":"{AUDIT_RETAIN}"%',),
    )
    return without_needless(rule for row in rows if (rule := rule_of(*row)) is not None)


def without_needless(some: Iterable[Rule]) -> list[Rule]:
    """Only those that cover something that no other one covers; of equal ones the first."""
    kept: list[Rule] = []
    for rule in some:
        if any(rule.before_us <= other.before_us and rule.through_seq <= other.through_seq for other in kept):
            continue
        kept = [other for other in kept if other.before_us > rule.before_us or other.through_seq > rule.through_seq] + [
            rule
        ]
    return kept


def add_rule(
    conn: sqlite3.Connection, export: Export, before_us: int, *, actor: Actor, at_us: int, clock_us: int
) -> Rule:
    """Record that what `export` holds of the time before `before_us` is erased from now on. LookupError where no such
    export is registered as verified, of everybody, whole."""
    row = conn.execute(
        "SELECT through_seq, until_us FROM exports WHERE id = ? AND sha256 = ? AND user_id IS NULL"
        " AND filter IS NULL AND format = 'jsonl'",
        (export.id, export.sha256),
    ).fetchone()
    if row is None:
        raise LookupError(f"there is no verified export {export.id} of everybody's exchanges")
    through, until_us = row
    before_us = before_us if until_us is None else min(before_us, until_us)
    detail = {
        "before_us": before_us, "through": through, "export": export.id, "file": export.where_to,
        "sha256": export.sha256.hex(),
    }  # fmt: skip
    seq = append_admin(
        conn, actor=actor, verb=AUDIT_RETAIN, target="everybody", detail=detail, at_us=at_us, clock_us=clock_us
    )
    return Rule(seq, before_us, through)


# --- what is to be exported ---


def expired(conn: sqlite3.Connection, before_us: int, through_seq: int, known: Sequence[Rule]) -> Iterator[list[Found]]:
    """The exchanges that were received before `before_us`, are closed by `through_seq`, and no rule covers yet."""
    last = max(known, key=lambda rule: (rule.before_us, rule.through_seq), default=Rule(0, 0, 0))
    # What was received after the time that the last rule covers, by the index of that time; and of what was received
    # before, what was closed only since then: few, as a running exchange is not older than some hours.
    seq = last.through_seq
    late = min(last.before_us, before_us)
    while late and (page := _closed_after(conn, seq, through_seq, late)):
        seq = page[-1][0]
        found = [exchange for _, opened in page if (exchange := by_seq(conn, opened)) is not None]
        if some := [each for each, (closed, _) in zip(found, page, strict=True) if not _known(each, closed, known)]:
            yield some
    after: Place | None = None
    since = last.before_us
    wanted = Criteria(since_us=since or None, until_us=before_us)
    while since < before_us and (rows := oldest(conn, wanted, PAGE, through_seq=through_seq, after=after)):
        after = rows[-1].place
        if some := [each for each in rows if each.state is not None]:  # closed by through_seq
            yield some


def _known(found: Found, closed_seq: int, known: Sequence[Rule]) -> bool:
    return any(rule.covers(found.received_us, closed_seq) for rule in known)


def _closed_after(conn: sqlite3.Connection, seq: int, through_seq: int, before_us: int) -> list[tuple[int, int]]:
    return conn.execute(
        "SELECT seq, opened_seq FROM journal WHERE seq > ? AND seq <= ? AND event = 'closed' AND received_us < ?"
        " ORDER BY seq LIMIT ?",
        (seq, through_seq, before_us, PAGE),
    ).fetchall()


# --- which parts go ---


class BodyReference(NamedTuple):
    """A record with a body."""

    seq: int
    received_us: int
    closed_seq: int | None  # of its exchange; None: it runs
    body: bytes


def references_after(conn: sqlite3.Connection, seq: int, through: int) -> tuple[list[BodyReference], int]:
    """A page of the records behind `seq` that have a body, and where it ends; `through` at the end of the journal."""
    end = min(seq + RECORDS_PAGE, through)
    rows = conn.execute(
        "SELECT j.seq, j.received_us, CASE j.event WHEN 'closed' THEN j.seq ELSE c.seq END, j.body FROM journal j"
        " LEFT JOIN journal c ON c.event = 'closed' AND c.opened_seq = j.seq"
        " WHERE j.seq > ? AND j.seq <= ? AND j.body IS NOT NULL ORDER BY j.seq",
        (seq, end),
    )
    return [BodyReference(*row) for row in rows], end


def parts_there(conn: sqlite3.Connection, id_: int, through: int, limit: int) -> list[tuple[int, int]]:
    """At most `limit` parts that have a text, from behind `id_` through `through`: id and bytes in the file."""
    return conn.execute(
        "SELECT id, LENGTH(data) FROM parts WHERE id > ? AND id <= ? AND data IS NOT NULL ORDER BY id LIMIT ?",
        (id_, through, limit),
    ).fetchall()


def bodies_erased(conn: sqlite3.Connection) -> int:
    """How many parts have no text any more."""
    return int(conn.execute("SELECT COUNT(*) FROM parts WHERE data IS NULL").fetchone()[0])


# --- the erasing ---


class LiveParts:
    """The parts that records behind `seq` refer to: a text of the past may be sent again while the erasing goes on."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.ids: set[int] = set()

    def catch_up(self, conn: sqlite3.Connection, through: int) -> None:
        """Look at the next records, through `through` at most; a page at once."""
        page, self.seq = references_after(conn, self.seq, through)
        for record in page:
            with suppress(DamagedBody):
                self.ids.update(unpack_ids(record.body))


def erase_some(conn: sqlite3.Connection, ids: Sequence[int], live: LiveParts, through: int) -> int:
    """Overwrite the texts, salts and lookups of those of `ids` that nothing new refers to; how many there were.

    `through`: the journal's end, as this transaction sees it.
    """
    while live.seq < through:
        live.catch_up(conn, through)
    doomed = [id_ for id_ in ids if id_ not in live.ids]
    conn.execute("PRAGMA secure_delete = ON")
    try:
        marks = ", ".join("?" * len(doomed))
        skeletons = conn.execute(
            f"SELECT id, user_id, commitment FROM parts WHERE id IN ({marks}) AND data IS NOT NULL ORDER BY id", doomed
        ).fetchall()
        # Taken out and put in again: an UPDATE would leave each page as it is, nearly empty, and no room would be won.
        conn.executemany("DELETE FROM parts WHERE id = ?", [(id_,) for id_, _, _ in skeletons])
        conn.executemany(
            "INSERT INTO parts (id, user_id, commitment, size, compressed, checksum) VALUES (?, ?, ?, 0, 0, 0)",
            skeletons,
        )
        return len(skeletons)
    finally:
        conn.execute("PRAGMA secure_delete = FAST")


def free_pages(conn: sqlite3.Connection) -> int:
    """Pages of the file that hold nothing; 0 in a file that cannot give any back (made before it could)."""
    if conn.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
        return 0
    return int(conn.execute("PRAGMA freelist_count").fetchone()[0])


def give_back(conn: sqlite3.Connection, pages: int) -> int:
    """Give at most so many free pages back to the file system; how many are left."""
    left = free_pages(conn)
    for _ in range(min(pages, left)):
        # One by one: Python's module takes only the first step of this statement, however many pages it names.
        conn.execute("PRAGMA incremental_vacuum(1)").close()
    return free_pages(conn)
