"""What a tree of processes has used, as /proc tells it."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """`pid` and its descendants."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [pid, *(each for child in children for each in tree(child))]


def cpu_seconds(pid: int) -> float:
    """CPU time of the tree, user and system; that of its ended children in steps of a clock tick (10 ms)."""
    seconds = 0.0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            # In nanoseconds where the kernel tells (our threads live as long as their process), else in ticks.
            running = [int(file.read_text().split()[0]) for file in Path(f"/proc/{each}/task").glob("*/schedstat")]
        except (FileNotFoundError, ProcessLookupError):
            continue
        own = sum(running) / 1e9 if any(running) else sum(int(field) for field in fields[11:13]) / _TICKS
        seconds += own + sum(int(field) for field in fields[13:15]) / _TICKS
    return seconds


def memory(pid: int) -> float:
    """Resident memory of the tree, in MiB."""
    kib = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kib / 1024


def pin(core: int | None) -> None:
    """Keep this process on one core; None: wherever it may run."""
    if core is not None:
        os.sched_setaffinity(0, {core})
