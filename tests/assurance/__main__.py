"""python -m tests.assurance                      write docs/assurance.md from the rows
python -m tests.assurance check                complain about rows or a page that are not right
python -m tests.assurance mutate [LETTER…]     take each guard away in a scratch copy; red where no test notices
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.assurance.every import ROWS
from tests.assurance.mutating import try_all, unmutated
from tests.assurance.rows import PAGE, Row, order, page, wrong


def main() -> int:
    """The exit code: 0 right, 1 not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.assurance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", nargs="?", choices=("write", "check", "mutate"), default="write")
    parser.add_argument("letters", nargs="*", metavar="LETTER", help="only these promises: A5, or J for the group")
    parser.add_argument("--jobs", type=int, default=2, help="scratch copies that work side by side")
    options = parser.parse_args()
    complaints = list(wrong(ROWS))
    for complaint in complaints:
        print(f"assurance: {complaint}")
    if complaints:
        return 1
    match options.what:
        case "write":
            PAGE.write_text(page(ROWS), encoding="utf-8")
            return 0
        case "check":
            if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page(ROWS):
                print("assurance: docs/assurance.md is not what the rows say; python -m tests.assurance writes it")
                return 1
            return 0
        case _:
            return mutate([row for row in ROWS if _wanted(row, options.letters)], options.jobs)


def mutate(rows: Sequence[Row], jobs: int) -> int:
    """Try every mutation of the rows and print a line each."""
    since = time.monotonic()
    green, said = unmutated(rows)
    if not green:
        print(said)
        print("assurance: with every guard in place the tests are not green; nothing was tried")
        return 1
    total = 0
    missed: list[str] = []
    for verdict in try_all(sorted(rows, key=order), jobs=jobs):
        total += 1
        where = f"{verdict.row.letter:4} {verdict.mutation.path}: {_short(verdict.mutation.old)}"
        if verdict.caught_by:
            print(f"caught  {where}  by {verdict.caught_by} in {verdict.seconds:.1f} s", flush=True)
        else:
            missed.append(f"MISSED  {where}  after {verdict.seconds:.1f} s")
            print(f"{missed[-1]}\n{verdict.said}", flush=True)
    if missed:  # once more at the end, where a log that was cut still has them
        print("\n".join(missed))
    print(
        f"{total} guards taken away, {total - len(missed)} noticed, {len(missed)} not; {time.monotonic() - since:.0f} s"
    )
    return 1 if missed or not total else 0


def _wanted(row: Row, letters: Sequence[str]) -> bool:
    return not letters or any(row.letter == letter or row.letter[0] == letter for letter in letters)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:69]}…"


if __name__ == "__main__":
    sys.exit(main())
