"""The child process that reads the journal: `python -m daemon.audit.reader search|export|verify|write|check|plan`.

Rule: it opens the database for reading only, takes its question as JSON on standard input and gives its answer on
standard output: NDJSON rows, an export's bytes, one report, or (the last three, of jobs) the lines of
`daemon/jobs/lines.py`. It is started by `daemon/audit/child.py`, gives the daemon the way, and ends when the daemon
does.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from common.protocol import AuditSearch
from daemon.store.opening import connect_to_read

POLITENESS = 5  # nice: relayed streams go first
_OF_JOBS = frozenset({"write", "check", "plan"})


class Orphaned(Exception):
    """The daemon is gone."""


def main() -> int:
    """Answer one question."""
    verb = sys.argv[1]
    arguments: dict[str, Any] = msgspec.json.decode(sys.stdin.buffer.read())
    os.nice(POLITENESS)
    out = sys.stdout.buffer
    try:
        with closing(connect_to_read(Path(arguments["database"]))) as conn:
            if verb in _OF_JOBS:
                _work(verb, arguments, conn)
                return 0
            for piece in _answer(verb, arguments, conn):
                out.write(piece)
                out.flush()
    except (sqlite3.Error, OSError, Orphaned) as error:
        print(error or type(error).__name__, file=sys.stderr)
        # Standard output may be the pipe that broke: nothing is left to be flushed at exit.
        os._exit(1)
    return 0


def _work(verb: str, arguments: dict[str, Any], conn: sqlite3.Connection) -> None:
    """A job's half in this process."""
    from daemon.jobs.lines import Progress, Telling, Verified

    def write(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    tell = Telling(write)
    look = partial(_look_after_parent, arguments["parent"])
    match verb:
        case "write":
            from daemon.jobs.writing import Order
            from daemon.jobs.writing import write as write_file

            write_file(conn, msgspec.convert(arguments["order"], Order), look, tell)
        case "plan":
            from daemon.jobs.planning import plan

            plan(conn, look, tell)
        case _:
            from daemon.audit.sealing import TrustedKeys
            from daemon.audit.verify import PAGE, Expectation, verify
            from daemon.store.journal import head
            from daemon.store.verifying import last_part

            rows, seen = head(conn).seq + last_part(conn), 0

            def each_page() -> None:
                nonlocal seen
                look()
                seen = min(seen + PAGE, rows)
                tell(Progress("verifying", seen, rows, "records"))

            expected = Expectation.read(arguments["expect"]) if arguments["expect"] else None
            tell(Verified(verify(conn, TrustedKeys(Path(arguments["keys"])), expected, each_page=each_page)))


def _look_after_parent(parent: int) -> None:
    # Whoever writes little would not notice for long that nobody reads any more.
    if os.getppid() != parent:
        raise Orphaned("the daemon ended")


def _answer(verb: str, arguments: dict[str, Any], conn: sqlite3.Connection) -> Iterator[bytes]:
    look_after_parent = partial(_look_after_parent, arguments["parent"])
    # Each verb imports only what it needs: a child starts in the time that its imports take.
    match verb:
        case "try":
            from daemon.traffic.trial import replay

            yield msgspec.json.encode(replay(conn, arguments["question"], each_page=look_after_parent))
        case "search":
            from daemon.audit.search import scan

            question = msgspec.convert(arguments["question"], AuditSearch)
            for row in scan(conn, question, arguments["now_us"], each_page=look_after_parent):
                yield msgspec.json.encode(row) + b"\n"
        case "export":
            from daemon.audit.export import Span, write_export

            yield from write_export(conn, arguments["format"], msgspec.convert(arguments["span"], Span))
        case "verify":
            from daemon.audit.sealing import TrustedKeys
            from daemon.audit.verify import Expectation, verify

            keys = TrustedKeys(Path(arguments["keys"]))
            expected = Expectation.read(arguments["expect"]) if arguments["expect"] else None
            yield msgspec.json.encode(verify(conn, keys, expected, each_page=look_after_parent))
        case _:
            raise ValueError(f"no such verb: {verb}")


if __name__ == "__main__":
    sys.exit(main())
