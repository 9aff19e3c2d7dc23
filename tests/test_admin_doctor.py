"""The doctor: each thing that can be wrong with an installation is found, named, and comes with what to do."""

import asyncio
import datetime
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from common import paths
from common.protocol import Finding
from daemon import config as configuration
from daemon import doctor
from daemon.config import Config, UpstreamConfig
from daemon.doctor_upstreams import examine_upstream, is_loopback, listening_addresses, parallelism, reachability
from daemon.store.database import Database
from daemon.store.limits import put_limits
from daemon.store.registrations import add as add_registration
from daemon.store.settings import set_setting
from tests.rigs.engine import ROOT
from tests.rigs.scripted_upstream import ScriptedUpstream


def a_config(data: Path, **flags: object) -> Config:
    """A configuration over `data`; dotted keys with `__` for the dot."""
    given = {key.replace("__", "."): value for key, value in flags.items()}
    return configuration.load(environment={}, flags={"storage.data": str(data), **given})


def severities(findings: Iterable[Finding]) -> dict[str, str]:
    """The worst that is said of each subject."""
    order = ["ok", "note", "warning", "error"]
    worst: dict[str, str] = {}
    for finding in findings:
        if order.index(finding.severity) >= order.index(worst.get(finding.subject, "ok")):
            worst[finding.subject] = finding.severity
    return worst


def only(findings: Iterable[Finding], severity: str) -> Finding:
    """The one finding of that severity."""
    (found,) = [finding for finding in findings if finding.severity == severity]
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def test_whatever_needs_work_says_what_to_do(data: Path) -> None:
    """A warning or an error without advice would leave the administrator alone."""
    config = a_config(data, server__host="0.0.0.0", storage__min_free=10**18)
    for finding in [*doctor.disk(config), *doctor.transport(config), *doctor.data_folder(data / "absent")]:
        assert finding.advice or finding.severity in {"ok", "note"}


async def test_an_ollama_that_does_not_answer_is_an_error() -> None:
    """Unreachable, or something else on its port; the advice names how to start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        upstream = UpstreamConfig(name="gpu", url=f"http://127.0.0.1:{port}")
        finding = only(examine_upstream(upstream, probed=2), "error")
    assert "Connection refused" in finding.message
    assert "systemctl start ollama" in finding.advice


async def test_an_ollama_that_answers_is_told_with_its_version() -> None:
    """The whole examination over a real socket: version, seats, reachability."""
    async with ScriptedUpstream() as upstream:
        config = a_config(Path("/nonexistent"), upstreams=[{"name": "gpu", "url": upstream.url}])
        findings = await doctor.examine(config)
    of_upstream = [finding for finding in findings if finding.subject == "upstream gpu"]
    assert "Ollama 0.9" in only(of_upstream, "ok").message
    assert "probe gpu" in only(of_upstream, "note").advice


async def test_the_doctor_shows_itself_as_the_daemon_does() -> None:
    """The built-in engine answers only who shows its key: a healthy first start has no error."""
    async with ScriptedUpstream() as upstream:
        config = UpstreamConfig(name="gpu", kind="openai", url=upstream.url)
        await asyncio.to_thread(list, examine_upstream(config, probed=2, authorization="Bearer drawn"))
    assert upstream.requests[-1].headers["authorization"] == "Bearer drawn"


async def test_one_model_is_told_in_the_singular() -> None:
    """An OpenAI-compatible server is told with the number of its models."""
    for models, words in ((("one",), "answers: 1 model"), (("one", "two"), "answers: 2 models")):
        async with ScriptedUpstream(models=models) as upstream:
            config = UpstreamConfig(name="gpu", kind="openai", url=upstream.url)
            findings = await asyncio.to_thread(list, examine_upstream(config, probed=2))
        assert only(findings, "ok").message.endswith(words)


def test_an_ollama_that_listens_wider_than_localhost_is_found() -> None:
    """Row 42: whoever reaches it goes around the gate; read from the kernel's own table."""
    with socket.socket() as narrow, socket.socket() as wide, socket.socket(socket.AF_INET6) as six:
        narrow.bind(("127.0.0.1", 0))
        wide.bind(("0.0.0.0", 0))
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::1", 0))
        for each in (narrow, wide, six):
            each.listen()
        ports = [each.getsockname()[1] for each in (narrow, wide, six)]
        assert listening_addresses(ports[0]) == ["127.0.0.1"]
        assert listening_addresses(ports[2]) == ["::1"]
        upstream = UpstreamConfig(name="gpu", url=f"http://127.0.0.1:{ports[0]}")
        assert list(reachability(upstream, "gpu")) == []
        upstream = UpstreamConfig(name="gpu", url=f"http://localhost:{ports[1]}")
        finding = only(reachability(upstream, "gpu"), "warning")
    assert "0.0.0.0" in finding.message
    assert "OLLAMA_HOST=127.0.0.1" in finding.advice


def test_an_upstream_on_another_machine_is_pointed_out() -> None:
    """We cannot see what listens there; who must protect it can."""
    upstream = UpstreamConfig(name="gpu", url="http://192.0.2.7:11434")
    assert "firewall" in only(reachability(upstream, "gpu"), "note").advice


@pytest.mark.parametrize(
    ("seats", "probed", "severity", "words"),
    [
        (4, None, "note", "nobody has found out"),
        (4, 1, "warning", "one request at a time"),
        (1, 1, "warning", "one request at a time"),
        (4, 2, "warning", "wait where nobody sees them"),
        (2, 4, None, ""),
        (4, 4, None, ""),
    ],
)
def test_seats_that_are_not_what_really_runs_are_found(
    seats: int, probed: int | None, severity: str | None, words: str
) -> None:
    """Never probed, forced to one slot, or more seats than slots."""
    upstream = UpstreamConfig(name="gpu", url="http://127.0.0.1:1", seats=seats)
    findings = list(parallelism(upstream, probed, "gpu"))
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    assert all(words in finding.message for finding in findings)


def test_a_network_file_system_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 69: the database is not safe there."""
    assert severities(doctor.data_folder(data)) == {"data": "ok"}
    monkeypatch.setattr(doctor, "file_system_of", lambda _: "nfs4")
    assert "nfs4" in only(doctor.data_folder(data), "error").message


@pytest.mark.parametrize(
    ("mode", "group", "wrong"), [(0o700, "", False), (0o755, "", True), (0o750, "", True), (0o750, "adm", False)]
)
def test_a_data_folder_that_others_may_enter_is_found(data: Path, mode: int, group: str, wrong: bool) -> None:
    """0700, or 0750 where a group may use the socket; the advice is the command that mends it."""
    data.chmod(mode)
    findings = list(doctor.permissions(a_config(data, admin__group=group)))
    assert ("error" in {finding.severity for finding in findings}) is wrong
    if wrong:
        assert only(findings, "error").advice == f"chmod 700 {data}"


def test_a_secret_or_database_that_others_may_read_is_found(data: Path) -> None:
    """Every file under secrets/, and the database."""
    secrets = paths.secrets_folder(data)
    secrets.mkdir(mode=0o700)
    (secrets / "audit.key").write_text("secret")
    (secrets / "audit.key").chmod(0o644)
    paths.database_file(data).touch(mode=0o600)
    paths.database_file(data).chmod(0o640)
    wrong = [finding.message for finding in doctor.permissions(a_config(data)) if finding.severity == "error"]
    assert len(wrong) == 2
    assert any("audit.key has mode 0644" in message for message in wrong)


def test_a_disk_that_is_nearly_full_is_found(data: Path) -> None:
    """Below min_free nothing is admitted; twice that is a warning."""
    free = os.statvfs(data).f_bavail * os.statvfs(data).f_frsize
    assert severities(doctor.disk(a_config(data, storage__min_free=free * 2))) == {"disk": "error"}
    assert severities(doctor.disk(a_config(data, storage__min_free=free * 3 // 4))) == {"disk": "warning"}
    assert severities(doctor.disk(a_config(data, storage__min_free=0))) == {"disk": "ok"}


def test_an_implausible_clock_is_found() -> None:
    """Before the program was written, or decades after."""
    assert severities(doctor.clock()) == {"clock": "ok"}
    assert severities(doctor.clock(now=0.0)) == {"clock": "error"}
    assert severities(doctor.clock(now=4e9)) == {"clock": "error"}


@pytest.mark.parametrize(
    ("flags", "severity"),
    [
        ({"server__host": "127.0.0.1"}, "ok"),
        ({"server__host": "0.0.0.0"}, "warning"),
        ({"server__host": "::"}, "warning"),
        ({"server__host": "0.0.0.0", "server__trusted_proxies": ["10.0.0.1"]}, "note"),
        ({"listen": [{"host": "0.0.0.0", "port": 7001}]}, "warning"),
    ],
)
def test_a_wide_address_without_tls_is_found(data: Path, flags: dict[str, object], severity: str) -> None:
    """Keys and passwords would cross the network in clear; a proxy in front may see to it."""
    assert severities(doctor.transport(a_config(data, **flags))) == {"tls": severity}


@pytest.mark.parametrize(("days", "severity"), [(365, "ok"), (5, "warning"), (-1, "error")])
def test_a_certificate_that_ends_is_found(data: Path, tmp_path: Path, days: int, severity: str) -> None:
    """Two weeks ahead; one that is over is an error."""
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(a_certificate(days))
    config = a_config(data, server__certificate=str(certificate), server__key=str(certificate))
    assert severities(doctor.transport(config)) == {"tls": severity}


def a_certificate(days: int) -> bytes:
    """A self-signed certificate that is good for `days` from now."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, None)
    )
    return built.public_bytes(serialization.Encoding.PEM)


async def test_what_the_database_tells_is_told(data: Path) -> None:
    """Who waits for approval, missing default limits, what a probe found; without disturbing the daemon."""
    database = await Database.open(paths.database_file(data))
    try:
        assert list(doctor.database(data)) == []

        def job(conn: object) -> None:
            add_registration(conn, code="K7-42QX", email="a@b", password_hash="x", address="", now_us=1)  # type: ignore[arg-type]
            put_limits(conn, "default", {"requests_per_minute": None})  # type: ignore[arg-type]
            set_setting(conn, f"{doctor.PROBED}:gpu", "3")  # type: ignore[arg-type]

        await database.write(job)
        findings = list(doctor.database(data))
        assert "1 wait" in only(findings, "note").message
        assert "limits set default" in only(findings, "warning").advice
        assert doctor._probed(data, "gpu") == 3
        assert doctor._probed(data, "other") is None
        await database.write(lambda conn: put_limits(conn, "default", {"requests_per_minute": 10}))
        assert severities(doctor.database(data))["limits"] == "ok"
    finally:
        await database.close()


async def test_the_built_in_engine_is_not_taken_for_an_absent_ollama(data: Path) -> None:
    """Without its daemon it does not run; that no Ollama answers is then no finding."""
    database = await Database.open(paths.database_file(data))
    await database.write(lambda conn: set_setting(conn, "upstream", "builtin"))
    await database.close()
    subjects = {finding.subject for finding in await doctor.examine(a_config(data))}
    assert not [subject for subject in subjects if subject.startswith("upstream")]


def test_a_damaged_database_is_a_finding_and_no_traceback(data: Path) -> None:
    """The doctor never falls ill itself."""
    paths.database_file(data).write_bytes(b"not a database" * 100)
    assert severities(doctor.database(data)) == {"database": "warning"}


def test_loopback_is_known_in_every_spelling() -> None:
    """Names and addresses of this machine only."""
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "", "192.0.2.7", "example.org"))


def test_the_doctor_works_without_a_daemon(data: Path) -> None:
    """`python -m daemon --doctor` prints findings as JSON; the command line falls back to it."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "--doctor", "--data", str(data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("GATELODGE", "OLLAMA"))},
    )
    subjects = {entry["subject"] for entry in json.loads(done.stdout)}
    assert {"versions", "data", "permissions", "disk", "clock", "tls", "upstream ollama"} <= subjects
