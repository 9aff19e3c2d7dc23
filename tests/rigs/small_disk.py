"""A disk of a few megabytes: a tmpfs in a mount namespace of its own, so that it can really be full (A8).

A test cannot mount in pytest's own process; it runs a scenario (`tests/rigs/full_disk.py`) under
`unshare --user --map-root-user --mount`, and skips where the machine does not allow that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.rigs.engine import ROOT

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


@cache
def why_not() -> str:
    """Empty where a tmpfs can be mounted."""
    try:
        done = subprocess.run(
            [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=1m", "gatelodge", "/mnt"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return "unshare is not installed"
    return "" if done.returncode == 0 else "no tmpfs may be mounted here"


def on_small_disk(scenario: str, folder: Path, *, megabytes: int, timeout: float = 60) -> str:
    """Run a scenario with a disk of that size at `folder`; what it said. AssertionError where it failed."""
    folder.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={megabytes}m,mode=0700 gatelodge "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "tests.rigs.full_disk", scenario, str(folder)]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", mount, "sh", str(folder), *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
