"""`./run` itself: what it sets up, when it does it again, and the one line with which it says that it cannot.

The script is the real one; the project around it is a sketch whose requirements lie in a folder (tests/rigs/checkouts).
How the real project starts by it: test_run_first_start.py.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.checkouts import Checkout, called
from tests.rigs.until import until
from tests.rigs.wheels import no_index_environment, wheel

SETTING_UP = "Setting up .venv"
TOOLS = ("sh", "dirname", "rm", "cat", "mv", "sed", "head", "tail", "grep", "chmod", "flock")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout, in a folder with blanks in its long name, that has been set up."""
    folder = tmp_path_factory.mktemp("sketch")
    long_name = "a folder with blanks " + "and a long name " * 8
    checkout = Checkout.sketch(folder / long_name.strip() / "gatelodge", folder / "index")
    # A person's own settings for pip and Python, none of which may divert what goes into the venv.
    (folder / "elsewhere" / "daemon").mkdir(parents=True)
    elsewhere = str(folder / "elsewhere")
    first = checkout.run(PIP_USER="1", PIP_TARGET=elsewhere, PYTHONPATH=elsewhere)
    assert first.returncode == 0, first.stderr
    assert SETTING_UP in first.stderr
    assert called(first.stdout)["program"] == "gatelodged"
    assert [path.name for path in Path(elsewhere).iterdir()] == ["daemon"]
    checkout.environment["PYTHON"] = str(quick_python(folder))
    return checkout


def quick_python(folder: Path) -> Path:
    """A Python whose `-m venv` copies an empty one in no time; making it really was shown by the first set-up."""
    subprocess.run([sys.executable, "-m", "venv", folder / "empty"], check=True)
    python = folder / "quick python"  # a name with a blank is one name
    python.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"\nexec cp -a "{folder}/empty" "$3"\n'
    )
    python.chmod(0o755)
    return python


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A checkout that was never run, over the same package index."""
    copy = Checkout(tmp_path / "checkout", finished.environment)
    shutil.copytree(finished.root, copy.root, ignore=shutil.ignore_patterns(".venv"))
    return copy


def a_python(folder: Path, before: str) -> dict[str, str]:
    """The environment in which `python3` is the only Python, and runs the statements `before` first of all."""
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    python = folder / "python3"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] || exit 1\nshift\n'
        f"exec {sys.executable} -c 'import sys; {before}; exec(sys.argv.pop(1))' \"$@\"\n"
    )
    python.chmod(0o755)
    return {"PATH": str(folder), "PYTHON": "python3"}


def one_line(run: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a start failed; besides it only the notice that .venv is being set up."""
    assert run.returncode != 0
    assert run.stdout == ""
    lines = [line for line in run.stderr.splitlines() if not line.startswith(SETTING_UP)]
    assert len(lines) == 1, run.stderr
    return lines[0]


def test_without_a_word_it_is_the_daemon(finished: Checkout) -> None:
    """`./run FLAG…` becomes the daemon with these flags; data that nobody names goes to var/ of the checkout."""
    run = finished.run("--port", "0", "--ollama", "http://127.0.0.1:1")
    assert called(run.stdout) == {
        "program": "gatelodged",
        "arguments": ["--port", "0", "--ollama", "http://127.0.0.1:1"],
        "state": str(finished.root / "var"),
        "holds_lock": False,
    }


def test_a_second_start_only_looks_at_the_stamp(finished: Checkout) -> None:
    """Later starts install nothing, say nothing and touch nothing."""
    before = {path: path.stat().st_mtime_ns for path in (finished.root / ".venv").glob(".stamp-*")}
    run = finished.run(**no_index_environment())
    assert run.returncode == 0
    assert run.stderr == ""
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("word", ["cli", "console"])
def test_cli_and_console_are_the_console_program(finished: Checkout, word: str) -> None:
    """`./run cli users list` is `.venv/bin/gatelodge users list`."""
    run = finished.run(word, "users", "list", "--json")
    assert called(run.stdout)["program"] == "gatelodge"
    assert called(run.stdout)["arguments"] == ["users", "list", "--json"]


def test_the_programs_lie_in_the_venv(finished: Checkout) -> None:
    """After the set-up, .venv/bin/gatelodged and .venv/bin/gatelodge work from anywhere."""
    for program in ("gatelodged", "gatelodge"):
        path = finished.root / ".venv" / "bin" / program
        run = subprocess.run([path, "--x"], cwd="/", capture_output=True, text=True)
        assert called(run.stdout)["arguments"] == ["--x"]


def test_test_adds_the_development_lock_once(finished: Checkout) -> None:
    """`./run test ARGUMENT…` installs what tests need into the same venv and hands pytest its arguments."""
    run = finished.run("test", "-k", "limits")
    assert "requirements-dev.lock" in run.stderr
    assert called(run.stdout) == {
        "program": "pytest",
        "arguments": [
            *("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"),
            *("-m", "not real_ollama and not long", "-k", "limits"),
        ],
    }
    again = finished.run("test", **no_index_environment())
    assert again.stderr == ""
    assert finished.run(**no_index_environment()).stderr == ""


def test_help_needs_nothing(checkout: Checkout) -> None:
    """`./run --help` tells how it is used before anything is set up."""
    run = checkout.run("--help")
    assert run.returncode == 0
    for word in ("--data", "--ollama", "./run test", "./run cli", "./run bench"):
        assert word in run.stdout
    assert not (checkout.root / ".venv").exists()


def test_an_unknown_word_is_wrong_usage(checkout: Checkout) -> None:
    """A word that is no command: how it is used, and exit code 2."""
    run = checkout.run("tset")
    assert run.returncode == 2
    assert "there is no './run tset'" in run.stderr
    assert not (checkout.root / ".venv").exists()


async def test_an_interrupted_set_up_is_made_again(checkout: Checkout) -> None:
    """Ctrl-C while packages are fetched leaves half a venv, which the next start does not take for a whole one."""
    with socket.create_server(("127.0.0.1", 0)) as stalls:  # what it is asked, it never answers
        stalls.setblocking(False)
        port = stalls.getsockname()[1]
        terminal = checkout.start(**no_index_environment(f"http://127.0.0.1:{port}/simple"))
        try:
            asked, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(stalls), 60)
            with asked:
                await asyncio.get_running_loop().sock_recv(asked, 1)
                terminal.press_ctrl_c()
                await until(lambda: terminal.ended, timeout=10)
            assert terminal.process.returncode != 0
        finally:
            terminal.close()
    run = checkout.run("--version")
    assert SETTING_UP in run.stderr
    assert called(run.stdout)["program"] == "gatelodged"
    assert called(run.stdout)["holds_lock"] is False  # another ./run need not wait for the daemon's end


def test_a_venv_that_does_not_fit_is_made_anew(finished: Checkout, tmp_path: Path) -> None:
    """A venv that was moved, whose Python is gone, or that another lock made is deleted and made again."""
    checkout = Checkout(tmp_path / "checkout", finished.environment)
    shutil.copytree(finished.root, checkout.root, symlinks=True)  # for the venv, a copy is a move
    venv = checkout.root / ".venv"

    def lose_python() -> None:
        (venv / "bin" / "python").unlink()
        (venv / "bin" / "python").symlink_to("/nonexistent/python3")

    def change_lock() -> None:
        with (checkout.root / "requirements.lock").open("a") as lock:
            lock.write("# a change\n")

    for trouble in (lambda: None, lose_python, change_lock):
        trouble()
        (venv / "left-over").touch()
        run = checkout.run()
        assert SETTING_UP in run.stderr
        assert called(run.stdout)["state"] == str(checkout.root / "var")
        assert not (venv / "left-over").exists()
        assert str(finished.root) not in (venv / "bin" / "gatelodge").read_text()
        assert checkout.run().stderr == ""


def test_two_first_starts_at_once_both_succeed(checkout: Checkout) -> None:
    """The second waits for the first and finds everything done."""
    environment = {**os.environ, **checkout.environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    both = [subprocess.Popen([checkout.root / "run", "--version"], **pipes) for _ in range(2)]
    told = [start.communicate(timeout=60) for start in both]
    assert [start.returncode for start in both] == [0, 0], told
    assert sum(errors.count(SETTING_UP) for _, errors in told) == 1


def test_a_python_that_is_too_old_is_named(checkout: Checkout, tmp_path: Path) -> None:
    """One line: which Python there is, which is needed, how to get it."""
    old = a_python(tmp_path / "bin", "sys.version_info = (3, 9, 2)")
    line = one_line(checkout.run(**old))
    assert "Python 3.11 or newer is needed" in line
    assert "3.9.2" in line
    assert "apt install" in line


def test_no_python_at_all_is_said(checkout: Checkout, tmp_path: Path) -> None:
    """One line where there is no python3."""
    none = a_python(tmp_path / "bin", "pass")
    (tmp_path / "bin" / "python3").unlink()
    assert "there is no python3 here" in one_line(checkout.run(**none))


def test_a_python_without_venv_names_the_package(checkout: Checkout, tmp_path: Path) -> None:
    """Debian's python3 without python3-venv: one line that names the package."""
    bare = a_python(tmp_path / "bin", 'sys.modules["ensurepip"] = None')
    assert "apt install python3-venv" in one_line(checkout.run(**bare))


def test_without_a_package_index_there_is_one_line(checkout: Checkout) -> None:
    """Offline at the first start: one line, and what was begun does not count."""
    assert "no package index can be reached" in one_line(checkout.run(**no_index_environment()))
    assert not list((checkout.root / ".venv").glob(".stamp-*"))


def test_a_file_that_the_lock_does_not_name_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    """A package with another hash than the lock's is not installed, and the line says why."""
    wheel(tmp_path / "forged", "lodgepole", {"lodgepole.py": "print('forged')"})
    assert "hash differs" in one_line(checkout.run(PIP_FIND_LINKS=str(tmp_path / "forged")))


def test_a_place_that_cannot_be_written_is_said(checkout: Checkout, tmp_path: Path) -> None:
    """Where .venv cannot be made: one line with the reason."""
    broken = a_python(tmp_path / "bin", "pass")  # its `-m venv` fails
    assert "cannot make" in one_line(checkout.run(**broken))


def test_another_accounts_venv_is_left_alone(tmp_path: Path) -> None:
    """Who may not use or replace the venv is told so in one line, and nothing of it is deleted.

    As root the other account is a real one; else the venv is one that we may not write.
    """
    folder = Path(tempfile.mkdtemp(prefix="gatelodge-"))  # tmp_path is closed to other accounts
    try:
        folder.chmod(0o755)
        checkout = Checkout.sketch(folder / "gatelodge", tmp_path / "index")
        venv = checkout.root / ".venv"
        (venv / "bin").mkdir(parents=True)
        for name in ("bin/python", "bin/gatelodged", ".stamp-base", ".stamp-dev"):
            (venv / name).write_text("kept")
        (venv / ".stamp-base").chmod(0)
        before = sorted(venv.rglob("*"))
        other: dict[str, Any] = {"user": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        if not other:
            venv.chmod(0o555)
        for arguments in (["--version"], ["test"], ["cli", "status"]):
            command = [checkout.root / "run", *arguments]
            run = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, **other)
            line = one_line(run)
            assert SETTING_UP not in run.stderr
            assert str(venv) in line
            assert "run this as its owner, or make a checkout of your own" in line
        assert sorted(venv.rglob("*")) == before
    finally:
        if (folder / "gatelodge" / ".venv").exists():
            (folder / "gatelodge" / ".venv").chmod(0o755)
        shutil.rmtree(folder)


def test_ctrl_c_is_the_programs_own(finished: Checkout) -> None:
    """The script is replaced by what it starts: no shell stands between the terminal and the daemon."""
    assert "exec" in (finished.root / "run").read_text()
    main = finished.root / "daemon" / "__main__.py"
    kept = main.read_text()
    main.write_text("import os, signal\ndef main():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    try:
        assert finished.run().returncode == -signal.SIGKILL
    finally:
        main.write_text(kept)
