"""Copies of this checkout, as a person has them after cloning it, and terminals to type `./run` into.

`Checkout.real` is the whole tree. `Checkout.sketch` has the real `./run` and nothing else that is real: tiny
locks, a tiny package index, and programs that print how they were called; it tries the script in seconds, offline.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import subprocess
import termios
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.rigs.engine import ROOT
from tests.rigs.wheels import index_environment, lock_line, wheel

_PRINTS_ITS_CALL = """
import json, os, sys
def main():
    import lodgepole  # what the lock installs
    call = {"program": "%s", "arguments": sys.argv[1:], "state": os.environ.get("STATE_DIRECTORY")}
    print(json.dumps({**call, "holds_lock": os.path.exists("/proc/self/fd/9")}))
"""


@dataclass
class Checkout:
    """A folder with `./run` in it, and the environment to run it in."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def real(cls, root: Path) -> Checkout:
        """A copy of this checkout without what git ignores; git itself need not be installed."""
        ignored = (line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines())
        shutil.copytree(ROOT, root, symlinks=True, ignore=shutil.ignore_patterns(".git", *ignored))
        return cls(root)

    @classmethod
    def sketch(cls, root: Path, index: Path) -> Checkout:
        """The real script over a make-believe project whose requirements lie in the folder `index`."""
        root.mkdir(parents=True)
        shutil.copy2(ROOT / "run", root / "run")
        lodgepole = wheel(index, "lodgepole", {"lodgepole.py": ""})
        calls = "import json, sys; print(json.dumps({'program': 'pytest', 'arguments': sys.argv[1:]}))"
        pytest = wheel(index, "pytest", {"pytest/__init__.py": "", "pytest/__main__.py": calls})
        (root / "requirements.lock").write_text(lock_line(lodgepole))
        (root / "requirements-dev.lock").write_text(lock_line(lodgepole) + lock_line(pytest))
        for package, program in (("daemon", "gatelodged"), ("console", "gatelodge")):
            (root / package).mkdir()
            (root / package / "__init__.py").touch()
            (root / package / "__main__.py").write_text(_PRINTS_ITS_CALL % program)
        return cls(root, index_environment(index))

    def run(self, *arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
        """`./run ARGUMENT…` from another folder than the checkout, until it ends."""
        return subprocess.run(
            [self.root / "run", *arguments],
            env={**os.environ, **self.environment, **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *arguments: str, **environment: str) -> Terminal:
        """`./run ARGUMENT…` on a terminal of its own."""
        return Terminal([str(self.root / "run"), *arguments], {**os.environ, **self.environment, **environment})


class Terminal:
    """A program on a pseudo-terminal. `text` is what it has printed so far."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - one system call, no lock
        )
        os.close(theirs)
        self._reading = threading.Thread(target=self._read, name="terminal")
        self._reading.start()

    def press_ctrl_c(self) -> None:
        """What the key does: SIGINT to every process in the foreground."""
        os.write(self._ours, b"\x03")

    @property
    def ended(self) -> bool:
        """Whether the program has ended and all it printed is in `text`."""
        return self.process.poll() is not None and not self._reading.is_alive()

    def close(self) -> None:
        """End the program if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reading.join(10)
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the last program on the terminal has ended
                return
            if not data:
                return
            self.text += data.decode(errors="replace").replace("\r\n", "\n")


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C means something


def called(output: str) -> dict[str, object]:
    """How a sketch's program was called, from what it printed last."""
    return dict(json.loads(output.strip().splitlines()[-1]))
