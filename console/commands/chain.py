"""Commands about the chain and who used it: where an exchange stands, and what administrators did."""

from __future__ import annotations

import time

import click
import msgspec

from common import protocol, times
from common.protocol import AuditAdmin, AuditPosition, ChainPosition
from console import completing
from console.command import Session, json_option, pass_session, print_json, print_table, say
from console.tables import Column, fields, moment

_RECORDS = [
    Column("LOG ID", right=True),
    Column("WHEN"),
    Column("WHO"),
    Column("VERB"),
    Column("TARGET", flexible=True),
    Column("DETAIL", flexible=True),
]
_WORDS = ("actor", "verb", "target", "since", "until")


@click.command()
@click.argument("id", metavar="REQUEST_ID|LOG_ID", shell_complete=completing.requests)
@json_option
@pass_session
def position(session: Session, id: str, as_json: bool) -> None:
    """Show where an exchange stands in the chain, which signed checkpoint seals it, and whether it holds up to there.

    Exits with 1 where it does not; the whole journal is looked at by `audit verify`.
    """
    answer = session.client.ask(protocol.AUDIT_POSITION, AuditPosition(id))
    if as_json:
        print_json(answer)
    else:
        _print_position(answer)
    if answer.problems:
        raise SystemExit(1)


@click.command()
@click.argument("filters", metavar="[FILTER]…", nargs=-1, shell_complete=completing.admin_words)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=int, metavar="LOG_ID", help="Only older ones: the next page.")
@json_option
@pass_session
def admin(session: Session, filters: tuple[str, ...], limit: int, before: int | None, as_json: bool) -> None:
    """Show what administrators did and looked at, newest first.

    FILTER is actor:ACCOUNT, verb:BEGINNING (`verb:users`, "verb:audit show"), target:TEXT, since:1h or until:MOMENT.
    """
    rows = session.client.ask(protocol.AUDIT_ADMIN, _question(filters, limit, before))
    if as_json:
        print_json(rows)
        return
    cells = [
        [row.log_id, moment(row.timestamp), row.actor, row.verb, row.target, msgspec.json.encode(row.detail).decode()]
        for row in rows
    ]
    print_table(_RECORDS, cells, empty="nothing of that kind was done")


def _print_position(answer: ChainPosition) -> None:
    for link in answer.links:
        about = [("record", f"{link.seq} of {answer.head_seq}, {link.event}"), ("written", moment(link.at))]
        click.echo(fields([*about, ("hash before", link.previous), ("hash", link.hash)]))
    for problem in answer.problems:
        say(problem)
    if not answer.problems:
        say(f"{answer.checked} records from there on were hashed anew: the chain holds")
    if answer.seal is None:
        say("not sealed yet: a checkpoint follows within a minute")
    else:
        seal = answer.seal
        click.echo(
            fields([("sealed by", f"{seal.seq}:{seal.hash}"), ("at", moment(seal.at)), ("key", seal.key)]), nl=False
        )


def _question(filters: tuple[str, ...], limit: int, before: int | None) -> AuditAdmin:
    found: dict[str, str] = {}
    for word in filters:
        name, _, value = word.partition(":")
        if name not in _WORDS or not value:
            raise click.UsageError(f"{word!r} is no filter; there is {', '.join(f'{each}:' for each in _WORDS)}")
        try:
            is_moment = name in {"since", "until"}
            found[name] = times.iso(times.moment_of(value, now=time.time_ns() // 1000)) if is_moment else value
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    return AuditAdmin(**found, limit=limit, before=before)
