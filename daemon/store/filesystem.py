"""What lies under the database: which file system, and how much room is left on it.

Rule: SQLite's WAL needs shared memory and locks that every process sees alike; a network file system gives neither
reliably (https://www.sqlite.org/wal.html, "Disadvantages"), so the daemon does not start on one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mountinfo")

# As /proc/self/mountinfo names them. A FUSE file system is `fuse.WHAT`.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb3",
        "smbfs",
    }
)
_NETWORK_FUSE = ("ceph", "davfs", "gcsfuse", "glusterfs", "goofys", "juicefs", "rclone", "s3fs", "smbnetfs", "sshfs")


class Mount(NamedTuple):
    """One line of mountinfo: device number as `major:minor`, where it is mounted, the file system's name."""

    device: str
    point: str
    kind: str


def file_system_of(path: Path, mounts: Path = MOUNTS) -> str:
    """The name of the file system that `path` (which exists) lies on, as the kernel calls it; "" where it cannot tell.

    `mounts` is the table to read, in the form of /proc/self/mountinfo (proc(5)).
    """
    try:
        table = list(_mounts(mounts.read_text(encoding="utf-8", errors="surrogateescape")))
    except OSError:
        return ""  # no /proc: macOS, where a home folder on a network is not the daemon's usual place
    number = path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    same_device = [mount for mount in table if mount.device == device]
    # btrfs gives each subvolume a device number of its own that mountinfo does not know: go by the path then.
    resolved = path.resolve()
    above = [mount for mount in same_device or table if resolved.is_relative_to(mount.point)]
    # The latest of several mounts on one point hides the others.
    best = max(enumerate(above or same_device), key=lambda item: (len(item[1].point), item[0]), default=None)
    return best[1].kind if best is not None else ""


def is_network(kind: str) -> bool:
    """Whether a file system of that name is shared over a network."""
    if kind in NETWORK_FILE_SYSTEMS:
        return True
    family, _, what = kind.partition(".")
    return family in ("fuse", "fuseblk") and what.startswith(_NETWORK_FUSE)


def sync_folder(folder: Path) -> None:
    """Make durable that what was made or renamed in `folder` is there (fsync(2): a file's own sync does not)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder that may be passed through and not read: nothing there was made by us
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Bytes that the daemon may still write on the file system of `path` (root's reserve not counted)."""
    return shutil.disk_usage(path).free


def _mounts(text: str) -> Iterator[Mount]:
    # 36 35 98:0 /root /mount\040point rw,noatime master:1 - ext4 /dev/sda1 rw
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 6 and "-" in fields[6:]:
            kind = fields[fields.index("-", 6) + 1]
            yield Mount(fields[2], _unescaped(fields[4]), kind)


def _unescaped(point: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point
