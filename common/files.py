"""A file that is either whole or not there (T4): exports, on the caller's disk or in the daemon's folder.

Rule: what is reported of it was read back from the disk after it got its name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class Differs(OSError):
    """What the disk gives back is not what was written to it."""


def check_place(path: Path) -> None:
    """OSError where `write_whole` could not put a file there: before much is asked for that has no place."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(folder)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


def temporary_name(path: Path) -> str:
    """A name in the folder of `path` that nobody has, for what is not whole yet."""
    return f".{path.name[:200]}.{secrets.token_hex(8)}"


def write_whole(path: Path, pieces: Iterable[bytes], *, temporary: str | None = None) -> tuple[str, int]:
    """Write `pieces` to `path` (0600); its (SHA-256, size) as read back. OSError where that fails, `Differs` where the
    disk gives back something else: then there is no file.

    A temporary file in the same folder (`temporary` names it), never through a link, is synced and then renamed over
    `path`; where something fails before, `path` is untouched and the temporary file gone.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = temporary or temporary_name(path)
    written = hashlib.sha256()
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            try:
                for piece in pieces:
                    file.write(piece)
                    written.update(piece)
                file.flush()
                os.fsync(file.fileno())
                with suppress(OSError):  # so that it is the disk that answers, where it can
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
        os.fsync(folder)
        digest, size = _read_back(path.name, folder)
        if digest != written.hexdigest():
            os.unlink(path.name, dir_fd=folder)
            raise Differs(errno.EIO, "what was read back is not what was written", str(path))
        return digest, size
    finally:
        os.close(folder)


def _read_back(name: str, folder: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        while piece := file.read(1024 * 1024):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
