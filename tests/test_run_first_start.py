"""The first five minutes, as a person has them: a fresh copy of the tree, `./run`, the printed line, Ctrl-C.

Everything is real: the set-up from the lock, the daemon, the built-in engine and its model, the curl line as printed,
the command line, the terminal. The tests of one class go through one checkout in the order in which they stand here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.checkouts import Checkout, Terminal
from tests.rigs.engine import CACHE, install_engine
from tests.rigs.until import until
from tests.rigs.wheels import no_index_environment

NO_ENVIRONMENT = ("OLLAMA_BASE_URL", "GATELODGE_SOCKET", "GATELODGE_CONFIG", "STATE_DIRECTORY")
CURL = re.compile(r"^\s*(curl -N .*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A fresh copy of the tree, set up by `./run`."""
    for name in NO_ENVIRONMENT:
        os.environ.pop(name, None)
    checkout = Checkout.real(tmp_path_factory.mktemp("fresh") / "gatelodge")
    version = checkout.run("--version", timeout=300)
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("gatelodged ")
    return checkout


@pytest.fixture
def terminals(checkout: Checkout) -> Iterator[Callable[..., Terminal]]:
    """Call it with arguments for `./run` on a terminal of its own; each is closed at the end."""
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(checkout.start(*arguments))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def children_of(pid: int) -> list[int]:
    """The living processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended while we looked
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def gone(pids: list[int]) -> bool:
    """Whether none of these processes runs any more."""
    alive = {pid for pid in pids if Path(f"/proc/{pid}").exists()}
    return all("\nState:\tZ" in Path(f"/proc/{pid}/status").read_text() for pid in alive)


def gatelodge(checkout: Checkout, *arguments: str) -> str:
    """What the command line answers, by the program that the set-up has made; it must succeed."""
    command = [checkout.root / ".venv/bin/gatelodge", "--socket", checkout.root / "var/gatelodge.sock", *arguments]
    return subprocess.run(command, cwd="/", check=True, stdout=subprocess.PIPE, text=True, timeout=30).stdout


def streamed(command: str) -> tuple[list[dict[str, Any]], int]:
    """The lines of NDJSON that a shell command prints, the first of them read while it still runs; its exit code."""
    shell = ["sh", "-c", command]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        first = json.loads(run.stdout.readline())
        still_running = run.poll() is None
        rest = [json.loads(line) for line in run.stdout]
        assert still_running
        return [first, *rest], run.wait()


def one_line(run: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a start was refused; only the log, which is JSON here, may stand before it."""
    assert run.returncode != 0
    *log, line = run.stderr.splitlines()
    assert all(json.loads(record)["level"] for record in log)
    return line


@pytest.fixture
def no_ollama_here() -> None:
    """The built-in engine is offered only where no Ollama answers at its usual address."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 11434)) == 0:
            pytest.skip("an Ollama answers at 127.0.0.1:11434 on this machine")


@pytest.mark.engine
@pytest.mark.timeout(900)
class TestTheFirstFiveMinutes:
    """One checkout from its first start on; each test goes on where the one before has ended."""

    async def test_the_printed_line_streams_a_real_answer(
        self, checkout: Checkout, terminals: Callable[..., Terminal], no_ollama_here: None
    ) -> None:
        """`./run` fetches the engine and prints a key; its curl line streams an answer; Ctrl-C ends everything."""
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        terminal = terminals("--port", "0")
        await until(lambda: "ollama pull" in terminal.text or terminal.ended, timeout=240)
        assert "No Ollama answers" in terminal.text, terminal.text
        assert "Fetching llama.cpp" in terminal.text
        assert "glk_" in terminal.text
        assert "./run cli" in terminal.text
        engine = children_of(terminal.process.pid)
        assert len(engine) == 1

        command = CURL.findall(terminal.text)[0]
        bounded = command.replace("}]}'", '}],"options":{"num_predict":60}}\'')  # it may ramble on for half a minute
        assert bounded != command
        lines, code = await asyncio.to_thread(streamed, bounded)
        assert code == 0
        assert len(lines) > 3
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        assert lines[-1]["eval_count"] > 3

        (record,) = json.loads(gatelodge(checkout, "audit", "search", "since:1h", "--json"))
        assert record["state"] == "ok"
        shown = json.loads(gatelodge(checkout, "audit", "show", record["request_id"], "--json"))
        assert shown["response"] == "".join(line["message"]["content"] for line in lines)
        assert (checkout.root / "var").stat().st_mode & 0o077 == 0

        terminal.press_ctrl_c()
        await until(lambda: terminal.ended, timeout=10)
        assert terminal.process.returncode == 0
        assert gone(engine)

    async def test_a_second_start_is_quick_and_prints_no_key(
        self, checkout: Checkout, terminals: Callable[..., Terminal], no_ollama_here: None
    ) -> None:
        """Nothing is set up, fetched or greeted again; kill -9 of the daemon ends its engine, too."""
        terminal = terminals("--port", "0")
        await until(lambda: "listening on" in terminal.text or terminal.ended, timeout=60)
        (engine,) = children_of(terminal.process.pid)
        assert "builtin" in gatelodge(checkout, "status")
        for word in ("glk_", "curl", "Setting up", "Fetching", "Created"):
            assert word not in terminal.text
        os.kill(terminal.process.pid, signal.SIGKILL)
        await until(lambda: gone([engine]), timeout=10)

    async def test_a_first_start_that_failed_is_still_the_first(
        self, checkout: Checkout, tmp_path: Path, terminals: Callable[..., Terminal], no_ollama_here: None
    ) -> None:
        """Offline at first: one line that says what to do. The next start offers the engine and greets all the same."""
        data = tmp_path / "data"
        refused = checkout.run("--data", str(data), "--port", "0", **no_index_environment())
        assert refused.returncode == 1
        assert "cannot fetch the built-in engine" in refused.stderr.splitlines()[-1]
        assert "--ollama URL" in refused.stderr.splitlines()[-1]
        await asyncio.to_thread(install_engine)
        shutil.copytree(CACHE / "engine", data / "engine", copy_function=os.link, dirs_exist_ok=True)
        terminal = terminals("--data", str(data), "--port", "0")
        await until(lambda: "ollama pull" in terminal.text or terminal.ended, timeout=60)
        assert "glk_" in terminal.text
        terminal.press_ctrl_c()
        await until(lambda: terminal.ended, timeout=10)


async def test_without_a_terminal_the_key_goes_to_a_private_file(
    checkout: Checkout, tmp_path: Path, terminals: Callable[..., Terminal]
) -> None:
    """A key is printed to a terminal alone: elsewhere one line names a 0600 file; `gatelodged --config FILE` works."""
    settings = tmp_path / "gatelodge.toml"
    settings.write_text(
        f'[server]\nport = 0\n[storage]\ndata = "{tmp_path}/data"\n'
        '[[upstreams]]\nname = "absent"\nurl = "http://127.0.0.1:9"\n'
    )
    command = [checkout.root / ".venv/bin/gatelodged", "--config", settings]
    with subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        told = ""
        for line in daemon.stdout:
            told += line
            if "--help" in line:
                break
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(15) == 0
    (file,) = re.findall(r"(\S+/first-key)", told.splitlines()[2] + told.splitlines()[1])[:1]
    assert "glk_" not in told
    assert Path(file).read_text().startswith("glk_")
    assert Path(file).stat().st_mode & 0o777 == 0o600


async def test_a_second_daemon_on_the_same_data_is_refused(
    checkout: Checkout, tmp_path: Path, terminals: Callable[..., Terminal]
) -> None:
    """One line that says who holds the data folder; the running daemon is not disturbed."""
    arguments = ("--data", str(tmp_path / "data"), "--port", "0", "--ollama", "http://127.0.0.1:9")
    terminal = terminals(*arguments)
    await until(lambda: "glk_" in terminal.text or terminal.ended, timeout=30)
    assert "another gatelodge daemon" in one_line(checkout.run(*arguments))
    assert not terminal.ended


def test_a_taken_port_is_one_line(checkout: Checkout, tmp_path: Path) -> None:
    """The line names port and address, and the flag that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = checkout.run("--data", str(tmp_path), "--port", port, "--ollama", "http://127.0.0.1:9")
    line = one_line(run)
    assert port in line
    assert "--port" in line


def test_data_that_cannot_be_written_is_one_line(checkout: Checkout, tmp_path: Path) -> None:
    """The line names the folder, the reason and the flag."""
    (tmp_path / "file").touch()
    line = one_line(checkout.run("--data", str(tmp_path / "file" / "data"), "--ollama", "http://127.0.0.1:9"))
    assert f"{tmp_path}/file/data" in line
    assert "--data" in line


@pytest.mark.parametrize(
    ("environment", "file", "parts"),
    [
        ({"GATELODGE_QUEUE__SIZE": "many"}, "", ["the environment", "queue.size", "'many'", "a whole number"]),
        ({"GATELODGE_QUEUE__LENGTH": "1"}, "", ["the environment", "GATELODGE_QUEUE__LENGTH"]),
        ({}, "[queue]\nsize = 0\n", ["gatelodge.toml", "queue.size", "0", "at least 1"]),
        ({}, "[queue]\nlength = 1\n", ["gatelodge.toml", "queue.length", "docs/configuration.md"]),
        ({}, "[queue\n", ["gatelodge.toml", "TOML"]),
    ],
)
def test_a_wrong_configuration_is_one_line(
    checkout: Checkout, tmp_path: Path, environment: dict[str, str], file: str, parts: list[str]
) -> None:
    """The line names source, key, value and what is allowed."""
    (tmp_path / "gatelodge.toml").write_text(file)
    line = one_line(checkout.run("--data", str(tmp_path), **environment))
    for part in parts:
        assert part in line


def test_a_settings_file_in_the_checkouts_data_folder_is_read(checkout: Checkout) -> None:
    """`var/gatelodge.toml` counts without being named, as docs/configuration.md says."""
    settings = checkout.root / "var" / "gatelodge.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("[queue]\nlength = 1\n")
    try:
        assert str(settings) in one_line(checkout.run())
    finally:
        settings.unlink()


def test_a_wrong_flag_is_wrong_usage(checkout: Checkout) -> None:
    """An unknown flag: how it is used, and exit code 2."""
    assert checkout.run("--prot", "7000").returncode == 2
