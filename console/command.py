"""What the commands share: the session with the daemon, `--json`, `--yes`, and how an answer is printed.

Rule: standard output carries the answer alone; everything said beside it goes to standard error. Exit codes: 0 done,
1 refused or failed, 2 usage, 3 cannot reach the daemon.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from click.shell_completion import CompletionItem

from common import paths, times
from common.untrusted import clean, clean_json
from console.client import Client, Refused, Unreachable
from console.completing import SPANS, fitting
from console.tables import Column, table, terminal_width

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """One run of the program: where the daemon is."""

    def __init__(self, socket: str | None) -> None:
        self.socket: Path = paths.find_socket(socket)
        self.client = Client(self.socket)


pass_session = click.make_pass_decorator(Session)


class Failed(click.ClickException):
    """Refused or failed: exit 1."""

    exit_code = 1

    def format_message(self) -> str:
        return clean(self.message)


class NoDaemon(Failed):
    """No daemon to talk to: exit 3."""

    exit_code = 3


class WrongUsage(Failed):
    """A value that cannot be, found out by the daemon: exit 2, as where the program itself finds it out."""

    exit_code = 2


class Commands(click.Group):
    """The root: what the client raises becomes a sentence and an exit code, here and nowhere else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Unreachable as error:
            raise NoDaemon(str(error)) from error
        except Refused as error:
            # 400: what was asked makes no sense, whoever found it out.
            raise (WrongUsage if error.status == 400 else Failed)(str(error)) from error


def json_option(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def yes_option(command: F) -> F:
    """`--yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do it without asking.")(command)


def print_json(answer: Any) -> None:
    """One JSON document on standard output, with the field names of `common/protocol.py`."""
    document = msgspec.json.format(msgspec.json.encode(answer), indent=2).decode("utf-8")
    click.echo(clean_json(document))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """A table on standard output; where there is no row, `empty` on standard error."""
    if rows:
        click.echo(table(columns, rows, width=terminal_width()), nl=False)
    else:
        say(empty)


def say(sentence: str) -> None:
    """Something beside the answer."""
    click.echo(clean(sentence), err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed. Without a terminal to ask on, only `--yes` will do."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failed(f"{question} There is nobody to ask here: add --yes")
    if not click.confirm(clean(question), default=False, err=True):
        raise Failed("nothing was changed")


def confirm_if_asked(question: str, *, yes: bool) -> None:
    """Ask a person at a terminal about what can be undone; a script need not say `--yes`."""
    if not yes and sys.stdin.isatty():
        confirm(question, yes=False)


class Duration(click.ParamType[int]):
    """`90d`, `1h`, `45s` -> seconds."""

    name = "duration"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return fitting(SPANS, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return times.seconds_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[str]):
    """A moment, or a duration before now -> ISO 8601."""

    name = "moment"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return fitting(SPANS, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        import time

        try:
            return times.iso(times.moment_of(str(value), now=time.time_ns() // 1000))
        except ValueError as error:
            self.fail(str(error), param, ctx)
