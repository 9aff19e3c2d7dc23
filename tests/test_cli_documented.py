"""docs/command-line.md tells of every command and every option, and of none that is not there."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import console
from common import protocol
from common.protocol import VERBS
from console.__main__ import cli

PAGE = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1].split(" [")[0].strip(): match[0]
    for match in re.finditer(r"^### `gatelodge (.*?)`\n.*?(?=^#|\Z)", PAGE, re.M | re.S)
}


def _commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


COMMANDS = dict(_commands(cli))


def _section(name: str) -> str:
    found = [text for heading, text in SECTIONS.items() if re.match(rf"{re.escape(name)}(\s|$)", heading)]
    assert len(found) == 1, f"`gatelodge {name}` has {len(found)} sections in docs/command-line.md"
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """Each command has one section whose heading shows its arguments and options; nothing else stands there."""
    command = COMMANDS[name]
    heading = _section(name).splitlines()[0]
    options = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if option.startswith("--")
    }
    assert set(re.findall(r"--[a-z-]+", heading)) == options
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words = parameter.make_metavar(click.Context(command)).strip("[].…").replace("{", "").replace("}", "")
            assert words in heading, f"{words} is missing in {heading}"
    assert command.help, f"{name} has no help text"


def test_no_section_tells_of_a_command_that_is_not_there() -> None:
    """A command that went away takes its section along."""
    for heading in SECTIONS:
        assert any(re.match(rf"{re.escape(name)}(\s|$)", heading) for name in COMMANDS), heading


def test_every_verb_of_the_socket_can_be_given_on_the_command_line() -> None:
    """DESIGN: the same verbs serve console, command line and curl."""
    folder = Path(console.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    names = {id(value): name for name, value in vars(protocol).items() if isinstance(value, protocol.Verb)}
    for verb in VERBS:
        assert f"protocol.{names[id(verb)]}" in source, f"no command gives the verb {verb.name}"


def test_every_option_explains_itself() -> None:
    """`--help` is complete."""
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                assert parameter.help or isinstance(parameter.type, click.Choice), f"{name} {parameter.opts}"
