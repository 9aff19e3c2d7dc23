"""What a handler may ask for: the services of one running daemon, wired together by `daemon/app.py`.

Rule: no logic here. A service that needs another gets it when it is built, not from here; the house is for the faces
(`daemon/web`, `daemon/admin`) and for tests.
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.pace import Pace
from daemon.recent import Recent

if TYPE_CHECKING:
    from daemon.access.accounts import Accounts
    from daemon.access.directory import Directory
    from daemon.access.identity import Access
    from daemon.access.passwords import PasswordPool
    from daemon.access.sessions import Sessions
    from daemon.audit.export import Exports
    from daemon.audit.journal import Journal
    from daemon.clock import Clock
    from daemon.config import Config
    from daemon.disk import Disk
    from daemon.forecast import Forecast
    from daemon.hub import Hub
    from daemon.jobs.keeping import Keeping
    from daemon.metrics import Metrics
    from daemon.providers.registry import Registry
    from daemon.providers.sealing import Seal
    from daemon.readiness import Readiness
    from daemon.relay import Gate
    from daemon.store.database import Database
    from daemon.traffic.admission import Admission
    from daemon.traffic.limits import Limits
    from daemon.web.server import GateServer


@dataclass(frozen=True)
class LastReload:
    """What came of the last SIGHUP."""

    at_us: int  # wall clock
    problem: str = ""  # why it was not taken up; empty where it was
    waiting: tuple[str, ...] = ()  # keys that are set otherwise than they run: they wait for a restart


@dataclass
class House:
    """The services of one daemon."""

    config: Config  # as it runs: a reload replaces it
    clock: Clock
    database: Database
    journal: Journal
    exports: Exports
    keeping: Keeping
    directory: Directory
    passwords: PasswordPool
    sessions: Sessions
    accounts: Accounts
    access: Access
    limits: Limits
    admission: Admission
    registry: Registry
    seal: Seal
    gate: Gate
    hub: Hub
    metrics: Metrics
    readiness: Readiness
    disk: Disk
    forecast: Forecast
    recent: Recent = field(default_factory=Recent)
    pace: Pace = field(default_factory=Pace)
    own_usage: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a user's own usage is added up
    views: int = 0  # of running exchanges, by administrators, now
    stopping: bool = False
    answering: int = 0  # requests of the LAN face that are being answered
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # set while there are none
    started_us: int = 0
    trusted_proxies: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = field(default_factory=list)
    reloaded: LastReload | None = None  # None: never since the start
    servers: list[GateServer] = field(default_factory=list)
    addresses: list[tuple[str, int, bool]] = field(default_factory=list)  # host, port, TLS of each listener

    def __post_init__(self) -> None:
        self.answered.set()

    def begin_answer(self) -> None:
        """A request of the LAN face came in."""
        self.answering += 1
        self.answered.clear()

    def end_answer(self) -> None:
        """It is answered, or nobody is there to be answered."""
        self.answering -= 1
        if not self.answering:
            self.answered.set()
