"""`gatelodge`: the console's program. A subcommand asks the daemon one thing; commands live in `console/commands`."""

from __future__ import annotations

import click

from common.version import version
from console.command import Commands, Session
from console.commands import (
    audit,
    chain,
    completion,
    house,
    importing,
    jobs,
    keys,
    limits,
    live,
    models,
    upstreams,
    usage,
    users,
    view,
)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"gatelodge, version {version()}")
        context.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(),
    help="The daemon's admin socket; otherwise GATELODGE_SOCKET, or where it is.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Name the release."
)
@click.option("--no-mouse", is_flag=True, help="The console leaves the mouse to the terminal.")
@click.option("--slow", is_flag=True, help="The console draws once a second, for slow links.")
@click.pass_context
def cli(context: click.Context, socket: str | None, no_mouse: bool, slow: bool) -> None:
    """Look after a Gatelodge daemon. Without a command: the console, full screen.

    Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 cannot reach the daemon.
    """
    context.obj = Session(socket)
    if context.invoked_subcommand is None:
        from console import launch

        if reason := launch.why_not():
            raise click.ClickException(reason)
        context.exit(launch.run(context.obj.socket, mouse=not no_mouse, slow=slow))


for command in (chain.position, chain.admin):
    audit.audit.add_command(command)

for command in (
    house.status,
    house.doctor,
    house.selftest,
    house.config,
    users.users,
    keys.keys,
    importing.import_file,
    limits.limits,
    models.models,
    upstreams.upstreams,
    live.live,
    live.cancel,
    view.view,
    view.ended,
    usage.usage,
    audit.audit,
    jobs.jobs,
    completion.completion,
):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    cli(prog_name="gatelodge")


if __name__ == "__main__":
    main()
