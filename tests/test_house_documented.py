"""Whatever a person can set, call or type is documented, and nothing is documented that is not there.

Configuration keys come from `daemon/config.py`, routes from the table in `daemon/web/routes.py`; the pages are
docs/configuration.md and docs/http.md. The command line and its verbs: test_cli_documented.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
from tornado.web import RequestHandler

from console.__main__ import cli
from daemon import config
from daemon.web.routes import RELAYED, ROUTES
from tests.rigs.engine import ROOT

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def page(name: str) -> str:
    """The text of a page in docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table of a page."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_configuration_key_is_documented_as_it_is() -> None:
    """docs/configuration.md lists each key once, with its type and default, and no other."""
    written = {
        cells[0].strip("`"): tuple(cells[1:3]) for cells in table_rows(page("configuration.md")) if "." in cells[0]
    }
    assert written == {
        name: (kind.replace(" | ", " or "), default_in_words(kind, value))
        for name, kind, value in config.keys()  # noqa: SIM118
    }


def default_in_words(kind: str, value: Any) -> str:
    """How a default stands in the page."""
    if value is None:
        return "unset" if kind.endswith("unset") else "required"
    if value in ("", ()):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value).removesuffix(".0")


def test_every_route_is_documented() -> None:
    """docs/http.md lists each method of each route, and no other."""
    written = set()
    for cells in table_rows(page("http.md")):
        methods: list[str] = []
        for span in re.findall(r"`([^`]+)`", cells[0]):
            method, _, path = span.partition(" ")
            if method in METHODS:
                methods.append(method)
            if path:
                written |= {(known, re.sub(r"\{\w+\}", "{}", path)) for known in methods}
                methods = []
    served = {
        (method, re.sub(r"\((?:[^()]|\([^()]*\))*\)", "{}", pattern).replace("\\", "").removesuffix("/?"))
        for pattern, handler in ROUTES
        for method in METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    }
    served |= {("POST", re.sub(r"\{\w+\}", "{}", route.path)) for route in RELAYED}
    assert sorted(served - written) == [], "not documented"
    assert sorted(written - served) == [], "documented and not there"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that can be typed, with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join((*path, name)), command


def test_every_command_that_people_are_told_to_type_exists() -> None:
    """README.md, ARCHITECTURE.md and the pages in docs/ name no command that is not there."""
    known = dict(commands(cli))
    told = 0
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for words in re.findall(r"(?:gatelodge|\./run cli) ((?:[a-z][a-z-]+ ?)+)", text):
            first, _, second = words.strip().partition(" ")
            group = cli.commands.get(first)
            if group is not None:  # "gatelodge is …" is prose
                told += 1
                subcommand = isinstance(group, click.Group) and second
                assert not subcommand or f"{first} {second.split()[0]}" in known, f"{path.name}: gatelodge {words}"
    assert told > 20
