"""Tab offers verbs, options and values: in a shell and behind `:` of the console."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from common import protocol
from common.protocol import AuditFilter, JobsExport
from console.__main__ import cli
from console.commandline import completions
from tests.rigs.gatehouse import ADMIN, MODEL
from tests.rigs.office import open_office
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_after

# What somebody must think up: no list could hold it.
FREE = {
    "users add email",
    "users notes text",
    "keys issue label",
    "keys issue addresses",
    "audit verify expect",
    "upstreams seats number",
    *(f"{command} before" for command in ("audit search", "audit admin")),
    *(f"{command} limit" for command in ("audit search", "audit admin", "jobs list")),
    "usage top",
}
BEFORE = {"users role role": "ana@example.org", "users notes text": "ana@example.org"}  # arguments in front of it


def parameters(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    """Every argument and every option with a value of every command."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from parameters(each, (*words, name))
        return
    for parameter in command.params:
        if not (isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count)):
            yield " ".join(words), parameter


async def test_every_value_of_every_command_is_offered(tmp_path: Path) -> None:
    """Names the daemon knows, fixed words, files; and where nothing is known, the options that can follow."""
    async with open_office(tmp_path) as office:
        house = office.gate.house
        await house.directory.add_user(ADMIN, "bob@example.org")
        assert await house.directory.add_registration("li@example.org", "$argon2id$none", "10.1.2.3", most=9)
        await office.gate.chat()
        gate = asyncio.Event()
        office.gate.upstream.default = stall_after(1, gate)
        running = asyncio.create_task(office.gate.chat(stream=True))
        await until(lambda: house.gate._running, what="a request runs")
        await office.ask(protocol.JOBS_EXPORT, JobsExport(filter=AuditFilter(user="ana@example.org"), format="csv"))

        async def tab(line: str) -> list[str]:
            return await asyncio.to_thread(completions, line, str(office.socket))

        for command, parameter in parameters(cli):
            name = f"{command} {parameter.name}"
            option = parameter.opts[0] if isinstance(parameter, click.Option) else ""
            line = " ".join(word for word in (command, BEFORE.get(name, ""), option) if word) + " "
            if name not in FREE:
                found = await tab(line)
                assert found, f"nothing is offered after {line!r}"
                assert option or not all(each.startswith(f"{line}--") for each in found), f"only options after {line!r}"
        key = office.gate.key.split("_")[1]
        assert await tab("limits set b") == ["limits set bob@example.org"]
        assert await tab("limits set user:b") == ["limits set user:bob@example.org"]
        assert await tab(f"limits try key:{key[:3]}") == [f"limits try key:{key}"]
        assert f"limits clear model:{MODEL}" in await tab("limits clear mo")
        assert await tab("limits set bob@example.org --requests-per-hour ") == [
            "limits set bob@example.org --requests-per-hour unlimited"
        ]
        assert "limits set bob@example.org --concurrency" in await tab("limits set bob@example.org ")
        assert await tab("audit search user:a") == ["audit search user:ana@example.org"]
        assert await tab("audit search state:queue") == ["audit search state:queue_timeout"]
        assert await tab("audit admin verb:u") == [
            "audit admin verb:upstreams",
            "audit admin verb:usage",
            "audit admin verb:users",
        ]
        assert await tab("users approve li") == ["users approve li@example.org"]
        assert await tab("us") == ["usage", "users"]
        assert "users list --status" in await tab("users list ")
        gate.set()
        await running


def test_a_file_is_offered_by_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind `:` there is no shell that knows files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "gatelodge.toml").touch()
    (tmp_path / "with blank").touch()
    assert completions("config check c", "") == ["config check conf/"]
    assert completions("config check conf/g", "") == ["config check conf/gatelodge.toml"]
    assert completions("config check w", "") == []
