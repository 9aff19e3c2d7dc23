"""A daemon in a process of its own that writes down every address it connects to or asks for, and every file named
like a bait that it opens: `python -m tests.rigs.watched NOTES BAIT ARGUMENTS…`.

Python's audit hook sees blocking clients (urllib, PyJWT's key client, a resolver); the loop's own connections do not
pass it, so the loop's methods are watched, too. That the daemon reaches its upstream shows that the watch sees.
"""

from __future__ import annotations

import http.client
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from daemon.first_start import KEY_FILE
from tests.rigs.process import ROOT

_ASKED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")


@dataclass
class WatchedDaemon:
    """A running one. `trap` listens and is nobody's upstream; `upstream` is an address at which nothing listens."""

    port: int
    data: Path
    log: Path
    notes: Path
    bait: Path
    trap: socket.socket
    upstream: str
    own_notes: int  # bytes of notes about the start, which asks for the addresses to listen at

    @property
    def trap_port(self) -> int:
        return int(self.trap.getsockname()[1])

    def ask(self, method: str, path: str, headers: dict[str, bytes], body: bytes = b"") -> tuple[int, bytes]:
        """(status, body) of one request with exactly these header bytes, however odd."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: gate", b"Content-Length: %d" % len(body)]
        lines += [name.encode() + b": " + value for name, value in headers.items()]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(b"\r\n".join([*lines, b"", body]))
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()

    def bearer(self, token: str | bytes) -> int:
        """The status that an inference route answers to `Authorization: Bearer token`."""
        raw = token if isinstance(token, bytes) else token.encode()
        question = b'{"model":"m","messages":[{"role":"user","content":"Why?"}]}'
        return self.ask("POST", "/api/chat", {"Authorization": b"Bearer " + raw}, question)[0]

    def failures(self) -> list[str]:
        """Lines of the log that tell of a failure: tracebacks, errors, or what is no line of ours at all."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"traceback": line}
            if "traceback" in entry or entry.get("level") in {"error", "critical"}:
                found.append(line)
        return found

    def reached(self) -> set[str]:
        """Everything that was connected to, asked for or opened since it listens."""
        return set(self.notes.read_bytes()[self.own_notes :].decode().splitlines())


@contextmanager
def watched_daemon(folder: Path) -> Iterator[WatchedDaemon]:
    """Start one below `folder`; it is killed at the end."""
    data, log, notes, bait = (folder / name for name in ("data", "log", "notes", "bait-key.pem"))
    bait.write_text("a file that no token may open\n", encoding="ascii")
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as trap, log.open("wb") as written:
        closed.bind(("127.0.0.1", 0))  # taken, so that it is nobody's; nothing listens at it
        trap.setblocking(False)
        upstream = f"127.0.0.1:{closed.getsockname()[1]}"
        arguments = ["--data", str(data), "--port", "0", "--no-builtin-model", "--ollama", f"http://{upstream}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.rigs.watched", str(notes), bait.name, *arguments],
            cwd=ROOT,
            env=os.environ
            | {"GATELODGE_STORAGE__MIN_FREE": "0", "GATELODGE_STORAGE__BALLAST": "0", "GATELODGE_LOG__FORMAT": "json"},
            stdout=subprocess.DEVNULL,
            stderr=written,
        )
        try:
            port = _listening(process, log, data / KEY_FILE)
            yield WatchedDaemon(port, data, log, notes, bait, trap, upstream, notes.stat().st_size)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path, first_key: Path) -> int:
    """The port, once it listens and has its first user."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and process.poll() is None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        urls = [json.loads(line)["url"] for line in said if '"url":"http://' in line and line.endswith("}")]
        if urls and first_key.is_file() and first_key.read_bytes().endswith(b"\n"):
            return int(urls[0].rpartition(":")[2])
        time.sleep(0.01)
    raise AssertionError(f"the daemon did not start: {log.read_text(encoding='utf-8', errors='replace')}")


def _watch(notes: Path, bait: str) -> None:
    file = notes.open("a", encoding="utf-8", buffering=1)

    def note(*words: Any) -> None:
        file.write(" ".join(str(word) for word in words) + "\n")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _ASKED:
            note(event, *arguments[1:] if event == "socket.connect" else arguments)
        elif event == "open" and isinstance(arguments[0], str | bytes) and bait in os.fsdecode(arguments[0]):
            note(event, arguments[0])

    sys.addaudithook(hook)

    def watched(name: str) -> None:
        method = getattr(uvloop.Loop, name)

        async def noting(self: Any, *arguments: Any, **named: Any) -> Any:
            note(name, *[word for word in (*arguments, *named.values()) if isinstance(word, str | int | tuple)])
            return await method(self, *arguments, **named)

        setattr(uvloop.Loop, name, noting)

    for name in ("create_connection", "create_unix_connection", "getaddrinfo", "sock_connect"):
        watched(name)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), sys.argv[2])
    sys.argv = ["gatelodged", *sys.argv[3:]]
    runpy.run_module("daemon", run_name="__main__")
