"""`audit verify`: the whole journal, every part of every body and every checkpoint, looked at once.

Rules: what a signed checkpoint covers cannot have been changed unnoticed, in any column of any of the three tables;
what stands behind the last checkpoint is chained but not signed, and counted as unsealed. Bodies may be missing only
where a sealed record says that their user was deleted, or that retention erased what refers to them (and nothing else
does). The walk goes on behind a break, so that each is told once.
The database is only read, in short reads; it may grow meanwhile, and what comes behind is left out.
"""

from __future__ import annotations

import hmac
import re
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import msgspec

from common.errors import BadRequest
from common.protocol import VerifyReport
from daemon.audit.chain import COLUMNS, GENESIS, Record, body_digest, checkpoint_message, commitment, record_hash
from daemon.audit.sealing import TrustedKeys
from daemon.store.bodies import LOOKUP_BYTES, DamagedBody, unpack, unpack_ids
from daemon.store.journal import USERS_DELETE, head
from daemon.store.retention import Rule, rule_of, rules, without_needless
from daemon.store.verifying import (
    Part,
    all_checkpoints,
    body_keys,
    commitments_of,
    erased_since,
    last_part,
    parts_after,
    records_after,
    unfinished_seqs,
)

PAGE = 500
MOST_PROBLEMS = 100
TRIES = 3  # where bodies are erased meanwhile
UNTIL_SEALED = 2.0  # seconds until the record of an erasure is certainly sealed

_hints = get_type_hints(Record)
_TYPES = tuple(frozenset(get_args(_hints[name]) or (_hints[name],)) for name in COLUMNS)
_SEQ, _EVENT, _OPENED_SEQ, _USER, _RECEIVED, _BODY, _DIGEST, _DETAIL = (
    COLUMNS.index(name)
    for name in ("seq", "event", "opened_seq", "user_id", "received_us", "body", "body_digest", "detail")
)


@dataclass(frozen=True)
class Expectation:
    """A record's hash that somebody wrote down: whoever cuts the journal off cannot cut that off."""

    seq: int
    hash: bytes

    @classmethod
    def read(cls, text: str) -> Expectation:
        """`SEQ:HASH`, as the log of checkpoints has it. BadRequest."""
        seq, _, digest = text.partition(":")
        if not (re.fullmatch(r"[0-9]{1,18}", seq) and re.fullmatch(r"[0-9a-fA-F]{64}", digest)):
            raise BadRequest(f"--expect: {text!r} is not SEQ:HASH, such as 1000:9f86d0… with 64 hex digits")
        return cls(int(seq), bytes.fromhex(digest))


def verify(
    conn: sqlite3.Connection,
    trusted: TrustedKeys,
    expected: Expectation | None = None,
    *,
    each_page: Callable[[], None] = lambda: None,
) -> VerifyReport:
    """Look at everything. `each_page` is called every few hundred rows and may raise to stop."""
    for again in range(TRIES - 1, -1, -1):
        walk = _Walk(conn, trusted, expected, each_page)
        walk.records()
        sealed = walk.checkpoints()
        walk.parts(sealed)
        if not (again and walk.unexplained and erased_since(conn, walk.through)):
            break
        # Bodies went while we looked, and the record that says why stands behind what we looked at.
        time.sleep(UNTIL_SEALED)
    return VerifyReport(
        intact=not walk.problems,
        records=walk.seen,
        unsealed=max(0, walk.seq - sealed),
        head_seq=walk.seq,
        head_hash=walk.hash.hex(),
        problems=_bounded(walk.problems),
    )


@dataclass
class _Walk:
    """What is known so far."""

    conn: sqlite3.Connection
    trusted: TrustedKeys
    expected: Expectation | None
    each_page: Callable[[], None]
    problems: list[str] = field(default_factory=list)
    seen: int = 0
    seq: int = 0
    hash: bytes = GENESIS
    open: set[int] = field(default_factory=set)
    referenced: bytearray = field(default_factory=bytearray)  # a bit a part
    retained: bytearray = field(default_factory=bytearray)  # a bit a part: some record that retention left refers to it
    retention: list[Rule] = field(default_factory=list)  # what retention may have erased
    seen_retention: list[Rule] = field(default_factory=list)
    unexplained: bool = False  # bodies are missing, and no record that we saw says why
    late: set[int] = field(default_factory=set)  # opened, by its time, in what retention covers; and not closed yet
    last_body: dict[int, int] = field(default_factory=dict)  # user -> last record that has a body
    deleted: dict[int, int] = field(default_factory=dict)  # user -> record of the deletion
    hashes: dict[int, Any] = field(default_factory=dict)  # of the records that checkpoints are about

    def __post_init__(self) -> None:
        conn = self.conn
        # Whatever bytes lie in a text must be told from every other, also those that are no UTF-8.
        conn.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        conn.execute("BEGIN")  # one moment: no record without its parts
        self.through = head(conn).seq
        self.last_part = last_part(conn)
        self.sealing = all_checkpoints(conn)
        self.keys = body_keys(conn)
        self.running = unfinished_seqs(conn)
        self.retention = rules(conn)
        conn.execute("COMMIT")
        self.referenced = bytearray(self.last_part // 8 + 1)
        self.retained = bytearray(self.last_part // 8 + 1)
        self.hashes = {seq: None for seq, *_ in self.sealing}
        self.good_shapes: set[tuple[type, ...]] = set()

    # --- records ---

    def records(self) -> None:
        while page := records_after(self.conn, self.seq, self.through, PAGE):
            self.each_page()
            self._bodies(page)
            for row in page:
                self._record(row[:-1], row[-1])
        if self.expected is not None and self.expected.seq > self.through:
            self.problems.append(
                f"record {self.expected.seq} is expected, but the journal ends at {self.through}: it was cut off"
            )
        for seq in sorted(self.open - self.running):
            self.problems.append(f"record {seq}: the exchange has no end and is not running")
        for seq in self.late:
            self._retain(seq)
        if without_needless(self.seen_retention) != self.retention:
            self.problems.append("the records of retention are not all found where they stand")

    def _record(self, columns: tuple[Any, ...], stored: Any) -> None:
        seq = columns[_SEQ]
        if seq != self.seq + 1:
            missing = f"record {self.seq + 1} is" if seq == self.seq + 2 else f"records {self.seq + 1} to {seq - 1} are"
            self.problems.append(f"{missing} missing")
        if not self._follows(columns, stored):
            self.problems.append(f"record {seq}: its hash does not follow from it and the record before")
        self.seen += 1
        self.seq = seq
        self.hash = stored if type(stored) is bytes else b""
        if seq in self.hashes:
            self.hashes[seq] = stored
        if self.expected is not None and seq == self.expected.seq and stored != self.expected.hash:
            self.problems.append(f"record {seq}: its hash is not the expected one")
        self._note(columns)

    def _note(self, columns: tuple[Any, ...]) -> None:
        seq, user_id = columns[_SEQ], columns[_USER]
        match columns[_EVENT]:
            case "opened":
                self.open.add(seq)
            case "closed":
                opened = columns[_OPENED_SEQ]
                self.open.discard(opened)
                if opened in self.late:
                    self.late.discard(opened)
                    if not self._is_covered(columns[_RECEIVED], seq):
                        self._retain(opened)
            case "admin" if user_id is not None and _verb(columns[_DETAIL]) == USERS_DELETE:
                self.deleted[user_id] = seq
            case "admin" if (rule := rule_of(seq, columns[_DETAIL])) is not None:
                self.seen_retention.append(rule)
        if columns[_BODY] is not None:
            self.last_body[user_id] = seq

    def _follows(self, columns: tuple[Any, ...], stored: Any) -> bool:
        try:
            return self._has_types(columns) and record_hash(self.hash, columns) == stored
        except UnicodeEncodeError:
            return False  # no text that JSON can hold: nothing that we wrote

    def _has_types(self, columns: tuple[Any, ...]) -> bool:
        # SQLite keeps any type in any column, and JSON writes some of them alike: the type is part of what is chained.
        shape = tuple(map(type, columns))
        if shape not in self.good_shapes:
            if not all(kind in allowed for kind, allowed in zip(shape, _TYPES, strict=True)):
                return False
            self.good_shapes.add(shape)
        return True

    def _bodies(self, page: list[tuple[Any, ...]]) -> None:
        """Each body of a page: its parts are there, the user's, and what the record says."""
        bodies = []
        for row in page:
            if row[_BODY] is not None:
                try:
                    bodies.append((row, unpack_ids(row[_BODY])))
                except (DamagedBody, TypeError):
                    self.problems.append(f"record {row[_SEQ]}: its list of parts is damaged")
        bound = commitments_of(self.conn, [id_ for _, ids in bodies for id_ in ids])
        for row, ids in bodies:
            missing = [id_ for id_ in ids if id_ not in bound]
            if missing:
                self.problems.append(f"record {row[_SEQ]}: part {missing[0]} of its body is missing")
                continue
            found = [bound[id_] for id_ in ids]
            if any(user_id != row[_USER] for user_id, _ in found):
                self.problems.append(f"record {row[_SEQ]}: a part of its body is another user's")
            elif any(type(each) is not bytes for _, each in found) or (
                body_digest(each for _, each in found) != row[_DIGEST]
            ):
                self.problems.append(f"record {row[_SEQ]}: the parts of its body are not those that were recorded")
            covered = bool(self.retention) and self._is_covered(row[_RECEIVED], row[_SEQ])
            if covered and row[_EVENT] == "opened":
                self.late.add(row[_SEQ])  # covered if its end is, which is still to come
            for id_ in ids:
                if id_ <= self.last_part:
                    self.referenced[id_ >> 3] |= 1 << (id_ & 7)
                    if not covered:
                        self.retained[id_ >> 3] |= 1 << (id_ & 7)

    def _is_covered(self, received_us: Any, seq: int) -> bool:
        return type(received_us) is int and any(rule.covers(received_us, seq) for rule in self.retention)

    def _retain(self, seq: int) -> None:
        """The parts of that record were not retention's to erase."""
        for row in records_after(self.conn, seq - 1, seq, 1):
            with suppress(DamagedBody, TypeError):
                for id_ in unpack_ids(row[_BODY]):
                    if id_ <= self.last_part:
                        self.retained[id_ >> 3] |= 1 << (id_ & 7)

    # --- checkpoints ---

    def checkpoints(self) -> int:
        """Check every signature; the last record that a good one covers."""
        sealed, before = 0, b""
        for seq, hash_, at_us, kid, signature in self.sealing:
            well_formed = (type(hash_), type(at_us), type(kid), type(signature)) == (bytes, int, str, bytes)
            if not well_formed:
                self.problems.append(f"checkpoint {seq}: it is damaged")
            elif kid not in self.trusted:
                self.problems.append(f"checkpoint {seq}: the key {kid} that signed it is not one of ours")
            elif not self.trusted.is_signed(kid, signature, checkpoint_message(seq, hash_, at_us, kid, before)):
                self.problems.append(f"checkpoint {seq}: its signature is not that of it and the checkpoint before")
            elif seq > self.through:
                self.problems.append(f"checkpoint {seq}: the journal ends at {self.through}: it was cut off")
            elif self.hashes[seq] != hash_:
                self.problems.append(f"checkpoint {seq}: the journal before it is not what was signed")
            else:
                sealed = seq
            before = signature if type(signature) is bytes else b""
        return sealed

    # --- parts ---

    def parts(self, sealed: int) -> None:
        """Every part: referred to, and the text that was committed to; or erased with its user."""
        last = 0
        erased: dict[Any, int] = {}
        by_retention = False
        while page := [part for part in parts_after(self.conn, last, PAGE) if part.id <= self.last_part]:
            self.each_page()
            for part in page:
                if not self.referenced[part.id >> 3] & 1 << (part.id & 7):
                    self.problems.append(f"part {part.id}: no record refers to it")
                if part.data is None:
                    if self.retention and not self.retained[part.id >> 3] & 1 << (part.id & 7):
                        by_retention = True
                    else:
                        erased[part.user_id] = erased.get(part.user_id, 0) + 1
                    if part[2:4] != (None, None) or part[5:] != (0, 0, 0, None):
                        self.problems.append(f"part {part.id}: it is neither there nor properly erased")
                elif (trouble := self._trouble_with(part)) is not None:
                    self.problems.append(f"part {part.id}: {trouble}")
            last = page[-1].id
        unsealed = [rule.seq for rule in self.retention if rule.seq > sealed]
        if by_retention and unsealed:
            self.problems.append(f"parts are erased by record {unsealed[0]}, which is unsealed")
        for user_id, count in sorted(erased.items(), key=str):
            record = self.deleted.get(user_id, 0)
            if not record or record < self.last_body.get(user_id, 0):
                self.unexplained = True
                self.problems.append(f"{count} parts of user {user_id} are erased, and no record says why")
            elif record > sealed:
                self.problems.append(
                    f"{count} parts of user {user_id} are erased by record {record}, which is unsealed"
                )

    def _trouble_with(self, part: Part) -> str | None:
        if tuple(map(type, part)) != (int, int, bytes, bytes, bytes, int, int, int, bytes):
            return "it is damaged"
        if zlib.crc32(part.data) != part.checksum:
            return "it is not as it was stored"
        try:
            if part.compressed not in (0, 1):
                raise DamagedBody("neither compressed nor not")
            text = unpack(part.size, part.compressed, part.data)
        except DamagedBody as damage:
            return f"its text cannot be read: {damage}"
        if commitment(part.salt, text) != part.commitment:
            return "its text is not what was recorded"
        key = self.keys.get(part.user_id)
        if type(key) is not bytes or hmac.digest(key, text, "sha256")[:LOOKUP_BYTES] != part.lookup:
            return "its user's key does not find it"
        return None


def _verb(detail: Any) -> str | None:
    try:
        decoded = msgspec.json.decode(detail)
    except (msgspec.DecodeError, TypeError):
        return None
    return decoded.get("verb") if isinstance(decoded, dict) else None


def _bounded(problems: list[str]) -> list[str]:
    more = len(problems) - MOST_PROBLEMS
    return problems if more <= 0 else [*problems[:MOST_PROBLEMS], f"and {more} more"]
