"""Retention: export, verify, erase (A7); the chain stays whole, shared texts live on, a crash between steps is safe."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRequest
from common.protocol import AuditExport, AuditExported, JobsRetention
from daemon.access.actor import DAEMON
from daemon.audit import search
from daemon.audit.export import Exports
from daemon.audit.sealing import TrustedKeys
from daemon.audit.verify import verify
from daemon.exchange import EndState
from daemon.jobs import retaining
from daemon.jobs.job import Job
from daemon.jobs.keeping import DAY
from daemon.jobs.retaining import Retention
from daemon.store import retention as store
from daemon.store.exports import Export, add_export
from daemon.store.jobs import StoredJob, add_job
from daemon.store.journal import append_admin, head
from daemon.store.opening import connect_to_read
from daemon.store.retention import LiveParts, Rule, erase_some
from tests.rigs.journals import BEN
from tests.rigs.keeping import ROOT, Keeper, keeper_in
from tests.rigs.traffic import HOUR, MovedClock


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    async with keeper_in(tmp_path, clock=MovedClock()) as opened:
        yield opened


def later(keeper: Keeper) -> int:
    """An hour passes; the moment."""
    assert isinstance(keeper.desk.clock, MovedClock)
    keeper.desk.clock.advance(HOUR)
    return keeper.desk.clock.wall()


async def shown(keeper: Keeper, log_id: int) -> tuple[str, str, bool]:
    """Prompt, answer, and whether they were erased."""
    exchange = await search.show(keeper.desk.database, str(log_id))
    return exchange.prompt, exchange.response, exchange.erased


async def test_what_is_old_is_in_the_file_and_nowhere_else_and_the_chain_is_whole(keeper: Keeper) -> None:
    """Bodies and salts of the old ones are gone from database and log; the rows, their times and counts, stay."""
    for n in range(5):
        await keeper.desk.converse(f"the secret question {n}", answer=f"the secret answer {n}")
    before = later(keeper)
    await keeper.desk.converse("a new question", answer="a new answer")
    row = await keeper.retain(before)
    assert (row.state, row.error, row.records) == ("done", None, 5)
    lines = keeper.exported(row)
    assert [line["prompt"] for line in lines] == [f"the secret question {n}" for n in range(5)]
    assert [line["answer"]["content"] for line in lines] == [f"the secret answer {n}" for n in range(5)]
    assert await shown(keeper, 1) == ("", "", True)
    assert await shown(keeper, 11) == ("a new question", "a new answer", False)
    ((user, tokens),) = await keeper.desk.rows(
        'SELECT o."user", c.tokens_in FROM journal o JOIN journal c ON c.opened_seq = o.seq WHERE o.seq = 1'
    )
    assert (user, tokens) == ("ana@example.org", 11)
    erased = await keeper.desk.rows("SELECT salt, lookup, data, size FROM parts WHERE data IS NULL")
    assert set(erased) == {(None, None, None, 0)}
    report = await keeper.verify()
    assert (report.intact, report.problems) == (True, [])
    for file in keeper.desk.folder.glob("gatelodge.db*"):
        content = file.read_bytes()
        assert b"the secret question" not in content and b"the secret answer" not in content, file
    ((detail,),) = await keeper.desk.rows('SELECT detail FROM journal WHERE detail LIKE \'%"verb":"audit retain"%\'')
    assert row.sha256 is not None
    assert row.sha256 in detail


async def test_a_text_that_a_retained_exchange_has_too_lives_on(keeper: Keeper) -> None:
    """Equal messages are stored once: erasing the first turn's must not erase the second's."""
    await keeper.desk.converse("How?", answer="So.")
    before = later(keeper)
    await keeper.desk.converse("How?", "So.", "Really?", answer="Yes.")
    assert (await keeper.retain(before)).state == "done"
    second = await search.show(keeper.desk.database, "3")
    assert [each["content"] for each in second.messages["messages"]] == ["How?", "So.", "Really?"]
    assert (second.response, second.erased) == ("Yes.", False)
    assert (await keeper.verify()).problems == []


async def test_what_is_sent_again_while_retention_erases_is_kept(keeper: Keeper) -> None:
    """Between the look and the erasing a request with an old text comes in, and refers to its part."""
    await keeper.desk.converse("How?", answer="So.")
    seq = (await keeper.desk.database.read(head)).seq
    parts = [id_ for (id_,) in await keeper.desk.rows("SELECT id FROM parts ORDER BY id")]
    later(keeper)
    await keeper.desk.converse("How?", answer="Otherwise.")

    def erase(conn: sqlite3.Connection) -> int:
        return erase_some(conn, parts, LiveParts(seq), head(conn).seq)

    assert await keeper.desk.database.write(erase) == 1  # "So."
    assert await shown(keeper, 3) == ("How?", "Otherwise.", False)


async def test_what_runs_and_what_came_later_is_not_touched(keeper: Keeper) -> None:
    """An exchange without an end, though old, is neither exported nor erased; the next retention has it."""
    running = keeper.desk.exchange("still running")
    await keeper.desk.journal.opened(running)
    await keeper.desk.converse("done")
    before = later(keeper)
    row = await keeper.retain(before)
    assert [line["prompt"] for line in keeper.exported(row)] == ["done"]
    assert (await shown(keeper, 1))[0] == "still running"
    assert (await keeper.verify()).problems == []
    await keeper.desk.end(running, EndState.OK, "at last")
    assert await shown(keeper, 1) == ("still running", "at last", False)
    assert (await keeper.verify()).problems == []
    again = await keeper.retain(before)
    assert [line["prompt"] for line in keeper.exported(again)] == ["still running"]
    assert await shown(keeper, 1) == ("", "", True)
    assert (await keeper.verify()).problems == []


async def test_the_next_one_exports_only_what_is_new(keeper: Keeper) -> None:
    """Each exchange is in one file; nothing to erase writes no file and no record."""
    await keeper.desk.converse("one")
    first = await keeper.retain(later(keeper))
    await keeper.desk.converse("two", user_id=2, user=BEN)
    moment = later(keeper)
    second = await keeper.retain(moment)
    third = await keeper.retain(moment)
    assert [[line["prompt"] for line in keeper.exported(row)] for row in (first, second)] == [["one"], ["two"]]
    assert (third.state, third.path, third.result) == ("done", None, "0 parts of bodies erased, 0 pages given back")
    assert len(keeper.files()) == 2
    assert (await keeper.verify()).problems == []


async def test_nothing_is_erased_that_no_verified_export_holds(keeper: Keeper, tmp_path: Path) -> None:
    """A7: no rule without its registered export; one of a user, of a filter or as CSV is none."""
    await keeper.desk.converse("x")
    now = keeper.desk.clock.wall()
    export = Export("e1", None, None, None, 2, b"h", 1, now, "/f", "jsonl", None)
    others = [
        export._replace(id="e2", user_id=1),
        export._replace(id="e3", filter="{}"),
        export._replace(id="e4", format="csv"),
    ]

    def add(each: Export, conn: sqlite3.Connection) -> Rule:
        return store.add_rule(conn, each, now, actor=DAEMON, at_us=now, clock_us=now)

    for each in (export, *others):
        if each is not export:
            await keeper.desk.database.write(partial(_register, each))
        with pytest.raises(LookupError):
            await keeper.desk.database.write(partial(add, each))
    await keeper.desk.database.write(partial(_register, export))
    with pytest.raises(LookupError):
        await keeper.desk.database.write(partial(add, export._replace(sha256=b"other")))
    assert (await keeper.desk.database.write(partial(add, export))).through_seq == 2


def _register(export: Export, conn: sqlite3.Connection) -> None:
    add_export(conn, export)


async def test_where_the_export_fails_nothing_is_erased(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the file: the job fails in words, everything is still there, no rule stands in the chain."""
    await keeper.desk.converse("x")
    keeper.folder.write_text("in the way")
    row = await keeper.retain(later(keeper))
    assert row.state == "failed"
    assert await keeper.erased() == []
    assert await keeper.desk.database.read(store.rules) == []


@pytest.mark.parametrize("step", ["_record", "_erase", "half", "_give_back"])
async def test_a_crash_between_the_steps_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whatever stood when the daemon was killed: the journal is intact, what is gone is in a verified file, and the
    next retention finishes the work."""
    clock = MovedClock()
    async with keeper_in(tmp_path, clock=clock) as keeper:
        for n in range(4):
            await keeper.desk.converse(f"question {n}", answer=f"answer {n}")
        before = later(keeper)

        class Killed(BaseException):
            pass

        async def die(*_: object) -> None:
            raise Killed

        if step == "half":
            real = Retention._step
            steps = 0

            async def some(self: Retention, work: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps == 1:
                    return await real(self, work)  # the rule
                ids, live = work.args
                await real(self, partial(work.func, ids[:2], live))
                raise Killed

            monkeypatch.setattr(Retention, "_step", some)
        else:
            monkeypatch.setattr(Retention, step, die)
        dead = Job(await keeper.desk.database.write(_a_job), ROOT)
        with pytest.raises(Killed):
            await keeper.keeping._retention.run(dead, before, exported=False)
        monkeypatch.undo()
        gone = await keeper.erased()
        assert bool(gone) == (step in ("half", "_give_back"))
        assert (await keeper.verify()).problems == []
    async with keeper_in(tmp_path, clock=clock) as keeper:
        assert (await keeper.verify()).problems == []
        row = await keeper.retain(before)
        assert row.state == "done"
        assert await keeper.desk.rows("SELECT id FROM parts WHERE data IS NOT NULL") == []
        assert (await keeper.verify()).problems == []
        held = {line for name in keeper.files() for line in (keeper.folder / name).read_text().splitlines()}
        for n in range(4):
            assert any(f"question {n}" in line and f"answer {n}" in line for line in held)


def _a_job(conn: sqlite3.Connection) -> StoredJob:
    """The row that a job of the killed daemon has."""
    job = StoredJob(0, "retention", "running", "root", "x", "jsonl", None, None, None, None, "", None, 1, 1, None)
    return job._replace(id=add_job(conn, job))


async def test_bodies_that_go_without_retention_are_found(keeper: Keeper) -> None:
    """The record of a retention is no licence: a part that a retained record refers to, or an end that came later."""
    await keeper.desk.converse("old")
    before = later(keeper)
    await keeper.desk.converse("new", answer="newer")
    await keeper.retain(before)
    ((part,),) = await keeper.desk.rows("SELECT MAX(id) FROM parts WHERE data IS NOT NULL")
    await keeper.desk.database.write(
        lambda conn: (
            conn.execute(
                "UPDATE parts SET lookup=NULL, salt=NULL, data=NULL, size=0, compressed=0, checksum=0 WHERE id=?",
                (part,),
            ).rowcount
        )
    )
    report = await keeper.verify()
    assert not report.intact
    assert "no record says why" in report.problems[0]


async def test_a_record_of_retention_that_is_not_sealed_excuses_nothing(keeper: Keeper) -> None:
    """Whoever can write the database could append one; signing is another matter."""
    await keeper.desk.converse("x")
    await keeper.desk.journal.checkpoint()
    now = later(keeper)

    def forge(conn: sqlite3.Connection) -> int:
        detail = {"before_us": now, "through": 2}
        append_admin(conn, actor=ROOT, verb="audit retain", target="x", detail=detail, at_us=now, clock_us=now)
        return conn.execute(
            "UPDATE parts SET lookup = NULL, salt = NULL, data = NULL, size = 0, compressed = 0, checksum = 0"
        ).rowcount

    await keeper.desk.database.write(forge)
    assert len(await keeper.desk.database.read(store.rules)) == 1
    with closing(connect_to_read(keeper.desk.path)) as conn:
        report = verify(conn, TrustedKeys(keeper.desk.secrets))
    assert any("which is unsealed" in problem for problem in report.problems)


async def test_what_an_administrator_exported_before_can_be_erased_without_a_file(
    keeper: Keeper, tmp_path: Path
) -> None:
    """`--exported`, for a full disk: only JSONL of everybody counts, and only through the record that it covers."""
    await keeper.desk.converse("x", answer="y")
    exports = Exports(keeper.desk.database, keeper.desk.clock)

    async def export(form: str, user: str | None = None) -> None:
        outgoing = await exports.begin(AuditExport(format=form, user=user))  # type: ignore[arg-type]
        data = b"".join([piece async for piece in outgoing])
        sent = exports._sent[outgoing.id]
        assert len(data) == sent.size
        await exports.confirm(AuditExported(outgoing.id, sent.sha256.hex(), sent.size, "/elsewhere/x"), ROOT)

    await export("csv")
    await export("jsonl", "ana@example.org")
    refused = await keeper.retain(exported=True)
    assert (refused.state, await keeper.erased()) == ("failed", [])
    assert refused.error is not None
    assert "audit export --format jsonl" in refused.error
    await export("jsonl")
    await keeper.desk.converse("later", answer="than the export")
    row = await keeper.retain(later(keeper), exported=True)
    assert (row.state, row.path, keeper.files()) == ("done", None, [])
    assert await shown(keeper, 1) == ("", "", True)
    ((opened,),) = await keeper.desk.rows("SELECT MAX(seq) FROM journal WHERE event = 'opened'")
    assert await shown(keeper, opened) == ("later", "than the export", False)
    assert (await keeper.verify()).problems == []


async def test_the_file_gets_smaller_in_short_steps(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are given back to the file system, few at a time; others' writes come in between."""
    for _ in range(5):
        await keeper.desk.converse(secrets.token_hex(60_000))
    for _ in range(150):  # several to a page: those pages must not stay, nearly empty
        await keeper.desk.converse(secrets.token_hex(2_000))
    await keeper.desk.database.empty_log()
    size = keeper.desk.path.stat().st_size
    given: list[int] = []
    real = retaining.give_back

    def spy(conn: sqlite3.Connection, pages: int) -> int:
        given.append(pages)
        return real(conn, pages)

    monkeypatch.setattr(retaining, "give_back", spy)
    row = await keeper.retain(later(keeper))
    assert row.state == "done"
    assert len(given) > 1
    assert max(given) <= 100
    assert keeper.desk.path.stat().st_size < size / 3


async def test_the_daily_one_begins_when_it_is_due(tmp_path: Path) -> None:
    """`retention.days`: once a day, by itself, of what is older; unset, never."""
    clock = MovedClock()
    async with keeper_in(tmp_path, clock=clock, days=30) as keeper:
        await keeper.desk.converse("old")
        clock.advance(31 * DAY)
        await keeper.desk.converse("new")
        await keeper.keeping.look()
        await keeper.keeping.look()
        (row,) = keeper.jobs.rows()
        assert row.actor == "gatelodged"
        row = await keeper.finished(keeper.jobs.find(row.id))
        assert (row.state, row.records) == ("done", 1)
        clock.advance(DAY)
        await keeper.keeping.look()
        assert len(keeper.jobs.rows()) == 2
    async with keeper_in(tmp_path / "other", clock=clock) as keeper:
        await keeper.keeping.run()  # returns: there is nothing to wait for
        with pytest.raises(BadRequest):
            await keeper.keeping.retention(ROOT, JobsRetention())
        with pytest.raises(BadRequest):
            await keeper.keeping.retention(ROOT, JobsRetention(before="2999-01-01"))


def test_of_rules_only_those_are_kept_that_say_something() -> None:
    """A day's rule makes yesterday's needless; a shorter time with more records does not."""
    a, b, c = Rule(1, 10, 10), Rule(2, 20, 20), Rule(3, 15, 30)
    assert store.without_needless([a, b, c]) == [b, c]
    assert store.without_needless([b, a]) == [b]
    assert store.rule_of(1, b"\xff") is None
    assert store.rule_of(1, '{"verb":"audit retain","before_us":1,"through":2}') == Rule(1, 1, 2)
    assert store.rule_of(1, '{"verb":"users delete","before_us":1,"through":2}') is None
