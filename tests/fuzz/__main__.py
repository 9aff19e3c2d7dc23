"""Runs the targets under atheris, each in a process of its own; a find is red, and its input is kept.

Without atheris (it is built for x86_64 Linux alone) nothing runs and that is said. What a run learned about the code is
kept for the next one where `--corpus` names a folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

FINDS = Path(__file__).with_name("finds")


def main() -> int:
    """Exit code 1 where a target failed."""
    # Only names: the targets' modules must be imported by the process that instruments them.
    known = ("json", "asks", "head", "lines", "sse", "response", "openai", "ollama", "error")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="fuzz what reads a stranger's bytes")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default 60)")
    parser.add_argument("--in-all", type=float, help="seconds for all targets together, in place of --seconds")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what was learned")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(known):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if find_spec("atheris") is None:
        print("atheris is not installed on this machine: nothing is fuzzed")
        return 0
    names = arguments.targets or known
    seconds = arguments.in_all / len(names) if arguments.in_all else arguments.seconds
    return max([_run(name, max(1, round(seconds)), arguments.corpus) for name in names])


def _run(name: str, seconds: int, corpus: Path | None) -> int:
    FINDS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gatelodge-fuzz-") as scratch:
        folder = corpus / name if corpus else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz.one", name, str(folder), str(seconds), str(FINDS / f"{name}-")]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ)
    said = done.stdout + done.stderr
    runs = [line for line in said.splitlines() if line.startswith(("Done ", "stat::number_of_executed_units"))]
    print(f"{name:10} {'ok ' if done.returncode == 0 else 'RED'} {runs[0] if runs else ''}", flush=True)
    if done.returncode:
        print(said[-6000:], flush=True)
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
