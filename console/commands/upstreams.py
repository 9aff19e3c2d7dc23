"""Commands about upstreams: the inference servers behind the gate."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from common import protocol
from common.protocol import Nothing, ProbeResult, UpstreamRow, UpstreamsKey, UpstreamsSeats, UpstreamTarget
from console import completing
from console.command import Failed, Session, json_option, pass_session, print_json, print_table, say
from console.tables import Column, fields

_COLUMNS = [
    Column("STATE"),
    Column("NAME"),
    Column("KIND"),
    Column("URL", flexible=True),
    Column("VERSION"),
    Column("RUN", right=True),
    Column("QUEUE", right=True),
    Column("SEATS", right=True),
    Column("PROBED", right=True),
    Column("MODELS", right=True),
    Column("CLOUD"),
    Column("ERROR", flexible=True),
]


def upstream_table(rows: Sequence[UpstreamRow]) -> None:
    """One line an upstream."""
    cells = [
        [
            "drained" if row.drained else row.state,
            row.name,
            row.kind,
            row.url,
            row.version,
            row.running,
            row.queued,
            row.seats,
            "never" if row.probed_seats is None else row.probed_seats,
            row.models,
            _cloud(row),
            row.error or (f"rests with {', '.join(row.resting)}" if row.resting else ""),
        ]
        for row in rows
    ]
    print_table(_COLUMNS, cells, empty="no upstreams are configured")


def _cloud(row: UpstreamRow) -> str:
    """Whether it leaves the network, and may."""
    if row.enabled:
        return "enabled" if row.has_key or not row.cloud else "no key"
    return "off" if row.cloud else ""


@click.group()
def upstreams() -> None:
    """Look at the inference servers behind the gate, and take them out of service for a while."""


@upstreams.command(name="list")
@json_option
@pass_session
def list_upstreams(session: Session, as_json: bool) -> None:
    """List the upstreams with health, seats and queue."""
    rows = session.client.ask(protocol.UPSTREAMS_LIST, Nothing())
    if as_json:
        print_json(rows)
    else:
        upstream_table(rows)


_name = click.argument("name", shell_complete=completing.completes(protocol.UPSTREAMS_LIST, Nothing(), "name"))


@upstreams.command()
@_name
@click.option("--set", "set_seats", is_flag=True, help="Set the seats to what was found, without asking.")
@json_option
@pass_session
def probe(session: Session, name: str, set_seats: bool, as_json: bool) -> None:
    """Find out with tiny generations how many requests an upstream really runs at once, and offer to set it."""
    answer = session.client.ask(protocol.UPSTREAMS_PROBE, UpstreamTarget(name))
    if not as_json:
        pairs = [("upstream", answer.name), ("model", answer.model), ("runs at once", answer.measured)]
        click.echo(fields([*pairs, ("seats", answer.seats)]), nl=False)
    if answer.measured != answer.seats and (set_seats or _wanted(answer, as_json)):
        row = session.client.ask(protocol.UPSTREAMS_SEATS, UpstreamsSeats(name, answer.measured))
        answer.seats = row.seats
        say(f"{name} has {row.seats} seats now")
    if as_json:
        print_json(answer)


def _wanted(answer: ProbeResult, as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        say(f"to use what was found: gatelodge upstreams probe {answer.name} --set")
        return False
    return click.confirm(f"Set the seats of {answer.name} to {answer.measured}?", default=False, err=True)


@upstreams.command()
@_name
@json_option
@pass_session
def drain(session: Session, name: str, as_json: bool) -> None:
    """Have an upstream take nothing new; what runs there goes on."""
    row = session.client.ask(protocol.UPSTREAMS_DRAIN, UpstreamTarget(name))
    if as_json:
        print_json(row)
    else:
        say(f"{row.name} takes nothing new; {row.running} still run there")


@upstreams.command()
@_name
@json_option
@pass_session
def undrain(session: Session, name: str, as_json: bool) -> None:
    """Have a drained upstream take requests again."""
    row = session.client.ask(protocol.UPSTREAMS_UNDRAIN, UpstreamTarget(name))
    if as_json:
        print_json(row)
    else:
        say(f"{row.name} takes requests again")


@upstreams.command()
@_name
@click.argument("number", type=click.IntRange(1, 4096))
@json_option
@pass_session
def seats(session: Session, name: str, number: int, as_json: bool) -> None:
    """Say how many requests an upstream may run at once; further ones wait in line."""
    row = session.client.ask(protocol.UPSTREAMS_SEATS, UpstreamsSeats(name, number))
    if as_json:
        print_json(row)
    else:
        say(f"{row.name} has {row.seats} seats now")


@upstreams.command()
@_name
@json_option
@pass_session
def enable(session: Session, name: str, as_json: bool) -> None:
    """Let requests leave this network by an upstream, for users who may (`users cloud`)."""
    row = session.client.ask(protocol.UPSTREAMS_ENABLE, UpstreamTarget(name))
    if as_json:
        print_json(row)
        return
    say(f"{row.name} ({row.url}) is enabled: users who may use the cloud see its models there")
    if row.cloud and not row.has_key:
        say(f"it is shown no key yet: gatelodge upstreams key {row.name}")
    if row.error:
        say(row.error)


@upstreams.command()
@_name
@json_option
@pass_session
def disable(session: Session, name: str, as_json: bool) -> None:
    """Let nothing more leave this network by an upstream; what runs there goes on."""
    row = session.client.ask(protocol.UPSTREAMS_DISABLE, UpstreamTarget(name))
    if as_json:
        print_json(row)
    else:
        say(f"nothing more leaves this network by {row.name}")


@upstreams.command()
@_name
@click.option("--clear", is_flag=True, help="Forget the key.")
@json_option
@pass_session
def key(session: Session, name: str, clear: bool, as_json: bool) -> None:
    """Give an upstream the key that it wants to see: typed in, or from standard input. It is never shown again."""
    secret = None
    if not clear:
        # Never an argument: those stand in the list of processes and in the shell's history.
        terminal = sys.stdin.isatty()
        secret = click.prompt("Key", hide_input=True, err=True) if terminal else sys.stdin.readline().strip()
        if not secret:
            raise Failed("there was no key on standard input; to forget the one that is there: --clear")
    row = session.client.ask(protocol.UPSTREAMS_KEY, UpstreamsKey(name, secret))
    if as_json:
        print_json(row)
        return
    say(f"{row.name} is shown the new key" if row.has_key else f"{row.name} is shown no key any more")
    if row.error:
        say(row.error)
