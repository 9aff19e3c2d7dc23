"""The locks are fresh and whole: what they pin is what pyproject.toml asks for, by hash, from no named index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.rigs.engine import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = ROOT / "requirements.lock"
DEVELOPMENT = ROOT / "requirements-dev.lock"
ENGINE = ROOT / "daemon" / "engine" / "requirements.lock"
OLLAMA = ROOT / "tests" / "rigs" / "real_ollama.lock"
BUILD = ROOT / "packaging" / "build.lock"
LOCKS = (RUNTIME, DEVELOPMENT, ENGINE, OLLAMA, BUILD)


def pins(lock: Path) -> dict[str, Requirement]:
    """What a lock pins: each name with its requirement, marker included."""
    lines = lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    found = [Requirement(line.partition(" --hash")[0].strip()) for line in lines if re.match(r"[a-zA-Z0-9]", line)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def wanted(lines: list[str]) -> list[Requirement]:
    """Requirements as pyproject.toml or an .in file lists them."""
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def missing(requirements: list[Requirement], lock: Path) -> list[str]:
    """The requirements that the lock does not meet."""
    pinned = pins(lock)
    found = []
    for requirement in requirements:
        pin = pinned.get(canonicalize_name(requirement.name))
        version = str(pin.specifier).removeprefix("==") if pin else ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{lock.name}: {requirement} is not met by {pin or 'any pin'}")
    return found


def described(name: str) -> list[Requirement]:
    """The requirements of an .in file in packaging/."""
    return wanted((ROOT / "packaging" / name).read_text(encoding="utf-8").splitlines())


def test_the_runtime_lock_meets_the_project() -> None:
    """Every dependency of pyproject.toml is pinned within its bounds."""
    assert missing(wanted(PROJECT["project"]["dependencies"]), RUNTIME) == []


def test_the_development_lock_meets_the_project() -> None:
    """It pins what tests and linters need as well, and the runtime exactly as the runtime lock does."""
    assert missing(wanted(PROJECT["dependency-groups"]["dev"]), DEVELOPMENT) == []
    runtime, development = pins(RUNTIME), pins(DEVELOPMENT)
    assert {name: str(development.get(name)) for name in runtime} == {name: str(pin) for name, pin in runtime.items()}


def test_the_other_locks_meet_their_lists() -> None:
    """The engine, the tests' Ollama and the build tools: each lock pins its list, and the list is its lock's whole."""
    assert missing(wanted(PROJECT["build-system"]["requires"]), BUILD) == []
    for lock, name in ((ENGINE, "engine.in"), (OLLAMA, "real_ollama.in")):
        assert missing(described(name), lock) == []
        assert set(pins(lock)) == {canonicalize_name(requirement.name) for requirement in described(name)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.relative_to(ROOT).as_posix())
def test_a_lock_has_hashes_for_all_and_no_address(lock: Path) -> None:
    """Each entry is pinned with ==, has SHA-256 digests, and nothing says where to fetch it from."""
    text = lock.read_text(encoding="utf-8")
    entries = re.findall(r"^[a-zA-Z0-9].*?(?=^[a-zA-Z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(entries) == len(pins(lock))
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.+-]+ ", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links|--trusted-host|^-", text, re.MULTILINE)


def test_a_stale_lock_is_found(tmp_path: Path) -> None:
    """The check bites: a dependency that is absent, or pinned outside its bounds, is named."""
    stale = tmp_path / "stale.lock"
    stale.write_text("tornado==6.4 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    assert len(missing(wanted(["tornado>=6.5", "click>=8"]), stale)) == 2
    assert missing(wanted(["tornado>=6.4"]), stale) == []


def test_every_dependency_says_why_it_is_there() -> None:
    """Each line of the dependency lists in pyproject.toml carries its reason."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for block in re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert re.match(r'\s+".+",\s+# \S', line), line
