"""Wires one daemon together: start, serve, stop. No logic that belongs to a part.

Order of the start: data folder and lock, store, recovery, identity, limits, upstreams, gate, admin socket, listeners.
What was opened is closed in the opposite order, whatever happens in between (`AsyncExitStack`).
"""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from common import paths
from common.errors import StartError
from common.version import version
from daemon import logs, systemd
from daemon.access.accounts import Accounts
from daemon.access.directory import Change, Cut, Directory
from daemon.access.identity import Access, Caller
from daemon.access.passwords import PasswordPool
from daemon.access.sessions import Sessions
from daemon.admin.cloud import keys_in_files, recall_cloud
from daemon.admin.lock import hold_lock
from daemon.admin.server import AdminServer
from daemon.admin.upstreams import recall
from daemon.audit.export import Exports
from daemon.audit.journal import Journal
from daemon.audit.sealing import Sealer
from daemon.config import Config
from daemon.disk import Disk
from daemon.engine.choice import choose_upstreams
from daemon.exchange import EndState, Exchange
from daemon.first_start import greet
from daemon.forecast import Forecast
from daemon.house import House
from daemon.hub import Hub
from daemon.jobs.jobs import Jobs
from daemon.jobs.keeping import Keeping
from daemon.metrics import Metrics
from daemon.providers.prices import Prices
from daemon.providers.registry import Registry
from daemon.providers.sealing import Seal
from daemon.readiness import Readiness
from daemon.recent import MINUTE
from daemon.relay import Gate
from daemon.reload import pairs, reload
from daemon.store.database import Database, StoreFailed
from daemon.store.opening import not_started
from daemon.store.settings import get_setting, set_setting
from daemon.traffic.admission import Admission
from daemon.traffic.limits import Limits
from daemon.traffic.restore import restore
from daemon.underway import Visit
from daemon.usage import keep_added_up
from daemon.web.routes import application, relayed
from daemon.web.server import GateServer, check_address, listen, tls_context

log = logging.getLogger("gatelodge.daemon")

BEYOND_DRAIN = 30.0  # seconds to record, to check in the database and to end the children, once nothing runs
STARTED = "started"  # the setting that says that a first start came to its end
LAST_WORDS = 2.0  # seconds for the ends of answers to leave, once their exchanges are over


async def serve(config: Config, *, builtin_model: bool, read_again: Callable[[], Config] | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit code. StartError where it cannot start.

    `read_again` reads the configuration from where `config` came from: what SIGHUP asks for.
    """
    listener = logs.start(config.log.level, config.log.format)
    try:
        asked = Asked()
        async with AsyncExitStack() as stack:
            house = await _start_unless_stopped(stack, config, builtin_model, asked)
            if house is None:
                return 0
            asked.started = True
            if read_again is not None:
                stack.push_async_callback(_ended, _in_background(_reload_when_asked(house, asked, read_again)))
            which = await asked.to_stop
            # Ctrl-C is typed by somebody who waits; SIGTERM comes from a machine that gives time.
            patience = 0.0 if which is signal.SIGINT else house.config.deadlines.shutdown
            systemd.stopping(patience + BEYOND_DRAIN)
            running_now = len(house.gate.live())
            log.info("stopping: %s; %d running requests may go on for %g s", which.name, running_now, patience)
            await drain(house, patience, asked.at_once)
        log.info("stopped")
        return 0
    finally:
        listener.stop()


class Asked:
    """What signals ask for: SIGTERM or SIGINT to stop, a second one to stop at once, SIGHUP to read again.

    A terminal that was closed sends SIGHUP as well, and means that nobody is there any more: that is a stop.

    While the start is under way the second one ends the process, later the third: what hangs must not hang for ever.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.to_stop: asyncio.Future[signal.Signals] = loop.create_future()
        self.at_once = asyncio.Event()
        self.to_read_again = asyncio.Event()
        self.started = False
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        # Who started us with SIGHUP ignored (nohup) means us to outlive the terminal.
        self._on_terminal = os.isatty(0) and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        # During the start, too: left alone, SIGHUP would end the process.
        loop.add_signal_handler(signal.SIGHUP, self._hang_up_or_read_again)

    def _hang_up_or_read_again(self) -> None:
        if self._on_terminal and not os.isatty(0):
            self._stop(signal.SIGHUP)
        else:
            self.to_read_again.set()

    def _stop(self, number: signal.Signals) -> None:
        if not self.to_stop.done():
            self.to_stop.set_result(number)
        elif self.started and not self.at_once.is_set():
            self.at_once.set()
        else:
            os._exit(1)


async def _reload_when_asked(house: House, asked: Asked, read_again: Callable[[], Config]) -> None:
    """Until cancelled; several SIGHUP while one is served are one."""
    while True:
        await asked.to_read_again.wait()
        asked.to_read_again.clear()
        if house.stopping:
            return  # READY after STOPPING would be a lie
        systemd.reloading()
        try:
            await reload(house, read_again)
        except Exception:  # whatever it was: what runs must go on, and the next SIGHUP be heard
            log.exception("the configuration could not be read again")
        finally:
            systemd.serving()


async def _start_unless_stopped(
    stack: AsyncExitStack, config: Config, builtin_model: bool, asked: Asked
) -> House | None:
    """Start; a Ctrl-C while the engine downloads or the disk is slow ends the start."""
    starting = asyncio.ensure_future(
        stack.enter_async_context(running(config, builtin_model=builtin_model, greeting=True))
    )
    waited: set[asyncio.Future[Any]] = {starting, asked.to_stop}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return None
    try:
        house = starting.result()
    except StoreFailed as failure:
        raise not_started(paths.database_file(config.data), failure) from failure
    # What lives as long as the process need not be looked at by every collection: fewer pauses in mid-stream.
    gc.collect()
    gc.freeze()
    systemd.serving()
    return house


@asynccontextmanager
async def running(config: Config, *, builtin_model: bool = False, greeting: bool = False) -> AsyncIterator[House]:
    """One daemon, serving: the house while it runs. Tests use this too."""
    async with AsyncExitStack() as stack:
        _prepare(config.data)
        stack.enter_context(hold_lock(config.data))
        _check_doors(config)
        database = await Database.open(paths.database_file(config.data))
        stack.push_async_callback(database.close)
        # A first start that failed half-way (no network for the engine, a port taken) leaves the next one the first.
        first = await database.read(lambda conn: get_setting(conn, STARTED)) is None
        house = await _furnished(stack, config, database, first=first, builtin_model=builtin_model)
        _connect(stack, house)
        _open_doors(stack, house)
        if first:
            if greeting:
                await greet(house)
            await database.write(lambda conn: set_setting(conn, STARTED, "yes"))
        yield house


async def drain(house: House, patience: float, at_once: asyncio.Event | None = None) -> None:
    """Refuse new requests (503), let the running ones go on for `patience` seconds, then end them in the stream.

    `at_once` ends the patience.
    """
    house.stopping = True
    gate = house.gate
    idle = asyncio.ensure_future(gate.idle())
    hurried = asyncio.ensure_future((at_once or asyncio.Event()).wait())
    # The listeners stay open: who comes now is told to come again, which is more than a refused connection says.
    await asyncio.wait({idle, hurried}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if gate.live():
        ended = gate.cut(lambda _: True, EndState.SHUTDOWN, "the gateway is shutting down")
        log.info("%d running requests were ended", ended)
    await idle
    for server in house.servers:
        server.stop()
    try:
        # The last words of each answer are still on their way to its client.
        await asyncio.wait_for(house.answered.wait(), LAST_WORDS)
    except TimeoutError:
        log.warning("some clients did not take the end of their answers")


async def _furnished(
    stack: AsyncExitStack, config: Config, database: Database, *, first: bool, builtin_model: bool
) -> House:
    """The services over the store, in the order of the start."""
    clock = database.clock
    secrets = paths.secrets_folder(config.data)
    journal = Journal(database, clock, Sealer.load_or_create(secrets / "audit"))
    await journal.recover()
    stack.push_async_callback(journal.close)
    jobs = await Jobs.load(database, clock)
    stack.push_async_callback(jobs.close)
    passwords = PasswordPool(config.passwords)
    stack.callback(passwords.close)
    directory = await Directory.load(database, clock, passwords)
    stack.push_async_callback(directory.close)
    sessions = await Sessions.load(database, clock, directory, config, secrets)
    stack.push_async_callback(sessions.close)
    accounts = Accounts(
        database,
        clock,
        directory=directory,
        sessions=sessions,
        passwords=passwords,
        registration=config.registration,
    )
    await accounts.take_up()
    access = Access(directory, sessions, clock)
    limits = await Limits.load(
        database,
        clock,
        seed=config.limits,
        user_exists=directory.has_email,
        key_exists=directory.keys.__contains__,
    )
    admission = Admission(limits, clock)
    await restore(admission, limits, database, clock)
    chosen = await choose_upstreams(
        stack, config, database, first=first, builtin_model=builtin_model, say=_say if first else log.info
    )
    registry = Registry(
        chosen.upstreams,
        queue=config.queue,
        deadlines=config.deadlines,
        clock=clock,
        default=config.models.default,
        keys=chosen.keys,
        aliases=config.aliases,
    )
    stack.push_async_callback(registry.close)
    await recall(registry, database, chosen.upstreams)
    seal = Seal.load_or_create(secrets / "providers.key")
    await recall_cloud(registry, database, seal, chosen.upstreams, keys_in_files(config.upstreams))
    gate = Gate(
        clock=clock,
        deadlines=config.deadlines,
        journal=journal,
        admission=admission,
        registry=registry,
        still_counts=access.still_counts,
        prices=Prices.of(config),
    )
    house = House(
        config=config,
        clock=clock,
        database=database,
        journal=journal,
        exports=Exports(database, clock),
        keeping=Keeping(database, clock, journal, jobs, config),
        directory=directory,
        passwords=passwords,
        sessions=sessions,
        accounts=accounts,
        access=access,
        limits=limits,
        admission=admission,
        registry=registry,
        seal=seal,
        gate=gate,
        hub=Hub(version=version()),
        metrics=Metrics(),
        readiness=Readiness({}),
        disk=Disk(config),
        forecast=await Forecast.load(database, clock, config.data),
        trusted_proxies=[ipaddress.ip_network(text, strict=False) for text in config.server.trusted_proxies],
        started_us=clock.wall(),
    )
    house.recent.refused_before(await journal.refused_lately(MINUTE), clock.wall())
    return house


def _connect(stack: AsyncExitStack, house: House) -> None:
    """Who tells whom, and what goes on in the background."""
    gate, hub, metrics, disk = house.gate, house.hub, house.metrics, house.disk

    def exchange_changed(exchange: Exchange) -> None:
        hub.publish("live", exchange.request_id)
        if exchange.state is not None:
            house.recent.ended(exchange)
            # With the row that goes, in one batch: who has the cursor on it finds the other one there.
            hub.publish("ended", exchange.request_id, amount=1)
            metrics.exchange_ended(exchange)
            logs.exchange_ended(exchange)

    def directory_changed(event: Change | Cut) -> None:
        if isinstance(event, Cut):
            gate.cut(
                lambda each: event.concerns(user_id=each.user_id, key_id=each.key_id, session=each.session),
                event.state,
                event.reason,
            )
        else:
            hub.publish(event.kind, event.id)

    def turned_away(caller: Caller, visit: Visit, model: str, reason: str) -> None:
        house.recent.refused(
            house.clock.wall(),
            reason=reason,
            user=caller.user.email,
            key=caller.key.id if caller.key is not None else None,
            client_label=visit.label_of(caller),
            address=visit.address,
            route=visit.route,
            model=model,
        )

    gate.changed = exchange_changed
    gate.turned_away = turned_away
    gate.admissible = disk.check
    house.database.when_full = disk.full
    house.keeping.jobs.changed = lambda id_: hub.publish("job", str(id_))
    house.directory.listeners.append(directory_changed)
    house.registry.changed = partial(hub.publish, "upstream")
    house.readiness = Readiness(
        {
            "upstream": house.registry.why_not_ready,
            "storage": disk.why_not_ready,
            "audit": house.database.why_not_ready,
        }
    )
    for work in (
        gate.keep_partials(),
        house.admission.run(),
        house.registry.run(),
        house.journal.run(),
        house.directory.run(),
        house.sessions.run(),
        house.accounts.run(),
        disk.run(),
        house.forecast.run(),
        house.keeping.run(),
        keep_added_up(house.database),
    ):
        stack.push_async_callback(_ended, _in_background(work))


def _check_doors(config: Config) -> None:
    """A taken port or a wrong certificate is told before an engine is fetched or anything is written."""
    for host, port, certificate, key in _doors(config):
        try:
            tls_context(certificate, key)
            check_address(host, port)
        except OSError as error:
            raise StartError(_why_not_listening(host, port, error)) from error


def _doors(config: Config) -> list[tuple[str, int, str, str]]:
    """Host, port, certificate and key of each listener."""
    places = [(config.server.host, config.server.port), *((each.host, each.port) for each in config.listen)]
    return [(*place, *pair) for place, pair in zip(places, pairs(config), strict=True)]


def _open_doors(stack: AsyncExitStack, house: House) -> None:
    """The admin socket first: a daemon that serves can be administered."""
    config = house.config
    admin = AdminServer(house, paths.admin_socket(config.data), group=config.admin.group)
    admin.start()
    stack.push_async_callback(admin.stop)
    face, carriers = application(house), relayed(house)
    for host, port, certificate, key in _doors(config):
        try:
            tls = tls_context(certificate, key)
            listener = GateServer(face, config=config, ssl_options=tls, carriers=carriers)
            taken = listen(listener, host, port)
        except OSError as error:
            raise StartError(_why_not_listening(host, port, error)) from error
        house.servers.append(listener)
        stack.push_async_callback(listener.close_all_connections)
        stack.callback(listener.stop)
        house.addresses.append((host, taken, tls is not None))
        url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{taken}"
        log.info("listening on %s", url, extra={"url": url})


def _prepare(data: Path) -> None:
    """The data folder, private to its owner."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if data.stat().st_uid == os.geteuid():
            # Not narrower than it was made for the admin socket's group: that is the socket's matter.
            data.chmod(data.stat().st_mode & 0o750)
        paths.secrets_folder(data).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot use the data folder {data}: {error.strerror}; choose another with --data DIR"
        ) from error
    if not os.access(data, os.W_OK | os.X_OK):
        raise StartError(f"the data folder {data} is not writable for this account; choose another with --data DIR")


def _why_not_listening(host: str, port: int, error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            f"cannot use the TLS certificate for port {port}: {error.reason or error}; check server.certificate and key"
        )
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; stop what listens there, or choose another port with --port N"
    if error.errno == errno.EACCES:
        return f"port {port} may not be opened by this account; choose one above 1023 with --port N"
    return (
        f"cannot listen on {host} port {port}: {error.strerror or error}; "
        "name an address of this machine with --host ADDRESS (0.0.0.0: all of them)"
    )


def _in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Begin it; a failure is told when it happens, not when the daemon stops."""
    task = asyncio.create_task(work)
    task.add_done_callback(_told)
    return task


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a background task failed", exc_info=task.exception())


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _say(words: str) -> None:
    try:
        print(words, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads it: no reason not to start
