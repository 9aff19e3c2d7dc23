"""Rows 10, 62, 63: providers outside of the LAN. Nothing leaves before it was enabled and the user allowed."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from common.errors import BadRequest, StartError
from common.protocol import ModelTarget, Nothing, UpstreamsKey, UpstreamTarget
from daemon import config as configuration
from daemon import failover
from daemon.admin import cloud as cloud_verbs
from daemon.admin import house as house_verbs
from daemon.admin import models as model_verbs
from daemon.admin import upstreams as upstream_verbs
from daemon.admin.rows import upstream_row
from daemon.config import Alias, UpstreamConfig
from daemon.providers import circuit
from daemon.providers.prices import SHIPPED, Prices
from daemon.providers.sealing import Seal, from_file
from daemon.reload import reload
from tests.rigs import upstream_behaviours as behaviours
from tests.rigs.cloud import SECRET, Cloud, cloud, overloaded, slow_down
from tests.rigs.connect_proxy import ConnectProxy
from tests.rigs.gatehouse import ADMIN, QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import Behaviour, ScriptedUpstream
from tests.rigs.until import until

FAR = "claude-sonnet-4-5"
ASKED = {"model": FAR, "messages": [{"role": "user", "content": "Why is that so?"}]}
ROUTES = {
    "/api/chat": ASKED | {"stream": False},
    "/v1/chat/completions": ASKED,
    "/v1/messages": ASKED | {"max_tokens": 50},
    "/v1/responses": {"model": FAR, "input": "Why is that so?"},
}


@pytest.fixture
async def near() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path) as each:
        yield each


@pytest.fixture
async def gate(tmp_path: Path, near: ScriptedUpstream, provider: Cloud) -> AsyncIterator[Gatehouse]:
    """A gate before a server on the LAN and a provider outside, which is not enabled."""
    async with gatehouse(tmp_path, near, upstreams=[lan(near), provider.configured()]) as house:
        yield house


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own pauses before another try are not waited for; what a provider asks for is."""
    monkeypatch.setattr(failover, "FIRST_WAIT", 0.0)


def lan(near: ScriptedUpstream, **more: object) -> dict[str, object]:
    return {"name": "near", "kind": near.kind, "url": near.url, "seats": 2} | more


async def names_shown(gate: Gatehouse, key: str | None = None) -> set[str]:
    tags = {row["name"] for row in (await gate.get("/api/tags", key=key)).json()["models"]}
    listed = {row["id"] for row in (await gate.get("/v1/models", key=key)).json()["data"]}
    assert tags == listed
    return tags


# --- nothing leaves ---


async def test_a_provider_that_nobody_enabled_is_asked_nothing(gate: Gatehouse, provider: Cloud) -> None:
    """Not even for its models; for everybody it is as if they did not exist."""
    await gate.house.directory.set_cloud(ADMIN, gate.user.id, True)
    await gate.house.registry.refresh()
    for route, body in ROUTES.items():
        answer = await gate.post(route, body)
        assert answer.status_code == 404, route
        assert f"model '{FAR}' not found" in answer.text
    assert (await gate.post("/api/chat", ASKED | {"model": f"cloud/{FAR}"})).status_code == 404
    assert await names_shown(gate) == {"smollm2:135m"}
    assert provider.server.connections == 0


async def test_a_user_who_may_not_sees_and_gets_nothing_of_it(gate: Gatehouse, provider: Cloud) -> None:
    """Enabled is not enough: the dialect's own 404, the same as for a model that there is not."""
    _, other = await gate.member("ben@example.org")
    await provider.open_to(gate)
    for route, body in ROUTES.items():
        refused = await gate.post(route, body, key=other)
        unknown = await gate.post(route, body | {"model": "no-such-model"}, key=other)
        assert refused.status_code == unknown.status_code == 404
        assert without_ids(refused.text.replace(FAR, "no-such-model")) == without_ids(unknown.text)
    assert (await gate.get(f"/v1/models/{FAR}", key=other)).status_code == 404
    assert (await gate.post("/api/show", {"model": FAR}, key=other)).status_code == 404
    counted = await gate.post("/v1/messages/count_tokens", ROUTES["/v1/messages"], key=other)
    assert counted.status_code == 404
    assert await names_shown(gate, other) == {"smollm2:135m"}
    assert await names_shown(gate) == {"smollm2:135m", FAR, "claude-haiku-4-5"}
    assert provider.server.inference == []


def without_ids(text: str) -> str:
    return re.sub(r"[0-9a-z]{26}", "ID", text)


@pytest.mark.parametrize("route", ROUTES)
async def test_who_may_is_served_in_every_dialect(gate: Gatehouse, provider: Cloud, route: str) -> None:
    """Translated or as it is; the provider sees its key and its version, and nothing of the caller's."""
    await provider.open_to(gate)
    answer = await gate.post(route, ROUTES[route])
    assert answer.status_code == 200, answer.text
    assert "Why not?" in answer.text
    (seen,) = provider.server.inference
    assert (seen.path, seen.document["model"], seen.document["stream"]) == ("/v1/messages", FAR, True)
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (SECRET, "2023-06-01")
    assert "authorization" not in seen.headers
    record = await gate.audit(answer.headers["X-Request-Id"])
    assert (record.state, record.upstream, record.model) == ("ok", "cloud", FAR)
    assert (record.tokens_in, record.tokens_out) == (4, 3)


async def test_what_was_allowed_can_be_taken_back(gate: Gatehouse, provider: Cloud) -> None:
    """By user and by provider, from the next request on; each change is on record."""
    await provider.open_to(gate)
    assert (await gate.chat(model=FAR)).status_code == 200
    await gate.house.directory.set_cloud(ADMIN, gate.user.id, False)
    assert (await gate.chat(model=FAR)).status_code == 404
    await gate.house.directory.set_cloud(ADMIN, gate.user.id, True)
    row = await cloud_verbs.disable(gate.house, ADMIN, UpstreamTarget("cloud"))
    assert (row.enabled, row.models) == (False, 0)
    connections = provider.server.connections
    assert (await gate.chat(model=FAR)).status_code == 404
    assert provider.server.connections == connections
    told = " ".join(await gate.admin_records())
    for verb in ("users cloud", "upstreams enable", "upstreams disable", "upstreams key"):
        assert f'"verb":"{verb}"' in told
    assert SECRET not in told


async def test_prompts_are_not_sent_out_to_be_counted(gate: Gatehouse, provider: Cloud) -> None:
    """What is not on record stays: the count is an estimate that says so."""
    await provider.open_to(gate)
    counted = await gate.post("/v1/messages/count_tokens", ROUTES["/v1/messages"])
    assert (counted.status_code, counted.headers["X-Gatelodge-Estimate"]) == (200, "true")
    assert provider.server.seen("/v1/messages/count_tokens") == []


async def test_a_model_of_the_lan_stays_on_the_lan(tmp_path: Path, near: ScriptedUpstream) -> None:
    """Under its plain name it is asked for nowhere else, also while its server is away; by the full name it is."""
    async with (
        cloud(tmp_path, kind="openai", models=("smollm2:135m",)) as provider,
        gatehouse(tmp_path, near, upstreams=[lan(near), provider.configured()]) as gate,
    ):
        await provider.open_to(gate)
        assert (await gate.chat()).status_code == 200
        await near.stop()
        assert (await gate.chat()).status_code == 502
        assert provider.server.inference == []
        assert (await gate.chat(model="cloud/smollm2:135m")).status_code == 200
        assert provider.server.inference[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_an_ollamas_cloud_models_count_as_cloud(tmp_path: Path, near: ScriptedUpstream) -> None:
    """`:cloud` and `remote_host`: the Ollama must be enabled and the user allowed."""
    near.add_model("gpt-oss:120b-cloud")
    near.add_model("mine", remote_host="https://ollama.com")
    async with gatehouse(tmp_path, near) as gate:
        await gate.house.directory.set_cloud(ADMIN, gate.user.id, True)
        for model in ("gpt-oss:120b-cloud", "mine"):
            assert (await gate.chat(model=model)).status_code == 404
        await cloud_verbs.enable(gate.house, ADMIN, UpstreamTarget("up"))
        _, other = await gate.member("ben@example.org")
        for model in ("gpt-oss:120b-cloud", "mine"):
            assert (await gate.chat(model=model)).status_code == 200
            assert (await gate.chat(model=model, key=other)).status_code == 404
        assert await names_shown(gate, other) == {"smollm2:135m"}
        assert len(near.inference) == 2


# --- keys ---


async def test_a_key_is_sealed_and_never_returned(gate: Gatehouse, provider: Cloud) -> None:
    """P8: neither in the database nor in its log, in no answer; the key that opens it lies outside of the database."""
    row = await cloud_verbs.set_key(gate.house, ADMIN, UpstreamsKey("cloud", f"  {SECRET}\n"))
    assert row.has_key
    assert SECRET not in repr(row) + repr(gate.house.registry) + repr(UpstreamsKey("cloud", SECRET))
    for file in gate.data.glob("gatelodge.db*"):
        assert SECRET.encode() not in file.read_bytes()
    opener = gate.data / "secrets" / "providers.key"
    assert (opener.stat().st_mode & 0o777, len(opener.read_bytes())) == (0o600, 32)


async def test_keys_and_switches_outlive_a_restart(tmp_path: Path, near: ScriptedUpstream, provider: Cloud) -> None:
    """And hold for the address they were set for: an upstream that is pointed elsewhere is shown nothing."""
    upstreams = [lan(near), provider.configured()]
    async with gatehouse(tmp_path, near, upstreams=upstreams) as gate:
        await provider.open_to(gate)
    async with gatehouse(tmp_path, near, upstreams=upstreams) as gate:
        assert (await gate.chat(model=FAR)).status_code == 200
    async with cloud(tmp_path, name="elsewhere") as other:
        moved = other.configured(name="cloud")
        async with gatehouse(tmp_path, near, upstreams=[lan(near), moved]) as gate:
            row = upstream_row(gate.house.registry.upstream("cloud"))
            assert (row.enabled, row.has_key) == (False, False)
            await cloud_verbs.enable(gate.house, ADMIN, UpstreamTarget("cloud"))
            assert all("x-api-key" not in seen.headers for seen in other.server.requests)
            assert other.server.requests


async def test_a_key_may_lie_in_a_file(tmp_path: Path, near: ScriptedUpstream, provider: Cloud) -> None:
    """A credential of the service manager's; the console cannot overrule it."""
    file = tmp_path / "cloud-key"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    upstreams = [lan(near), provider.configured(key_file=str(file))]
    async with gatehouse(tmp_path, near, upstreams=upstreams) as gate:
        await cloud_verbs.enable(gate.house, ADMIN, UpstreamTarget("cloud"))
        assert {seen.headers["x-api-key"] for seen in provider.server.requests} == {SECRET}
        with pytest.raises(Exception, match="in a file"):
            await cloud_verbs.set_key(gate.house, ADMIN, UpstreamsKey("cloud", "other"))


async def test_a_reload_takes_up_another_key_and_new_names(
    tmp_path: Path, near: ScriptedUpstream, provider: Cloud
) -> None:
    """All or nothing: with a key file that others may read nothing changes."""
    file = tmp_path / "cloud-key"
    file.write_text("sk-old")
    file.chmod(0o600)
    upstreams = [lan(near), provider.configured(key_file=str(file))]
    async with gatehouse(tmp_path, near, upstreams=upstreams) as gate:
        await gate.house.directory.set_cloud(ADMIN, gate.user.id, True)
        await cloud_verbs.enable(gate.house, ADMIN, UpstreamTarget("cloud"))
        before = gate.house.config
        wanted = msgspec.structs.replace(before, aliases=(Alias(name="smart", models=(f"cloud/{FAR}",)),))
        file.write_text("sk-new")
        file.chmod(0o644)
        await reload(gate.house, lambda: wanted)
        assert gate.house.reloaded is not None
        assert "read by others" in gate.house.reloaded.problem
        assert (await gate.chat(model="smart")).status_code == 404
        assert (await gate.chat(model=FAR)).status_code == 200
        assert provider.server.inference[-1].headers["x-api-key"] == "sk-old"
        file.chmod(0o600)
        await reload(gate.house, lambda: wanted)
        assert not gate.house.reloaded.problem
        assert (await gate.chat(model="smart")).status_code == 200
        assert provider.server.inference[-1].headers["x-api-key"] == "sk-new"


async def test_what_looks_around_does_not_knock_outside(gate: Gatehouse, provider: Cloud) -> None:
    """The doctor, the probe of seats, who has access: none of them asks a provider."""
    await provider.open_to(gate)
    asked = len(provider.server.requests)
    findings = await house_verbs.doctor(gate.house, ADMIN, Nothing())
    assert any(each.subject == "upstream cloud" and each.severity == "note" for each in findings)
    with pytest.raises(BadRequest, match="outside of this network"):
        await upstream_verbs.probe(gate.house, ADMIN, UpstreamTarget("cloud"))
    await gate.member("ben@example.org")
    access = await model_verbs.access(gate.house, ADMIN, ModelTarget(FAR))
    assert {each.user for each in access} == {"ana@example.org"}
    near = await model_verbs.access(gate.house, ADMIN, ModelTarget("smollm2:135m"))
    assert {each.user for each in near} == {"ana@example.org", "ben@example.org"}
    assert len(provider.server.requests) == asked


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """And one that is not there, or holds no key; a bare name is one of the service manager's credentials."""
    file = tmp_path / "key"
    file.write_text("k1\n")
    upstream = UpstreamConfig(name="a", url="http://a", key_file=str(file))
    file.chmod(0o604)
    with pytest.raises(StartError, match="read by others"):
        from_file(upstream)
    file.chmod(0o640)
    assert from_file(upstream) == "k1"
    bare = UpstreamConfig(name="a", url="http://a", key_file="key")
    assert from_file(bare, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "k1"
    for wrong in ("", "two words", "new\nline", "é"):
        file.write_text(wrong)
        with pytest.raises(StartError, match="none"):
            from_file(upstream)
    file.unlink()
    with pytest.raises(StartError, match="cannot read"):
        from_file(upstream)


def test_a_sealed_key_opens_only_for_what_it_was_sealed_for(tmp_path: Path) -> None:
    """Not for another name, kind or address, not under another key, not with a bit changed."""
    seal = Seal.load_or_create(tmp_path / "providers.key")
    upstream = UpstreamConfig(name="a", kind="openai", url="https://a.example/v1")
    sealed = seal.sealed(SECRET, upstream)
    assert SECRET.encode() not in sealed
    assert Seal.load_or_create(tmp_path / "providers.key").opened(sealed, upstream) == SECRET
    for other in (
        UpstreamConfig(name="b", kind="openai", url="https://a.example/v1"),
        UpstreamConfig(name="a", kind="anthropic", url="https://a.example/v1"),
        UpstreamConfig(name="a", kind="openai", url="https://b.example/v1"),
    ):
        assert seal.opened(sealed, other) is None
    assert seal.opened(sealed[:-1] + bytes([sealed[-1] ^ 1]), upstream) is None
    assert seal.opened(b"", upstream) is None
    assert Seal(os.urandom(32)).opened(sealed, upstream) is None


# --- TLS ---


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, near: ScriptedUpstream, provider: Cloud
) -> None:
    """Without the private authority nothing is sent, the key least of all."""
    upstreams = [lan(near), provider.configured(authority="")]
    async with gatehouse(tmp_path, near, upstreams=upstreams) as gate:
        await provider.open_to(gate)
        row = upstream_row(gate.house.registry.upstream("cloud"))
        assert row.state == "down"
        assert "certificate is not valid" in (row.error or "")
        assert provider.server.requests == []


async def test_redirects_and_proxies_are_not_followed(
    gate: Gatehouse, provider: Cloud, near: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the configured address: what a provider or the environment names besides gets nothing."""
    monkeypatch.setenv("HTTPS_PROXY", near.url)
    monkeypatch.setenv("ALL_PROXY", near.url)
    await provider.open_to(gate)
    provider.server.next(behaviours.redirect(f"{near.url}/v1/messages"))
    answer = await gate.chat(model=FAR)
    assert answer.status_code == 502
    assert near.seen("/v1/messages") == []
    assert all(seen.method != "CONNECT" for seen in near.requests)


async def test_a_configured_proxy_sees_the_name_and_nothing_else(
    tmp_path: Path, near: ScriptedUpstream, provider: Cloud
) -> None:
    """The tunnel's end is the provider, whose certificate counts; without the proxy there is no other way."""
    async with ConnectProxy() as proxy:
        upstreams = [lan(near), provider.configured(proxy=proxy.url)]
        async with gatehouse(tmp_path, near, upstreams=upstreams) as gate:
            await provider.open_to(gate)
            assert (await gate.chat(model=FAR)).status_code == 200
            assert set(proxy.asked) == {f"127.0.0.1:{provider.server.port}"}
            assert len(proxy.passed) > 2000
            assert not any(word in proxy.passed for word in (SECRET.encode(), b"Why", b"messages", FAR.encode()))
            upstream = gate.house.registry.upstream("cloud")
            await provider.server.stop()
            await provider.server.start()
            for answer, words in (
                (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "refused with 407"),
                (b"220 mail.example ESMTP\r\n\r\n", "not answer as a proxy would"),
                (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "said more"),
                (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "not answer as a proxy would"),
                (b"HTTP/1.1 20", "closed the connection"),
            ):
                proxy.answer = answer
                answered = await gate.chat(model=FAR)
                assert answered.status_code == 502
                assert words in answered.json()["error"]
                assert "cannot be reached" in upstream.error


def test_a_proxy_that_could_not_be_used_is_refused() -> None:
    """At the start, in words."""
    for proxy, url, words in (
        ("socks5://p:1", "https://a", "must be an address"),
        ("https://p:1", "https://a", "must be an http:// address"),
        ("http://user:secret@p:1", "https://a", "neither credentials"),
        ("http://p:1", "http://a", "https:// upstreams only"),
    ):
        with pytest.raises(StartError, match=words):
            configuration.load(environment={}, flags={"upstreams": [{"name": "a", "url": url, "proxy": proxy}]})


# --- how it misbehaves ---


async def test_too_many_requests_is_waited_for_and_tried_again(gate: Gatehouse, provider: Cloud) -> None:
    """One exchange, one end; what failed stands in its record."""
    await provider.open_to(gate)
    provider.server.next(slow_down(0), overloaded())
    answer = await gate.chat(model=FAR)
    assert answer.status_code == 200, answer.text
    assert len(provider.server.inference) == 3
    (record,) = await gate.records()
    whole = await gate.audit(record.request_id)
    assert (whole.state, [each.error for each in whole.tried]) == ("ok", ["slow down", "Overloaded"])


async def test_a_wait_that_is_too_long_is_told_to_the_client(gate: Gatehouse, provider: Cloud) -> None:
    """The provider's own Retry-After; until then it is not asked again by anybody, and a refusal costs nothing."""
    await provider.open_to(gate)
    provider.server.next(slow_down(300))
    answer = await gate.chat(model=FAR)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "300")
    again = await gate.chat(model=FAR)
    assert (again.status_code, again.json()["code"]) == (503, "upstream_resting")
    assert 290 <= int(again.headers["Retry-After"]) <= 300
    assert len(provider.server.inference) == 1
    assert (await gate.chat(model="claude-haiku-4-5")).status_code == 200, "another model is not concerned"
    assert upstream_row(gate.house.registry.upstream("cloud")).resting == [FAR]
    assert (await gate.chat()).status_code == 200


async def test_a_provider_that_stays_overloaded_is_asked_three_times(gate: Gatehouse, provider: Cloud) -> None:
    """Then the client is told: 503, in its own dialect."""
    await provider.open_to(gate)
    provider.server.next(*[overloaded()] * 3)
    answer = await gate.post("/v1/messages", ROUTES["/v1/messages"])
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "Overloaded")
    assert len(provider.server.inference) == 3


async def test_what_a_provider_calls_its_error_reaches_its_own_clients(gate: Gatehouse, provider: Cloud) -> None:
    """The type, with the status that is ours; clients of another dialect have no use for it."""
    await provider.open_to(gate)
    billing = {"type": "error", "error": {"type": "billing_error", "message": "no credit"}, "request_id": "req_1"}
    provider.server.next(*[behaviours.error(402, billing)] * 2)
    native = await gate.post("/v1/messages", ROUTES["/v1/messages"])
    assert (native.status_code, native.json()["error"]["type"]) == (502, "billing_error")
    assert native.json()["request_id"] == native.headers["x-request-id"]
    translated = await gate.post("/v1/chat/completions", ROUTES["/v1/chat/completions"])
    said = translated.json()["error"]
    assert (translated.status_code, said["type"], said["code"]) == (502, "server_error", "upstream_error")


async def test_what_is_wrong_in_itself_is_not_tried_again(gate: Gatehouse, provider: Cloud) -> None:
    """A 400 is the client's; a refused key is the gate's matter, and no reason to show it again."""
    await provider.open_to(gate)
    provider.server.next(behaviours.error(400, "max_tokens: too large"), behaviours.error(401, "invalid x-api-key"))
    assert (await gate.chat(model=FAR)).status_code == 400
    assert (await gate.chat(model=FAR)).status_code == 502
    assert len(provider.server.inference) == 2


async def test_failing_after_ten_chunks_is_an_error_in_the_stream(gate: Gatehouse, provider: Cloud) -> None:
    """Never tried again once the answer began: an explicit error, no end."""
    await provider.open_to(gate)
    provider.server.next(behaviours.error_in_stream(10), behaviours.error_in_stream(10))
    native = await gate.post("/v1/messages", ROUTES["/v1/messages"] | {"stream": True})
    assert native.text.count("content_block_delta") == 20
    last = native.text.rstrip().rpartition("event: ")[2]
    assert last.startswith("error")
    assert json.loads(last.partition("data: ")[2])["error"]["type"] == "overloaded_error"
    assert "message_stop" not in native.text
    translated = await gate.chat(model=FAR, stream=True)
    lines = [json.loads(line) for line in translated.text.splitlines()]
    assert (len(lines), lines[-1]["error"]) == (11, "scripted failure")
    assert len(provider.server.inference) == 2


@pytest.mark.parametrize(
    "garbage",
    [
        [behaviours.garble()],
        # Twice: once may be a connection that was closed while it lay idle, which is nobody's failure.
        [behaviours.close_before_headers, behaviours.close_before_headers],
        [behaviours.garbled_line_after(0, b"data: {nonsense\n\n")],
        [behaviours.error_in_stream(0)],
    ],
    ids=["no HTTP", "closed", "no event", "an error for a beginning"],
)
async def test_garbage_before_the_first_byte_is_tried_again(
    gate: Gatehouse, provider: Cloud, garbage: list[Behaviour]
) -> None:
    """Nothing of an answer came yet: the client never hears of it."""
    await provider.open_to(gate)
    provider.server.next(*garbage)
    answer = await gate.chat(model=FAR, stream=True)
    assert answer.text.count('"done":true') == 1
    (record,) = await gate.records()
    assert len((await gate.audit(record.request_id)).tried) == 1


async def test_a_provider_that_hangs_is_left_when_the_client_leaves(gate: Gatehouse, provider: Cloud) -> None:
    """Row 72, outside of the LAN, where it costs money."""
    await provider.open_to(gate)
    provider.server.default = lambda turn: turn.until_client_leaves()
    client = await RawClient.connect(gate.port)
    body = json.dumps(ASKED).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: a\r\nX-API-KEY: {gate.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    await client.send(head.encode() + body)
    (seen,) = await until(lambda: provider.server.inference)
    client.close()
    await until(seen.client_left.is_set)
    await until(lambda: gate.house.gate.live() == [])
    assert [record.state for record in await gate.records()] == ["client_left"]


async def test_a_provider_that_does_not_begin_in_time_is_a_failure_of_its_own(
    tmp_path: Path, near: ScriptedUpstream, provider: Cloud
) -> None:
    """504, not tried again: the client has waited long enough; its circuit hears of it."""
    upstreams = [lan(near), provider.configured()]
    async with gatehouse(tmp_path, near, upstreams=upstreams, deadlines__first_byte=0.1) as gate:
        await provider.open_to(gate)
        provider.server.next(*[lambda turn: turn.until_client_leaves()] * circuit.FAILURES)
        for _ in range(circuit.FAILURES):
            assert (await gate.chat(model=FAR)).status_code == 504
        resting = await gate.chat(model=FAR)
        assert (resting.status_code, resting.json()["code"]) == (503, "upstream_resting")
        assert len(provider.server.inference) == circuit.FAILURES


# --- money ---


async def test_what_an_exchange_cost_is_on_record(tmp_path: Path, near: ScriptedUpstream, provider: Cloud) -> None:
    """By the price list, exact to a millionth; what fails costs nothing, what has no price has no cost."""
    prices = tmp_path / "prices.toml"
    prices.write_text(
        'currency = "EUR"\n[[price]]\nat = "cloud"\nmodel = "claude-sonnet-*"\ninput = 3.10\noutput = 15\n', "utf-8"
    )
    upstreams = [lan(near), provider.configured()]
    async with gatehouse(tmp_path, near, upstreams=upstreams, models__prices=str(prices)) as gate:
        await provider.open_to(gate)
        paid = await gate.audit((await gate.chat(model=FAR, messages=ASKED["messages"])).headers["X-Request-Id"])
        assert (paid.tokens_in, paid.tokens_out) == (4, 3)
        assert (paid.cost, paid.currency) == ("0.000058", "EUR")  # 4 * 3.10 + 3 * 15 = 57.4 millionths
        provider.server.next(behaviours.error_in_stream(2))
        failed = await gate.audit((await gate.chat(model=FAR, stream=True)).headers["X-Request-Id"])
        assert (failed.state, failed.cost) == ("upstream_error", "0")
        unknown = await gate.audit((await gate.chat(model="claude-haiku-4-5")).headers["X-Request-Id"])
        assert (unknown.cost, unknown.currency) == (None, None)
        near_by = await gate.audit((await gate.post("/api/chat", QUESTION)).headers["X-Request-Id"])
        assert near_by.cost is None
        assert (await gate.house.journal.verify()).intact


@pytest.mark.parametrize("route", ["/v1/messages", "/v1/chat/completions", "/api/chat"])
async def test_who_leaves_pays_for_what_was_told_and_delivered(
    tmp_path: Path, near: ScriptedUpstream, provider: Cloud, route: str
) -> None:
    """Anthropic tells the prompt's tokens and one of the answer first: the prompt counts as told, the answer by its
    pieces, in windows and in money. Unparsed or translated."""
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\n[[price]]\nat = "cloud"\nmodel = "*"\ninput = 3\noutput = 15\n', "utf-8")
    upstreams = [lan(near), provider.configured()]
    async with gatehouse(tmp_path, near, upstreams=upstreams, models__prices=str(prices)) as gate:
        await provider.open_to(gate)
        await gate.house.limits.set(ADMIN, f"user:{gate.user.email}", {"tokens_per_minute": 1000})
        provider.server.next(behaviours.stall_after(47, asyncio.Event()))
        async with gate.streaming(route, ROUTES[route] | {"stream": True}) as answer:
            request_id = answer.headers["x-request-id"]
            await until(lambda: gate.house.gate.pieces(request_id) == 47)
        await until(lambda: not gate.house.gate.live())
        left = await gate.audit(request_id)
        assert (left.state, left.tokens_in, left.tokens_out) == ("client_left", 4, 47)
        assert left.cost == "0.000717"  # 4 * 3 + 47 * 15 millionths
        (window,) = (await gate.get("/v1/limits")).json()
        assert (window["limit"], window["used"]) == ("tokens_per_minute", 51)


def test_the_price_list_that_ships_can_be_read_and_edited(tmp_path: Path) -> None:
    """The first entry that fits; by the provider's host or the upstream's name; nothing below nothing."""
    shipped = Prices.read(SHIPPED)
    price = shipped.price_of("any", "https://api.openai.com/v1", "gpt-4.1-mini-2025-04-14")
    assert price is not None
    assert price.cost(1_000_000, 1_000_000) == 2_000_000
    assert shipped.price_of("any", "http://127.0.0.1:1", "gpt-4.1-mini") is None
    edited = tmp_path / "prices.toml"
    for wrong in ('price = "x"', "[[price]]\nat='a'\nmodel='*'\ninput=-1\noutput=0", "currency = 'euro'", "\x00"):
        edited.write_text(wrong)
        with pytest.raises(StartError, match="no price list"):
            Prices.read(edited)
    edited.unlink()
    with pytest.raises(StartError, match="cannot read the prices"):
        Prices.read(edited)
