"""File descriptors: as many as we may have, and an accept loop that waits where none is left.

Rule: the last eighth belongs to what is accepted already (its upstream connection, the store's files) and to the
administrators' socket: a crowd of idle clients must not take it. Who may not come in now waits in the kernel's backlog;
nothing spins, nothing is cut.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("gatelodge.daemon")

WANTED = 65_536  # two for each of far more streams than one process carries
AT_ONCE = 128  # connections taken in a turn of the event loop, so that others get theirs
PAUSE = 0.25  # seconds until the next look where no descriptor was left
TOLD_EVERY = 60.0  # seconds between two lines of the log about it

NO_CEILING = 1 << 30

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# accept(2): "Linux … passes already-pending network errors on the new socket … treat them like EAGAIN".
_LOST_ON_THE_WAY = {
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET,
    errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
}  # fmt: skip


def raise_limit() -> int:
    """Raise this process's soft limit of open files towards its hard one; what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def for_clients() -> int:
    """The first descriptor number that no client may have. The kernel hands out the lowest free number, so the number
    of a connection tells how many are open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED if soft == resource.RLIM_INFINITY else soft - soft // 8


class Accepting:
    """Takes connections from `listening`, which stays the caller's, and hands each to `handle`, until `stop`.

    One whose descriptor reaches `ceiling` is the last one until others are free.
    """

    def __init__(
        self, listening: socket.socket, handle: Callable[[socket.socket, Any], None], *, ceiling: int = NO_CEILING
    ) -> None:
        self._listening = listening
        self._handle = handle
        self._ceiling = ceiling
        self._loop = asyncio.get_running_loop()
        self._pausing: asyncio.TimerHandle | None = None
        self._stopped = False
        self._told = False  # of the shortage that there is now
        self._told_at = -TOLD_EVERY
        self._loop.add_reader(listening, self._accept)

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True
        if self._pausing is None:
            self._loop.remove_reader(self._listening)
        else:
            self._pausing.cancel()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._stopped or self._pausing is not None:
                return
            try:
                connection, address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _LOST_ON_THE_WAY:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause()
                return
            if connection.fileno() >= self._ceiling:
                self._pause()
            self._handle(connection, address)

    def _pause(self) -> None:
        # The socket stays readable: left in the loop, it would be looked at again and again without rest.
        if self._pausing is None:
            self._loop.remove_reader(self._listening)
        self._pausing = self._loop.call_later(PAUSE, self._look_again)
        now = time.monotonic()
        if not self._told and now - self._told_at >= TOLD_EVERY:
            self._told, self._told_at = True, now
            log.error(
                "no file descriptor is left for new connections: they wait until others end; what runs goes on. "
                "Raise LimitNOFILE in the unit (ulimit -n elsewhere), now %d, or lower server.connections_per_address",
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )

    def _look_again(self) -> None:
        if _lowest_free(self._listening) >= self._ceiling:
            self._pause()
            return
        self._pausing = None
        if self._told:
            self._told = False
            log.info("file descriptors are free again: new connections are taken")
        self._loop.add_reader(self._listening, self._accept)


def _lowest_free(listening: socket.socket) -> int:
    """The number that the next descriptor would have; `NO_CEILING` where there is none."""
    try:
        number = os.dup(listening.fileno())
    except OSError:
        return NO_CEILING
    os.close(number)
    return number
