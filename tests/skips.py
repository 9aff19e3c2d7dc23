"""The rule about skips: each is printed with its reason, and only those that allowed_skips.txt names are let through.

A line of that file is `NODE ID | REASON`; `*` in either stands for anything. The reason is the one that the test itself
gives. An expected failure (xfail) is never allowed: a promise is shown or it is "not yet".

In a run on several processes (pytest-xdist) the judge is the one that the others report to; what a worker thinks counts
for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


@dataclass(frozen=True)
class AllowedSkip:
    """One line of the list."""

    node: str
    reason: str

    def fits(self, node: str, reason: str) -> bool:
        """Whether this line names the test `node`, skipped for `reason`."""
        return _matches(node, self.node) and _matches(reason, self.reason)


def read_allowed(text: str) -> list[AllowedSkip]:
    """The lines of the list; ValueError names one that is not `NODE ID | REASON`."""
    allowed = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        node, bar, reason = (part.strip() for part in line.partition(" | "))
        if not (node and bar and reason):
            raise ValueError(f"allowed_skips.txt, line {number}: must be NODE ID | REASON")
        allowed.append(AllowedSkip(node, reason))
    return allowed


class SkipPolicy:
    """Watches one run of pytest, and turns it red for a skip that the list `allowed` does not name."""

    def __init__(self, allowed: str) -> None:
        self.allowed = read_allowed(allowed)
        self.skipped: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped or expected to fail."""
        if hasattr(report, "wasxfail"):
            self.refused.append((report.nodeid, f"expected to fail: {report.wasxfail}"))
        elif report.skipped:
            self._judge(report.nodeid, _reason(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole module that was skipped while it was read."""
        if report.skipped:
            self._judge(report.nodeid, _reason(report))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run that would have been green is not, if a skip was not allowed."""
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print every skip, and what is wrong with those that were not allowed."""
        for node, reason in self.skipped:
            terminalreporter.write_line(f"skipped, as allowed: {node}: {reason}")
        for node, reason in self.refused:
            terminalreporter.write_line(f"SKIPPED WITHOUT LEAVE: {node}: {reason}", red=True)
        if self.refused:
            terminalreporter.write_line("A skip needs its line in tests/allowed_skips.txt.", red=True)

    def _judge(self, node: str, reason: str) -> None:
        allowed = any(entry.fits(node, reason) for entry in self.allowed)
        (self.skipped if allowed else self.refused).append((node, reason))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _matches(text: str, pattern: str) -> bool:
    # Only `*` is special: node ids of parametrised tests are full of brackets.
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))
