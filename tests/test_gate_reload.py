"""SIGHUP reads the configuration again: what changes at once, what waits for a restart, and what never breaks."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from common.errors import StartError
from common.protocol import DOCTOR, STATUS, Nothing
from console.client import Client
from daemon import config as configuration
from daemon.admin.house import doctor, status
from daemon.config import Config
from daemon.house import House
from daemon.providers import registry as registries
from daemon.reload import reload
from tests.rigs.certificates import make_certificate
from tests.rigs.gatehouse import ADMIN, QUESTION, Gatehouse, gatehouse
from tests.rigs.process import daemon_process
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import chunks, stall_before_headers
from tests.test_house_documented import page, table_rows


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Any:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


def changed(config: Config, **keys: Any) -> Config:
    """`config` with other values, by dotted keys with `__` for the dot."""
    for name, value in keys.items():
        section, _, key = name.partition("__")
        new = msgspec.structs.replace(getattr(config, section), **{key: value}) if key else value
        config = msgspec.structs.replace(config, **{section: new})
    return config


async def reloaded(gate: Gatehouse, **keys: Any) -> None:
    """A reload that finds the running configuration with other values."""
    wanted = changed(gate.house.config, **keys)
    await reload(gate.house, lambda: wanted)


# --- the table of keys ---


def other_value(key: str, value: Any) -> Any:
    """Some other value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case None:
            return 7
        case tuple():
            return (*value, "127.0.0.1")
        case str() if key == "log.level":
            return "debug"
        case str() if key == "log.format":
            return "text"
        case _:
            return f"{value}x"


SINGLE = [key for key, _, _ in configuration.keys() if "[]" not in key]  # noqa: SIM118


@pytest.mark.parametrize("key", SINGLE)
def test_each_key_is_taken_up_or_named_as_waiting(key: str) -> None:
    """`ON_RELOAD` decides, and no key is passed over in silence."""
    running = changed(Config(), server__certificate="a.pem", server__key="a.key")
    section, _, name = key.partition(".")
    before = getattr(getattr(running, section), name)
    read = changed(running, **{f"{section}__{name}": other_value(key, before)})
    now, taken, waiting = configuration.taken_up(running, read)
    if key in configuration.ON_RELOAD:
        assert (now, taken, waiting) == (read, [key], [])
    else:
        assert (now, taken, waiting) == (running, [], [key])


def test_the_page_says_of_each_key_what_a_reload_does() -> None:
    """docs/configuration.md, column `reload`."""
    said = {cells[0].strip("`"): cells[3] for cells in table_rows(page("configuration.md")) if "." in cells[0]}
    assert said == {
        key: "yes" if key in configuration.ON_RELOAD else "restart"
        for key, _, _ in configuration.keys()  # noqa: SIM118
    }


def test_tls_is_neither_turned_on_nor_off_by_a_reload() -> None:
    """A listener keeps its manner of speaking; other files for it are taken up."""
    plain, secured = Config(), changed(Config(), server__certificate="a.pem", server__key="a.key")
    for running, read in ((plain, secured), (secured, plain)):
        assert configuration.taken_up(running, read) == (running, [], ["server.certificate", "server.key"])
    entry = configuration.Listen(host="127.0.0.1", port=1, certificate="a", key="a")
    running = changed(Config(), listen=(entry,))
    for other, taken in (({"certificate": "b"}, True), ({"certificate": "", "key": ""}, False), ({"port": 2}, False)):
        read = changed(running, listen=(msgspec.structs.replace(entry, **other),))
        assert configuration.taken_up(running, read)[0] == (read if taken else running)


def test_upstreams_that_the_daemon_chose_itself_wait_for_a_restart() -> None:
    """Perhaps it runs an engine of its own."""
    named = changed(Config(), upstreams=(configuration.UpstreamConfig(name="a", url="http://a"),))
    for running, read in ((Config(), named), (named, Config())):
        assert configuration.taken_up(running, read) == (running, [], ["upstreams"])


# What shows that a key is in force: another value, and where it is found afterwards.
IN_FORCE: dict[str, tuple[Any, Callable[[House], Any]]] = {
    "server.connections_per_address": (3, lambda house: house.servers[0]._per_address),
    "server.trusted_proxies": (("10.0.0.0/8",), lambda house: tuple(map(str, house.trusted_proxies))),
    "server.allowed_hosts": (("127.0.0.1",), lambda house: house.config.server.allowed_hosts),
    "server.cors_origins": (("http://a",), lambda house: house.config.server.cors_origins),
    "server.max_body": (999, lambda house: house.servers[0]._bounds.max_body),
    "storage.min_free": (5, lambda house: house.disk.min_free),
    "models.default": ("m", lambda house: house.registry._default),
    "models.prices": ("/dev/null", lambda house: str(house.gate.prices.path)),
    "queue.size": (9, lambda house: house.registry.upstreams[0].seats._queue_size),
    "queue.per_user": (8, lambda house: house.registry.upstreams[0].seats._per_user),
    "queue.longest_wait": (7.0, lambda house: house.registry.upstreams[0].seats._longest_wait),
    "deadlines.connect": (6.0, lambda house: house.registry.upstreams[0].pool.connect_timeout),
    "deadlines.first_byte": (5.5, lambda house: house.gate.deadlines.first_byte),
    "deadlines.idle": (4.5, lambda house: house.gate.deadlines.idle),
    "deadlines.total": (3.5, lambda house: house.gate.deadlines.total),
    "deadlines.shutdown": (2.5, lambda house: house.config.deadlines.shutdown),
    "registration.self_issued_keys": (False, lambda house: house.config.registration.self_issued_keys),
    "log.level": ("error", lambda _: logging.getLevelName(logging.getLogger().level).lower()),
}
SHOWN_BELOW = {key for key in configuration.ON_RELOAD if "[]" in key} | {"server.certificate", "server.key"}


async def test_every_key_that_is_taken_up_is_in_force_afterwards(gate: Gatehouse) -> None:
    """All at once; nothing is only remembered."""
    assert set(IN_FORCE) | SHOWN_BELOW == configuration.ON_RELOAD
    await reloaded(gate, **{key.replace(".", "__"): value for key, (value, _) in IN_FORCE.items()})
    assert gate.house.reloaded and not gate.house.reloaded.problem
    assert {key: look(gate.house) for key, (_, look) in IN_FORCE.items()} == {
        key: value for key, (value, _) in IN_FORCE.items()
    }
    large = await gate.post("/api/chat", b"x" * 1000)
    assert large.status_code == 413
    strange = await gate.get("/v1/queue", headers={"Host": "other"})
    assert strange.status_code == 421


# --- a real daemon ---


async def test_sighup_takes_up_the_file_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    """Log, status and doctor say what was taken up, what waits for a restart, and why a bad file was not taken."""
    file = tmp_path / "gatelodge.toml"
    client = Client(tmp_path / "data" / "gatelodge.sock")

    def ask(verb: Any) -> Any:
        return asyncio.to_thread(client.ask, verb, Nothing())

    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        tables = [f'[[upstreams]]\nname = "{n}"\nurl = "{up.url}"\n' for n, up in (("a", first), ("b", second))]
        file.write_text(tables[0])
        async with daemon_process(tmp_path / "data", "--config", str(file)) as daemon:
            await daemon.listening()
            file.write_text("".join(tables) + '[queue]\nsize = 7\nper_user = 3\n[admin]\ngroup = "nobody"\n')
            daemon.send(signal.SIGHUP)
            await until(lambda: daemon.said("changed upstreams, queue.size, queue.per_user"))
            assert daemon.said("these keys take effect at the next restart only: admin.group")
            said = await ask(STATUS)
            assert [(each.name, each.state) for each in said.upstreams] == [("a", "ok"), ("b", "ok")]
            assert (said.reloaded.problem, said.reloaded.waiting_for_restart) == ("", ["admin.group"])
            file.write_text("[queue]\nsize = 0\n")
            daemon.send(signal.SIGHUP)
            await until(lambda: daemon.said("everything is as it was: " + f"{file}: queue.size = 0"))
            said = await ask(STATUS)
            assert "queue.size = 0" in said.reloaded.problem
            assert [each.name for each in said.upstreams] == ["a", "b"]
            found = {(each.subject, each.severity) for each in await ask(DOCTOR)}
            assert {("configuration", "error"), ("configuration", "warning")} <= found
            file.write_text("".join(tables))
            daemon.send(signal.SIGHUP)
            await until(lambda: len(daemon.said("the configuration was read again")) == 2)
            said = await ask(STATUS)
            assert (said.reloaded.problem, said.reloaded.waiting_for_restart) == ("", [])
            assert await daemon.stop() == 0


# --- upstreams ---


async def test_an_upstream_that_is_taken_away_serves_its_own_to_their_end(
    gate: Gatehouse, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs and what waits there goes on, what comes later goes to the new one; then its connections are closed."""
    monkeypatch.setattr(registries, "LOOK_EVERY", 0.01)
    pace, held = asyncio.Semaphore(1), asyncio.Event()
    upstream.next(chunks(3, pace=pace), stall_before_headers(held))
    old = gate.house.registry.upstreams[0]
    async with ScriptedUpstream() as other, gate.streaming() as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        asking = [asyncio.ensure_future(gate.chat()) for _ in range(2)]
        await until(lambda: (old.seats.running, old.seats.waiting) == (2, 1))
        await reloaded(gate, upstreams=(configuration.UpstreamConfig(name="up", url=other.url, seats=1),))
        assert [each.url for each in gate.house.registry.upstreams] == [other.url]
        looking = asyncio.create_task(gate.house.registry.run())
        await until(lambda: gate.house.registry.upstreams[0].healthy)
        assert (await gate.chat()).status_code == 200
        assert len(other.inference) == 1
        for _ in range(3):
            pace.release()
        assert json.loads([line async for line in lines][-1])["done"] is True
        held.set()
        assert [one.status_code for one in await asyncio.gather(*asking)] == [200, 200]
        assert (len(upstream.inference), len(other.inference)) == (3, 1)
        await until(lambda: not gate.house.registry._retired)
        looking.cancel()
        await asyncio.wait({looking})
        assert repr(old.pool).endswith("0 idle, 0 busy, closed>")


async def test_other_seats_are_taken_up_and_what_an_administrator_set_stays(
    gate: Gatehouse, upstream: ScriptedUpstream
) -> None:
    """A new value in the file wins; an unchanged one leaves what was set over the socket alone."""
    only = gate.house.registry.upstreams[0]
    only.seats.resize(5)
    await reloaded(gate, queue__size=100, queue__per_user=50)
    assert only.seats.size == 5
    (config,) = gate.house.config.upstreams
    await reloaded(gate, upstreams=(msgspec.structs.replace(config, seats=3),))
    assert gate.house.registry.upstreams[0] is only
    assert only.seats.size == 3


async def test_a_reload_is_on_record(gate: Gatehouse) -> None:
    """What changed stands in the audit, beside what administrators did."""
    await reloaded(gate, queue__size=100, queue__per_user=50)
    (record,) = [each for each in await gate.admin_records() if '"verb":"reload"' in each]
    assert '"changed":["queue.size","queue.per_user"]' in record


async def test_what_changed_in_a_file_of_the_configuration_is_told(
    tmp_path: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Prices and keys act from then on, so it is not said that nothing changed; nor is a key told."""
    caplog.set_level(logging.INFO, "gatelodge.daemon")
    key = tmp_path / "up.key"
    key.write_text("sk-before-0123456789")
    key.chmod(0o600)
    behind = {"name": "up", "kind": "ollama", "url": upstream.url, "seats": 2, "key_file": str(key)}
    async with gatehouse(tmp_path, upstream, upstreams=[behind]) as gate:
        prices = '[[price]]\nat = "up"\nmodel = "*"\ninput = 1\noutput = 1\n'
        (gate.house.config.data / "prices.toml").write_text(prices)
        key.write_text("sk-after-0123456789")
        await reloaded(gate)
        await reloaded(gate)
        said = [record.getMessage() for record in caplog.records if "read again" in record.getMessage()]
        assert said == [
            "the configuration was read again: changed the prices, the key of up",
            "the configuration was read again: nothing changed",
        ]
        first, second = [each for each in await gate.admin_records() if '"verb":"reload"' in each]
        assert '"changed":["the prices","the key of up"]' in first and '"changed":[]' in second
        assert (await gate.chat()).status_code == 200
        assert upstream.inference[-1].headers["authorization"] == "Bearer sk-after-0123456789"


async def test_what_cannot_be_read_is_told_by_status_and_doctor(gate: Gatehouse) -> None:
    """Until a reload goes well."""

    def unreadable() -> Config:
        raise StartError("cannot read the configuration file x: no such file")

    await reload(gate.house, unreadable)
    said = await status(gate.house, ADMIN, Nothing())
    assert said.reloaded is not None and "no such file" in said.reloaded.problem
    assert [
        each.severity for each in await doctor(gate.house, ADMIN, Nothing()) if each.subject == "configuration"
    ] == ["error"]
    await reloaded(gate)
    assert "configuration" not in {each.subject for each in await doctor(gate.house, ADMIN, Nothing())}


# --- H11: certificates ---


async def test_a_certificate_is_exchanged_without_a_failed_handshake(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Clients connect all the time; a stream that runs goes on; a pair that does not fit keeps the one before."""
    certificate, key = make_certificate(tmp_path)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(certificate.read_bytes())
    first = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    pair = {"server__certificate": str(certificate), "server__key": str(key)}
    async with gatehouse(tmp_path, upstream, **pair) as gate:
        seen: list[bytes] = []
        failed: list[Exception] = []
        enough = asyncio.Event()

        async def connect() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            while not enough.is_set():
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", gate.port, ssl=context)
                except (OSError, EOFError) as error:
                    failed.append(error)
                    continue
                seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                writer.close()

        pace = asyncio.Semaphore(1)
        upstream.next(chunks(3, pace=pace))
        body = json.dumps(QUESTION)
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=trusted), timeout=20) as client:
            async with client.stream("POST", f"{gate.url}/api/chat", content=body, headers=gate.bearer()) as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                connecting = [asyncio.ensure_future(connect()) for _ in range(4)]
                await until(lambda: len(seen) > 20)

                certificate.write_text("no certificate at all")
                await reloaded(gate)
                assert gate.house.reloaded and str(certificate) in gate.house.reloaded.problem
                count = len(seen)
                await until(lambda: len(seen) > count + 20)
                assert set(seen) == {first}

                make_certificate(tmp_path)
                second = ssl.PEM_cert_to_DER_cert(certificate.read_text())
                await reloaded(gate)
                assert not gate.house.reloaded.problem
                await until(lambda: second in seen)
                count = len(seen)
                await until(lambda: len(seen) > count + 20)
                assert set(seen[count + 4 :]) == {second}
                enough.set()
                await asyncio.gather(*connecting)
                assert failed == []
                for _ in range(3):
                    pace.release()
                assert json.loads([line async for line in lines][-1])["done"] is True
