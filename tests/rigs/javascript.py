"""The official JavaScript SDKs for tests, where Node is: fetched by npm, by hash, into the test cache, once.

Rule: what runs there is what tests/js/package-lock.json names, with its integrity; the lock names no registry.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.engine import ROOT, one_at_a_time
from tests.rigs.gatehouse import MODEL, Gatehouse

SOURCE = ROOT / "tests" / "js"
LOCKED = ("package.json", "package-lock.json", ".npmrc")
# What npm says where the index is out of reach; anything else (a wrong hash, a lock that does not fit) is a failure.
_OUT_OF_REACH = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "E403", "E404", "E503")


def installed() -> Path:
    """The folder with the SDKs. Skips where there is no Node of today, or no way to fetch them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 20:
        pytest.skip("Node is older than 20")
    fingerprint = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in LOCKED)).hexdigest()[:16]
    with one_at_a_time("javascript") as cache:
        folder = cache / "javascript" / fingerprint
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name in LOCKED:
                shutil.copy(SOURCE / name, folder)
            fetched = subprocess.run([npm, "ci", "--silent"], cwd=folder, capture_output=True, text=True, timeout=100)
            if fetched.returncode and any(code in fetched.stderr + fetched.stdout for code in _OUT_OF_REACH):
                pytest.skip("the JavaScript SDKs cannot be fetched")
            assert fetched.returncode == 0, fetched.stderr
            (folder / "complete").touch()
        return folder


async def said_by_clients(gate: Gatehouse, scenario: str) -> dict[str, Any]:
    """What tests/js/clients.mjs prints of a scenario, as ana."""
    folder = await asyncio.to_thread(installed)
    script = folder / f"{hashlib.sha256((SOURCE / 'clients.mjs').read_bytes()).hexdigest()[:16]}.mjs"
    if not script.exists():
        shutil.copy(SOURCE / "clients.mjs", script)
    environment = {"PATH": os.environ["PATH"], "GATE_URL": gate.url, "GATE_KEY": gate.key, "MODEL": MODEL}
    process = await asyncio.create_subprocess_exec(
        *("node", str(script), scenario),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, complained = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    return json.loads(printed)
