"""T4: a file is made under a name that nobody has, never through a link, for its owner alone, in its own folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.files import write_whole


@pytest.mark.parametrize("there", ["file", "link", "dangling link"])
def test_what_has_the_temporary_name_already_is_not_written_to(tmp_path: Path, there: str) -> None:
    """O_CREAT | O_EXCL | O_NOFOLLOW: whoever guesses the name and is first gains nothing, and loses nothing."""
    victim, name = tmp_path / "victim", tmp_path / ".export.csv.guessed"
    victim.write_bytes(b"precious")
    match there:
        case "file":
            name.write_bytes(b"somebody's")
        case "link":
            name.symlink_to(victim)
        case _:
            name.symlink_to(tmp_path / "made-by-us")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "export.csv", [b"rows"], temporary=name.name)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "made-by-us").exists()
    assert not (tmp_path / "export.csv").exists()
    assert name.is_symlink() or name.read_bytes() == b"somebody's"


def test_a_wide_umask_does_not_widen_it_and_no_moment_is_wider(tmp_path: Path) -> None:
    """0600 from the first byte on: looked at while it is written, under its temporary name."""
    modes: set[int] = set()

    def pieces() -> list[bytes]:
        modes.update(each.stat().st_mode & 0o777 for each in tmp_path.iterdir())
        return [b"rows"]

    class Looking:
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(pieces())

    before = os.umask(0)
    try:
        write_whole(tmp_path / "export.csv", Looking())
    finally:
        os.umask(before)
    assert modes == {0o600}
    assert (tmp_path / "export.csv").stat().st_mode & 0o777 == 0o600


def test_the_temporary_file_is_in_the_same_folder(tmp_path: Path) -> None:
    """A rename within a file system replaces in one step; from elsewhere it would be a copy."""
    seen: list[Path] = []

    class Looking:
        def __iter__(self):  # type: ignore[no-untyped-def]
            seen.extend(tmp_path.iterdir())
            return iter([b"rows"])

    write_whole(tmp_path / "export.csv", Looking())
    (temporary,) = seen
    assert temporary.name.startswith(".export.csv.")
    assert [each.name for each in tmp_path.iterdir()] == ["export.csv"]
