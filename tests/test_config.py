"""The configuration: which source wins, and that an error names source, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import StartError
from daemon import config as configuration


def load(file: Path | None = None, environment: dict[str, str] | None = None, **flags: Any) -> configuration.Config:
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return configuration.load(file=file, environment=environment or {}, flags=dotted)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "gatelodge.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Contract, "Configuration"."""
    file = written(tmp_path, "[server]\nport = 7001\n[queue]\nsize = 10\n[deadlines]\nidle = 9\n")
    environment = {"GATELODGE_SERVER__PORT": "7002", "GATELODGE_QUEUE__SIZE": "20"}
    config = load(file, environment, server__port=7003)
    assert (config.server.port, config.queue.size, config.deadlines.idle) == (7003, 20, 9.0)
    assert config.deadlines.connect == 5.0


@pytest.mark.parametrize(
    ("host", "outside"),
    [
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.0.9", False), ("172.31.0.1", False), ("::1", False),
        ("fe80::1", False), ("fd00::1", False), ("169.254.1.1", False), ("100.64.0.1", False),
        ("localhost", False), ("gpu1", False), ("gpu1.lan", False), ("GPU1.Local.", False), ("a.b.internal", False),
        ("gpu.home.arpa", False),
        ("8.8.8.8", True), ("2606:4700::1111", True), ("172.32.0.1", True), ("api.openai.com", True),
        ("gpu.example.org", True), ("api.anthropic.com.", True), ("lan.example.org", True),
    ],
)  # fmt: skip
def test_what_looks_outside_of_the_lan_counts_as_cloud(host: str, outside: bool) -> None:
    """Row 10: a guess on the safe side from the address alone, which `cloud` overrules."""
    assert configuration.is_outside(host) == outside
    url = f"https://{f'[{host}]' if ':' in host else host}/v1"
    assert configuration.UpstreamConfig(name="a", url=url).is_cloud == outside
    for said in (True, False):
        assert configuration.UpstreamConfig(name="a", url=url, cloud=said).is_cloud == said


def test_an_authority_that_is_none_is_refused(tmp_path: Path) -> None:
    """Before the start, in words."""
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    for path in (wrong, tmp_path / "none.pem"):
        upstream = {"name": "a", "url": "https://a", "authority": str(path)}
        with pytest.raises(StartError, match="cannot be used as an authority"):
            load(upstreams=[upstream])


def test_a_file_in_the_data_folder_is_read_by_itself(tmp_path: Path) -> None:
    """DATA/gatelodge.toml, where no file is named."""
    written(tmp_path, "[server]\nport = 7009\n")
    assert load(storage__data=str(tmp_path)).server.port == 7009


def test_lists_and_tables_in_the_environment() -> None:
    """Words comma-separated, tables as JSON."""
    config = load(
        None,
        {
            "GATELODGE_SERVER__ALLOWED_HOSTS": "gw, gw.lan",
            "GATELODGE_UPSTREAMS": '[{"name":"gpu1","url":"http://127.0.0.1:1","seats":4}]',
            "GATELODGE_LIMITS__REQUESTS_PER_MINUTE": "unlimited",
        },
    )
    assert config.server.allowed_hosts == ("gw", "gw.lan")
    assert [(each.name, each.seats) for each in config.upstreams] == [("gpu1", 4)]
    assert config.limits.requests_per_minute is None


def test_unlimited_is_said_so_in_the_file_too(tmp_path: Path) -> None:
    """TOML has no null."""
    config = load(written(tmp_path, '[limits]\nrequests_per_minute = "unlimited"\ntokens_per_day = 5\n'))
    assert (config.limits.requests_per_minute, config.limits.tokens_per_day) == (None, 5)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://10.0.0.5:11434", "http://10.0.0.5:11434"),
        ("10.0.0.5", "http://10.0.0.5:11434"),
        ("gpu:8080/", "http://gpu:8080"),
    ],
)
def test_ollama_base_url_counts_where_nothing_else_names_an_upstream(given: str, url: str) -> None:
    """Row 35, in the spellings that Ollama's own variable allows."""
    assert load(None, {"OLLAMA_BASE_URL": given}).upstreams[0].url == url
    named = load(None, {"OLLAMA_BASE_URL": given}, upstreams=[{"name": "a", "url": "http://a"}])
    assert named.upstreams[0].url == "http://a"


def test_ollama_and_seats_replace_the_list_with_one() -> None:
    """`--ollama URL` and `--seats N`."""
    assert configuration.with_ollama(None, None) is None
    assert configuration.with_ollama("http://a:1", 3) == [{"name": "ollama", "url": "http://a:1", "seats": 3}]
    assert configuration.with_ollama(None, 3) == [{"name": "ollama", "url": "http://127.0.0.1:11434", "seats": 3}]


WRONG = [
    ({"GATELODGE_SERVER__PORT": "70000"}, {}, ["environment", "server.port", "70000", "65535"]),
    ({"GATELODGE_QUEUE__SIZE": "many"}, {}, ["GATELODGE_QUEUE__SIZE", "many", "whole number"]),
    ({"GATELODGE_QUEU__SIZE": "1"}, {}, ["GATELODGE_QUEU__SIZE", "no configuration key"]),
    ({"GATELODGE_UPSTREAMS": "nonsense"}, {}, ["GATELODGE_UPSTREAMS", "JSON"]),
    ({"GATELODGE_LOG__LEVEL": "loud"}, {}, ["log.level", "loud", "debug, info, warning, error"]),
    ({}, {"server__port": -1}, ["command line", "server.port", "-1"]),
    ({}, {"upstreams": [{"name": "a", "url": "ftp://a"}]}, ["upstreams[0].url", "ftp://a", "http://"]),
    ({}, {"upstreams": [{"name": "a", "url": "http://u:p@a"}]}, ["upstreams[0].url", "credentials"]),
    ({}, {"upstreams": [{"name": "a b", "url": "http://a"}]}, ["upstreams[0].name", "letters"]),
    ({}, {"upstreams": [{"name": "a", "url": "http://a"}, {"name": "a", "url": "http://b"}]}, ["names must differ"]),
    ({}, {"upstreams": [{"nam": "a", "url": "http://a"}]}, ["upstreams[0].nam", "no key"]),
    ({}, {"server__certificate": "/x.pem"}, ["server.certificate", "together"]),
    ({}, {"server__certificate": "/no.pem", "server__key": "/no.key"}, ["/no.pem", "no such file"]),
    ({}, {"server__trusted_proxies": ["10.0.0.0/99"]}, ["server.trusted_proxies", "10.0.0.0/99", "range"]),
    ({}, {"queue__size": 5, "queue__per_user": 6}, ["queue.per_user", "6", "queue.size (5)"]),
    ({}, {"server__host": ""}, ["server.host", "''", "0.0.0.0"]),
    ({}, {"upstreams": configuration.with_ollama("http://a", 0)}, ["upstreams[0].seats", "0", "at least 1"]),
    ({}, {"upstreams": configuration.with_ollama("", None)}, ["upstreams[0].url", "http://"]),
    ({}, {"tokens__access_lifetime": 601}, ["tokens.access_lifetime", "600"]),
]


@pytest.mark.parametrize(("environment", "flags", "words"), WRONG)
def test_an_error_names_source_key_value_and_what_is_allowed(
    environment: dict[str, str], flags: dict[str, Any], words: list[str]
) -> None:
    """One line that a person can act on."""
    with pytest.raises(StartError) as raised:
        load(None, environment, **flags)
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server\n", ["not valid TOML"]),
        ("[server]\nport = 'x'\n", ["server.port", "'x'", "whole number"]),
        ("[srver]\n", ["srver", "no key"]),
        ("[[upstreams]]\nname = 'a'\n", ["upstreams", "url"]),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    """The file's name is in the message, with what is wrong in it."""
    file = written(tmp_path, text)
    with pytest.raises(StartError) as raised:
        load(file)
    for word in [str(file), *words]:
        assert word in str(raised.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Named, so it must exist."""
    with pytest.raises(StartError, match="cannot read"):
        load(tmp_path / "no.toml")


def test_data_lives_where_systemd_says() -> None:
    """$STATE_DIRECTORY of the unit, else /var/lib/gatelodge."""
    assert load(None, {"STATE_DIRECTORY": "/srv/gate"}).data == Path("/srv/gate")
    assert load().data == Path("/var/lib/gatelodge")
