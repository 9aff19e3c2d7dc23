"""What is wrong with the installation, and what to do about it. With or without a running daemon.

Rule: every look is small, bounded in time and changes nothing; it ends in findings, never in an exception of its own.
What needs nothing is said, too (`ok`): silence could mean that nobody looked.
"""

from __future__ import annotations

import asyncio
import platform
import resource
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509

from common import paths
from common.protocol import Finding
from daemon.config import BUILTIN, DEFAULT_OLLAMA, Config, UpstreamConfig
from daemon.doctor_upstreams import examine_upstream, is_loopback
from daemon.engine.choice import CHOICE
from daemon.store.filesystem import file_system_of, free_bytes, is_network
from daemon.store.limits import limits_of
from daemon.store.opening import connect_to_read
from daemon.store.registrations import load as load_registrations
from daemon.store.settings import get_setting

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 40, 0)
ENOUGH_FILES = 4096
CERTIFICATE_DAYS = 14


async def examine(
    config: Config,
    *,
    upstreams: Sequence[UpstreamConfig] | None = None,
    authorizations: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Everything that can be looked at, in a fixed order. `upstreams`: those that a running daemon chose, with the
    headers by which it shows itself to them."""
    shown = authorizations or {}
    if upstreams is None:
        upstreams = await asyncio.to_thread(_upstreams_of, config)
    looks: list[Callable[[], Iterator[Finding]]] = [
        versions,
        partial(data_folder, config.data),
        partial(permissions, config),
        partial(disk, config),
        clock,
        file_limit,
        partial(transport, config),
        partial(database, config.data),
        *(
            partial(examine_upstream, upstream, _probed(config.data, upstream.name), shown.get(upstream.name, ""))
            for upstream in upstreams
        ),
    ]
    found = await asyncio.gather(*(asyncio.to_thread(_findings, look) for look in looks))
    return [finding for findings in found for finding in findings]


def _upstreams_of(config: Config) -> Sequence[UpstreamConfig]:
    """Those that a daemon with this configuration would have; the built-in engine runs only beside its daemon."""
    if config.upstreams:
        return config.upstreams
    if _setting(config.data, CHOICE) == BUILTIN:
        return ()
    return (UpstreamConfig(name="ollama", url=DEFAULT_OLLAMA),)


def _findings(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    return list(look())


def versions() -> Iterator[Finding]:
    """Python and SQLite."""
    python, sqlite = platform.python_version(), sqlite3.sqlite_version
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("python", "error", f"Python {python} is too old", "install Python 3.11 or newer")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        yield Finding(
            "sqlite", "warning", f"SQLite {sqlite} is older than tested", "use a system with SQLite 3.40 or newer"
        )
    yield Finding("versions", "ok", f"Python {python}, SQLite {sqlite}")


def data_folder(data: Path) -> Iterator[Finding]:
    """There, ours, and on a disk of this machine."""
    if not data.is_dir():
        yield Finding(
            "data",
            "error",
            f"there is no data folder {data}",
            "the daemon makes it at its first start; name it with --data",
        )
        return
    try:
        kind = file_system_of(data)
    except OSError as error:
        yield Finding("data", "warning", f"cannot look into {data}: {error.strerror}", "run this as the daemon's user")
        return
    if is_network(kind):
        yield Finding(
            "data",
            "error",
            f"{data} lies on a network file system ({kind}), where a database is not safe",
            "put storage.data on a local disk",
        )
    else:
        yield Finding("data", "ok", f"{data} is on a local file system{f' ({kind})' if kind else ''}")


def permissions(config: Config) -> Iterator[Finding]:
    """Nobody else may read data, keys or database; the daemon is not root."""
    data = config.data
    wrong = False
    for path, widest in _guarded(config):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            wrong = True
            advice = "run this as the daemon's user"
            yield Finding("permissions", "warning", f"cannot look at {path}: {error.strerror}", advice)
            break
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~widest:
            wrong = True
            yield Finding(
                "permissions", "error", f"{path} has mode {mode:04o}: others may get in", f"chmod {widest:o} {path}"
            )
        if status.st_uid == 0 and path == data:
            wrong = True
            yield Finding(
                "permissions",
                "warning",
                f"{data} belongs to root: the daemon seems to run as root, which it never needs",
                "run it under a user of its own, to whom the data folder belongs",
            )
    if not wrong:
        yield Finding("permissions", "ok", "data, database and secrets are for the daemon's user alone")


def _guarded(config: Config) -> Iterator[tuple[Path, int]]:
    """What must not be open to others, with the widest mode it may have."""
    data = config.data
    yield data, 0o750 if config.admin.group else 0o700
    yield paths.database_file(data), 0o600
    secrets = paths.secrets_folder(data)
    yield secrets, 0o700
    try:
        for path in sorted(secrets.rglob("*")):
            yield path, 0o700 if path.is_dir() else 0o600
    except OSError:
        return
    if config.server.key:
        yield Path(config.server.key), 0o640


def disk(config: Config) -> Iterator[Finding]:
    """Room for what will be recorded."""
    try:
        free = free_bytes(config.data)
    except OSError:
        return  # no data folder: said elsewhere
    least = config.storage.min_free
    words = f"{free / 1e9:.1f} GB free; below {least / 1e9:.1f} GB no request is admitted"
    advice = "free some space, or export and erase old records, or move storage.data to a larger disk"
    if free < least:
        yield Finding("disk", "error", words, advice)
    elif free < 2 * least:
        yield Finding("disk", "warning", words, advice)
    else:
        yield Finding("disk", "ok", words)


def clock(now: float | None = None) -> Iterator[Finding]:
    """The wall clock: it stands in every record. Limits do not depend on it."""
    now = time.time() if now is None else now
    # No time before this program was written to disk can be now.
    written = Path(__file__).stat().st_mtime
    words = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if now < written - 86400 or now > written + 30 * 366 * 86400:
        yield Finding(
            "clock",
            "error",
            f"the wall clock says {words}, which cannot be: records and tokens carry wrong times",
            "set the clock and let it be kept: timedatectl set-ntp true",
        )
    else:
        yield Finding("clock", "ok", f"the wall clock says {words}")


def file_limit() -> Iterator[Finding]:
    """Each stream holds two connections."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
        yield Finding(
            "files",
            "warning",
            f"only {soft} open files are allowed here; a stream takes two",
            f"raise it: LimitNOFILE={ENOUGH_FILES} in the unit, or ulimit -n {ENOUGH_FILES}",
        )


def transport(config: Config) -> Iterator[Finding]:
    """Whether credentials cross the network in clear, and whether certificates will last."""
    listeners = [(config.server.host, config.server.certificate), *((e.host, e.certificate) for e in config.listen)]
    for host, certificate in listeners:
        if certificate:
            yield from _certificate(Path(certificate))
        elif is_loopback(host):
            yield Finding("tls", "ok", f"{host} is reached from this machine only")
        elif config.server.trusted_proxies:
            yield Finding("tls", "note", f"no TLS on {host}; the proxies in server.trusted_proxies are to provide it")
        else:
            yield Finding(
                "tls",
                "warning",
                f"no TLS on {host}: keys and passwords cross the network in clear",
                "set server.certificate and server.key, or put a TLS proxy in front (server.trusted_proxies)",
            )


def _certificate(path: Path) -> Iterator[Finding]:
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        yield Finding(
            "tls", "error", f"cannot read the certificate {path}: {error}", "name a PEM file that the daemon may read"
        )
        return
    days = (ends - datetime.now(UTC)).days
    words = f"the certificate {path} ends on {ends:%Y-%m-%d}"
    if days < 0:
        yield Finding("tls", "error", f"{words}: it is over", "renew it, then have the daemon reload it (SIGHUP)")
    elif days < CERTIFICATE_DAYS:
        yield Finding("tls", "warning", f"{words}, in {days} days", "renew it")
    else:
        yield Finding("tls", "ok", words)


def database(data: Path) -> Iterator[Finding]:
    """Who waits for approval, and what holds for those who are in."""
    path = paths.database_file(data)
    if not path.exists():
        return
    try:
        with closing(connect_to_read(path)) as conn:
            pending = len(load_registrations(conn))
            default = limits_of(conn, "default")
    except (sqlite3.Error, OSError) as error:
        yield Finding("database", "warning", f"cannot look into {path}: {error}", "run this as the daemon's user")
        return
    if pending:
        yield Finding(
            "users", "note", f"{pending} wait for approval", "gatelodge users list --status pending, then users approve"
        )
    if default and default.get("requests_per_minute") is None:
        yield Finding(
            "limits",
            "warning",
            "a user may send any number of requests a minute",
            "gatelodge limits set default --requests-per-minute 10",
        )
    elif default:
        yield Finding("limits", "ok", f"by default {default['requests_per_minute']} requests a minute for each user")


PROBED = "probed_seats"  # + ":" + the upstream's name: how many requests it really ran at once


def _probed(data: Path, name: str) -> int | None:
    value = _setting(data, f"{PROBED}:{name}")
    return int(value) if value is not None else None


def _setting(data: Path, name: str) -> str | None:
    path = paths.database_file(data)
    if not path.exists():
        return None
    try:
        with closing(connect_to_read(path)) as conn:
            return get_setting(conn, name)
    except (sqlite3.Error, OSError):
        return None  # said by `database`
