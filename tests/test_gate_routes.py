"""Ollama's routes at the gate: what is served, to whom, and that nothing else reaches an upstream."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.rigs.gatehouse import MODEL, QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import stall_before_headers


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(models=(MODEL, "llama3.2:latest", "qwen3:4b", "qwen3:8b")) as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


BLOB = b"x" * 100_000

# Every route of Ollama's server that the gate does not serve, with a method it would take there (wire.md).
NEVER_FORWARDED = [
    ("GET", "/api/me"),
    ("POST", "/api/me"),
    ("POST", "/api/signout"),
    ("DELETE", "/api/user/keys/abc"),
    ("POST", "/api/experimental/web_search"),
    ("POST", "/api/experimental/web_fetch"),
    ("GET", "/api/status"),
    ("GET", "/debug/pprof/"),
    ("POST", "/api/blobs/not-a-digest"),
    ("GET", "/api/blobs/sha256:" + "0" * 64),
    ("PUT", "/api/chat"),
    ("GET", "/api/chat"),
    ("GET", "/api/generate"),
    ("POST", "/api/tags"),
    ("POST", "/API/CHAT"),
    ("POST", "/api/chat/"),
    ("POST", "//api/chat"),
    ("POST", "/api/../api/chat"),
    ("POST", "/api%2Fchat"),
    ("PATCH", "/api/delete"),
    ("POST", "/admin"),
    ("GET", "/.env"),
]


# Every route of Ollama's server (routes.go), with the body that it would take, and whether it is sent on to one. The
# lists (tags, ps, version) are answered from what the gate knows of its upstreams; `/v1` is a dialect of its own.
OF_OLLAMA: list[tuple[str, str, object, bool]] = [
    ("HEAD", "/", None, False),
    ("GET", "/", None, False),
    ("HEAD", "/api/version", None, False),
    ("GET", "/api/version", None, False),
    ("GET", "/api/status", None, False),
    ("POST", "/api/pull", {"model": "new:1b", "stream": False}, True),
    ("POST", "/api/push", {"model": MODEL, "stream": False}, True),
    ("HEAD", "/api/tags", None, False),
    ("GET", "/api/tags", None, False),
    ("POST", "/api/show", {"model": MODEL}, True),
    ("DELETE", "/api/delete", {"model": "qwen3:8b"}, True),
    ("POST", "/api/me", {}, False),
    ("POST", "/api/signout", {}, False),
    ("DELETE", "/api/user/keys/abc", None, False),
    ("POST", "/api/create", {"model": "mine", "from": MODEL, "stream": False}, True),
    ("POST", f"/api/blobs/sha256:{hashlib.sha256(BLOB).hexdigest()}", BLOB, True),
    ("HEAD", f"/api/blobs/sha256:{hashlib.sha256(BLOB).hexdigest()}", None, True),
    ("POST", "/api/copy", {"source": MODEL, "destination": "copy"}, True),
    ("POST", "/api/experimental/web_search", {"query": "x"}, False),
    ("POST", "/api/experimental/web_fetch", {"url": "http://elsewhere"}, False),
    ("GET", "/api/experimental/aliases", None, False),
    ("GET", "/api/ps", None, False),
    ("POST", "/api/generate", {"model": MODEL, "prompt": "x", "stream": False}, True),
    ("POST", "/api/chat", QUESTION | {"stream": False}, True),
    ("POST", "/api/embed", {"model": MODEL, "input": "x"}, True),
    ("POST", "/api/embeddings", {"model": MODEL, "prompt": "x"}, True),
    ("GET", "/v1/models", None, False),
    ("GET", "/debug/pprof/", None, False),
    ("GET", "/api/blobs/sha256:" + "0" * 64, None, False),
    ("POST", "/api/blobs/../delete", {"model": MODEL}, False),
    ("POST", "/api/blobs/sha256:" + "0" * 63 + "/", b"", False),
]


async def test_of_ollamas_routes_only_the_listed_ones_reach_it(gate: Gatehouse) -> None:
    """H7: the whole table, asked by an administrator, who may do everything."""
    _, key = await gate.member("root@example.org", role="admin")
    for method, path, body, forwarded in OF_OLLAMA:
        gate.upstream.requests.clear()
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        await gate.http.request(method, gate.url + path, content=content, headers=gate.bearer(key))
        polled = {("GET", "/api/tags"), ("GET", "/api/ps"), ("GET", "/api/version")}
        reached = [
            (each.method, each.path) for each in gate.upstream.requests if (each.method, each.path) not in polled
        ]
        assert reached == ([(method, path)] if forwarded else []), (method, path)


@pytest.mark.parametrize(("method", "path"), NEVER_FORWARDED)
async def test_what_is_not_listed_never_reaches_an_upstream(gate: Gatehouse, method: str, path: str) -> None:
    """H7, deny by default: 404 or 405 in Ollama's shape, and the upstream hears nothing."""
    before = len(gate.upstream.requests)
    client = await RawClient.connect(gate.port)
    body = json.dumps(QUESTION).encode()
    await client.send(
        b"%b %b HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
        % (method.encode(), path.encode(), gate.key.encode(), len(body), body)
    )
    answer = await client.read_all()
    client.close()
    assert int(answer.split()[1]) in {400, 404, 405}
    assert b"X-Request-Id" in answer
    assert len(gate.upstream.requests) == before


@pytest.mark.parametrize(
    "path", ["/api/tags", "/api/ps", "/v1/queue", "/auth/me", "/auth/keys", "/nowhere", "/metrics", "/tags"]
)
async def test_without_a_credential_nothing_but_the_open_routes_answers(gate: Gatehouse, path: str) -> None:
    """401 with a bare challenge (RFC 6750), `error` and X-Request-Id, before anything is looked up."""
    answer = await gate.http.get(gate.url + path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "error=" not in answer.headers["www-authenticate"]
    assert answer.json()["error"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/api/version"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_open_routes_answer_without_a_credential(gate: Gatehouse, path: str, method: str) -> None:
    """What clients knock with; HEAD has no body, and the head that GET has (RFC 9110, 9.3.2)."""
    answer = await gate.http.request(method, gate.url + path)
    assert answer.status_code == 200
    if method == "HEAD":
        assert answer.content == b""
        whole = await gate.http.get(gate.url + path)
        for name in ("content-type", "content-length"):
            assert answer.headers[name] == whole.headers[name]


async def test_the_knock_says_what_ollama_says(gate: Gatehouse) -> None:
    """`HEAD /` and `GET /`: the ollama command line wants these words."""
    assert (await gate.http.get(gate.url + "/")).text == "Ollama is running"


async def test_health_asks_nobody(gate: Gatehouse) -> None:
    """Row 57: alive even when the upstream is dead; /ready tells the difference."""
    await gate.upstream.stop()
    assert (await gate.http.get(gate.url + "/health")).json() == {"status": "ok"}
    ready = await gate.http.get(gate.url + "/ready")
    assert ready.status_code == 503
    assert "up" in json.dumps(ready.json())
    await gate.upstream.start()


async def test_tags_show_what_the_caller_may_use(gate: Gatehouse) -> None:
    """Row 31: a key for some models sees those, in Ollama's own shape."""
    every = (await gate.get("/api/tags")).json()["models"]
    assert {model["name"] for model in every} == {MODEL, "llama3.2:latest", "qwen3:4b", "qwen3:8b"}
    assert {"name", "model", "size", "digest", "details"} <= set(every[0])
    _, key = await gate.member("joe@example.org", models=["qwen3:*"])
    some = (await gate.get("/api/tags", key=key)).json()["models"]
    assert {model["name"] for model in some} == {"qwen3:4b", "qwen3:8b"}
    assert (await gate.get("/tags", key=key)).json()["models"] == some


async def test_a_key_is_for_its_models_only(gate: Gatehouse) -> None:
    """Another model: 403, and nothing goes upstream."""
    _, key = await gate.member("joe@example.org", models=["qwen3:*"])
    refused = await gate.chat(key=key)
    assert refused.status_code == 403
    assert MODEL in refused.json()["error"]
    assert (await gate.post("/api/show", {"model": MODEL}, key=key)).status_code == 403
    assert (await gate.chat(key=key, model="qwen3:4b")).status_code == 200


async def test_an_untagged_name_means_latest_or_the_only_tag(gate: Gatehouse) -> None:
    """Row 13: `llama3.2` -> `llama3.2:latest`; one installed tag serves; two without latest are ambiguous."""
    assert (await gate.chat(model="llama3.2")).json()["model"] == "llama3.2:latest"
    assert (await gate.chat(model="smollm2")).json()["model"] == MODEL
    ambiguous = await gate.chat(model="qwen3")
    assert ambiguous.status_code == 400
    assert "qwen3:4b" in ambiguous.json()["error"]
    assert "qwen3:8b" in ambiguous.json()["error"]


async def test_an_unknown_model_is_ollamas_404(gate: Gatehouse) -> None:
    """Row 8, in Ollama's words."""
    answer = await gate.chat(model="nobody:1b")
    assert answer.status_code == 404
    assert answer.json()["error"] == "model 'nobody:1b' not found"
    assert not gate.upstream.inference


async def test_a_model_installed_meanwhile_is_found(gate: Gatehouse) -> None:
    """Row 7: the list is cached, and refreshed on a miss."""
    assert (await gate.chat(model="fresh:1b")).status_code == 404
    gate.upstream.add_model("fresh:1b")

    async def served() -> bool:
        return (await gate.chat(model="fresh:1b")).status_code == 200

    await until(served)


@pytest.mark.parametrize("name", ["gpt-oss:120b-cloud", "glm-4.6:cloud"])
async def test_models_that_leave_the_lan_are_refused_and_hidden(gate: Gatehouse, name: str) -> None:
    """Rows 10 and H7: nothing leaves unless the administrator allowed it."""
    gate.upstream.add_model(name, remote_host="https://elsewhere.example:443")
    await gate.house.registry.refresh()
    answer = await gate.chat(model=name)
    assert answer.status_code in {403, 404}
    assert not gate.upstream.inference
    assert name not in (await gate.get("/api/tags")).text


async def test_show_and_ps(gate: Gatehouse) -> None:
    """A model's details and what is loaded."""
    shown = await gate.post("/api/show", {"model": MODEL})
    assert shown.status_code == 200
    assert shown.json()["details"]
    assert (await gate.post("/api/show", {"model": "nobody"})).status_code == 404
    gate.upstream.loaded.append(MODEL)
    assert [model["name"] for model in (await gate.get("/api/ps")).json()["models"]] == [MODEL]


async def test_the_aliases_take_the_default_model(gate: Gatehouse) -> None:
    """Rows 30 and 59: the same without /api, and `model` is optional there."""
    answer = await gate.post("/chat", {"messages": QUESTION["messages"], "stream": False})
    assert answer.status_code == 200
    assert answer.json()["message"]["content"] == "Why not?"
    assert answer.json()["response"] == "Why not?", "row 34: the alias adds it"
    assert "response" not in (await gate.chat()).json()
    assert (await gate.post("/generate", {"prompt": "a", "stream": False})).json()["response"] == "Why not?"
    assert (await gate.post("/embed", {"input": "a"})).json()["embeddings"]
    named = await gate.post("/api/chat", {"messages": QUESTION["messages"]})
    assert named.status_code == 400
    assert named.json()["error"] == "model is required"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/pull", {"model": "new:1b"}),
        ("POST", "/api/push", {"model": MODEL}),
        ("POST", "/api/create", {"model": "mine", "from": MODEL}),
        ("POST", "/api/copy", {"source": MODEL, "destination": "copy"}),
        ("DELETE", "/api/delete", {"model": "qwen3:8b"}),
        ("POST", f"/api/blobs/sha256:{hashlib.sha256(BLOB).hexdigest()}", BLOB),
        ("HEAD", "/api/blobs/sha256:" + "a" * 64, None),
    ],
)
async def test_model_commands_are_for_administrators_and_recorded(
    gate: Gatehouse, method: str, path: str, body: object
) -> None:
    """403 for a user without reaching the upstream; relayed and in the audit for an administrator's key."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
    refused = await gate.http.request(method, gate.url + path, content=content, headers=gate.bearer())
    assert refused.status_code == 403
    assert not gate.upstream.seen(path)
    _, key = await gate.member("root@example.org", role="admin")
    answer = await gate.http.request(method, gate.url + path, content=content, headers=gate.bearer(key))
    assert answer.status_code < 300 or method == "HEAD"
    (seen,) = gate.upstream.seen(path)
    assert seen.method == method
    if isinstance(body, bytes):
        assert seen.raw == body
    if method != "HEAD":
        assert any("root@example.org" in str(entry) for entry in await gate.admin_records())


async def test_a_command_names_its_model_as_ollamas_command_line_does(gate: Gatehouse) -> None:
    """`{"model":"","name":"x"}`: the empty one says nothing. On record is what is meant."""
    _, key = await gate.member("root@example.org", role="admin")
    for path in ("/api/pull", "/api/push", "/api/create"):
        assert (await gate.post(path, {"model": "", "name": "new:1b"}, key=key)).status_code == 200
        assert gate.upstream.seen(path)[-1].document["name"] == "new:1b"
    assert sum('"target":"new:1b"' in row for row in await gate.admin_records()) == 3
    for body in ({"model": "", "name": ""}, {"name": None}, {"model": 5}):
        assert (await gate.post("/api/pull", body, key=key)).status_code == 400


async def test_a_command_about_a_model_outside_is_refused_as_its_verb_is(gate: Gatehouse) -> None:
    """`glm-4.6:cloud` leaves the network: nothing is asked for it before the upstream is enabled, but it may go."""
    _, key = await gate.member("root@example.org", role="admin")
    before = len(gate.upstream.requests)
    for path, body in (
        ("/api/pull", {"model": "glm-4.6:cloud"}),
        ("/api/pull", {"model": "", "name": "glm-4.6:Cloud"}),
        ("/api/create", {"model": "mine", "from": "gpt-oss:120b-cloud"}),
        ("/api/copy", {"source": "glm-4.6:cloud", "destination": "mine"}),
    ):
        refused = await gate.post(path, body, key=key)
        assert refused.status_code == 403 and "gatelodge upstreams enable up" in refused.json()["error"]
    assert len(gate.upstream.requests) == before
    gone = await gate.http.request(
        "DELETE", gate.url + "/api/delete", json={"model": "glm-4.6:cloud"}, headers=gate.bearer(key)
    )
    assert gone.status_code == 404 and len(gate.upstream.seen("/api/delete")) == 1
    gate.house.registry.upstream("up").enabled = True
    assert (await gate.post("/api/pull", {"model": "glm-4.6:cloud"}, key=key)).status_code == 200


async def test_a_pull_streams_its_progress_and_stops_with_the_client(gate: Gatehouse) -> None:
    """Ctrl-C on a pull stops it at the upstream."""
    import asyncio

    _, key = await gate.member("root@example.org", role="admin")
    answer = await gate.post("/api/pull", {"model": "new:1b"}, key=key)
    assert b'"success"' in answer.content
    gate.upstream.next(stall_before_headers(asyncio.Event()), route="/api/pull")
    with pytest.raises(httpx.TimeoutException):
        await gate.post("/api/pull", {"model": "newer:1b"}, key=key, timeout=0.3)
    await asyncio.wait_for(gate.upstream.seen("/api/pull")[-1].client_left.wait(), 2.5)


async def test_two_different_credentials_are_refused(gate: Gatehouse) -> None:
    """400: which of the two should count would be a guess."""
    _, other = await gate.member("joe@example.org")
    answer = await gate.post("/api/chat", QUESTION, headers={"X-API-KEY": other})
    assert answer.status_code == 400
    same = await gate.post("/api/chat", QUESTION, headers={"X-API-KEY": gate.key})
    assert same.status_code == 200


async def test_a_password_in_the_body_goes_no_further(gate: Gatehouse) -> None:
    """C5: the seeds' inline `auth` is neither forwarded, recorded nor logged; beside a header `/chat` refuses it."""
    inline = {"auth": {"username": "ana@example.org", "password": "a secret password"}}
    assert (await gate.post("/chat", QUESTION | inline)).status_code == 400
    answer = await gate.post("/api/chat", QUESTION | inline)
    assert answer.status_code == 200
    assert "auth" not in gate.upstream.inference[-1].document
    assert "auth" not in (await gate.audit(answer.headers["x-request-id"])).messages
    kept = b"".join(file.read_bytes() for file in gate.data.rglob("*") if file.is_file())
    assert b"a secret password" not in kept


@pytest.mark.parametrize("header", ["X-API-KEY", "x_api_key", "x-api-key"])
async def test_a_key_works_in_either_header_spelling(gate: Gatehouse, header: str) -> None:
    """The seeds' spellings."""
    answer = await gate.http.get(gate.url + "/api/tags", headers={header: gate.key})
    assert answer.status_code == 200


BAD_BODIES = {
    "not JSON": b"{",
    "a list": b"[]",
    "duplicate key": b'{"model":"a","model":"b","messages":[]}',
    "case collision": b'{"model":"a","MODEL":"b","messages":[]}',
    "NaN": b'{"model":"a","options":{"temperature":NaN}}',
    "invalid UTF-8": b'{"model":"\xff"}',
    "too deep": b'{"model":' + b"[" * 100 + b"]" * 100 + b"}",
    "empty": b"",
    "wrong type": b'{"model":"a","messages":"hello"}',
}


@pytest.mark.parametrize("what", list(BAD_BODIES))
async def test_bad_bodies_are_400_in_words_and_go_nowhere(gate: Gatehouse, what: str) -> None:
    """H6 at the gate: a clear error, nothing upstream, nothing counted."""
    answer = await gate.post("/api/chat", BAD_BODIES[what])
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not gate.upstream.inference


async def test_a_byte_order_mark_is_tolerated(gate: Gatehouse) -> None:
    """PowerShell 5 sends one (row 41)."""
    answer = await gate.post("/api/chat", b"\xef\xbb\xbf" + json.dumps(QUESTION).encode())
    assert answer.status_code == 200


async def test_a_body_too_large_is_413(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Announced or chunked: our own check, our own words, nothing upstream."""
    async with gatehouse(tmp_path, upstream, server__max_body=1000) as gate:
        answer = await gate.post("/api/chat", b"x" * 1001)
        assert answer.status_code == 413
        assert "1000" in answer.json()["error"]
        client = await RawClient.connect(gate.port)
        await client.send(b"POST /api/chat HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert (await client.read_head()).startswith(b"HTTP/1.1 413")
        client.close()


async def test_a_compressed_body_is_415(gate: Gatehouse) -> None:
    """H10."""
    answer = await gate.post("/api/chat", b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 2\r\nContent-Length: 2\r\n", 400),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400),
        (b"Host: other\r\n", 400),
        (b"".join(b"X-%d: 1\r\n" % number for number in range(101)), 431),
        (b"X-Long: " + b"x" * 40_000 + b"\r\n", 431),
    ],
)
async def test_ambiguous_or_excessive_heads_are_refused(gate: Gatehouse, head: bytes, status: int) -> None:
    """H1, the part that concerns the head; the rest comes with the hardening."""
    client = await RawClient.connect(gate.port)
    await client.send(b"POST /api/chat HTTP/1.1\r\nHost: gate\r\n" + head + b"\r\n")
    assert int((await client.read_head()).split()[1]) == status
    client.close()


async def test_a_foreign_host_is_421_where_hosts_are_named(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """H8: against DNS rebinding, where the administrator names the hosts."""
    async with gatehouse(tmp_path, upstream, server__allowed_hosts=["127.0.0.1"]) as gate:
        assert (await gate.chat()).status_code == 200
        answer = await gate.http.get(gate.url + "/health", headers={"Host": "evil.example"})
        assert answer.status_code == 421


async def test_browsers_get_nothing_unless_their_origin_is_allowed(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """H8: no CORS by default."""
    preflight = {"Origin": "http://app.lan", "Access-Control-Request-Method": "POST"}
    async with gatehouse(tmp_path, upstream) as gate:
        answer = await gate.http.options(gate.url + "/api/chat", headers=preflight)
        assert "access-control-allow-origin" not in answer.headers
        assert answer.status_code == 404
    async with gatehouse(tmp_path / "2", upstream, server__cors_origins=["http://app.lan"]) as gate:
        answer = await gate.http.options(gate.url + "/api/chat", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "http://app.lan"
        assert answer.status_code == 204
        # As the SDKs in a browser ask, for what they send by themselves.
        wanted = "anthropic-dangerous-direct-browser-access,anthropic-version,authorization,content-type,x-api-key"
        for path, names in (("/v1/messages", wanted), ("/v1/responses", "authorization,content-type,openai-project")):
            asked = f"{names},x-stainless-os,X-Stainless-Runtime-Version"
            answer = await gate.http.options(
                gate.url + path,
                headers=preflight | {"Access-Control-Request-Headers": f"{asked},x-evil, x-stainless-1"},
            )
            allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
            assert set(asked.lower().split(",")) <= set(allowed) and not {"x-evil", "x-stainless-1"} & set(allowed)
        assert (
            "access-control-allow-origin" not in (await gate.get("/api/tags", headers={"Origin": "http://x"})).headers
        )


async def test_the_forwarded_address_counts_only_from_a_configured_proxy(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """H9: anybody could write that header."""
    told = {"X-Forwarded-For": "6.6.6.6, 10.1.2.3"}
    async with gatehouse(tmp_path, upstream) as gate:
        answer = await gate.post("/api/chat", QUESTION, headers=told)
        assert (await gate.audit(answer.headers["x-request-id"])).address == "127.0.0.1"
    async with gatehouse(tmp_path / "2", upstream, server__trusted_proxies=["127.0.0.0/8"]) as gate:
        answer = await gate.post("/api/chat", QUESTION, headers=told)
        assert (await gate.audit(answer.headers["x-request-id"])).address == "10.1.2.3"


async def test_connections_of_one_address_are_bounded(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """One address cannot take every connection."""
    async with gatehouse(tmp_path, upstream, server__connections_per_address=3) as gate:
        held = [await RawClient.connect(gate.port) for _ in range(3)]
        for client in held:
            await client.send(b"GET /health HTTP/1.1\r\nHost: gate\r\n\r\n")
            await client.read_head()
        fourth = await RawClient.connect(gate.port)
        with contextlib.suppress(ConnectionError):
            await fourth.send(b"GET /health HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n")
            assert await fourth.read_all() == b""
        fourth.close()

        async def served() -> bool:
            try:
                return (await gate.http.get(gate.url + "/health")).status_code == 200
            except httpx.RemoteProtocolError:
                return False  # the server has not seen yet that the others left

        for client in held:
            client.close()
        await until(served)


async def test_metrics_need_a_key_of_their_own(gate: Gatehouse) -> None:
    """A metrics key is good for nothing else, and nothing else for metrics."""
    await gate.chat()
    assert (await gate.get("/metrics")).status_code in {401, 403}
    _, key = await gate.member("prometheus@example.org", metrics=True)
    page = await gate.get("/metrics", key=key)
    assert page.status_code == 200
    assert 'gatelodge_exchanges_total{state="ok"} 1.0' in page.text
    assert (await gate.chat(key=key)).status_code == 403
    assert (await gate.get("/api/tags", key=key)).status_code == 403


async def test_refusals_are_counted_for_metrics(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """401s and limits: a number to alert on, without a name that a stranger chose."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=1) as gate:
        await gate.http.get(gate.url + "/api/tags", headers={"Authorization": "Bearer glk_nobody_wrong"})
        assert [(await gate.chat()).status_code for _ in range(3)] == [200, 429, 429]
        _, key = await gate.member("prometheus@example.org", metrics=True)
        page = (await gate.get("/metrics", key=key)).text
        assert "gatelodge_unauthenticated_total 1.0" in page
        assert "gatelodge_refused_total 2.0" in page
        assert "glk_nobody" not in page


async def test_health_answers_while_a_stop_waits_for_what_runs(gate: Gatehouse) -> None:
    """Whoever restarts what does not answer must not cut the streams that a stop lets run; all else is 503."""
    gate.house.stopping = True
    assert (await gate.http.get(gate.url + "/health")).status_code == 200
    assert (await gate.get("/api/tags")).status_code == 503
