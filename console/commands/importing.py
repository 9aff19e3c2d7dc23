"""`gatelodge import`: the files in which other gateways kept their clients' tokens.

Rule: the file is read here, with the rights of whoever types, and what it says goes over the admin socket alone. Which
token is usable, and whose it is, is the daemon's decision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from common import protocol
from common.protocol import FoundToken, KeysImport
from console.command import Failed, Session, json_option, pass_session, print_json, print_table, say
from console.tables import Column

_COLUMNS = [
    Column("STATE"),
    Column("NAME", flexible=True),
    Column("USER", flexible=True),
    Column("KEY"),
    Column("WEAK"),
]
# Under which an environment file has the key that all clients share.
_KEY_NAMES = ("x_api_key", "api_key")
_SHARED = "shared"


@click.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--domain", default="localhost", show_default=True, help="Makes addresses of names: user1@localhost.")
@click.option("--user", metavar="EMAIL", help="Whose the key of an environment file is to be; else shared@localhost.")
@json_option
@pass_session
def import_file(session: Session, file: Path, domain: str, user: str | None, as_json: bool) -> None:
    """Bring in the tokens of another gateway: a tokens.json ({"user": "token"}) or a .env (x_api_key=…).

    They go on working as API keys, under users that are made where there are none. Doing it again changes nothing.
    """
    tokens = read_tokens(_text_of(file), file.name, user)
    answer = session.client.ask(protocol.KEYS_IMPORT, KeysImport(tokens, source=file.name, domain=domain))
    if as_json:
        print_json(answer)
    else:
        rows = [[row.state, row.name, row.user, row.id, row.weak] for row in answer]
        print_table(_COLUMNS, rows, empty="nothing was imported")
    for row in answer:
        if row.weak and row.state != "ended":
            say(f"the token of {row.name} is weak, {row.weak}: gatelodge keys rotate {row.id} --grace 7d")
    say(f"{file} still has the tokens in clear: delete it")


def read_tokens(text: str, name: str, user: str | None = None) -> list[FoundToken]:
    """The tokens in a file of that name and text; Failed where it is neither kind, or says a thing twice."""
    if text.lstrip().startswith("{"):
        if user is not None:
            raise click.UsageError("--user is for an environment file; a tokens.json names its users")
        return _of_json(text, name)
    return _of_environment(text, name, user or _SHARED)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file} cannot be read: {error}") from error


def _of_json(text: str, name: str) -> list[FoundToken]:
    try:
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError) as error:
        raise Failed(f"{name} is not JSON: {error}") from error
    users = [user for user, _ in pairs]
    if len(set(users)) != len(users):
        twice = next(user for user in users if users.count(user) > 1)
        raise Failed(f"{name} has {twice!r} twice: which of the tokens counts?")
    return [FoundToken(user, _as_text(token, user, name)) for user, token in pairs]


def _as_text(token: Any, user: str, name: str) -> str:
    if not isinstance(token, str):
        raise Failed(f'{name}: the token of {user!r} is not a text; the file must be {{"user": "token"}}')
    return token


def _of_environment(text: str, name: str, user: str) -> list[FoundToken]:
    found = []
    for line in text.splitlines():
        variable, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and variable.strip().casefold() in _KEY_NAMES:
            found.append(FoundToken(user, _unquoted(value.strip())))
    if not found:
        raise Failed(f'{name} has neither {{"user": "token"}} nor a line {_KEY_NAMES[0]}=…')
    if len(found) > 1:
        raise Failed(f"{name} has several keys: which of them counts?")
    return found


def _unquoted(value: str) -> str:
    """A value of an environment file, as dotenv reads it."""
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        return value[1:end] if end > 0 else value[1:]
    return value.partition(" #")[0].strip() if not value.startswith("#") else ""
