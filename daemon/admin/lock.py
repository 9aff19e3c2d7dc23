"""One daemon per data folder.

Rule: whoever opens the database holds DATA/gatelodge.lock first, and as long as it lives; the kernel lets go of it when
the process ends, however it ends, so a left-over file never stands in the way. What stands in the file is for people.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import paths
from common.errors import StartError


@contextmanager
def hold_lock(data: Path) -> Iterator[None]:
    """Hold the data folder for this process; StartError names the process that holds it already."""
    path = paths.lock_file(data)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StartError(f"cannot open {path}: {error.strerror}; the data folder must be ours to write") from error
    try:
        _take(file, path)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
        # The file stays: removing it would let two processes lock two different files of that name.
        os.ftruncate(file, 0)
    finally:
        os.close(file)


def _take(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _written(file)
        raise StartError(
            f"another gatelodge daemon, process {pid or 'unknown'}, already runs on the data folder {path.parent}; "
            "stop it first, or give this one a folder of its own (--data DIR)"
        ) from None
    except OSError as error:
        raise StartError(
            f"cannot lock {path}: {error.strerror}; the data folder must be on a local file system"
        ) from error


def lock_holder(data: Path) -> int | None:
    """The process that holds the data folder now; None where nobody does, or where we may not look."""
    try:
        file = os.open(paths.lock_file(data), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _written(file)
    finally:
        os.close(file)
    return None


def _written(file: int) -> int | None:
    text = os.pread(file, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None
