"""One daemon per data folder.

Rule: whoever opens the database holds DATA/gatelodge.lock first, and as long as it lives; the kernel lets go of it when
the process ends, however it ends, so a left-over file never stands in the way. What stands in the file is for people.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from common import paths
from common.errors import StartError


class DataLock:
    """Holds the data folder for this process; StartError names the process that holds it already."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._file: int | None = None

    def __enter__(self) -> DataLock:
        path = paths.lock_file(self._data)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            file = os.open(path, flags, 0o600)
        except OSError as error:
            raise StartError(f"cannot open {path}: {error.strerror}; the data folder must be ours to write") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            os.close(file)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise StartError(
                f"another gatelodge daemon, {who}, already runs on the data folder {self._data}; "
                f"stop it first, or give this one a folder of its own (--data DIR)"
            ) from None
        except OSError as error:
            os.close(file)
            raise StartError(
                f"cannot lock {path}: {error.strerror}; the data folder must be on a local file system"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two different files of that name."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def holder(data: Path) -> int | None:
    """The process that holds the data folder now, or None where nobody does, or nobody may look."""
    try:
        file = os.open(paths.lock_file(data), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(file, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(file)
    return None
