"""Commands about what happens now: live exchanges, and ending one."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import click
import msgspec

from common import protocol, times
from common.protocol import CancelRequest, Goodbye, LiveRow, Nothing
from common.untrusted import clean_json
from console.client import Unreachable, pauses, watch
from console.command import (
    Session,
    completes,
    confirm_if_asked,
    json_option,
    pass_session,
    print_json,
    print_table,
    say,
    yes_option,
)
from console.mirror import Gap, Mirror
from console.tables import Column, size, table, terminal_width

_COLUMNS = [
    Column("STATE"),
    Column("ELAPSED", right=True),
    Column("PIECES", right=True),
    Column("SENT", right=True),
    Column("USER", flexible=True),
    Column("MODEL", flexible=True),
    Column("UPSTREAM", flexible=True),
    Column("CLIENT", flexible=True),
    Column("ADDRESS"),
    Column("REQUEST"),
]


@click.command()
@click.option("--watch", "watching", is_flag=True, help="Keep showing what changes, until Ctrl-C.")
@json_option
@pass_session
def live(session: Session, watching: bool, as_json: bool) -> None:
    """Show the requests that run or wait.

    With --watch and --json: the messages of the watch stream, one JSON document a line.
    """
    if watching:
        try:
            asyncio.run(_watch(session, as_json))
        except KeyboardInterrupt:
            click.echo()  # Ctrl-C is how watching ends, not a failure
        return
    rows = session.client.ask(protocol.LIVE, Nothing())
    if as_json:
        print_json(rows)
    else:
        print_table(_COLUMNS, [_cells(row) for row in rows], empty="nothing runs and nothing waits")


@click.command()
@click.argument("id", shell_complete=completes(protocol.LIVE, Nothing(), "request_id"))
@yes_option
@json_option
@pass_session
def cancel(session: Session, id: str, yes: bool, as_json: bool) -> None:
    """End one running or waiting request, by its request id."""
    confirm_if_asked(f"Cancel the request {id}?", yes=yes)
    answer = session.client.ask(protocol.CANCEL, CancelRequest(id))
    if as_json:
        print_json(answer)
    else:
        say(f"{answer.request_id}: " + ("cancelled" if answer.cancelled else "had just ended by itself"))


async def _watch(session: Session, as_json: bool) -> None:
    """Show the stream until Ctrl-C; a daemon that is lost after it was there is waited for."""
    mirror = Mirror()
    waits = pauses()
    while True:
        try:
            await _show_stream(session, mirror, as_json)
            waits = pauses()
        except Unreachable as error:
            if not mirror.boot_id:
                raise
            say(f"{error}; trying again")
        except Gap:
            pass  # a new connection brings a new snapshot
        await asyncio.sleep(next(waits))


async def _show_stream(session: Session, mirror: Mirror, as_json: bool) -> None:
    """One connection, from its hello to its goodbye."""
    async with aclosing(watch(session.socket)) as messages:
        async for message in messages:
            changed = mirror.apply(message)
            if as_json:
                click.echo(clean_json(msgspec.json.encode(message).decode()))
            elif changed:
                click.echo(_screen(mirror), nl=False)
            if isinstance(message, Goodbye):
                say(message.reason)


def _screen(mirror: Mirror) -> str:
    """The table as it is now; on a terminal it replaces the one before."""
    totals = mirror.totals
    head = f"running {totals.running} of {totals.seats}, queued {totals.queued}\n"
    width = terminal_width()
    text = head + table(_COLUMNS, [_cells(row) for row in mirror.live()], width=width)
    if width is None:
        return text
    return "\x1b[H\x1b[J" + text


def _cells(row: LiveRow) -> list[object]:
    elapsed = time.time() - times.from_iso(row.received) / 1e6
    return [
        row.state if row.position is None else f"q#{row.position}",
        times.short(max(0.0, elapsed)),
        row.chunks_out,
        size(row.bytes_out),
        row.user,
        row.model,
        row.upstream,
        row.client_label,
        row.address,
        row.request_id,
    ]
