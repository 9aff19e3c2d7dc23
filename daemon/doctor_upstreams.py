"""The doctor's look at an upstream: does it answer, who else can reach it, how much does it run at once.

Rule: plain requests with short time-outs, never through a proxy, and nothing that costs a generation.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from common.protocol import Finding
from daemon.config import UpstreamConfig

PATIENCE = 5.0  # seconds
_LISTEN = "0A"
TCP_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def examine_upstream(upstream: UpstreamConfig, probed: int | None, authorization: str = "") -> Iterator[Finding]:
    """`probed`: how many requests it really ran at once, where that was ever found out. `authorization`: the header by
    which the daemon shows itself to it."""
    subject = f"upstream {upstream.name}"
    if upstream.is_cloud:
        words = f"{upstream.url} is outside of this network: asked only once it is enabled, and not by the doctor"
        yield Finding(subject, "note", words, "gatelodge upstreams list says how it is doing")
        return
    try:
        words = _greeting(upstream, authorization)
    except (OSError, http.client.HTTPException, ValueError) as error:
        start = "start it (systemctl start ollama)" if upstream.kind == "ollama" else "start it"
        yield Finding(
            subject,
            "error",
            f"{upstream.url} does not answer as {_kind(upstream)} would: {getattr(error, 'strerror', None) or error}",
            f"{start}, or correct its url; until then its models' requests get 502",
        )
    else:
        yield Finding(subject, "ok", f"{upstream.url} answers: {words}")
    yield from reachability(upstream, subject)
    yield from parallelism(upstream, probed, subject)


def reachability(upstream: UpstreamConfig, subject: str, tables: tuple[Path, ...] = TCP_TABLES) -> Iterator[Finding]:
    """Whether others can go around the gate."""
    parts = urlsplit(upstream.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not _is_here(host):
        yield Finding(
            subject,
            "note",
            f"it is on another machine ({host}): whoever reaches it there goes around the gate",
            "let only this machine through to it with a firewall there",
        )
        return
    wide = [address for address in listening_addresses(port, tables) if not is_loopback(address)]
    if wide:
        yield Finding(
            subject,
            "warning",
            f"it listens on {', '.join(sorted(set(wide)))} port {port}, wider than localhost: "
            "anybody who reaches that goes around the gate",
            "let it listen on this machine only: OLLAMA_HOST=127.0.0.1 in its service, then restart it",
        )


def parallelism(upstream: UpstreamConfig, probed: int | None, subject: str) -> Iterator[Finding]:
    """Whether seats are what the upstream really runs at once."""
    probe = f"gatelodge upstreams probe {upstream.name}"
    if probed is None:
        yield Finding(
            subject,
            "note",
            f"nobody has found out yet how many requests it really runs at once; seats: {upstream.seats}",
            probe,
        )
    elif probed == 1:
        yield Finding(
            subject,
            "warning",
            "it runs one request at a time: everybody else waits",
            f"raise OLLAMA_NUM_PARALLEL where memory allows (some architectures are forced to one), then {probe} --set",
        )
    elif probed < upstream.seats:
        yield Finding(
            subject,
            "warning",
            f"it runs {probed} at once but has {upstream.seats} seats: requests wait where nobody sees them",
            f"{probe} --set",
        )


def listening_addresses(port: int, tables: tuple[Path, ...] = TCP_TABLES) -> list[str]:
    """The local addresses on which something listens at `port`, from the kernel's tables (proc(5))."""
    found = []
    for table in tables:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                found.append(str(_address(address)))
    return found


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address) is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # Each 32-bit word in the machine's own order, which is little-endian wherever we run.
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(words))


def _is_here(host: str) -> bool:
    """Whether `host` names an address of this machine: one that can be bound."""
    if is_loopback(host):
        return True
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(address)
    except OSError:
        return False
    return True


def _greeting(upstream: UpstreamConfig, authorization: str) -> str:
    """What it says of itself. OSError, HTTPException or ValueError where that is not what its kind would say."""
    parts = urlsplit(upstream.url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=upstream.authority or None)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    path, field = ("/api/version", "version") if upstream.kind == "ollama" else ("/v1/models", "data")
    try:
        shown = {"Authorization": authorization} if authorization else {}
        connection.request("GET", path, headers={"Connection": "close", **shown})
        response = connection.getresponse()
        body = response.read(1024 * 1024)
    finally:
        connection.close()
    if response.status == 401:
        return "it wants a key, which the doctor does not show"
    if response.status != 200:
        raise ValueError(f"{path} gives status {response.status}")
    document = json.loads(body)
    if not isinstance(document, dict) or field not in document:
        raise ValueError(f"{path} gives no {field}")
    if upstream.kind == "ollama":
        return f"Ollama {document['version']}"
    count = len(document["data"])
    return f"{count} model{'' if count == 1 else 's'}"


def _kind(upstream: UpstreamConfig) -> str:
    return {"ollama": "Ollama", "openai": "an OpenAI-compatible server"}.get(upstream.kind, "Anthropic's API")
