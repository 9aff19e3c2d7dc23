"""What systemd is told (sd_notify(3)): that the daemon serves, reads its configuration again, and stops."""

from __future__ import annotations

import logging
import os
import socket
import time

log = logging.getLogger("gatelodge.daemon")


def notify_systemd(message: str) -> None:
    """Tell systemd (sd_notify(3)); silently nothing where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            log.warning("systemd does not listen at %s: %s", address, error)


def serving() -> None:
    """It serves (again, after a reload)."""
    notify_systemd("READY=1")


def reloading() -> None:
    """It reads its configuration again; the time lets `Type=notify-reload` tell this reload from an older one."""
    notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(patience: float) -> None:
    """It stops, which may take `patience` seconds whatever the unit's TimeoutStopSec says."""
    notify_systemd(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(patience * 1_000_000)}")
