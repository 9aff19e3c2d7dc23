"""What nobody thought of: schemathesis asks every route of `/openapi.json`, with what fits and what does not.

Promise: no 5xx, no status, content type, header or body that is not described, 405s with `Allow`, 401 without a
credential; and on the gateway's own routes whatever does not fit its type is refused. A real daemon, a scripted
upstream; bounded in every run, long behind a marker.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon.traffic.windows import AddressBound
from tests.rigs.gatehouse import ADMIN, MODEL, Gatehouse, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream

PASSWORD = "a long sentence of mine"
OWN = ("One's own", "Accounts", "Tokens", "The gateway")
RELAYED = ("Ollama's dialect", "OpenAI's dialect", "Anthropic's dialect", "The older gateways' routes")
COMMANDS = ("Ollama's models",)
# Whoever is not let in is told so with a 403 there, as its clients know it (features.md, row 12).
SETTINGS = """
[[operations]]
include-path = "/request"
checks.missing_required_header.expected-statuses = [403]
checks.ignored_auth.enabled = false
"""
# Of these a description can promise no more than it does: what fits its type may still name no model, or nobody's key.
NOT_PROMISED = "positive_data_acceptance"


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gatehouse]:
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as running:
        running.house.admission.address_bound = AddressBound(running.house.clock, max_requests=10**9)
        yield running


async def session(gate: Gatehouse, email: str, role: str) -> str:
    """The access token of a person who just logged in."""
    _, once = await gate.house.directory.add_user(ADMIN, email, role=role)
    await gate.house.accounts.change_password(email, once, PASSWORD, "127.0.0.1")
    return (await gate.house.accounts.login(email, PASSWORD, "127.0.0.1")).access_token


async def description(gate: Gatehouse) -> dict[str, Any]:
    """As it is served, narrowed for the asker: the model that is there, and one way to show the credential."""
    described: dict[str, Any] = (await gate.http.get(gate.url + "/openapi.json")).json()
    schemas = described["components"]["schemas"]
    for methods in described["paths"].values():
        for operation in methods.values():
            operation["security"] = [way for way in operation["security"] if "key" not in way]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
            if operation["tags"][0] not in COMMANDS and "model" in schemas.get(name, {}).get("properties", {}):
                schemas[name]["properties"]["model"] = {"const": MODEL}
    return described


async def asked(
    gate: Gatehouse, folder: Path, described: dict[str, Any], token: str, *options: str
) -> tuple[int, int, str]:
    """(exit status, operations that were asked, all that was said) of one run."""
    folder.mkdir()
    (folder / "schemathesis.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "openapi.json").write_text(json.dumps(described), encoding="utf-8")
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", "openapi.json"]
    command += ["-u", gate.url, "-H", f"Authorization: Bearer {token}", "--seed", "1", "--no-shrink", "--no-color"]
    command += ["--continue-on-failure", "--warnings", "off", *options]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    tested = re.search(r"Tested: (\d+)", said)
    assert process.returncode is not None
    return process.returncode, int(tested[1]) if tested else 0, said


def tags(*names: str) -> list[str]:
    return [word for name in names for word in ("--include-tag", name)]


def count(described: dict[str, Any], names: tuple[str, ...]) -> int:
    operations = (operation for methods in described["paths"].values() for operation in methods.values())
    return sum(operation["tags"][0] in names for operation in operations)


PARTS = {
    "own": (OWN, "user", ["--phases", "coverage,fuzzing", "--exclude-checks", NOT_PROMISED]),
    "relayed": (RELAYED, "user", ["--phases", "fuzzing"]),
    "commands": (COMMANDS, "admin", ["--phases", "fuzzing"]),
}


async def found(gate: Gatehouse, folder: Path, examples: int, phases: str = "") -> list[str]:
    """What the runs of all parts, one beside the other, say where they are not content; each asked all of its part."""
    described = await description(gate)
    runs = []
    for name, (groups, role, options) in PARTS.items():
        token = await session(gate, f"{name}@example.org", role)
        more = [*options, "-n", str(examples), *(["--phases", phases] if phases else []), *tags(*groups)]
        if name != "own":
            # What only an upstream reads is not for us to refuse.
            more += ["--exclude-checks", f"{NOT_PROMISED},negative_data_rejection"]
        runs.append(asked(gate, folder / name, described, token, *more))
    wrong = []
    for (name, (groups, _, _)), (status, tested, said) in zip(PARTS.items(), await asyncio.gather(*runs), strict=True):
        if status != 0 or tested != count(described, groups):
            wrong.append(f"{name}: exit {status}, {tested} operations\n{said}")
    assert count(described, (*OWN, *RELAYED, *COMMANDS)) == sum(len(each) for each in described["paths"].values())
    return wrong


async def test_every_route_answers_as_it_is_described(gate: Gatehouse, tmp_path: Path) -> None:
    """A few of everything, the corners of the gateway's own routes."""
    (tmp_path / "runs").mkdir()
    wrong = await found(gate, tmp_path / "runs", 2)
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_route_answers_as_it_is_described_at_length(gate: Gatehouse, tmp_path: Path) -> None:
    """Every corner of every route, fifty of each, and what follows from what."""
    (tmp_path / "runs").mkdir()
    wrong = await found(gate, tmp_path / "runs", 50, "examples,coverage,fuzzing,stateful")
    assert not wrong, "\n".join(wrong)


async def test_the_asker_is_not_blind(gate: Gatehouse, tmp_path: Path) -> None:
    """The control: where the description says something else than is answered, the run is red."""
    described = await description(gate)
    described["components"]["schemas"]["Alive"]["properties"]["status"] = {"const": "dead"}
    chosen = ("--include-path", "/health", "--phases", "fuzzing", "-n", "1")
    status, tested, said = await asked(gate, tmp_path / "run", described, gate.key, *chosen)
    assert (status, tested) == (1, 2)
    assert "Response violates schema" in said
