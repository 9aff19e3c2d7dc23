"""The two watchmen of the test suite itself: the seed coverage table, and the rule about skips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.engine import ROOT
from tests.seed_coverage import ROWS, TABLE, read_rows
from tests.skips import read_allowed

TESTS = """
import pytest
def test_passes(): pass
@pytest.mark.parametrize("n", [1, 2])
def test_each(n): assert n < {bound}
def test_fails(): assert False
def test_skips(): pytest.skip("no reason")
@pytest.mark.xfail
def test_expected(): assert False
@pytest.mark.xfail
def test_unexpected(): pass
"""

PLAIN = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the little project's tests need no plugin


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A little project with tests of every outcome."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS.format(bound=3))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def coverage(project: Path, cells: dict[int, str]) -> subprocess.CompletedProcess[str]:
    """The watchman's verdict on a table that says `cells`, and "not yet" in all other rows."""
    rows = (f"| {number} | a promise | {cells.get(number, 'not yet')} |" for number in ROWS)
    table = project / "table.md"
    table.write_text(
        "| # | promise | shown by |\n|---|---|---|\n" + "\n".join(row for row in rows if "GONE" not in row)
    )
    command = [sys.executable, "-m", "tests.seed_coverage", "--table", table, "--root", project]
    return subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True)


def test_tests_that_pass_are_green(project: Path) -> None:
    """Named tests that are there and pass; one named without parameters stands for each."""
    run = coverage(project, {1: "`tests/test_it.py::test_passes`, `tests/test_it.py::test_each`; streaming not yet"})
    assert run.returncode == 0, run.stdout
    assert "86 rows, 0 shown and 1 shown in part by 2 tests, 85 not yet; 0 wrong" in run.stdout
    assert "3 passed" in run.stdout


def test_a_test_that_does_not_show_it_is_red(project: Path) -> None:
    """A named test that is absent, fails, is skipped or expected to fail makes the check red, naming row and test."""
    troubles = {
        2: ("tests/test_it.py::test_fails", "failed"),
        3: ("tests/test_it.py::test_skips", "was skipped"),
        4: ("tests/test_it.py::test_expected", "is expected to fail"),
        5: ("tests/test_it.py::test_unexpected", "is expected to fail"),
        6: ("tests/test_it.py::test_gone", "is absent"),
        7: ("tests/test_gone.py::test_it", "is absent"),
    }
    named = {1: "`tests/test_it.py::test_passes`", **{row: f"`{test}`" for row, (test, _) in troubles.items()}}
    run = coverage(project, named)
    assert run.returncode == 1
    told = [line for line in run.stdout.splitlines() if line.startswith("seed coverage: row ")]
    assert sorted(told) == [f"seed coverage: row {row}: {test} {what}" for row, (test, what) in troubles.items()]


def test_one_failing_parameter_is_red(project: Path) -> None:
    """A test named as a whole is only green when each of its cases is."""
    (project / "tests" / "test_it.py").write_text(TESTS.format(bound=2))
    assert "row 2: tests/test_it.py::test_each failed" in coverage(project, {2: "`tests/test_it.py::test_each`"}).stdout


def test_a_row_that_is_missing_or_says_nothing_is_red(project: Path) -> None:
    """All 86 rows are there, and each says something."""
    run = coverage(project, {3: "GONE", 4: "surely", 5: "`tests/test_it.py`"})
    assert run.returncode == 1
    assert "row 3 is missing" in run.stdout
    assert "row 4 names no test" in run.stdout
    assert "row 5: tests/test_it.py is no node id" in run.stdout


def test_our_own_table_is_whole() -> None:
    """docs/seed-coverage.md has every row once; that its tests pass, `.ci/run` shows by running them."""
    _, wrong = read_rows(TABLE.read_text(encoding="utf-8"))
    assert wrong == []


# The rows that the walking gate promises in whole or in part: "not yet" alone is no answer to them any more.
WALKING_GATE = (
    *range(3, 9), 10, 11, *range(13, 16), *range(29, 34), 35, *range(39, 44), 46, 47, *range(49, 58), 59, 60, 65, 69,
    72, *range(74, 79), 82, 83, 86,
)  # fmt: skip


def unshown(text: str) -> list[int]:
    """The rows of the walking gate for which a table names no test."""
    rows, _ = read_rows(text)
    return [number for number in WALKING_GATE if number not in rows or not rows[number].tests]


def test_every_promise_of_the_walking_gate_names_a_test() -> None:
    """A promise that was kept once cannot become "not yet" again, nor leave the table."""
    text = TABLE.read_text(encoding="utf-8")
    assert unshown(text) == []
    forgotten = [line for line in text.splitlines() if not line.startswith("| 86 |")]
    taken_back = ["| 43 | a promise | not yet |" if line.startswith("| 43 |") else line for line in forgotten]
    assert unshown("\n".join(taken_back)) == [43, 86]


@pytest.fixture(params=[0, 2], ids=["one-process", "two-workers"])
def processes(request: pytest.FixtureRequest) -> int:
    """The rule holds where tests report to their own process, and where workers report to another."""
    return int(request.param)


def skips(project: Path, processes: int, allowed: str, *chosen: str) -> subprocess.CompletedProcess[str]:
    """A run of the little project's tests under the rule about skips, with `allowed` as the list."""
    (project / "allowed.txt").write_text(allowed)
    (project / "conftest.py").write_text(
        "from pathlib import Path\nfrom tests.skips import SkipPolicy\n"
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(SkipPolicy(Path(__file__).with_name('allowed.txt').read_text()))\n"
    )
    # The little project's own folder `tests` must not hide ours.
    (project / "tests").rename(project / "checks")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", project]
    command += ["-p", "xdist", "-n", str(processes)]
    command += ["-c", project / "pytest.ini", "-k", " or ".join(chosen), project / "checks"]
    return subprocess.run(command, cwd=ROOT, env=PLAIN, capture_output=True, text=True)


def test_a_skip_that_nobody_allowed_is_red(project: Path, processes: int) -> None:
    """A run that would be green is red, and says which test skipped and why."""
    run = skips(project, processes, "# nothing\n", "passes", "skips")
    assert run.returncode == 1
    assert "SKIPPED WITHOUT LEAVE: checks/test_it.py::test_skips: no reason" in run.stdout
    assert "1 passed, 1 skipped" in run.stdout


def test_a_module_that_skips_without_leave_is_red(project: Path, processes: int) -> None:
    """While it is read, no test of it has a name yet: the module itself needs the leave."""
    module = "import pytest\npytest.skip('no such machine', allow_module_level=True)\n"
    (project / "tests" / "test_whole.py").write_text(module)
    run = skips(project, processes, "# nothing\n", "passes")
    assert run.returncode == 1
    assert run.stdout.count("SKIPPED WITHOUT LEAVE: checks/test_whole.py: no such machine") == 1


def test_an_allowed_skip_is_printed_and_green(project: Path, processes: int) -> None:
    """A skip with its line lets the run be green, and is printed with its reason."""
    run = skips(project, processes, "checks/test_it.py::test_s* | no reason\n", "passes", "skips")
    assert run.returncode == 0, run.stdout
    assert "skipped, as allowed: checks/test_it.py::test_skips: no reason" in run.stdout


def test_a_skip_for_another_reason_is_red(project: Path, processes: int) -> None:
    """Leave is given for a reason; the same test may not skip for any other."""
    assert skips(project, processes, "checks/test_it.py::test_skips | no GPU\n", "passes", "skips").returncode == 1


@pytest.mark.parametrize("test", ["test_expected", "test_unexpected"])
def test_an_expected_failure_is_red(project: Path, processes: int, test: str) -> None:
    """A promise is shown or is "not yet": xfail is neither, and cannot be allowed."""
    assert skips(project, processes, "* | *\n", "passes", test).returncode == 1


def test_a_line_that_is_no_line_is_named() -> None:
    """A mistake in the list of allowed skips is an error, not a line without effect."""
    with pytest.raises(ValueError, match="line 2"):
        read_allowed("# comment\ntests/test_it.py::test_skips\n")
