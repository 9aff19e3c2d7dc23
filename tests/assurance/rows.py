"""The shape of a row of docs/assurance.md, and how the page is written from the rows.

Each promise of the house has a letter and a number (A audit, J tokens, P passwords, H HTTP, R limits, T terminal and
files). A row names the tests that show it and, for each guard, a mutation: the edit that takes the guard away. A test
that stays green without the guard shows nothing; `python -m tests.assurance mutate` tries each of them.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "assurance.md"

PREFACE = """# What is promised, what shows it, and what turns it red

Every promise about safety and reliability has a letter. Its row names the tests that show it (pytest's node ids; those
marked long are not part of `./run test`), how many of its guards were taken away on trial, and what was counted or
measured. `python -m tests.assurance mutate [LETTER…]` applies each mutation in a scratch copy, runs the tests named for
it, and is red for one that nothing caught; `.ci/run` calls it. The mutations themselves stand beside the rows in
`tests/assurance/`, from which `python -m tests.assurance` writes this page.
"""
GROUPS = {
    "A": "Audit",
    "J": "Tokens and keys",
    "P": "Passwords and secrets",
    "H": "HTTP",
    "R": "Limits",
    "T": "Terminal, exports, admin socket",
}


@dataclass(frozen=True)
class Mutation:
    """The edit that takes a guard away: `old` stands exactly once in the file `path`, `new` takes its place.

    `tests` narrows the row's to those that are to notice it.
    """

    path: str
    old: str
    new: str
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One promise. `tests` are node ids (`tests/test_x.py::test_y`, with or without parameters), `figure` a fact."""

    letter: str
    promise: str
    tests: tuple[str, ...]
    mutations: tuple[Mutation, ...]
    figure: str

    def tests_of(self, mutation: Mutation) -> tuple[str, ...]:
        """The tests that are to turn red."""
        return mutation.tests or self.tests


def order(row: Row) -> tuple[int, int]:
    """Groups as the page has them, then by number."""
    return list(GROUPS).index(row.letter[0]), int(row.letter[1:])


def page(rows: Iterable[Row]) -> str:
    """docs/assurance.md."""
    lines, group = [PREFACE], ""
    for row in sorted(rows, key=order):
        if row.letter[0] != group:
            group = row.letter[0]
            lines.append(f"\n## {GROUPS[group]}\n\n| | promise | shown by | guards | figure |\n|---|---|---|---|---|\n")
        tests = "<br>".join(f"`{_cell(test)}`" for test in row.tests)
        where = ", ".join(f"`{path}`" for path in dict.fromkeys(mutation.path for mutation in row.mutations))
        guards = f"{len(row.mutations)} in {where}"
        lines.append(f"| {row.letter} | {_cell(row.promise)} | {tests} | {guards} | {_cell(row.figure)} |\n")
    return "".join(lines)


def wrong(rows: Iterable[Row]) -> Iterator[str]:
    """What is wrong with the rows themselves, without running anything."""
    seen: set[str] = set()
    for row in rows:
        if row.letter in seen:
            yield f"{row.letter} has two rows"
        seen.add(row.letter)
        if not row.tests or not row.mutations or not row.figure:
            yield f"{row.letter} lacks a test, a mutation or a figure"
        for test in {*row.tests, *(test for mutation in row.mutations for test in mutation.tests)}:
            path, _, name = test.partition("::")
            if name.partition("[")[0] not in functions(path):
                yield f"{row.letter}: {test} is absent"
        for mutation in row.mutations:
            times = source(mutation.path).count(mutation.old)
            if times != 1:
                yield f"{row.letter}: {mutation.old!r} stands {times} times in {mutation.path}, not once"


@functools.cache
def source(path: str) -> str:
    """A file of the checkout; empty where it is absent."""
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.is_file() else ""


@functools.cache
def functions(path: str) -> frozenset[str]:
    """The names of a test file's functions; those of classes as `Class::name`, Hypothesis's machines by their name."""
    names: set[str] = set()
    for node in ast.parse(source(path)).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.ClassDef():
                names |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
            case ast.Assign(targets=[ast.Name(id=name)]):  # TestX = Machine.TestCase
                names |= {name, f"{name}::runTest"}
    return frozenset(names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
