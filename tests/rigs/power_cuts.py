"""The disk after a power cut, from a recording (`tests/rigs/recording_vfs.py`) and a moment in it.

What a completed sync of a file covered is there. Of what was written to it since, a disk may have kept anything: all,
nothing, some writes, some sectors of a write, in any order; `Cut` throws dice for that. Sectors are whole (512 bytes,
or 4 KiB pages), which is what SQLite asks of a disk (https://www.sqlite.org/psow.html).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.rigs.recording_vfs import Log

SHARED_MEMORY = "-shm"  # an index in memory: SQLite makes it anew


@dataclass
class _Disk:
    """One file: what is durable, and what may be."""

    durable: bytearray = field(default_factory=bytearray)
    exists: bool = False
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, bytes) or (new size, None)


@dataclass
class Cut:
    """The files after the power failed behind the first `moment` entries of the log."""

    moment: int
    files: dict[str, bytes]
    opened: set[str]  # what had been acknowledged
    closed: dict[str, str]

    def write_to(self, folder: Path) -> None:
        """Put the files there."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


def cut(log: Log, moment: int, dice: random.Random, before: Mapping[str, bytes] | None = None) -> Cut:
    """The power fails behind the first `moment` entries. `before`: the files as they lay there when it began."""
    disks = {name: _Disk(bytearray(data), exists=True) for name, data in (before or {}).items()}
    deleted: dict[str, _Disk] = {}  # and the folder not synced since: they may come back
    opened: set[str] = set()
    closed: dict[str, str] = {}
    for what, name, *more in log[:moment]:
        if what not in ("opened", "closed"):
            disk = disks.setdefault(name, _Disk())
        match what:
            case "write":
                disk.pending.append((more[0], more[1]))
            case "truncate":
                disk.pending.append((more[0], None))
            case "sync":
                _carry_out(disk.durable, disk.pending)
                disk.pending.clear()
                if not disk.exists:  # SQLite syncs the folder with the first sync of a new log
                    disk.exists = True
                    deleted.clear()
            case "delete":
                deleted[name] = disks.pop(name)
            case "opened":
                opened.add(name)
            case "closed":
                closed[name] = more[0]
    files = {}
    for name, disk in (disks | {name: disk for name, disk in deleted.items() if dice.random() < 0.5}).items():
        if name.endswith(SHARED_MEMORY) or not (disk.exists or dice.random() < 0.5):
            continue
        _carry_out(disk.durable, _kept(disk.pending, dice))
        files[name] = bytes(disk.durable)
    return Cut(moment, files, opened, closed)


def _kept(pending: list[tuple[int, bytes | None]], dice: random.Random) -> list[tuple[int, bytes | None]]:
    """What the disk kept of the writes that no sync covered."""
    match dice.choice(["nothing", "all", "beginning", "some", "sectors"]):
        case "nothing":
            return []
        case "all":
            return pending
        case "beginning":  # in order, the last one torn
            kept = pending[: dice.randrange(len(pending) + 1)]
            if kept and kept[-1][1] is not None:
                offset, data = kept[-1]
                kept[-1] = (offset, data[: _end_of_sector(offset, dice.randrange(len(data) + 1), dice)])
            return kept
        case "some":
            return [each for each in pending if dice.random() < 0.5]
    return [sector for each in pending for sector in _sectors(each) if dice.random() < 0.7]


def _sectors(write: tuple[int, bytes | None], size: int = 512) -> list[tuple[int, bytes | None]]:
    offset, data = write
    if data is None:
        return [write]
    found: list[tuple[int, bytes | None]] = []
    at = 0
    while at < len(data):
        end = min(len(data), at + size - (offset + at) % size)
        found.append((offset + at, data[at:end]))
        at = end
    return found


def _end_of_sector(offset: int, length: int, dice: random.Random) -> int:
    size = dice.choice([512, 4096])
    return max(0, (offset + length) // size * size - offset)


def _carry_out(content: bytearray, writes: list[tuple[int, bytes | None]]) -> None:
    for offset, data in writes:
        if data is None:
            del content[offset:]
            continue
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
