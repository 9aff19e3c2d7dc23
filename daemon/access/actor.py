"""Who makes a change: what the audit records beside it. Imports nothing of ours, so that the store may use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Actor:
    """`uid` is the operating system's number of who came over the admin socket, else None.

    `name` is that account's name, a user's e-mail address over HTTP, or "gatelodged" for what the daemon does itself.
    """

    uid: int | None
    name: str
    via: Literal["socket", "http", "start"]


DAEMON = Actor(uid=None, name="gatelodged", via="start")
