"""Where socket, lock, database and configuration live, and how a socket in a deep folder is reached.

Rule: daemon and console find each other through this page alone; neither builds such a path elsewhere.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

SOCKET_NAME = "gatelodge.sock"
SYSTEM_SOCKET = Path("/run/gatelodge") / SOCKET_NAME
# sun_path of Linux holds 108 bytes, the last of them NUL.
LONGEST_SOCKET_PATH = 107


def admin_socket(data: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where a daemon with this data folder opens its admin socket: in the unit's RuntimeDirectory, else in the data."""
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (Path(runtime) if runtime else data) / SOCKET_NAME


def lock_file(data: Path) -> Path:
    """The file a daemon holds locked while it owns this data folder; it names the daemon's process."""
    return data / "gatelodge.lock"


def database_file(data: Path) -> Path:
    """The SQLite database."""
    return data / "gatelodge.db"


def secrets_folder(data: Path) -> Path:
    """Signing keys, 0700."""
    return data / "secrets"


def audit_keys_folder(data: Path) -> Path:
    """The keys that sign the audit's checkpoints, and the public halves that verify them."""
    return secrets_folder(data) / "audit"


def exports_folder(data: Path) -> Path:
    """Exports that the daemon writes itself, 0700."""
    return data / "exports"


def checkout() -> Path | None:
    """The root of the source checkout that this program runs from, or None if it is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "run").is_file() and (root / "pyproject.toml").is_file() else None


def find_socket(named: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The socket a command talks to: what was named, GATELODGE_SOCKET, the checkout's, the system's.

    The checkout is the one this program runs from, never just the current folder: there anybody could have put one.
    """
    chosen = named or environment.get("GATELODGE_SOCKET")
    if chosen:
        return Path(chosen).absolute()
    root = checkout()
    return SYSTEM_SOCKET if root is None else root / "var" / SOCKET_NAME


class SocketAddress:
    """The address of a Unix socket at `path`, however long: a long one is named through its folder's descriptor.

    A context manager; the address (a str for bind and connect) is valid inside. OSError if the folder is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= LONGEST_SOCKET_PATH:
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)


def connect(path: Path, *, timeout: float | None = None) -> socket.socket:
    """A stream socket connected to the Unix socket at `path`; OSError where that fails."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with SocketAddress(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
