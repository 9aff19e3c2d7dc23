"""`python -m tests.bench.profiled …`: becomes the daemon, with a profiler on each of its threads.

At the end the profiles lie in the folder that BENCH_PROFILE names, a file a thread (`pstats`). Rule: CPU time of the
thread alone, so that neither waiting nor the other threads are charged.
"""

from __future__ import annotations

import cProfile
import importlib
import os
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = "BENCH_PROFILE"


def main() -> None:
    """Profile this thread and every one that is started, then be the daemon."""
    folder = Path(os.environ[FOLDER])
    run = threading.Thread.run

    def profiled_run(self: threading.Thread) -> None:
        _profiled(folder / str(threading.get_ident()), lambda: run(self))

    threading.Thread.run = profiled_run  # type: ignore[method-assign]
    importlib.import_module("daemon.app")  # the start is nobody's request
    sys.argv[0] = "daemon"
    _profiled(folder / "loop", lambda: runpy.run_module("daemon", run_name="__main__", alter_sys=True))


def _profiled(file: Path, work: Any) -> None:
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(work)
    finally:
        profile.dump_stats(file)


if __name__ == "__main__":
    main()
