"""docs/assurance.md is true: every letter is there, its tests and guards exist, and a guard nobody watches is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.assurance import mutating
from tests.assurance.every import ROWS
from tests.assurance.rows import PAGE, ROOT, Mutation, Row, page, wrong

PROMISED = {
    *(f"A{number}" for number in range(1, 11)),
    *(f"J{number}" for number in range(1, 7)),
    *(f"P{number}" for number in (1, 2, 3, 4, 5, 7, 8)),
    *(f"H{number}" for number in range(1, 11)),
    *(f"R{number}" for number in range(1, 5)),
    *(f"T{number}" for number in range(3, 7)),
}


def test_every_letter_has_its_row() -> None:
    """A promise without a row is a promise that nobody shows."""
    assert PROMISED - {row.letter for row in ROWS} == set()


def test_rows_name_what_exists() -> None:
    """Tests that are there, guards that stand exactly once."""
    assert list(wrong(ROWS)) == []


def test_the_page_is_what_the_rows_say() -> None:
    """`python -m tests.assurance` was run after the last edit."""
    assert PAGE.read_text(encoding="utf-8") == page(ROWS)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A little checkout with two guards, of which its test watches one."""
    root = tmp_path / "checkout"
    for name in mutating.COPIED:
        (root / name).mkdir(parents=True)
    shutil.copy2(ROOT / "pyproject.toml", root / "pyproject.toml")
    (root / "daemon" / "__init__.py").touch()
    (root / "daemon" / "door.py").write_text("def opens(age: int) -> bool:\n    return age >= 18 and age < 200\n")
    (root / "tests" / "test_door.py").write_text(
        "from daemon.door import opens\n\ndef test_children_stay_out():\n    assert opens(20) and not opens(17)\n"
    )
    monkeypatch.setattr(mutating, "ROOT", root)
    return root


def _row(*mutations: Mutation) -> Row:
    return Row("A1", "children stay out", ("tests/test_door.py::test_children_stay_out",), mutations, "1 of 1")


def test_a_guard_that_is_watched_is_noticed_and_another_is_missed(project: Path) -> None:
    """Red is a test that failed without the guard; green without it is a miss."""
    watched = Mutation("daemon/door.py", "age >= 18", "True")
    unwatched = Mutation("daemon/door.py", " and age < 200", "")
    row = _row(watched, unwatched)
    assert mutating.unmutated([row])[0]
    caught = {verdict.mutation: verdict.caught_by for verdict in mutating.try_all([row], jobs=2)}
    assert caught == {watched: "tests/test_door.py::test_children_stay_out", unwatched: ""}
    assert "age >= 18" in (project / "daemon" / "door.py").read_text()


def test_a_mutation_that_only_breaks_the_import_shows_nothing(project: Path) -> None:
    """A test file that cannot be collected is not a test that failed."""
    row = _row(Mutation("daemon/door.py", "def opens", "def closes"))
    assert [verdict.caught_by for verdict in mutating.try_all([row], jobs=1)] == [""]
