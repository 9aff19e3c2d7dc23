"""The child process that reads the journal: `python -m daemon.audit.reader search|export|verify`.

Rule: it opens the database for reading only, takes its question as JSON on standard input and gives its answer on
standard output: NDJSON rows, an export's bytes, or one report. It is started by `daemon/audit/child.py`, gives the
daemon the way, and ends when the daemon does.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from common.protocol import AuditSearch
from daemon.store.opening import connect_to_read

POLITENESS = 5  # nice: relayed streams go first


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
            for piece in _answer(verb, arguments, conn):
                out.write(piece)
                out.flush()
    except (sqlite3.Error, OSError, Orphaned) as error:
        print(error or type(error).__name__, file=sys.stderr)
        # Standard output may be the pipe that broke: nothing is left to be flushed at exit.
        os._exit(1)
    return 0


def _answer(verb: str, arguments: dict[str, Any], conn: sqlite3.Connection) -> Iterator[bytes]:
    def look_after_parent() -> None:
        # Whoever writes little would not notice for long that nobody reads any more.
        if os.getppid() != arguments["parent"]:
            raise Orphaned("the daemon ended")

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
