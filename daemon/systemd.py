"""What systemd is told (sd_notify(3)): that the daemon serves, and that it stops."""

from __future__ import annotations

import logging
import os
import socket

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
