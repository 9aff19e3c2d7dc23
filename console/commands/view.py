"""Commands that look closer at what happens now: one exchange as it streams, and what ended a moment ago."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing

import click
import msgspec

from common import protocol, times
from common.protocol import EndedRow, LiveExchange, LiveNews, LiveTarget, Nothing
from common.untrusted import clean, clean_block, clean_json
from console import completing
from console.command import Session, json_option, pass_session, print_json, print_table, say
from console.tables import Column, fields

_ENDED = [
    Column("STATE"),
    Column("TIMES", right=True),
    Column("ELAPSED", right=True),
    Column("OUT", right=True),
    Column("TOK/S", right=True),
    Column("USER", flexible=True),
    Column("MODEL", flexible=True),
    Column("CLIENT", flexible=True),
    Column("WHY", flexible=True),
]


@click.command()
@click.argument("id", shell_complete=completing.completes(protocol.LIVE, Nothing(), "request_id"))
@click.option("--follow", "-f", is_flag=True, help="Go on with the answer as it comes, until its end.")
@json_option
@pass_session
def view(session: Session, id: str, follow: bool, as_json: bool) -> None:
    """Show a running or waiting request: what was asked, the answer so far, its limits. Recorded in the audit.

    ID is its request id or the beginning that `live` shows. With --follow and --json: one JSON document a message.
    """
    if follow:
        with closing(session.client.items(protocol.LIVE_FOLLOW, LiveTarget(id))) as news:
            _follow(news, as_json)
        return
    exchange = session.client.ask(protocol.LIVE_SHOW, LiveTarget(id))
    if as_json:
        print_json(exchange)
    else:
        _print(exchange)
        click.echo()


@click.command()
@json_option
@pass_session
def ended(session: Session, as_json: bool) -> None:
    """Show what ended or was refused a moment ago, the latest first; the audit has all of it."""
    rows = session.client.ask(protocol.LIVE_ENDED, Nothing())
    if as_json:
        print_json(rows)
    else:
        print_table(_ENDED, [_cells(row) for row in rows], empty="nothing has ended since the daemon was started")


def _follow(news: Iterable[LiveNews], as_json: bool) -> None:
    for each in news:
        if as_json:
            click.echo(clean_json(msgspec.json.encode(each).decode()))
            continue
        if each.exchange is not None:
            _print(each.exchange)
        if each.skipped:
            say("[some of the answer was left out here; the audit has it]")
        click.echo(clean_block(each.thinking + each.gained), nl=False)
        sys.stdout.flush()
        if each.ended is not None:
            click.echo()
            say(f"{each.ended.state} after {times.short(each.ended.elapsed)}: {each.ended.error or 'whole'}")


def _print(exchange: LiveExchange) -> None:
    row = exchange.row
    limits = ", ".join(f"{use.limit} {use.used}/{use.max} of {use.target}" for use in exchange.limits)
    about = {
        "request": row.request_id,
        "state": row.state if row.position is None else f"queued, number {row.position} in line",
        "user": row.user,
        "key": row.key,
        "client": f"{row.client_label or '-'} at {row.address}, {exchange.user_agent}",
        "model": row.model if exchange.model_asked == row.model else f"{row.model} (asked for {exchange.model_asked})",
        "upstream": row.upstream,
        "received": row.received,
        "first byte": row.first_byte,
        "tokens out": row.tokens_out,
        "options": msgspec.json.encode(exchange.options).decode() if exchange.options else None,
        "limits": limits or None,
    }
    click.echo(fields(list(about.items())), nl=False)
    click.echo(f"\n{clean_block(exchange.prompt)}\n")
    cut = "… " if exchange.answer_cut else ""
    click.echo(clean(cut) + clean_block(exchange.thinking + exchange.answer), nl=False)


def _cells(row: EndedRow) -> list[object]:
    return [
        row.state,
        row.count,
        times.short(row.elapsed),
        row.tokens_out,
        row.tokens_per_second,
        row.user,
        row.model,
        row.client_label,
        row.error,
    ]
