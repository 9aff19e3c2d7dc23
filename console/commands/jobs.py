"""Commands about jobs: what the daemon does by itself, whoever asked for it and left."""

from __future__ import annotations

import time

import click

from common import protocol, times
from common.protocol import JobRow, JobsList, JobTarget
from console import completing
from console.command import Failed, Session, json_option, pass_session, print_json, print_table, say
from console.tables import Column, fields, moment, size

STATES = ["queued", "running", "done", "failed", "cancelled"]
LOOK_EVERY = 0.5  # seconds between two looks at a job that is waited for

_COLUMNS = [
    Column("ID", right=True),
    Column("STATE"),
    Column("KIND"),
    Column("PROGRESS"),
    Column("LEFT", right=True),
    Column("WHO"),
    Column("ASKED"),
    Column("TARGET", flexible=True),
    Column("RESULT", flexible=True),
]


@click.group()
def jobs() -> None:
    """Look at exports, verifications and retention that run in the daemon."""


@jobs.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@json_option
@pass_session
def list_jobs(session: Session, state: protocol.JobState | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first; they are remembered across restarts."""
    answer = session.client.ask(protocol.JOBS_LIST, JobsList(state=state, limit=limit))
    if as_json:
        print_json(answer)
    else:
        print_table(_COLUMNS, [_cells(row) for row in answer], empty="no jobs")


@jobs.command()
@click.argument("id", metavar="ID", type=int, shell_complete=completing.jobs)
@json_option
@pass_session
def show(session: Session, id: int, as_json: bool) -> None:
    """Show one job: how far it is, where its file lies, what came of it."""
    print_job(session.client.ask(protocol.JOBS_SHOW, JobTarget(id)), as_json)


@jobs.command()
@click.argument("id", metavar="ID", type=int, shell_complete=completing.jobs)
@json_option
@pass_session
def cancel(session: Session, id: int, as_json: bool) -> None:
    """Stop a job; a file that is not whole goes. What retention has erased stays erased: its export has it."""
    answer = session.client.ask(protocol.JOBS_CANCEL, JobTarget(id))
    if as_json:
        print_json(answer)
    else:
        say(f"job {answer.id} is {answer.state}")


def begun(session: Session, row: JobRow, *, wait: bool, as_json: bool) -> None:
    """Tell of a job that was just asked for; with `wait`, of its end: exit 1 where it is not a good one."""
    if not wait:
        if as_json:
            print_json(row)
        else:
            say(f"job {row.id} runs in the daemon: gatelodge jobs show {row.id}")
        return
    while row.state in ("queued", "running"):
        time.sleep(LOOK_EVERY)
        row = session.client.ask(protocol.JOBS_SHOW, JobTarget(row.id))
    print_job(row, as_json)
    if row.state != "done":
        raise Failed(f"job {row.id} {row.state}{f': {row.error}' if row.error else ''}")


def print_job(row: JobRow, as_json: bool) -> None:
    """One job."""
    if as_json:
        print_json(row)
        return
    pairs = [
        ("job", row.id),
        ("state", row.state),
        ("kind", row.kind),
        ("target", row.target),
        ("asked by", row.actor),
        ("asked", moment(row.created)),
        ("started", row.started and moment(row.started)),
        ("ended", row.ended and moment(row.ended)),
        ("progress", _progress(row)),
        ("left", _left(row)),
        ("file", row.path),
        ("bytes", row.bytes),
        ("sha256", row.sha256),
        ("records", row.records),
        ("result", row.result),
        ("error", row.error),
    ]
    click.echo(fields(pairs), nl=False)


def _cells(row: JobRow) -> list[object]:
    told = row.error or row.path or row.result
    asked = moment(row.created)
    return [row.id, row.state, row.kind, _progress(row), _left(row), row.actor, asked, row.target, told]


def _progress(row: JobRow) -> str | None:
    if row.state != "running":
        return None
    share = f"{100 * row.done // row.total}%" if row.total else _amount(row, row.done)
    rate = f", {_amount(row, round(row.rate))}/s" if row.rate else ""
    return f"{row.step} {share}{rate}"


def _amount(row: JobRow, number: int) -> str:
    return size(number) if row.unit == "bytes" else f"{number} {row.unit}"


def _left(row: JobRow) -> str | None:
    return None if row.eta_seconds is None else times.short(row.eta_seconds)
