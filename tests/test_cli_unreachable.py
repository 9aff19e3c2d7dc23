"""Without a daemon: exit code 3 and one sentence that says why and what to do. Wrong usage is 2."""

import errno
import grp
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common import paths
from console.__main__ import cli
from console.client import Unreachable, why_unreachable
from console.commands.live import _Outage
from tests.rigs.engine import ROOT


def run(*arguments: str) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(cli, list(arguments))


def test_no_socket_says_how_to_start_the_daemon(tmp_path: Path) -> None:
    """Exit 3; the path that was tried is named."""
    result = run("--socket", str(tmp_path / "none.sock"), "status")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert str(tmp_path / "none.sock") in result.stderr
    assert "--socket PATH" in result.stderr
    assert "start the daemon" in result.stderr


def test_a_stale_socket_is_recognised(tmp_path: Path) -> None:
    """A socket file with nobody behind it: say that it is stale, not `connection refused`."""
    path = tmp_path / "gatelodge.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    result = run("--socket", str(path), "users", "list")
    assert result.exit_code == 3
    assert "stale" in result.stderr


def test_a_file_that_is_no_socket_is_called_so(tmp_path: Path) -> None:
    """Nobody should look for a daemon, or think that ours was there, because of a wrong path."""
    path = tmp_path / "notes.txt"
    path.write_text("x")
    result = run("--socket", str(path), "status")
    assert result.exit_code == 3
    assert f"{path} is no socket" in result.stderr
    assert "stale" not in result.stderr


def test_a_configuration_is_checked_by_its_name(tmp_path: Path) -> None:
    """`config check FILE`, as docs/configuration.md says, and `--config FILE`; both at once are wrong usage."""
    file = tmp_path / "wrong.toml"
    file.write_text("[nonsense]\n")
    for words in ([str(file)], ["--config", str(file)]):
        result = run("config", "check", *words)
        assert result.exit_code == 1
        assert "nonsense" in result.stderr
    assert run("config", "check", str(file), "--config", str(file)).exit_code == 2


WHOLE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status"], b""),
        (["status"], b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        (["status"], b"SSH-2.0-x\r\n"),
        (["audit", "search"], WHOLE),
        (["selftest"], WHOLE + b'{"step":"x","ok":true,"seconds":1,"message":""}\n'),
    ],
)
def test_a_connection_that_breaks_off_is_no_answer(tmp_path: Path, arguments: list[str], words: bytes) -> None:
    """Half an answer is none: exit 3, and standard output claims nothing. Many items need their last line."""
    path = tmp_path / "gatelodge.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(words)

        server = threading.Thread(target=serve)
        server.start()
        result = run("--socket", str(path), *arguments, "--json")
        server.join()
    assert result.exit_code == 3, result.stderr
    assert result.stdout == ""
    assert str(path) in result.stderr


def test_no_permission_names_the_group_that_would_help(tmp_path: Path) -> None:
    """Where a group may use the socket, the sentence says which, and the command that puts you in."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o750)
    group = grp.getgrgid(folder.stat().st_gid).gr_name
    words = why_unreachable(folder / "gatelodge.sock", PermissionError(errno.EACCES, "no"))
    assert f"usermod -aG {group}" in words
    folder.chmod(0o700)
    words = why_unreachable(folder / "gatelodge.sock", PermissionError(errno.EACCES, "no"))
    assert f"sudo -u {pwd.getpwuid(os.getuid()).pw_name}" in words
    assert "admin.group" in words


def test_somebody_else_is_kept_out_and_told_why(tmp_path: Path) -> None:
    """T5: the kernel refuses an account that the folder is not for, and the sentence says so."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "gatelodge.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        folder.chmod(0o000)
        try:
            words = _as_nobody(lambda: _connect_in_words(path))
        finally:
            folder.chmod(0o700)
    assert words.startswith(f"you may not open {path}")


def _connect_in_words(path: Path) -> str:
    try:
        paths.connect(path, timeout=5).close()
    except OSError as error:
        return why_unreachable(path, error)
    return "connected"


def _as_nobody(work: Callable[[], str]) -> str:
    """What `work` says in a child process without root's rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        words = pipe.read()
    os.waitpid(child, 0)
    return words


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["users", "nonsense"],
        ["users", "add"],
        ["users", "add", "a@b", "--role", "king"],
        ["keys", "issue", "a@b"],
        ["keys", "issue", "a@b", "--label", "x", "--expires", "soon"],
        ["limits", "set", "default"],
        ["limits", "set", "default", "--requests-per-minute", "many"],
        ["limits", "set", "default", "--requests-per-minute", "-1"],
        ["audit", "search", "usr:ana"],
        ["audit", "search", "--limit", "0"],
        ["audit", "export", "--format", "xml"],
        ["audit", "export", "--json"],
        ["audit", "export", "--since", "yesterday"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_two_and_reaches_for_no_daemon(tmp_path: Path, arguments: list[str]) -> None:
    """Exit 2, with the usage on standard error."""
    result = run("--socket", str(tmp_path / "none.sock"), *arguments)
    assert result.exit_code == 2, result.output
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("term", ["dumb", "", "xterm-256color"])
def test_without_a_terminal_the_console_names_the_command_line(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    """TERM=dumb and a pipe are refused in a sentence, before anything is drawn; no success is claimed."""
    monkeypatch.setenv("TERM", term)
    result = run()
    assert result.exit_code == 1
    assert "gatelodge --help" in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    """A script that names the program; no daemon is asked."""
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_GATELODGE_COMPLETE" in result.stdout


def test_completing_without_a_daemon_is_silent(tmp_path: Path) -> None:
    """A TAB never prints an error into the line; commands are completed, users are not."""
    environment = {
        **os.environ,
        "_GATELODGE_COMPLETE": "bash_complete",
        "GATELODGE_SOCKET": str(tmp_path / "none.sock"),
    }
    for words, wanted in (("gatelodge users disa", "plain,disable"), ("gatelodge users show a", "")):
        done = subprocess.run(
            [sys.executable, "-m", "console"],
            cwd=ROOT,
            env={**environment, "COMP_WORDS": words, "COMP_CWORD": "2" if wanted else "3"},
            capture_output=True,
            text=True,
        )
        assert (done.stdout.strip(), done.stderr) == (wanted, "")


def test_checking_a_configuration_needs_no_daemon(tmp_path: Path) -> None:
    """Exit 0 and 1; the error names file, key, value and what is allowed; --json says the same."""
    file = tmp_path / "gatelodge.toml"
    file.write_text("[server]\nport = 7001\n")
    assert run("config", "check", "--config", str(file)).exit_code == 0
    file.write_text("[server]\nport = 70000\n")
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 1
    for word in (str(file), "server.port", "70000", "65535"):
        assert word in result.stderr
    result = run("config", "check", "--config", str(file), "--json")
    assert result.exit_code == 1
    assert '"valid": false' in result.stdout


def test_a_daemon_folder_that_lies_around_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config check` runs this installation's daemon, never a folder of that name where you happen to stand."""
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "__init__.py").touch()
    (tmp_path / "daemon" / "__main__.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    result = run("config", "check")
    assert result.exit_code == 0, result.stderr


def test_the_doctor_works_without_a_daemon(tmp_path: Path) -> None:
    """The first finding is that none runs; the rest was looked at without it. Exit 1: something is wrong."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    result = run("--socket", str(data / "gatelodge.sock"), "doctor", "--data", str(data))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("error    daemon")
    assert any(line.startswith("ok       clock") for line in lines)
    assert paths.lock_file(data).exists() is False, "looking changes nothing"


def test_an_outage_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`live --watch` retries for as long as it takes: one line, replaced on a terminal; each outage anew."""
    outage = _Outage()
    for _ in range(3):
        outage.tell(Unreachable("no daemon"))
    assert capsys.readouterr().err == "no daemon; trying again\n"
    outage.end()
    outage.tell(Unreachable("no daemon"))
    assert capsys.readouterr().err == "no daemon; trying again\n"
    outage.end()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for _ in range(3):
        outage.tell(Unreachable("no daemon" * 100))
    told = capsys.readouterr().err
    assert "\n" not in told
    assert told.count("\r") == 3
