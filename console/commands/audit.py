"""Commands about the audit: who asked what, and what was answered."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from common import protocol
from common.files import check_place, write_whole
from common.protocol import (
    AuditExchange,
    AuditExport,
    AuditExported,
    AuditRow,
    AuditSearch,
    AuditShow,
    AuditVerify,
    JobsExport,
    JobsRetention,
    JobsVerify,
)
from common.untrusted import clean_block
from console import completing
from console.command import (
    Failed,
    Moment,
    Session,
    confirm,
    json_option,
    pass_session,
    print_json,
    say,
    yes_option,
)
from console.commands.jobs import begun
from console.filters import read_filter
from console.tables import FixedColumns, block, cut, fields, moment, terminal_width

REFUSED = "refused"  # the state of a record of refusals
LONGEST_STATE = 18  # credential_revoked, cancelled_by_admin, timeout_first_byte
LONGEST_PROMPT = 100  # columns of it in a list that nothing else bounds
WIDE = 110  # columns of a terminal from which tokens are shown, too


@click.group()
def audit() -> None:
    """Search, read, export and verify the record of every exchange."""


@audit.command()
@click.argument("filters", metavar="[FILTER]…", nargs=-1, shell_complete=completing.search_words)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=int, metavar="LOG_ID", help="Only older ones: the next page.")
@json_option
@pass_session
def search(session: Session, filters: tuple[str, ...], limit: int, before: int | None, as_json: bool) -> None:
    """Find exchanges, newest first.

    FILTER is user:EMAIL, key:ID, model:NAME, state:ok, route:PATH, upstream:NAME, address:IP, client:LABEL,
    request:ID, since:1h, until:MOMENT or text:WORDS (in prompt and answer; without since: of the last 24 hours).
    """
    try:
        wanted = read_filter(filters)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    question = AuditSearch(filter=wanted, limit=limit, before=before)
    with closing(session.client.items(protocol.AUDIT_SEARCH, question)) as rows:
        if as_json:
            print_json(list(rows))
        else:
            _print_rows(rows)


@audit.command()
@click.argument("id", metavar="REQUEST_ID|LOG_ID", shell_complete=completing.requests)
@json_option
@pass_session
def show(session: Session, id: str, as_json: bool) -> None:
    """Read one exchange, prompt and answer, or why and how often somebody was refused. That you did is recorded."""
    answer = session.client.ask(protocol.AUDIT_SHOW, AuditShow(id))
    if as_json:
        print_json(answer)
    elif not answer.request_id:
        _print_refusals(answer)
    else:
        _print_exchange(answer)


@audit.command()
@click.argument("filters", metavar="[FILTER]…", nargs=-1, shell_complete=completing.search_words)
@click.option(
    "--user",
    metavar="EMAIL",
    shell_complete=completing.users,
    help="Only this user's exchanges.",
)
@click.option("--since", type=Moment(), metavar="MOMENT", help="Received since then: 7d, 2026-01-31.")
@click.option("--until", type=Moment(), metavar="MOMENT", help="Received before then.")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write FILE, verified.")
@click.option("--job", is_flag=True, help="Let the daemon write the file, to its folder of exports.")
@click.option("--wait", is_flag=True, help="With --job: wait for its end.")
@json_option
@pass_session
def export(
    session: Session,
    *,
    filters: tuple[str, ...],
    user: str | None,
    since: str | None,
    until: str | None,
    form: Literal["csv", "jsonl"],
    output: Path | None,
    job: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Write exchanges with prompts and answers to standard output, or to a file that is then verified.

    Only an export to a file counts as verified: `users delete` asks for one. With --json, the report on the file.
    --job goes on when this program ends, and takes the FILTERs of `audit search`.
    """
    if job:
        if output is not None:
            raise click.UsageError("--job writes to the daemon's folder: leave --output away")
        wanted = _filter_of(filters, user=user, since=since, until=until)
        row = session.client.ask(protocol.JOBS_EXPORT, JobsExport(filter=wanted, format=form))
        begun(session, row, wait=wait, as_json=as_json)
        return
    if filters or wait:
        raise click.UsageError("FILTERs and --wait are for --job; without it there are --user, --since and --until")
    if as_json and output is None:
        raise click.UsageError("--json is the report on a file: add --output FILE")
    if output is not None:
        try:
            check_place(output)
        except OSError as error:
            raise Failed(f"cannot write {output}: {error.strerror or error}") from error
    question = AuditExport(user=user, since=since, until=until, format=form)
    with session.client.download(protocol.AUDIT_EXPORT, question) as download:
        if output is None:
            _write_out(download)
            return
        try:
            digest, size = write_whole(output, download)
        except OSError as error:
            raise Failed(f"cannot write {output}: {error.strerror or error}") from error
    told = AuditExported(export=download.export, sha256=digest, bytes=size, file=str(output.absolute()))
    report = session.client.ask(protocol.AUDIT_EXPORTED, told)
    if as_json:
        print_json(report)
    else:
        click.echo(fields([("file", report.file), ("bytes", report.bytes), ("sha256", report.sha256)]), nl=False)
        say("verified: the file holds what was sent")


@audit.command()
@click.option("--expect", metavar="SEQ:HASH", help="A checkpoint that you kept: it must still be in the chain.")
@click.option("--job", is_flag=True, help="Let the daemon do it; it goes on when this program ends.")
@click.option("--wait", is_flag=True, help="With --job: wait for its end.")
@json_option
@pass_session
def verify(session: Session, *, expect: str | None, job: bool, wait: bool, as_json: bool) -> None:
    """Check the whole journal: chain, bodies, signed checkpoints. Exits with 1 where anything was changed."""
    if job:
        row = session.client.ask(protocol.JOBS_VERIFY, JobsVerify(expect=expect))
        begun(session, row, wait=wait, as_json=as_json)
        return
    if wait:
        raise click.UsageError("--wait is for --job")
    report = session.client.ask(protocol.AUDIT_VERIFY, AuditVerify(expect=expect))
    if as_json:
        print_json(report)
    else:
        pairs = [
            ("journal", "intact" if report.intact else "CHANGED"),
            ("records", report.records),
            ("unsealed", report.unsealed),
            ("head", f"{report.head_seq}:{report.head_hash}"),
            *(("problem", problem) for problem in report.problems),
        ]
        click.echo(fields(pairs), nl=False)
    if not report.intact:
        raise SystemExit(1)


@audit.command()
@click.option("--before", type=Moment(), metavar="MOMENT", help="Received before then: 90d, 2026-01-31.")
@click.option("--exported", is_flag=True, help="Write no file: erase what a verified JSONL export of everybody holds.")
@click.option("--wait", is_flag=True, help="Wait for its end.")
@yes_option
@json_option
@pass_session
def retain(session: Session, *, before: str | None, exported: bool, wait: bool, yes: bool, as_json: bool) -> None:
    """Export, verify, then erase prompts and answers of old exchanges; a job of the daemon.

    Without --before: what retention.days says. Who asked when for which model stays, and so does the chain.
    """
    when = f"before {moment(before)}" if before else "older than retention.days"
    confirm(f"Erase all prompts and answers {when}, once they are exported?", yes=yes)
    row = session.client.ask(protocol.JOBS_RETENTION, JobsRetention(before=before, exported=exported))
    begun(session, row, wait=wait, as_json=as_json)


def _filter_of(
    filters: tuple[str, ...], *, user: str | None, since: str | None, until: str | None
) -> protocol.AuditFilter:
    try:
        wanted = read_filter(filters)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for name, value in (("user", user), ("since", since), ("until", until)):
        if value is not None:
            if getattr(wanted, name) is not None:
                raise click.UsageError(f"{name} is given twice")
            setattr(wanted, name, value)
    return wanted


def _print_rows(rows: Iterable[AuditRow]) -> None:
    """Each row as it comes: the first hits are shown while the search goes on, so the columns' widths are fixed."""
    width = terminal_width()
    columns = _columns(width)
    some = False
    for row in rows:
        if not some:
            click.echo(columns.header(), nl=False)
            some = True
        click.echo(columns.line(_cells(row, short=columns.is_narrow)), nl=False)
    if not some:
        say("nothing found")


def _columns(width: int | None) -> FixedColumns:
    """Without tokens, and with short times, where the terminal is narrow."""
    if width is not None and width < WIDE:
        narrow = [("LOG_ID", 6), ("RECEIVED", 14), ("STATE", LONGEST_STATE), ("USER", 10), ("MODEL", 10), ("PROMPT", 0)]
        return FixedColumns(narrow, width=width, is_narrow=True)
    wide = [
        ("LOG_ID", 8),
        ("RECEIVED", 20),
        ("STATE", LONGEST_STATE),
        ("USER", 20),
        ("MODEL", 20),
        ("IN", 5),
        ("OUT", 5),
    ]
    return FixedColumns([*wide, ("PROMPT", 0)], width=width, is_narrow=False)


def _cells(row: AuditRow, *, short: bool) -> list[Any]:
    received = moment(row.received)
    first = [row.log_id, received[5:-1] if short else received, row.state or "running", row.user, row.model]
    # What was refused has no prompt in the audit: why it was refused is what one looks for.
    words = row.error if row.state == REFUSED and row.error else row.prompt
    words = "(erased)" if row.erased else cut(words, LONGEST_PROMPT)
    return [*first, words] if short else [*first, row.tokens_in, row.tokens_out, words]


def _print_refusals(answer: AuditExchange) -> None:
    """Refusals of one caller, reason and minute; address and model are those of the first."""
    pairs = [
        ("log id", answer.log_id),
        ("state", answer.state),
        ("reason", answer.error),
        ("user", answer.user),
        ("key", answer.key),
        ("address", answer.address),
        ("model", answer.model),
        ("from", answer.received),
    ]
    click.echo(fields(pairs), nl=False)


def _print_exchange(answer: AuditExchange) -> None:
    counted = [("?" if number is None else number) for number in (answer.tokens_in, answer.tokens_out)]
    pairs = [
        ("log id", answer.log_id),
        ("request", answer.request_id),
        ("state", answer.state or "running"),
        ("error", answer.error),
        ("user", answer.user),
        ("key", answer.key),
        ("client", answer.client_label),
        ("address", answer.address),
        ("user agent", answer.user_agent),
        ("route", answer.route + ("" if answer.stream else " (not streamed)")),
        (
            "model",
            answer.model if answer.model == answer.model_asked else f"{answer.model} (asked: {answer.model_asked})",
        ),
        ("upstream", answer.upstream),
        *(("tried before", f"{each.upstream}: {each.error}") for each in answer.tried),
        ("tokens", f"{counted[0]} in, {counted[1]} out"),
        ("cost", None if answer.cost is None else f"{answer.cost} {answer.currency}"),
        ("bytes", answer.bytes_out),
        ("received", answer.received),
        ("admitted", answer.admitted),
        ("seated", answer.seated),
        ("first byte", answer.first_byte),
        ("ended", answer.ended),
    ]
    click.echo(fields(pairs), nl=False)
    if answer.erased:
        click.echo("\nprompt and answer were erased")
        return
    click.echo()
    messages = answer.messages.get("messages") if isinstance(answer.messages, dict) else None
    if isinstance(messages, list):
        for message in messages:
            role = message.get("role", "?") if isinstance(message, dict) else "?"
            click.echo(block(clean_block(f"[{role}]"), _words(message)), nl=False)
    else:
        click.echo(block("[prompt]", answer.prompt), nl=False)
    click.echo(block("[answer]", _vectors(answer.answer) or answer.response), nl=False)


def _vectors(answer: Any) -> str | None:
    """What an embedding is to a person, who cannot read numbers by the thousand; None of any other answer."""
    if not isinstance(answer, dict):
        return None
    vectors = answer.get("embeddings", [answer.get("embedding")])
    if not isinstance(vectors, list) or not vectors or not all(isinstance(vector, list) for vector in vectors):
        return None
    return f"{len(vectors)} vector{'' if len(vectors) == 1 else 's'} of {len(vectors[0])} numbers"


def _words(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()


def _write_out(pieces: Iterable[bytes]) -> None:
    """To standard output as it is; on a terminal made safe to look at."""
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        click.echo(clean_block(decoder.decode(piece)), nl=False)
