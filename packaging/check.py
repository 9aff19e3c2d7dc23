"""The wheel is whole and installs offline: built, looked into, installed by hash into a fresh venv, started.

    python packaging/check.py

Everything happens in a temporary folder, from a copy of what git tracks, so that nothing left in the checkout can help.
Rule: the installation itself sees no package index, only the wheels that were fetched by hash before.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "console", "daemon")
# Every module is imported once: one that needs a development dependency, or a file that is not there, is found here.
IMPORT_ALL = f"""
import importlib, pkgutil
for package in {PACKAGES!r}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
"""
OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def main() -> int:
    """Do all of it; the exit code. What is wrong is printed."""
    with tempfile.TemporaryDirectory(prefix="gatelodge-wheel-") as name:
        folder = Path(name)
        tree = copy_of_tracked_tree(folder / "tree")
        wheel = build(tree, folder)
        wrong = look_into(wheel, tree) + install_and_start(wheel, folder)
    for line in wrong:
        print(f"packaging: {line}")
    print(f"packaging: {wheel.name}, {len(wrong)} wrong")
    return 1 if wrong else 0


def copy_of_tracked_tree(tree: Path) -> Path:
    """The tracked files as they are now, without anything that git ignores."""
    names = output("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def build(tree: Path, folder: Path) -> Path:
    """The wheel of `tree`, built with the locked build tools and no network."""
    python = fresh_venv(folder / "build")
    run(
        python, "-m", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", "packaging/build.lock"
    )
    output(
        *(python, "-m", "pip", "--isolated", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", folder / "dist", tree),
        cwd=folder,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def look_into(wheel: Path, tree: Path) -> list[str]:
    """What the wheel should hold and does not, and the other way round."""
    wanted = {
        path.relative_to(tree).as_posix()
        for package in PACKAGES
        for path in (tree / package).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {
            name.partition(".dist-info/")[2]: archive.read(name) for name in archive.namelist() if name not in held
        }
    wrong = [f"the wheel lacks {name}" for name in sorted(wanted - held)]
    wrong += [f"the wheel holds {name}, which is not the packages'" for name in sorted(held - wanted)]
    for kind in (
        r"daemon/store/migrations/\d{4}_\w+\.sql",
        r"daemon/access/common_passwords\.txt",
        r"daemon/engine/.*\.lock",
        r"daemon/web/page/docs\.html",
    ):
        if not any(re.fullmatch(kind, name) for name in held):
            wrong.append(f"the wheel holds no {kind}")
    if about.get("licenses/LICENSE") != (tree / "LICENSE").read_bytes():
        wrong.append("the wheel's LICENSE is not ours")
    version = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if f"\nVersion: {version}\n".encode() not in about["METADATA"]:
        wrong.append(f"the wheel's version is not {version}")
    return wrong


def install_and_start(wheel: Path, folder: Path) -> list[str]:
    """Install as on a host without a network, and start both programs there."""
    wheelhouse = folder / "wheelhouse"
    locked = ("--require-hashes", "--only-binary", ":all:", "-r", ROOT / "requirements.lock")
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheelhouse, *locked)
    python = fresh_venv(folder / "installed")
    pip = (python, "-m", "pip", "--isolated")
    run(*pip, "install", "-q", "--no-index", "--find-links", wheelhouse, *locked, env=OFFLINE)
    run(*pip, "install", "-q", "--no-index", "--no-deps", wheel, env=OFFLINE)
    programs = python.parent
    version = wheel.name.split("-")[1]
    wrong = []
    for command, expected in (
        ((*pip, "check"), "No broken requirements found"),
        ((python, "-I", "-c", IMPORT_ALL), ""),
        ((programs / "gatelodged", "--version"), version),
        ((programs / "gatelodge", "--version"), version),
        ((programs / "gatelodge", "--help"), "users"),
        ((programs / "gatelodged", "--data", folder / "data", "--check"), "valid"),
    ):
        environment = {**os.environ, **OFFLINE}
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode != 0 or expected not in ended.stdout:
            wrong.append(f"{' '.join(map(str, command))}: status {ended.returncode}: {ended.stdout}{ended.stderr}")
    return wrong


def fresh_venv(folder: Path) -> Path:
    """A new virtual environment; returns its Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def output(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command from the checkout's root; it must succeed."""
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **(env or {})})


if __name__ == "__main__":
    sys.exit(main())
