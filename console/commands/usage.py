"""The command about usage: who used what."""

from __future__ import annotations

import csv
import sys

import click
import msgspec

from common import protocol
from common.protocol import Usage, UsageBy, UsageRequest, UsageRow
from common.untrusted import clean, csv_cell
from console import completing
from console.command import Moment, Session, json_option, pass_session, print_json, print_table, say
from console.tables import Column, moment

_COLUMNS = [
    Column("NAME", flexible=True),
    Column("REQUESTS", right=True),
    Column("TOK IN", right=True),
    Column("TOK OUT", right=True),
    Column("GPU S", right=True),
    Column("REFUSED", right=True),
    Column("ERRORS", right=True),
    Column("LEFT", right=True),
    Column("CUT", right=True),
]
_BY = click.Choice(["user", "model", "key", "client"])


@click.command()
@click.option("--since", type=Moment(), metavar="MOMENT", help="From then on: 1h, 7d, 2026-01-31; 24h by default.")
@click.option("--until", type=Moment(), metavar="MOMENT", help="Until then; by default until now.")
@click.option("--by", type=_BY, default="user", help="A line for each of these.")
@click.option("--top", type=int, default=20, metavar="N", help="How many lines; the others are one line together.")
@click.option("--user", metavar="EMAIL", shell_complete=completing.users, help="Only what this user used.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the lines as CSV.")
@json_option
@pass_session
def usage(
    session: Session,
    /,
    *,
    since: str | None,
    until: str | None,
    by: UsageBy,
    top: int,
    user: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show who used what: requests, tokens, GPU seconds, refusals, errors, departures."""
    answer = session.client.ask(protocol.USAGE, UsageRequest(since, until, by, top, user))
    if as_json:
        print_json(answer)
    elif as_csv:
        _print_csv(answer)
    else:
        _print(answer)


def _print(answer: Usage) -> None:
    lines = [_cells(row.name or "-", row) for row in answer.rows]
    if answer.others is not None:
        lines.append(_cells("(others)", answer.others))
    if lines:
        lines.append(_cells("(all)", answer.total))
    print_table(_COLUMNS, lines, empty="nothing was used")
    say(f"{moment(answer.since)} to {moment(answer.until)}, by {answer.by}")


def _print_csv(answer: Usage) -> None:
    """A header and a line each, as a spreadsheet takes it; `name` is never a formula."""
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    names = [field.name for field in msgspec.structs.fields(UsageRow)]
    writer.writerow(names)
    for row in answer.rows:
        writer.writerow([csv_cell(clean(row.name)), *(getattr(row, name) for name in names[1:])])


def _cells(name: str, row: UsageRow) -> list[object]:
    return [
        name,
        row.requests,
        row.tokens_in,
        row.tokens_out,
        f"{row.gpu_seconds:.1f}",
        row.refusals,
        row.errors,
        row.departures,
        row.cut,
    ]
