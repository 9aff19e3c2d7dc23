"""A file that is either whole or not there (T4): an export on the caller's disk, with the caller's rights.

Rule: what is reported of it was read back from the disk after it got its name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def check_place(path: Path) -> None:
    """OSError where `write_whole` could not put a file there: before much is asked for that has no place."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(folder)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


def write_whole(path: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
    """Write `pieces` to `path` (0600); its (SHA-256, size) as read back. OSError where that fails.

    A temporary file in the same folder, never through a link, is synced and then renamed over `path`; where something
    fails before, `path` is untouched and the temporary file gone.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = f".{path.name[:200]}.{secrets.token_hex(8)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            try:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
        os.fsync(folder)
        return _read_back(path.name, folder)
    finally:
        os.close(folder)


def _read_back(name: str, folder: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        while piece := file.read(1024 * 1024):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
