"""Commands about API keys."""

from __future__ import annotations

import click

from common import protocol
from common.protocol import KeyRow, KeysIssue, KeysList, KeysRotate, KeyTarget
from console import completing
from console.command import (
    Duration,
    Session,
    confirm,
    json_option,
    pass_session,
    print_json,
    print_table,
    say,
    yes_option,
)
from console.tables import Column, fields, moment

KEY_COLUMNS = [
    Column("STATE"),
    Column("ID"),
    Column("USER", flexible=True),
    Column("LABEL", flexible=True),
    Column("PURPOSE"),
    Column("EXPIRES"),
    Column("LAST USED"),
    Column("FROM", flexible=True),
    Column("MODELS", flexible=True),
    Column("ADDRESSES", flexible=True),
]

_users = completing.users
key_id = click.argument("id", shell_complete=completing.completes(protocol.KEYS_LIST, KeysList(), "id"))


def key_cells(row: KeyRow) -> list[object]:
    """The cells of one key, in the order of KEY_COLUMNS."""
    return [
        row.state + (" (2 secrets)" if row.previous_until else ""),
        row.id,
        row.user,
        row.label,
        row.purpose + (", in path" if row.in_path else ""),
        moment(row.expires),
        moment(row.last_used),
        row.last_address,
        row.models,
        row.addresses,
    ]


@click.group()
def keys() -> None:
    """Issue, rotate and revoke API keys."""


@keys.command(name="list")
@click.option("--user", metavar="EMAIL", shell_complete=_users, help="Only this user's keys.")
@click.option("--all", "everything", is_flag=True, help="Revoked and expired keys, too.")
@json_option
@pass_session
def list_keys(session: Session, user: str | None, everything: bool, as_json: bool) -> None:
    """List API keys; their secrets are stored nowhere."""
    rows = session.client.ask(protocol.KEYS_LIST, KeysList(user=user, all=everything))
    if as_json:
        print_json(rows)
    else:
        print_table(KEY_COLUMNS, [key_cells(row) for row in rows], empty="no keys")


@keys.command()
@click.argument("email", shell_complete=_users)
@click.option(
    "--label", metavar="TEXT", help="What the key is for; stands in the audit. A --metrics key has one anyway."
)
@click.option("--expires", type=Duration(), metavar="DURATION", help="How long it is good for, such as 90d.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    shell_complete=completing.models,
    help="Only models like this; may be repeated.",
)
@click.option("--address", "addresses", multiple=True, metavar="CIDR", help="Only from there; may be repeated.")
@click.option("--metrics", is_flag=True, help="For /metrics, and good for nothing else.")
@click.option("--in-path", is_flag=True, help="It may stand in the path, /k/KEY/…, where a client sends no header.")
@json_option
@pass_session
def issue(
    session: Session,
    *,
    email: str,
    label: str | None,
    expires: int | None,
    models: tuple[str, ...],
    addresses: tuple[str, ...],
    metrics: bool,
    in_path: bool,
    as_json: bool,
) -> None:
    """Issue an API key to a user; it is printed this once."""
    if label is None:
        if not metrics:
            raise click.UsageError("say what the key is for: --label TEXT")
        label = "metrics"
    request = KeysIssue(
        email,
        label,
        expires_seconds=expires,
        models=list(models),
        addresses=list(addresses),
        metrics=metrics,
        in_path=in_path,
    )
    answer = session.client.ask(protocol.KEYS_ISSUE, request)
    if as_json:
        print_json(answer)
        return
    click.echo(fields([("id", answer.id), ("key", answer.key)]), nl=False)
    say("the key is shown this once: put it where it is used")
    if in_path:
        say(f"for the ollama command line: OLLAMA_HOST=http://GATEWAY:7000/k/{answer.key}")


@keys.command()
@key_id
@click.option("--grace", type=Duration(), default=0, metavar="DURATION", help="How long the old secret works on: 1h.")
@json_option
@pass_session
def rotate(session: Session, id: str, grace: int, as_json: bool) -> None:
    """Give a key a new secret; the old one works on for the time of grace."""
    answer = session.client.ask(protocol.KEYS_ROTATE, KeysRotate(id, grace_seconds=grace))
    if as_json:
        print_json(answer)
        return
    click.echo(fields([("id", answer.id), ("key", answer.key)]), nl=False)
    until = f"the old secret works until {moment(answer.previous_until)}" if answer.previous_until else ""
    say(f"the key is shown this once; {until or 'the old secret no longer works'}")


@keys.command()
@key_id
@yes_option
@json_option
@pass_session
def revoke(session: Session, id: str, yes: bool, as_json: bool) -> None:
    """End a key for good; requests that run under it are cut."""
    confirm(f"Revoke the key {id} for good?", yes=yes)
    answer = session.client.ask(protocol.KEYS_REVOKE, KeyTarget(id))
    if as_json:
        print_json(answer)
    else:
        say(f"key {answer.id} ({answer.label}) of {answer.user}: {answer.state}")
