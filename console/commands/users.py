"""Commands about users: who may come in."""

from __future__ import annotations

import sys

import click
import msgspec

from common import protocol
from common.protocol import (
    JobsExport,
    OneTimePassword,
    Role,
    UserAdded,
    UserDetail,
    UserRow,
    UsersAdd,
    UsersApprove,
    UsersCloud,
    UsersDiscard,
    UsersInlineAuth,
    UsersList,
    UsersNotes,
    UsersRole,
    UserTarget,
)
from console import completing
from console.client import Refused
from console.command import (
    Failed,
    Session,
    confirm,
    confirm_if_asked,
    json_option,
    pass_session,
    print_json,
    print_table,
    say,
    yes_option,
)
from console.commands.jobs import begun
from console.commands.keys import KEY_COLUMNS, key_cells
from console.commands.limits import limit_table
from console.tables import Column, fields, moment

_COLUMNS = [
    Column("STATUS"),
    Column("EMAIL", flexible=True),
    Column("ROLE"),
    Column("ID", right=True),
    Column("KEYS", right=True),
    Column("CODE"),
    Column("FROM"),
    Column("CREATED"),
    Column("NOTES", flexible=True),
]

email = click.argument("email", shell_complete=completing.users)


@click.group()
def users() -> None:
    """Let people and services in, and out."""


@users.command(name="list")
@click.option("--status", type=click.Choice(["pending", "active", "disabled"]), help="Only users in this state.")
@json_option
@pass_session
def list_users(session: Session, status: protocol.UserStatus | None, as_json: bool) -> None:
    """List the users, those who wait for approval first."""
    rows = session.client.ask(protocol.USERS_LIST, UsersList(status=status))
    if as_json:
        print_json(rows)
    else:
        print_table(_COLUMNS, [_cells(row) for row in rows], empty="no users")


@users.command()
@email
@json_option
@pass_session
def show(session: Session, email: str, as_json: bool) -> None:
    """Show one user with keys and limits."""
    answer = session.client.ask(protocol.USERS_SHOW, UserTarget(email))
    if as_json:
        print_json(answer)
    else:
        _print_detail(answer)


@users.command()
@click.argument("email")
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True)
@click.option("--service", is_flag=True, help="A service account: keys only, no password.")
@json_option
@pass_session
def add(session: Session, email: str, role: Role, service: bool, as_json: bool) -> None:
    """Add an approved user and print a one-time password."""
    answer = session.client.ask(protocol.USERS_ADD, UsersAdd(email, role=role, service=service))
    if as_json:
        print_json(answer)
        return
    say(f"added {answer.email}" + (" (a service account: issue it a key)" if answer.service else ""))
    _print_one_time(answer)


@users.command()
@click.argument("code", shell_complete=completing.completes(protocol.USERS_LIST, UsersList("pending"), "code"))
@yes_option
@json_option
@pass_session
def discard(session: Session, code: str, yes: bool, as_json: bool) -> None:
    """Refuse a registration that waits, by its code; its address may register again."""
    confirm_if_asked(f"Refuse the registration {code}?", yes=yes)
    answer = session.client.ask(protocol.USERS_DISCARD, UsersDiscard(code))
    if as_json:
        print_json(answer)
    else:
        say(f"refused {answer.email} ({answer.code})")


@users.command()
@click.argument(
    "who",
    metavar="EMAIL|CODE",
    shell_complete=completing.completes(protocol.USERS_LIST, UsersList("pending"), "code", "email"),
)
@json_option
@pass_session
def approve(session: Session, who: str, as_json: bool) -> None:
    """Let in a user who registered; several entries of one address are told apart by their codes."""
    _print_changed(session.client.ask(protocol.USERS_APPROVE, UsersApprove(who)), "approved", as_json)


@users.command()
@email
@yes_option
@json_option
@pass_session
def disable(session: Session, email: str, yes: bool, as_json: bool) -> None:
    """Shut a user out: sessions end, running requests are cut, keys are suspended."""
    confirm_if_asked(f"Disable {email} and cut what is running for them?", yes=yes)
    _print_changed(session.client.ask(protocol.USERS_DISABLE, UserTarget(email)), "disabled", as_json)


@users.command()
@email
@json_option
@pass_session
def enable(session: Session, email: str, as_json: bool) -> None:
    """Let a disabled user in again; keys work again."""
    _print_changed(session.client.ask(protocol.USERS_ENABLE, UserTarget(email)), "enabled", as_json)


@users.command(name="reset-password")
@email
@yes_option
@json_option
@pass_session
def reset_password(session: Session, email: str, yes: bool, as_json: bool) -> None:
    """Replace a password by a one-time one, which is only good for setting a new one. Sessions end, keys stay."""
    confirm(f"Take the password of {email} away and end all their sessions?", yes=yes)
    answer = session.client.ask(protocol.USERS_RESET_PASSWORD, UserTarget(email))
    if as_json:
        print_json(answer)
    else:
        _print_one_time(answer)


@users.command()
@email
@click.argument("role", type=click.Choice(["user", "admin"]))
@json_option
@pass_session
def role(session: Session, email: str, role: Role, as_json: bool) -> None:
    """Make a user an administrator of the models over HTTP, or an ordinary user again."""
    answer = session.client.ask(protocol.USERS_ROLE, UsersRole(email, role))
    _print_changed(answer, f"now {answer.role}", as_json)


@users.command()
@email
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
@json_option
@pass_session
def cloud(session: Session, email: str, switch: str, as_json: bool) -> None:
    """Let a user's requests leave this network, to providers that are enabled, or no longer."""
    answer = session.client.ask(protocol.USERS_CLOUD, UsersCloud(email, allowed=switch == "on"))
    _print_changed(answer, "may use the cloud" if answer.cloud else "stays on the network", as_json)


@users.command()
@email
@click.argument("text")
@json_option
@pass_session
def notes(session: Session, email: str, text: str, as_json: bool) -> None:
    """Write down something about a user; an empty text removes it."""
    _print_changed(session.client.ask(protocol.USERS_NOTES, UsersNotes(email, text)), "noted", as_json)


@users.command(name="inline-auth")
@email
@click.argument("state", metavar="on|off", type=click.Choice(["on", "off"]))
@json_option
@pass_session
def inline_auth(session: Session, email: str, state: str, as_json: bool) -> None:
    """Let a user's password count in the body of POST /chat, or no more; keys and logins go on."""
    answer = session.client.ask(protocol.USERS_INLINE_AUTH, UsersInlineAuth(email, state == "on"))
    _print_changed(answer, f"a password in the body {'counts' if answer.inline_auth else 'counts no more'}", as_json)


@users.command()
@email
@yes_option
@json_option
@pass_session
def delete(session: Session, email: str, yes: bool, as_json: bool) -> None:
    """Erase a disabled user's prompts, answers and credentials for good; the journal's skeleton stays.

    Refused until everything the user did is in a verified export: `gatelodge audit export --user EMAIL --output FILE`.
    On a terminal it offers to make that export first.
    """
    confirm(f"Erase {email}, all their prompts and answers, for good?", yes=yes)
    try:
        answer = session.client.ask(protocol.USERS_DELETE, UserTarget(email))
    except Refused as refused:
        if refused.code != "not_exported" or yes or not sys.stdin.isatty():
            raise
        confirm(f"{refused}.\nExport everything of {email} now, then delete?", yes=False)
        question = msgspec.convert(refused.detail["export"], JobsExport)
        begun(session, session.client.ask(protocol.JOBS_EXPORT, question), wait=True, as_json=False)
        answer = session.client.ask(protocol.USERS_DELETE, UserTarget(email))
    if as_json:
        print_json(answer)
    elif answer.deleted:
        say(f"{answer.email} is deleted; id {answer.id} remains as a tombstone")
    else:
        raise Failed(f"{answer.email} was not deleted")


def _cells(row: UserRow) -> list[object]:
    role = "service" if row.service else row.role
    return [
        row.status + ("*" if row.must_change_password else ""),
        row.email,
        role,
        row.id,
        row.keys,
        row.code,
        row.address,
        moment(row.created),
        row.notes,
    ]


def _print_changed(row: UserRow, word: str, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        say(f"{row.email}: {word}")


def _print_one_time(answer: UserAdded | OneTimePassword) -> None:
    if answer.one_time_password is not None:
        click.echo(fields([("one-time password", answer.one_time_password)]), nl=False)
        say(
            f"shown this once, good until {moment(answer.one_time_expires)}, and only for setting a new password: "
            "POST /auth/password"
        )


def _print_detail(answer: UserDetail) -> None:
    row = answer.user
    pairs = [
        ("email", row.email),
        ("status", row.status + (", must set a new password" if row.must_change_password else "")),
        ("role", "service" if row.service else row.role),
        (
            "password in the body",
            "" if row.service else "counts at POST /chat" if row.inline_auth else "counts no more",
        ),
        ("id", row.id),
        ("code", row.code),
        ("registered from", row.address),
        ("created", moment(row.created)),
        ("approved", moment(row.approved)),
        ("notes", row.notes),
    ]
    click.echo(fields(pairs), nl=False)
    click.echo()
    limit_table([answer.limits])
    if answer.keys:
        click.echo()
        print_table(KEY_COLUMNS, [key_cells(key) for key in answer.keys], empty="")
