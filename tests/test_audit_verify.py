"""`audit verify`: nothing in the sealed range can be changed unnoticed, and nothing that is right is called wrong."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import BadRequest
from common.protocol import VerifyReport
from daemon.access.actor import DAEMON
from daemon.audit.child import ReaderFailed, spawn_reader
from daemon.audit.sealing import Sealer, TrustedKeys
from daemon.audit.search import show
from daemon.audit.verify import MOST_PROBLEMS, Expectation, verify
from daemon.exchange import EndState
from daemon.store.bodies import keep_body
from daemon.store.journal import append_user_deletion
from tests.rigs.journals import Desk, desk_in
from tests.rigs.tampering import all_changes, change_and_rechain, copy_of, rechain, tamper


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_in(tmp_path) as opened:
        yield opened


async def fill(desk: Desk) -> None:
    """Four sealed stretches of two users' exchanges: long texts, short ones, failures, refusals, a deleted user."""
    texts: list[str] = []
    for turn in range(8):
        texts.append(f"Question {turn}? " + "Tell me more about the journal. " * turn)
        await desk.converse(*texts, answer=f"Answer {turn}.")
        texts.append(f"Answer {turn}.")
        await desk.converse(f"Short {turn}", user_id=2, user="ben@example.org", answer="Yes, and at length. " * 20)
        if turn % 3 == 0:
            failed = desk.exchange("Fails.")
            await desk.journal.opened(failed)
            await desk.end(failed, EndState.UPSTREAM_ERROR, error="the model ran away")
            desk.journal.refused(reason="requests_per_minute", user_id=1, user="ana@example.org")
            await desk.journal.close()
    await delete_user(desk, 2)
    await desk.converse("After the deletion.")
    await desk.journal.checkpoint()


async def delete_user(desk: Desk, user_id: int) -> None:
    now = desk.clock.wall()
    await desk.database.write(
        lambda conn: append_user_deletion(
            conn, actor=DAEMON, user_id=user_id, target="user:x", detail={}, at_us=now, clock_us=desk.clock.now()
        )
    )


def look(desk: Desk, conn: sqlite3.Connection, expect: str | None = None) -> VerifyReport:
    return verify(conn, TrustedKeys(desk.secrets), Expectation.read(expect) if expect else None)


async def test_a_right_journal_is_intact(desk: Desk) -> None:
    """Conversations, failures, refusals, a running exchange, a deleted user: no problem; what is new is unsealed."""
    await fill(desk)
    report = await desk.journal.verify()
    assert (report.problems, report.intact, report.unsealed) == ([], True, 0)
    running = desk.exchange("Still running.")
    await desk.journal.opened(running)
    await desk.converse("Newer.")
    report = await desk.journal.verify()
    ((records,),) = await desk.rows("SELECT COUNT(*) FROM journal")
    ((hash_,),) = await desk.rows("SELECT hash FROM journal ORDER BY seq DESC LIMIT 1")
    assert report == VerifyReport(
        intact=True, records=records, unsealed=3, head_seq=records, head_hash=hash_.hex(), problems=[]
    )


async def test_an_empty_journal_is_intact(desk: Desk) -> None:
    """Nothing is nothing wrong."""
    report = await desk.journal.verify()
    assert (report.intact, report.records, report.unsealed, report.head_seq) == (True, 0, 0, 0)


async def found(desk: Desk, seeds: range) -> list[str]:
    """Which of as many random changes as there are `seeds` were not noticed."""
    await fill(desk)
    changes = all_changes(Sealer.load_or_create(desk.folder / "forger"))
    unnoticed = []
    for seed in seeds:
        conn = copy_of(desk.path)
        done = tamper(conn, random.Random(seed), changes)
        if look(desk, conn).intact:
            unnoticed.append(f"seed {seed}: {done}")
        conn.close()
    return unnoticed


async def test_every_change_in_the_sealed_range_is_found(desk: Desk) -> None:
    """A6, bounded: flips, types, deletions, insertions, swaps, truncation, re-chaining, in all three tables."""
    assert await found(desk, range(250)) == []


@pytest.mark.long
async def test_every_one_of_many_changes_is_found(desk: Desk) -> None:
    """A6, whole: ten thousand."""
    assert await found(desk, range(1_000, 11_000)) == []


async def test_a_truncation_that_took_its_checkpoints_along_is_found_by_expect(desk: Desk) -> None:
    """The log has the checkpoints, too: the hash that it names is not there any more."""
    await desk.converse("One.")
    await desk.journal.checkpoint()
    await desk.converse("Two.")
    sealed = await desk.journal.checkpoint()
    assert sealed is not None
    expect = f"{sealed.seq}:{sealed.hash.hex()}"
    assert look(desk, copy_of(desk.path), expect).intact
    conn = copy_of(desk.path)
    conn.execute("DELETE FROM journal WHERE seq > 2")
    conn.execute("DELETE FROM checkpoints WHERE seq > 2")
    conn.execute("DELETE FROM parts WHERE id > 4")
    assert look(desk, conn).intact
    report = look(desk, conn, expect)
    assert not report.intact and "cut off" in report.problems[0]


async def test_an_expected_hash_that_differs_is_told(desk: Desk) -> None:
    """A journal forged and sealed by somebody with our key still is not the one whose hash was written down."""
    await desk.converse("One.")
    report = await desk.journal.verify("1:" + "00" * 32)
    assert not report.intact and "not the expected one" in report.problems[0]
    for wrong in ("1", "x:00", "1:zz", ""):
        with pytest.raises(BadRequest, match="SEQ:HASH"):
            await desk.journal.verify(wrong)


async def test_behind_the_last_checkpoint_a_change_is_found_unless_the_chain_was_made_anew(desk: Desk) -> None:
    """Unsealed is chained, not signed: that is what `unsealed: N` says."""
    await desk.converse("Sealed.")
    await desk.journal.checkpoint()
    await desk.converse("Unsealed.")
    conn = copy_of(desk.path)
    conn.execute("UPDATE journal SET address = 'forged' WHERE seq = 3")
    assert not look(desk, conn).intact
    rechain(conn, 3)
    report = look(desk, conn)
    assert report.intact and report.unsealed == 2


async def test_each_break_is_told_once(desk: Desk) -> None:
    """The walk goes on behind a change: the report names what was changed, not everything behind it; and it ends."""
    for n in range(60):
        await desk.converse(f"Question {n}")
    conn = copy_of(desk.path)
    conn.execute("UPDATE journal SET address = 'forged' WHERE seq IN (5, 50)")
    conn.execute("DELETE FROM journal WHERE seq IN (70, 71)")
    problems = look(desk, conn).problems
    told = [problem.split(":")[0] for problem in problems if problem.startswith("record ")]
    assert told[:2] == ["record 5", "record 50"]
    assert "records 70 to 71 are missing" in problems
    conn.execute("UPDATE journal SET address = 'forged'")
    problems = look(desk, conn).problems
    assert len(problems) == MOST_PROBLEMS + 1 and problems[-1].endswith("more")


async def test_an_end_that_was_taken_away_is_told(desk: Desk) -> None:
    """An exchange without an end that is not running either: even with the chain made anew."""
    await desk.converse("One.")
    conn = copy_of(desk.path)
    conn.execute("DELETE FROM journal WHERE seq = 2")
    assert "record 1: the exchange has no end and is not running" in look(desk, conn).problems


async def test_bodies_may_be_missing_only_where_a_sealed_record_says_so(desk: Desk) -> None:
    """users delete: before it is sealed, or for another user, or for bodies that came later, missing is a problem."""
    await desk.converse("Of Ana.")
    await desk.converse("Of Ben.", user_id=2, user="ben@example.org")
    await desk.journal.checkpoint()
    await delete_user(desk, 1)
    unsealed = look(desk, copy_of(desk.path))
    assert "unsealed" in unsealed.problems[0]
    # The verb seals the deletion first, so nobody meets that by verifying right after a deletion.
    assert (await desk.journal.verify()).intact
    conn = copy_of(desk.path)
    conn.execute(f"{ERASE} WHERE user_id = 2")
    assert any("parts of user 2 are erased, and no record says why" in each for each in look(desk, conn).problems)


ERASE = "UPDATE parts SET lookup = NULL, salt = NULL, data = NULL, size = 0, compressed = 0, checksum = 0"


async def test_bodies_that_came_after_a_deletion_may_not_be_missing(desk: Desk) -> None:
    """The record of a deletion speaks for what was there then, not for what came later."""
    await desk.converse("Before.")
    await delete_user(desk, 1)
    await desk.converse("After.")
    await desk.journal.checkpoint()
    conn = copy_of(desk.path)
    conn.execute(ERASE)
    assert any("no record says why" in each for each in look(desk, conn).problems)


async def test_what_is_left_of_an_erased_body_stays_its_users(desk: Desk) -> None:
    """Erased parts have no text to be known by: whose they were is checked against the records."""
    await desk.converse("Of Ana.")
    await desk.converse("Of Ben.", user_id=2, user="ben@example.org")
    await delete_user(desk, 1)
    await delete_user(desk, 2)
    await desk.journal.checkpoint()
    conn = copy_of(desk.path)
    conn.execute("UPDATE parts SET user_id = 2 WHERE id = 1")
    assert "record 1: a part of its body is another user's" in look(desk, conn).problems


async def test_a_part_that_no_record_refers_to_is_told(desk: Desk) -> None:
    """Even one that is well made, under the user's own key."""
    await desk.converse("One.")
    await desk.database.write(lambda conn: keep_body(conn, 1, [b"slipped in"]))
    assert look(desk, copy_of(desk.path)).problems == ["part 5: no record refers to it"]


async def test_a_value_of_another_type_that_json_writes_alike_is_found(desk: Desk) -> None:
    """A text and the bytes whose base64 it is are the same JSON; they are not the same record."""
    await desk.converse("One.", key_id="QUJD")
    conn = copy_of(desk.path)
    conn.execute("UPDATE journal SET key_id = x'414243' WHERE seq = 1")
    assert look(desk, conn).problems == ["record 1: its hash does not follow from it and the record before"]


async def test_bytes_that_are_no_text_are_found(desk: Desk) -> None:
    """A damaged byte in a text is a finding, not a crash of verify; show and search show it as far as it goes."""
    exchange = await desk.converse("One.", client_label="\ufffd")
    conn = copy_of(desk.path)
    conn.execute("UPDATE journal SET client_label = CAST(x'f1bfbd' AS TEXT) WHERE seq = 1")
    assert look(desk, conn).problems == ["record 1: its hash does not follow from it and the record before"]
    await desk.database.write(
        lambda conn: conn.execute("UPDATE journal SET client_label = CAST(x'41ff' AS TEXT) WHERE seq = 1").fetchone()
    )
    assert (await show(desk.database, exchange.request_id)).client_label == "A\ufffd"


async def test_a_journal_cut_off_before_its_checkpoints_is_called_so(desk: Desk) -> None:
    """The message says what happened, and where it ends now."""
    for n in range(3):
        await desk.converse(f"{n}")
        await desk.journal.checkpoint()
    conn = copy_of(desk.path)
    conn.execute("DELETE FROM journal WHERE seq > 3")
    problems = look(desk, conn).problems
    assert "checkpoint 4: the journal ends at 3: it was cut off" in problems
    assert "checkpoint 6: the journal ends at 3: it was cut off" in problems


async def test_a_foreign_key_signs_nothing(desk: Desk) -> None:
    """Trust comes from the secrets folder: a forger who re-chains and re-signs everything is found by name."""
    await desk.converse("One.")
    await desk.journal.checkpoint()
    forger = Sealer.load_or_create(desk.folder / "forger")
    assert forger.kid != Sealer.load_or_create(desk.secrets).kid
    report = verify(copy_of(desk.path), TrustedKeys(desk.folder / "forger"))
    assert not report.intact and "is not one of ours" in report.problems[0] and report.unsealed == 2


async def test_rechaining_alone_is_found_by_the_next_checkpoint(desk: Desk) -> None:
    """The re-chained journal is consistent in itself; the signature is what it cannot follow."""
    await desk.converse("One.")
    await desk.journal.checkpoint()
    conn = copy_of(desk.path)
    change_and_rechain(conn, random.Random(1))
    assert look(desk, conn).problems == ["checkpoint 2: the journal before it is not what was signed"]


def test_the_signing_key_is_private_and_stays_the_same(tmp_path: Path) -> None:
    """0600 in 0700; the same key at every start."""
    folder = tmp_path / "secrets" / "audit"
    first = Sealer.load_or_create(folder)
    assert Sealer.load_or_create(folder).kid == first.kid
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    keys = TrustedKeys(folder)
    assert first.kid in keys and keys.is_signed(first.kid, first.sign(b"x"), b"x")
    assert not keys.is_signed(first.kid, first.sign(b"x"), b"y")
    assert not keys.is_signed("nobody", first.sign(b"x"), b"x")


async def test_a_reader_that_fails_is_an_error_and_not_a_short_answer(tmp_path: Path) -> None:
    """The child's last words are the message."""
    with pytest.raises(ReaderFailed, match="could not be read: unable to open"):
        arguments = {"database": str(tmp_path / "absent.db"), "keys": str(tmp_path), "expect": None}
        async with spawn_reader("verify", arguments) as output:
            assert await output.read() == b""
