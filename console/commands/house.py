"""Commands about the daemon as a whole: status, doctor, selftest, config check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec

from common import paths, protocol, times
from common.protocol import DiskState, Finding, Nothing, SelftestRequest, Status
from console import completing
from console.client import Refused, Unreachable
from console.command import Failed, Session, json_option, pass_session, print_json
from console.commands.upstreams import upstream_table
from console.tables import fields, moment, size


@click.command()
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """Show the daemon at a glance: users, running and queued requests, upstreams, disk."""
    answer = session.client.ask(protocol.STATUS, Nothing())
    if as_json:
        print_json(answer)
        return
    click.echo(fields(_status_fields(answer)), nl=False)
    if answer.upstreams:
        click.echo()
        upstream_table(answer.upstreams)


def _status_fields(answer: Status) -> list[tuple[str, object]]:
    users, disk = answer.users, answer.disk
    return [
        ("gatelodge", f"{answer.version}, process {answer.pid}{', stopping' if answer.stopping else ''}"),
        ("up", f"{times.short(answer.uptime_seconds)}, since {moment(answer.started)}"),
        ("addresses", answer.addresses),
        ("data", answer.data),
        ("requests", f"{answer.running} running, {answer.queued} queued"),
        ("users", f"{users.active} active, {users.pending} pending, {users.disabled} disabled"),
        ("default model", answer.default_model),
        (
            "disk",
            f"{size(disk.free)} free of {size(disk.total)}; database {size(disk.database)}; "
            f"no request is admitted below {size(disk.min_free)}",
        ),
        ("disk lasts", _forecast(disk)),
        *_reload_fields(answer),
    ]


def _forecast(disk: DiskState) -> str | None:
    """When no request will be admitted any more; None where too little is known yet."""
    if disk.free < disk.min_free:
        return "nothing is admitted now: free space, or erase with `gatelodge audit retain`"
    if disk.growth_per_day is None:
        return None
    if disk.days_left is None:
        return "it does not grow"
    days = f"{disk.days_left:.0f} days" if disk.days_left >= 2 else f"{disk.days_left * 24:.0f} hours"
    return f"{days}, at {size(disk.growth_per_day)} a day"


def _reload_fields(answer: Status) -> list[tuple[str, object]]:
    last = answer.reloaded
    if last is None:
        return []
    told: list[tuple[str, object]] = [
        ("reloaded", f"{moment(last.at)}{': refused, ' + last.problem if last.problem else ''}")
    ]
    return [*told, ("needs a restart", last.waiting_for_restart)] if last.waiting_for_restart else told


@click.command()
@click.option(
    "--config", "config", metavar="FILE", type=click.Path(), help="Configuration to examine where no daemon runs."
)
@click.option("--data", metavar="DIR", type=click.Path(), help="Data folder to examine where no daemon runs.")
@json_option
@pass_session
def doctor(session: Session, config: str | None, data: str | None, as_json: bool) -> None:
    """Say what is wrong with the installation, and what to do about it.

    Works without a running daemon, too. Exits with 1 where something is wrong (warnings are not).
    """
    try:
        findings = session.client.ask(protocol.DOCTOR, Nothing())
    except Unreachable as error:
        findings = [
            Finding("daemon", "error", str(error), "start it; what follows was looked at without it"),
            *_examined_without_daemon(session, config, data),
        ]
    if as_json:
        print_json(findings)
    else:
        # Not cut to the terminal: an advice that ends in an ellipsis helps nobody.
        pairs: list[tuple[str, object]] = []
        for entry in findings:
            pairs += [(f"{entry.severity:<7}  {entry.subject}", entry.message), ("", entry.advice)]
        click.echo(fields(pairs), nl=False)
    if any(entry.severity == "error" for entry in findings):
        raise SystemExit(1)


def _examined_without_daemon(session: Session, config: str | None, data: str | None) -> list[Finding]:
    arguments = ["--doctor"]
    if config is not None:
        arguments += ["--config", config]
    if data is None and config is None:
        folder = session.socket.parent
        data = str(folder) if paths.database_file(folder).exists() or paths.checkout() is not None else None
    if data is not None:
        arguments += ["--data", data]
    done = run_daemon(arguments)
    if done.returncode != 0:
        words = done.stderr.strip().removeprefix("gatelodged: ")
        return [Finding("configuration", "error", words, "correct it, then run `gatelodge config check`")]
    return msgspec.json.decode(done.stdout, type=list[Finding])


@click.command()
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=completing.models,
    help="Model to chat with; the default model otherwise.",
)
@json_option
@pass_session
def selftest(session: Session, model: str | None, as_json: bool) -> None:
    """Try the whole way: issue a key, stream a real chat through the daemon's own HTTP port, revoke the key."""
    steps = []
    failed: Refused | None = None
    try:
        for step in session.client.items(protocol.SELFTEST, SelftestRequest(model=model)):
            steps.append(step)
            if not as_json:
                word = "ok" if step.ok else "FAILED"
                click.echo(fields([(f"{word:<6}  {step.seconds:7.3f} s  {step.step}", step.message)]), nl=False)
    except Refused as error:
        failed = error
    if as_json:
        print_json(steps)
    if failed is not None:
        raise Failed(str(failed))
    if not all(step.ok for step in steps):
        raise Failed("the self-test failed")


@click.group()
def config() -> None:
    """Look after the configuration."""


@config.command()
@click.argument("named", metavar="[FILE]", required=False, type=click.Path())
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(),
    help="Configuration file; otherwise the one a daemon would read.",
)
@click.option("--data", metavar="DIR", type=click.Path(), help="Data folder, which may hold a gatelodge.toml.")
@json_option
def check(named: str | None, file: str | None, data: str | None, as_json: bool) -> None:
    """Check a configuration as the daemon would at its start. Needs no daemon."""
    if named is not None and file is not None:
        raise click.UsageError("name one file: FILE or --config FILE")
    file = named if file is None else file
    arguments = ["--check"]
    if file is not None:
        arguments += ["--config", file]
    if data is not None:
        arguments += ["--data", data]
    done = run_daemon(arguments)
    error = done.stderr.strip().removeprefix("gatelodged: ")
    if as_json:
        print_json({"valid": done.returncode == 0, "error": error or None})
    elif done.returncode == 0:
        click.echo("the configuration is valid")
    else:
        raise Failed(error)
    if done.returncode != 0:
        raise SystemExit(1)


def run_daemon(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the daemon's program of this same installation for one question, and wait for its answer."""
    root = Path(__file__).resolve().parent.parent.parent
    # -P: never a `daemon` that happens to lie in the current folder.
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "daemon", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
