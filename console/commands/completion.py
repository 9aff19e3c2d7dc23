"""The script that teaches a shell our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script: put `eval "$(gatelodge completion bash)"` into ~/.bashrc.

    For zsh, the same with `zsh` into ~/.zshrc; for fish: gatelodge completion fish | source
    """
    script = get_completion_class(shell)
    assert script is not None  # the three are click's own
    click.echo(script(context.find_root().command, {}, "gatelodge", "_GATELODGE_COMPLETE").source())
