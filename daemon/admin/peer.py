"""Who is at the other end of the admin socket: the operating system says, nobody can claim (T5)."""

from __future__ import annotations

import pwd
import socket
import struct
from functools import lru_cache

from daemon.access.actor import Actor

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def actor_of(connection: socket.socket) -> Actor:
    """The account of the process that connected, from SO_PEERCRED. OSError where the connection is gone."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Actor(uid=uid, name=account_name(uid), via="socket")


@lru_cache(maxsize=256)
def account_name(uid: int) -> str:
    """The account's name, or `uid:N` where the system knows none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
