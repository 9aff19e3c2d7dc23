"""docs/seed-coverage.md is true: every row is there, and every test it names runs and passes now.

    python -m tests.seed_coverage [--table FILE] [--root FOLDER] [--only-read]

The table has a row for each of the 86 promises: number, promise, and either the node ids of the tests that show it, in
backticks, or the words "not yet" (or both, where a part of it is still open). Red is: a row that is missing or says
neither, a named test that is absent, fails, is skipped or expected to fail. A test named without its `[parameters]`
stands for all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "seed-coverage.md"
ROWS = range(1, 87)
OPEN = "not yet"


@dataclass(frozen=True)
class Row:
    """One promise: its number, and the tests that show it."""

    number: int
    tests: tuple[str, ...]
    open: bool  # at least a part of it is not shown yet


def read_rows(text: str) -> tuple[dict[int, Row], list[str]]:
    """The table's rows by number, and what is wrong with the table."""
    rows: dict[int, Row] = {}
    wrong = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 3 or not cells[0].isdigit():
            continue
        number = int(cells[0])
        tests = tuple(re.findall(r"`(tests/[^`]+)`", cells[2]))
        if number in rows:
            wrong.append(f"row {number} stands there twice")
        if not tests and OPEN not in cells[2]:
            wrong.append(f'row {number} names no test and does not say "{OPEN}"')
        wrong += [f"row {number}: {test} is no node id of a test" for test in tests if "::" not in test]
        rows[number] = Row(number, tests, OPEN in cells[2])
    wrong += [f"row {number} is missing" for number in ROWS if number not in rows]
    wrong += [f"row {number} is none of the {len(ROWS)}" for number in rows if number not in ROWS]
    return rows, wrong


@dataclass
class Rerun:
    """A pytest plugin: which of the `named` tests there are, and what became of each."""

    named: set[str]
    found: set[str] = field(default_factory=set)
    trouble: dict[str, str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note what there is of what the table names."""
        for item in items:
            self.found |= self._names(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whatever is not a plain pass."""
        if hasattr(report, "wasxfail"):
            what = "is expected to fail"
        elif report.skipped:
            what = "was skipped"
        elif report.failed:
            what = "failed"
        else:
            return
        for name in self._names(report.nodeid):
            self.trouble[name] = what

    def _names(self, node: str) -> set[str]:
        return {node, node.partition("[")[0]} & self.named


def rerun(named: set[str]) -> dict[str, str]:
    """Run the named tests, relative to the current folder; returns what is wrong, by test."""
    files = sorted({test.partition("::")[0] for test in named})
    plugin = Rerun(named)
    there = [file for file in files if Path(file).is_file()]
    if there:
        # First what there is: the workers of the run itself would not go on from a name that is nowhere.
        pytest.main(["-q", "-q", "-p", "no:cacheprovider", "--collect-only", *there], plugins=[plugin])
    if plugin.found:
        spread = ["-p", "xdist", "-n", "auto", "--dist", "loadfile"]
        status = pytest.main(["-q", "-p", "no:cacheprovider", *spread, *sorted(plugin.found)], plugins=[plugin])
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            plugin.trouble = dict.fromkeys(plugin.found, f"did not run (pytest's exit code {int(status)})")
    return {**plugin.trouble, **dict.fromkeys(named - plugin.found, "is absent")}


def main() -> int:
    """Check the table, rerun its tests, say what is wrong; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.seed_coverage", allow_abbrev=False)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--root", type=Path, default=ROOT, help="where the tests' paths begin")
    parser.add_argument("--only-read", action="store_true", help="check the table and run nothing")
    options = parser.parse_args()
    rows, wrong = read_rows(options.table.read_text(encoding="utf-8"))
    rows_of: dict[str, list[int]] = {}
    for row in rows.values():
        for test in row.tests:
            rows_of.setdefault(test, []).append(row.number)
    if not options.only_read:
        os.chdir(options.root)
        for test, what in sorted(rerun(set(rows_of)).items()):
            wrong.append(f"row {', '.join(map(str, rows_of[test]))}: {test} {what}")
    for line in wrong:
        print(f"seed coverage: {line}")
    shown = [row for row in rows.values() if row.tests and not row.open]
    partly = [row for row in rows.values() if row.tests and row.open]
    print(
        f"seed coverage: {len(rows)} rows, {len(shown)} shown and {len(partly)} shown in part by {len(rows_of)} tests, "
        f"{len(rows) - len(shown) - len(partly)} {OPEN}; {len(wrong)} wrong"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
