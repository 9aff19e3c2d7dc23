"""The admin socket's place: private before it exists, its own afterwards (T5).

Rule: the folder is closed to others first, then the socket is bound, never wider than it ends up; a socket that a dead
daemon left is replaced, anything else of that name is not ours to touch.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

from common.errors import StartError
from common.paths import SocketAddress


def bind(path: Path, gid: int | None = None) -> socket.socket:
    """A listening socket at `path`, 0600, or 0660 for the group `gid`; a stale one is replaced. StartError if not.

    The caller holds the data folder's lock: a socket that is there belongs to a daemon that is gone.
    """
    _make_private(path.parent, gid)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        with SocketAddress(path) as address:
            before = os.umask(0o177)  # never wider, not even between bind and chmod
            try:
                listening.bind(address)
            finally:
                os.umask(before)
        if gid is not None:
            os.chown(path, -1, gid)
            path.chmod(0o660)
        listening.listen(128)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise StartError(f"cannot open the admin socket {path}: {error.strerror or error}") from error
    except BaseException:
        listening.close()
        raise
    return listening


def _make_private(folder: Path, gid: int | None) -> None:
    """The socket's folder: 0700, or 0750 for the group. A folder that is not ours must be private already."""
    mode = 0o700 if gid is None else 0o750
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid == os.geteuid():
            if gid is not None and status.st_gid != gid:
                os.chown(folder, -1, gid)
            if stat.S_IMODE(status.st_mode) != mode:
                folder.chmod(mode)
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartError(f"{folder} is not ours and others may write there; the socket needs a private folder")
    except OSError as error:
        raise StartError(f"cannot make {folder} private for the admin socket: {error.strerror or error}") from error


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise StartError(f"{path} is there and is no socket; move it away, or choose another data folder")
    path.unlink()


def group_id(name: str) -> int:
    """The number of the group of that name; StartError without one."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise StartError(f"admin.group = {name!r}: there is no such group on this system") from None
