"""Commands about what happens now: live exchanges, and ending one."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from contextlib import aclosing

import click
import msgspec

from common import protocol, times
from common.protocol import CancelRequest, Goodbye, LiveRow, Nothing
from common.untrusted import clean, clean_json
from console import completing
from console.client import Unreachable, pauses, watch
from console.command import (
    Session,
    confirm_if_asked,
    json_option,
    pass_session,
    print_json,
    print_table,
    say,
    yes_option,
)
from console.mirror import Gap, Mirror
from console.tables import Column, cut, size, table, terminal_width

WIDE = 132  # columns of a terminal from which everything is shown
BEGINNING = 8  # characters of a request id on a narrower one; `cancel` takes them

_COLUMNS = [
    Column("REQUEST"),
    Column("STATE"),
    Column("ELAPSED", right=True),
    Column("PIECES", right=True),
    Column("SENT", right=True),
    Column("USER", flexible=True),
    Column("MODEL", flexible=True),
    Column("UPSTREAM", flexible=True),
    Column("CLIENT", flexible=True),
    Column("ADDRESS"),
]
_NARROW = _COLUMNS[:7]


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
        columns, cells = _shown(rows, terminal_width())
        print_table(columns, cells, empty="nothing runs and nothing waits")


@click.command()
@click.argument("id", shell_complete=completing.completes(protocol.LIVE, Nothing(), "request_id"))
@yes_option
@json_option
@pass_session
def cancel(session: Session, id: str, yes: bool, as_json: bool) -> None:
    """End one running or waiting request, by its request id or the beginning of it that `live` shows."""
    confirm_if_asked(f"Cancel the request {id}?", yes=yes)
    answer = session.client.ask(protocol.CANCEL, CancelRequest(id))
    if as_json:
        print_json(answer)
    else:
        say(f"{answer.request_id}: " + ("cancelled" if answer.cancelled else "had just ended by itself"))


async def _watch(session: Session, as_json: bool) -> None:
    """Show the stream until Ctrl-C; a daemon that is lost after it was there is waited for."""
    mirror = Mirror()
    outage = _Outage()
    waits = pauses()
    while True:
        try:
            await _show_stream(session, mirror, outage, as_json)
            waits = pauses()
        except Unreachable as error:
            if not mirror.boot_id:
                raise
            outage.tell(error)
        except Gap:
            pass  # a new connection brings a new snapshot
        await asyncio.sleep(next(waits))


class _Outage:
    """What is said while the daemon is away: one line, kept up in its place on a terminal."""

    def __init__(self) -> None:
        self._attempts = 0

    def tell(self, error: Unreachable) -> None:
        """One more attempt has failed."""
        self._attempts += 1
        if not sys.stderr.isatty():
            if self._attempts == 1:
                say(f"{error}; trying again")
            return
        line = clean(f"the daemon is away, trying again ({self._attempts}): {error}")
        # One column stays free: a full line would scroll, and the next one would not replace it.
        click.echo("\r" + cut(line, shutil.get_terminal_size().columns - 1) + "\x1b[K", nl=False, err=True)

    def end(self) -> None:
        """It is back."""
        if self._attempts and sys.stderr.isatty():
            click.echo(err=True)
        self._attempts = 0


async def _show_stream(session: Session, mirror: Mirror, outage: _Outage, as_json: bool) -> None:
    """One connection, from its hello to its goodbye."""
    async with aclosing(watch(session.socket)) as messages:
        async for message in messages:
            outage.end()
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
    columns, cells = _shown(mirror.live(), width)
    text = head + table(columns, cells, width=width)
    if width is None:
        return text
    return "\x1b[H\x1b[J" + text


def _shown(rows: list[LiveRow], width: int | None) -> tuple[list[Column], list[list[object]]]:
    """Columns and cells; where the terminal is narrow, the beginning of each id and what matters most."""
    cells = [_cells(row) for row in rows]
    if width is None or width >= WIDE:
        return _COLUMNS, cells
    return _NARROW, [[str(first)[:BEGINNING], *rest[: len(_NARROW) - 1]] for first, *rest in cells]


def _cells(row: LiveRow) -> list[object]:
    elapsed = time.time() - times.from_iso(row.received) / 1e6
    return [
        row.request_id,
        row.state if row.position is None else f"q#{row.position}",
        times.short(max(0.0, elapsed)),
        row.chunks_out,
        size(row.bytes_out),
        row.user,
        row.model,
        row.upstream,
        row.client_label,
        row.address,
    ]
