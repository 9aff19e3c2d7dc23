"""Commands about limits: how much, by whom, of what, from where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from common import protocol
from common.protocol import (
    LIMIT_FIELDS,
    LimitRow,
    LimitsSet,
    LimitsShow,
    LimitsTry,
    LimitsUse,
    LimitTarget,
    LimitValues,
)
from console import completing
from console.command import (
    F,
    Moment,
    Session,
    confirm_if_asked,
    json_option,
    pass_session,
    print_json,
    print_table,
    say,
    yes_option,
)
from console.tables import Column, moment

_TITLES = ("REQ/MIN", "REQ/HOUR", "REQ/DAY", "TOK/MIN", "TOK/DAY", "AT ONCE")
_COLUMNS = [Column("TARGET", flexible=True), *(Column(title, right=True) for title in _TITLES)]
_USE = [
    Column("TARGET", flexible=True),
    Column("LIMIT"),
    Column("USED", right=True),
    Column("MAX", right=True),
    Column("SOME FREE AT"),
]
_TRIED = [
    Column("USER", flexible=True),
    Column("REQUESTS", right=True),
    Column("REFUSED", right=True),
    Column("NOW", right=True),
]


class Amount(click.ParamType[Any]):
    """A whole number, or `unlimited`."""

    name = "number"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completing.fitting(("unlimited",), incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "unlimited" or isinstance(value, int):
            return value
        if str(value).isdecimal() and str(value).isascii():
            return int(value)
        self.fail(f"{value!r} is neither a whole number nor `unlimited`", param, ctx)


def limit_table(rows: Sequence[LimitRow]) -> None:
    """A line a target with its own limits; for a user another with those in force."""
    lines: list[list[object]] = []
    for row in rows:
        lines.append([row.target, *(getattr(row, name) for name in LIMIT_FIELDS)])
        if row.effective is not None:
            lines.append(["  in force", *(getattr(row.effective, name) for name in LIMIT_FIELDS)])
    print_table(_COLUMNS, lines, empty="no limits")


@click.group()
def limits() -> None:
    """Show and change limits; a change acts on the next request.

    TARGET is `default`, `user:EMAIL` (or just EMAIL), `key:ID`, `model:NAME` or `address:CIDR`. `default` holds for
    each user; `user:` replaces it field by field; the others apply in addition.
    """


@limits.command()
@click.argument("target", required=False, shell_complete=completing.targets)
@json_option
@pass_session
def show(session: Session, target: str | None, as_json: bool) -> None:
    """Show the limits of TARGET, or of every target that has any."""
    rows = session.client.ask(protocol.LIMITS_SHOW, LimitsShow(target))
    if as_json:
        print_json(rows)
    else:
        limit_table(rows)


@limits.command()
@click.argument("target", required=False, shell_complete=completing.targets)
@json_option
@pass_session
def use(session: Session, target: str | None, as_json: bool) -> None:
    """Show how much of its limits TARGET uses now, or who uses how much of what, the fullest first."""
    uses = session.client.ask(protocol.LIMITS_USE, LimitsUse(target))
    if as_json:
        print_json(uses)
        return
    cells = [[each.target, each.limit, each.used, each.max, moment(each.frees_at)] for each in uses]
    print_table(_USE, cells, empty="no limit is used")


_WINDOWS = (
    click.option("--requests-per-minute", type=Amount(), metavar="N", help="Requests in any 60 seconds."),
    click.option("--requests-per-hour", type=Amount(), metavar="N", help="Requests in any hour."),
    click.option("--requests-per-day", type=Amount(), metavar="N", help="Requests in any 24 hours."),
    click.option("--tokens-per-minute", type=Amount(), metavar="N", help="Tokens, in and out, in any 60 seconds."),
    click.option("--tokens-per-day", type=Amount(), metavar="N", help="Tokens, in and out, in any 24 hours."),
)


def _windows(command: F) -> F:
    for option in reversed(_WINDOWS):
        command = option(command)
    return command


@limits.command(name="set")
@click.argument("target", shell_complete=completing.targets)
@_windows
@click.option("--concurrency", type=Amount(), metavar="N", help="Requests running at once; further ones wait.")
@json_option
@pass_session
def set_limits(session: Session, /, target: str, as_json: bool, **amounts: Any) -> None:
    """Set limits of TARGET: N or `unlimited`. What is not named stays as it is."""
    _print(session.client.ask(protocol.LIMITS_SET, LimitsSet(target, _values(amounts))), as_json)


@limits.command(name="try")
@click.argument("target", shell_complete=completing.targets)
@_windows
@click.option("--since", type=Moment(), metavar="MOMENT", help="Against the traffic since then; 24h by default.")
@json_option
@pass_session
def try_limits(session: Session, /, target: str, since: str | None, as_json: bool, **amounts: Any) -> None:
    """Try limits of TARGET against recorded traffic: who would have been refused. Nothing is changed."""
    tried = session.client.ask(protocol.LIMITS_TRY, LimitsTry(target, _values(amounts), since))
    if as_json:
        print_json(tried)
        return
    cells = [[each.user, each.requests, each.refused, each.refused_now] for each in tried.users]
    print_table(_TRIED, cells, empty="nobody would have been refused")
    for limit in tried.limits:
        say(f"{limit.refused} by {limit.limit} of {limit.target}")
    say(
        f"{moment(tried.since)} to {moment(tried.until)}: {tried.refused} of {tried.requests} requests refused; "
        f"under the limits in force {tried.refused_now}"
    )
    if tried.requests and tried.concerned == 0:
        say(f"none of them comes under {tried.target}: these limits were not tested")
    elif tried.concerned not in (None, tried.requests):
        say(f"{tried.concerned} of them come under {tried.target}")
    if not tried.complete:
        say("this is not the whole time: there was too much traffic; try a shorter one with --since")


def _values(amounts: dict[str, Any]) -> LimitValues:
    values = msgspec.convert({name: amount for name, amount in amounts.items() if amount is not None}, LimitValues)
    if values == LimitValues():
        raise click.UsageError("say which limit: for instance --requests-per-minute 20")
    return values


@limits.command()
@click.argument("target", shell_complete=completing.targets)
@yes_option
@json_option
@pass_session
def clear(session: Session, target: str, yes: bool, as_json: bool) -> None:
    """Remove every limit of TARGET's own: the default holds again."""
    confirm_if_asked(f"Remove every limit of {target}'s own?", yes=yes)
    _print(session.client.ask(protocol.LIMITS_CLEAR, LimitTarget(target)), as_json)


def _print(row: LimitRow, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        limit_table([row])
