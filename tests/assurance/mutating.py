"""Takes guards away in scratch copies of the checkout and sees whether the tests notice.

Red counts only as a test that failed (pytest's exit code 1): a file that no longer compiles, a test not found or
a run that was interrupted shows nothing. The rows' tests must be green in the copy before anything is taken away.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.assurance.rows import ROOT, Mutation, Row

COPIED = ("common", "console", "daemon", "docs", "packaging", "tests")
LONGEST = 300.0  # seconds for the tests of one mutation


@dataclass(frozen=True)
class Verdict:
    """What became of one mutation: `caught_by` is the first test that failed, empty where none did."""

    row: Row
    mutation: Mutation
    caught_by: str
    seconds: float
    said: str


def try_all(rows: Iterable[Row], *, jobs: int) -> Iterator[Verdict]:
    """A verdict for each mutation, as they come; `jobs` scratch copies at a time."""
    work = [(row, mutation) for row in rows for mutation in row.mutations]
    with tempfile.TemporaryDirectory(prefix="gatelodge-mutations-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(copy_to(Path(folder) / str(number)))
        with ThreadPoolExecutor(jobs) as pool:
            for done in as_completed([pool.submit(_try_in_one_of, copies, *each) for each in work]):
                yield done.result()


def unmutated(rows: Iterable[Row]) -> tuple[bool, str]:
    """Whether the tests that are to turn red are green as things stand, and what pytest said."""
    tests = sorted({test for row in rows for mutation in row.mutations for test in row.tests_of(mutation)})
    with tempfile.TemporaryDirectory(prefix="gatelodge-mutations-") as folder:
        status, said = run(copy_to(Path(folder) / "copy"), tests, longest=20 * LONGEST)
    return status == 0, said


def copy_to(scratch: Path) -> Path:
    """A copy of what the tests need."""
    for name in COPIED:
        shutil.copytree(ROOT / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, scratch / file.name)
    return scratch


@contextmanager
def applied(scratch: Path, mutation: Mutation) -> Iterator[None]:
    """The copy without the guard; whole again afterwards."""
    file = scratch / mutation.path
    whole = file.read_text(encoding="utf-8")
    if whole.count(mutation.old) != 1:
        raise ValueError(f"{mutation.old!r} does not stand exactly once in {mutation.path}")
    mutated = whole.replace(mutation.old, mutation.new)
    if file.suffix == ".py":
        compile(mutated, mutation.path, "exec")
    file.write_text(mutated, encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(whole, encoding="utf-8")


def run(scratch: Path, tests: Iterable[str], *, longest: float = LONGEST) -> tuple[int, str]:
    """pytest's exit code on these tests in the copy, and what it said; 124 where it took too long."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=longest,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return 124, f"no end after {longest:.0f} s"
    return done.returncode, done.stdout + done.stderr


def _try_in_one_of(copies: SimpleQueue[Path], row: Row, mutation: Mutation) -> Verdict:
    scratch = copies.get()
    since = time.monotonic()
    try:
        with applied(scratch, mutation):
            caught, said = _noticed(scratch, row.tests_of(mutation))
            if not caught:
                # A guard against a race is missed by whoever wins the race: once more, and the verdict says so.
                caught, said = _noticed(scratch, row.tests_of(mutation))
                caught = caught and f"{caught} (at the second try)"
    finally:
        copies.put(scratch)
    return Verdict(row, mutation, caught, time.monotonic() - since, said)


def _noticed(scratch: Path, tests: tuple[str, ...]) -> tuple[str, str]:
    """The first test that failed, empty where none did; and what pytest said."""
    status, said = run(scratch, tests)
    failed = re.search(r"^(?:FAILED|ERROR) (tests/\S+)", said, re.MULTILINE)
    return (failed.group(1) if status == 1 and failed else ""), said
