"""Commands about models on the upstreams."""

from __future__ import annotations

import sys
from contextlib import closing

import click
import msgspec

from common import protocol
from common.protocol import ModelsList, ModelTarget, Nothing, PullProgress
from common.untrusted import clean
from console import completing
from console.command import (
    Failed,
    Session,
    confirm,
    json_option,
    pass_session,
    print_json,
    print_table,
    say,
    yes_option,
)
from console.tables import Column, block, cut, fields, moment, size, terminal_width

_COLUMNS = [
    Column("MODEL", flexible=True),
    Column("UPSTREAM", flexible=True),
    Column("SIZE", right=True),
    Column("FAMILY"),
    Column("PARAMETERS", right=True),
    Column("QUANTIZATION"),
    Column("LOADED"),
    Column("MODIFIED"),
]
_ACCESS = [
    Column("USER", flexible=True),
    Column("BY"),
    Column("KEY"),
    Column("LABEL", flexible=True),
    Column("PATTERN", flexible=True),
]

model = click.argument("model", shell_complete=completing.models)
upstream = click.option(
    "--upstream",
    metavar="NAME",
    shell_complete=completing.completes(protocol.UPSTREAMS_LIST, Nothing(), "name"),
    help="The upstream that is meant, where there are several.",
)


@click.group()
def models() -> None:
    """List, fetch, show and delete models."""


@models.command()
@model
@upstream
@json_option
@pass_session
def access(session: Session, model: str, upstream: str | None, as_json: bool) -> None:
    """Show who may use a model: people by login, and the keys that are for it."""
    rows = session.client.ask(protocol.MODELS_ACCESS, ModelTarget(model, upstream))
    if as_json:
        print_json(rows)
        return
    cells = [[row.user, row.by, row.key, row.label, row.pattern or "every model"] for row in rows]
    print_table(_ACCESS, cells, empty="nobody may use it")


@models.command(name="list")
@upstream
@json_option
@pass_session
def list_models(session: Session, upstream: str | None, as_json: bool) -> None:
    """List the installed models."""
    rows = session.client.ask(protocol.MODELS_LIST, ModelsList(upstream))
    if as_json:
        print_json(rows)
        return
    cells = [
        [
            row.name + (" (default)" if row.default else ""),
            row.upstream,
            size(row.size),
            row.family,
            row.parameters,
            row.quantization,
            row.loaded,
            moment(row.modified),
        ]
        for row in rows
    ]
    print_table(_COLUMNS, cells, empty="no models: fetch one with `gatelodge models pull NAME`")


@models.command()
@model
@upstream
@json_option
@pass_session
def pull(session: Session, model: str, upstream: str | None, as_json: bool) -> None:
    """Fetch a model onto an upstream, showing progress; Ctrl-C stops it, and a later pull goes on from there."""
    last = PullProgress(status="")
    shown = ""
    progress = sys.stderr.isatty() and not as_json
    with closing(session.client.items(protocol.MODELS_PULL, ModelTarget(model, upstream))) as steps:
        for last in steps:
            line = _progress_line(last)
            if progress:
                click.echo("\r\x1b[K" + cut(line, (terminal_width() or 80) - 1), nl=False, err=True)
            elif not as_json and last.status != shown:
                say(last.status)
            shown = last.status
    if progress:
        click.echo(err=True)
    if last.status != "success":
        raise Failed(f"the pull of {model} ended with: {last.status or 'nothing'}")
    if as_json:
        print_json({"model": model, **msgspec.to_builtins(last)})


def _progress_line(step: PullProgress) -> str:
    if not step.total:
        return clean(step.status)
    done = step.completed or 0
    return clean(f"{step.status}  {100 * done // step.total:3d} %  {size(done)} of {size(step.total)}")


@models.command()
@model
@upstream
@json_option
@pass_session
def show(session: Session, model: str, upstream: str | None, as_json: bool) -> None:
    """Show what the upstream knows of a model."""
    answer = session.client.ask(protocol.MODELS_SHOW, ModelTarget(model, upstream))
    if as_json:
        print_json(answer)
        return
    pairs: list[tuple[str, object]] = [("model", answer.name), ("upstream", answer.upstream)]
    blocks = []
    for name, value in answer.information.items():
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", entry) for key, entry in value.items() if not isinstance(entry, dict)]
        elif isinstance(value, str) and "\n" in value:
            blocks.append(block(clean(name), value))
        else:
            pairs.append((name, value))
    click.echo(fields((clean(name), value) for name, value in pairs), nl=False)
    for text in blocks:
        click.echo()
        click.echo(text, nl=False)


@models.command()
@model
@upstream
@yes_option
@json_option
@pass_session
def delete(session: Session, model: str, upstream: str | None, yes: bool, as_json: bool) -> None:
    """Delete a model from an upstream's disk."""
    confirm(f"Delete the model {model} from the upstream's disk?", yes=yes)
    answer = session.client.ask(protocol.MODELS_DELETE, ModelTarget(model, upstream))
    if as_json:
        print_json(answer)
    else:
        say(f"{answer.name} is deleted from {answer.upstream}")
