"""The seeds' own routes through a whole gate: `/request` in plain text, `/generate` and `/chat` in their two shapes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import Unavailable
from daemon.web.classic import DEPRECATED, LARGEST_INLINE
from tests.rigs.gatehouse import ADMIN, MODEL, QUESTION, Gatehouse, RawClient, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import close_after, error, stall_after

ASKED = {"model": MODEL, "request": "Why?"}


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def gate(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[Gatehouse]:
    async with gatehouse(tmp_path, upstream) as running:
        yield running


def by_key(gate: Gatehouse, name: str = "X-API-KEY", key: str | None = None) -> dict[str, str]:
    """The header that the older seeds send."""
    return {name: key or gate.key}


# --- POST /request ---


async def test_a_request_is_answered_in_plain_text(gate: Gatehouse) -> None:
    """Rows 1 and 2: `{model, request}` with X-API-KEY; the answer's text and nothing else, on record as a chat is."""
    answer = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
    assert (answer.status_code, answer.text) == (200, "Why not?")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "ratelimit" in answer.headers or gate.house.config.limits.requests_per_minute is None
    asked = gate.upstream.inference[-1].document
    assert asked["messages"] == [{"role": "user", "content": "Why?"}]
    record = await gate.audit(answer.headers["x-request-id"])
    assert (record.route, record.state, record.prompt, record.response) == ("/request", "ok", "Why?", "Why not?")
    assert record.tokens_out


async def test_a_request_is_answered_as_it_arrives_and_its_end_leaves_last(gate: Gatehouse) -> None:
    """Each piece is flushed; the last chunk of the body waits for the closing record."""
    go = asyncio.Event()
    gate.upstream.next(stall_after(2, go))
    async with gate.http.stream("POST", gate.url + "/request", json=ASKED, headers=by_key(gate)) as answer:
        pieces = answer.aiter_raw()
        said = await anext(pieces)
        while said != b"w0 w1 ":
            said += await anext(pieces)
        assert (await gate.records())[0].state is None
        go.set()
        said += b"".join([piece async for piece in pieces])
    assert said == b"w0 w1 w2 w3 w4 "
    assert (await gate.records())[0].state == "ok"


async def test_a_request_is_translated_for_other_upstreams(tmp_path: Path) -> None:
    """Any dialect in onto any kind out."""
    async with ScriptedUpstream(kind="openai") as server, gatehouse(tmp_path, server) as gate:
        answer = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
        assert (answer.status_code, answer.text) == (200, "Why not?")


async def test_without_a_right_key_a_request_is_403_in_words(gate: Gatehouse) -> None:
    """Row 12, in plain text, before the body is looked at; nothing reaches the upstream."""
    for headers in ({}, {"X-API-KEY": "admin"}, {"X-API-KEY": "glk_x_y"}, {"Authorization": "Bearer a.b.c"}):
        for body in (json.dumps(ASKED), "", "{"):
            answer = await gate.http.post(gate.url + "/request", content=body, headers=headers)
            assert (answer.status_code, answer.text) == (403, "Unauthorized access")
            assert answer.headers["content-type"].startswith("text/plain")
            assert answer.headers["x-request-id"]
    assert gate.upstream.inference == []


async def test_a_model_that_cannot_be_had_is_403_in_words(gate: Gatehouse) -> None:
    """Row 8: unknown here, or not for this key; and row 6's other half, an Ollama without any model."""
    _, narrow = await gate.member("joe@example.org", models=["other*"])
    for body, key in ((ASKED | {"model": "nobody"}, gate.key), (ASKED, narrow)):
        answer = await gate.http.post(gate.url + "/request", json=body, headers=by_key(gate, key=key))
        assert (answer.status_code, answer.text) == (403, "Model unavailable")
    gate.upstream.models.clear()
    await gate.house.registry.refresh()
    answer = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
    assert (answer.status_code, answer.text) == (403, "Model unavailable")


async def test_an_ollama_that_is_offline_is_502_in_words(gate: Gatehouse) -> None:
    """Row 6, C4."""
    await gate.upstream.stop()
    answer = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
    assert answer.status_code == 502
    assert answer.headers["content-type"].startswith("text/plain")
    assert not answer.text.startswith("{") and "up" in answer.text
    await gate.upstream.start()


async def test_an_upstreams_own_error_is_told_in_plain_text(gate: Gatehouse) -> None:
    """Rows 5 and 15: before the first byte it is a status."""
    gate.upstream.next(error(500, {"error": "out of memory"}))
    answer = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
    assert (answer.status_code, answer.text) == (502, "out of memory")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_request_that_fails_in_the_middle_is_visibly_cut(gate: Gatehouse, version: bytes) -> None:
    """Row 82: text has no mark for an error, so the connection ends before the body does."""
    gate.upstream.next(close_after(2))
    body = json.dumps(ASKED).encode()
    client = await RawClient.connect(gate.port)
    await client.send(
        b"POST /request HTTP/%b\r\nHost: gate\r\nX-API-KEY: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (version, gate.key.encode(), len(body), body)
    )
    if version == b"1.0":
        with pytest.raises(ConnectionResetError):
            await client.read_all()
    else:
        head, _, said = (await client.read_all()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"w0 w1 " in said
        assert not said.endswith(b"0\r\n\r\n")
    client.close()

    async def recorded() -> bool:
        return (await gate.records())[0].state == "upstream_error"

    await until(recorded)
    assert (await gate.audit((await gate.records())[0].request_id)).response == "w0 w1 "


BAD = {
    b"": "missing request body",
    b"{": "not JSON",
    b"[]": "object",
    b'{"request":"x"}': "model is required",
    b'{"model":"m"}': "request is required",
    b'{"model":"m","request":["x"]}': "request must be a text",
    b'{"model":"m","request":"x","temperature":2}': "'temperature'",
    b'{"model":"m","request":"x","authority":{"password":"y"}}': "'authority'",
}


async def test_a_bad_request_is_400_in_plain_text(gate: Gatehouse) -> None:
    """Row 15: typed validation, nothing is dropped silently."""
    for body, words in BAD.items():
        answer = await gate.http.post(gate.url + "/request", content=body, headers=by_key(gate))
        assert answer.status_code == 400
        assert answer.headers["content-type"].startswith("text/plain")
        assert words in answer.text
    assert gate.upstream.inference == []


async def test_another_method_of_request_is_refused_in_plain_text(gate: Gatehouse) -> None:
    """The route's errors have one shape."""
    answer = await gate.http.get(gate.url + "/request", headers=by_key(gate))
    assert (answer.status_code, answer.headers["content-type"]) == (405, "text/plain; charset=utf-8")


async def test_limits_hold_on_request(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """429 with Retry-After, in plain text."""
    async with gatehouse(tmp_path, upstream, limits__requests_per_minute=1) as gate:
        first = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
        assert first.headers["ratelimit"]
        second = await gate.http.post(gate.url + "/request", json=ASKED, headers=by_key(gate))
        assert second.status_code == 429
        assert int(second.headers["retry-after"]) > 0
        assert second.headers["content-type"].startswith("text/plain")


async def test_what_is_refused_by_its_head_is_told_in_the_routes_own_words(gate: Gatehouse) -> None:
    """A body too large: text here, `detail` there, each dialect's object elsewhere."""
    for path, words in (
        ("/request", None),
        (f"/generate/{MODEL}", "detail"),
        ("/api/chat", "error"),
        ("/v1/chat/completions", "error"),
        ("/v1/messages", "request_id"),
    ):
        client = await RawClient.connect(gate.port)
        await client.send(b"POST %b HTTP/1.1\r\nHost: gate\r\nContent-Length: 99999999999\r\n\r\n" % path.encode())
        head, _, body = (await client.read_all()).partition(b"\r\n\r\n")
        client.close()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert (b"text/plain" in head) is (words is None)
        assert b"exceeds" in body and (words is None or words in json.loads(body))


async def test_an_answer_whose_end_cannot_be_recorded_is_visibly_cut(
    gate: Gatehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end leaves last: who has seen the body's end finds it in the audit as `ok`, so nobody sees this one's."""

    def unrecordable(*_: Any) -> asyncio.Future[None]:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(Unavailable("the journal cannot be written"))
        return failed

    monkeypatch.setattr(gate.house.journal, "closed", unrecordable)
    said = b""
    with pytest.raises(httpx.RemoteProtocolError):
        async with gate.http.stream("POST", gate.url + "/request", json=ASKED, headers=by_key(gate)) as answer:
            async for piece in answer.aiter_raw():
                said += piece
    assert said == b"Why not?"


# --- POST /generate, POST /generate/{model} ---


async def test_a_prompt_by_key_is_answered_by_its_response(gate: Gatehouse) -> None:
    """Rows 16 and 17, C1: `{prompt}` with only a key's header, the default model, `{"response"}` and nothing else."""
    for header in ("x_api_key", "X-API-KEY"):
        answer = await gate.http.post(gate.url + "/generate", json={"prompt": "Why?"}, headers=by_key(gate, header))
        assert (answer.status_code, answer.json()) == (200, {"response": "Why not?"})
    assert gate.upstream.inference[-1].document["model"] == MODEL
    record = await gate.audit(answer.headers["x-request-id"])
    assert (record.route, record.prompt, record.response) == ("/generate", "Why?", "Why not?")


async def test_a_prompt_by_key_streams_where_it_says_so(gate: Gatehouse) -> None:
    """Row 24: the lines have `response`, as the one answer has."""
    body = {"prompt": "Why?", "stream": True}
    answer = await gate.http.post(gate.url + "/generate", json=body, headers=by_key(gate))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(line["response"] for line in lines) == "Why not?"
    assert lines[-1]["done"] is True


async def test_the_same_route_by_bearer_is_ollamas(gate: Gatehouse) -> None:
    """C1: a Bearer's shape streams by default, and its one answer is Ollama's object; also beside a key's header."""
    for headers in ({}, by_key(gate)):
        answer = await gate.post("/generate", {"prompt": "Why?"}, headers=headers)
        assert json.loads(answer.text.splitlines()[-1])["done"] is True
    one = await gate.post("/generate", {"prompt": "Why?", "stream": False})
    assert one.json()["response"] == "Why not?" and one.json()["done"] is True


async def test_without_a_credential_both_seeds_find_their_word(gate: Gatehouse) -> None:
    """401 with `error` and `detail`, whatever the body."""
    for path in ("/generate", "/generate/phi", "/chat"):
        for body in ('{"prompt": "Why?", "messages": []}', "", "{"):
            answer = await gate.http.post(gate.url + path, content=body)
            assert answer.status_code == 401
            assert answer.json()["error"] and answer.json()["detail"]
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_key_is_the_seeds_own_401(gate: Gatehouse) -> None:
    """Row 21's words for it; as bytes the same whatever is wrong with it."""
    said = set()
    for key in ("your_secret_api_key", "glk_x_y", gate.key + "x"):
        answer = await gate.http.post(gate.url + "/generate", json={"prompt": "x"}, headers={"x_api_key": key})
        assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid API Key")
        said.add(answer.content)
    assert len(said) == 1


async def test_the_model_may_stand_in_the_path(tmp_path: Path) -> None:
    """Row 18: names may contain `/` and `:`, as they are or encoded."""
    long = "hf.co/some/model:Q4_K_M"
    async with ScriptedUpstream(models=(long, "phi:latest")) as server, gatehouse(tmp_path, server) as gate:
        for name in (long, "library/phi:latest", "phi%3Alatest", "phi"):
            answer = await gate.http.post(
                f"{gate.url}/generate/{name}", json={"prompt": "Why?"}, headers=by_key(gate, "x_api_key")
            )
            assert (answer.status_code, answer.json()) == (200, {"response": "Why not?"})
            assert server.inference[-1].document["model"] == (long if name == long else "phi:latest")
            assert (await gate.records())[0].route == "/generate/{model}"


async def test_a_model_in_the_path_that_is_not_there_is_400(gate: Gatehouse) -> None:
    """Row 18: `Invalid model name`; so is a model that the body names otherwise."""
    for name in ("nobody", "", "no/body:1b"):
        answer = await gate.http.post(f"{gate.url}/generate/{name}", json={"prompt": "Why?"}, headers=by_key(gate))
        assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid model name")
    body = {"prompt": "Why?", "model": "another"}
    answer = await gate.http.post(f"{gate.url}/generate/{MODEL}", json=body, headers=by_key(gate))
    assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid model name")
    assert gate.upstream.inference == []


async def test_a_model_that_the_key_is_not_for_is_refused_by_name(gate: Gatehouse) -> None:
    """Row 18's allow-list is the key's: 403, in the seed's words."""
    _, narrow = await gate.member("joe@example.org", models=["other*"])
    answer = await gate.http.post(
        f"{gate.url}/generate/{MODEL}", json={"prompt": "Why?"}, headers=by_key(gate, key=narrow)
    )
    assert (answer.status_code, answer.json()["detail"]) == (403, "Invalid model name")


async def test_a_prompt_is_needed(gate: Gatehouse) -> None:
    """A body without one is 400, in words, under the name that the seed's clients look at."""
    answer = await gate.http.post(gate.url + "/generate", json={}, headers=by_key(gate))
    assert (answer.status_code, answer.json()["detail"]) == (400, "prompt is required")


# --- POST /chat with a Bearer ---


async def test_chat_by_bearer_streams_and_its_one_answer_has_response(gate: Gatehouse) -> None:
    """Row 34, C2: Ollama's object plus `response`; `/api/chat` stays Ollama's."""
    whole = await gate.post("/chat", QUESTION | {"stream": False})
    assert whole.json()["response"] == whole.json()["message"]["content"] == "Why not?"
    assert "deprecation" not in whole.headers
    assert "response" not in (await gate.chat()).json()
    streamed = await gate.post("/chat", QUESTION)
    assert json.loads(streamed.text.splitlines()[-1])["done"] is True


# --- POST /chat with a password in the body (row 58) ---

PASSWORD = "a good password"
EMAIL = "user@company.com"


async def person(gate: Gatehouse, email: str = EMAIL, password: str = PASSWORD) -> int:
    """Somebody with a password of their own; the user's id."""
    user, one_time = await gate.house.directory.add_user(ADMIN, email)
    await gate.house.accounts.change_password(email, str(one_time), password, "127.0.0.1")
    return user.id


def inline(password: str = PASSWORD, username: str = EMAIL) -> dict[str, Any]:
    """The body's credential, as the seed writes it."""
    return {"auth": {"username": username, "password": password}}


async def test_a_password_in_the_body_gets_one_answer(gate: Gatehouse) -> None:
    """Rows 58 and 59, C2: Ollama's object plus `response`, whatever it says of streaming; the model may be absent."""
    await person(gate)
    asked = {"messages": [{"role": "user", "content": "Explain MQTT"}]}
    for more in ({}, {"stream": True}, {"model": MODEL}):
        answer = await gate.http.post(gate.url + "/chat", json=inline() | asked | more)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["deprecation"] == DEPRECATED
        document = answer.json()
        assert document["response"] == document["message"]["content"] == "Why not?"
        assert (document["model"], document["done"]) == (MODEL, True)
        assert "auth" not in gate.upstream.inference[-1].document
    record = await gate.audit(answer.headers["x-request-id"])
    assert (record.user, record.key, record.prompt, record.state) == (EMAIL, None, "Explain MQTT", "ok")
    assert "auth" not in record.messages
    kept = b"".join(file.read_bytes() for file in gate.data.rglob("*") if file.is_file())
    assert PASSWORD.encode() not in kept


async def test_a_wrong_password_in_the_body_is_refused_as_at_the_login(gate: Gatehouse) -> None:
    """P2: the same status and words, whoever it is for; nothing reaches the upstream; five are throttled (P3)."""
    await person(gate)
    login = await gate.http.post(gate.url + "/auth/login", json={"email": EMAIL, "password": "wrong one"})
    said = set()
    for username in (EMAIL, "nobody@example.org", "ana@example.org", "no address"):
        answer = await gate.http.post(gate.url + "/chat", json=QUESTION | inline("wrong one", username))
        said.add((answer.status_code, answer.content, answer.headers.get("www-authenticate")))
        assert answer.headers["deprecation"]
    assert said == {(401, login.content, login.headers["www-authenticate"])}
    answer = await gate.http.post(gate.url + "/chat", json=QUESTION | inline("another", EMAIL))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert gate.upstream.inference == []


async def test_two_credentials_on_a_chat_are_refused(gate: Gatehouse) -> None:
    """400: one in a header (or in the path), one in the body; which should count would be a guess."""
    await person(gate)
    for headers in (gate.bearer(), by_key(gate), by_key(gate, "x_api_key")):
        answer = await gate.http.post(gate.url + "/chat", json=QUESTION | inline(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "several_credentials")
    assert gate.upstream.inference == []


async def test_an_auth_that_is_none_is_refused_in_words(gate: Gatehouse) -> None:
    """400 for what is no name and password, 401 where nothing is said; large bodies of strangers are not read."""
    for auth in ("x", {"username": "x"}, {"username": 1, "password": "y"}, {"username": "x", "password": "y" * 2000}):
        answer = await gate.http.post(gate.url + "/chat", json=QUESTION | {"auth": auth})
        assert answer.status_code == 400 and "auth" in answer.json()["error"]
    for auth in (None, ...):
        answer = await gate.http.post(gate.url + "/chat", json=QUESTION | ({} if auth is ... else {"auth": auth}))
        assert (answer.status_code, answer.json()["detail"]) == (401, "no credential")
    large = b'{"auth":{},"messages":[{"content":"' + b"x" * (LARGEST_INLINE + 1) + b'"}]}'
    assert (await gate.http.post(gate.url + "/chat", content=large)).status_code == 413


async def test_an_image_with_a_password_beside_it_is_taken(gate: Gatehouse) -> None:
    """Row 66's image of 5 MB comes through, though only the body says who sends it."""
    await person(gate)
    message = {"role": "user", "content": "What is it?", "images": ["QUFB" * 1_700_000]}
    answer = await gate.http.post(gate.url + "/chat", json=inline() | {"messages": [message]})
    assert answer.status_code == 200
    assert gate.upstream.inference[-1].document["messages"] == [message]


async def test_a_new_password_cuts_what_runs_under_the_old_one(gate: Gatehouse) -> None:
    """J5: an exchange begun with a password is a session: it ends when the password is changed, and within 2 s."""
    user_id = await person(gate)
    go = asyncio.Event()
    gate.upstream.next(stall_after(1, go))
    asking = asyncio.create_task(gate.http.post(gate.url + "/chat", json=QUESTION | inline()))
    await until(lambda: gate.upstream.inference)
    await gate.house.directory.reset_password(ADMIN, user_id)
    answer = await asyncio.wait_for(asking, 20)
    assert (answer.status_code, answer.json()["code"]) == (401, "credential_revoked")
    assert (await gate.records())[0].state == "credential_revoked"


async def test_a_user_may_have_it_switched_off(gate: Gatehouse) -> None:
    """Row 58: per user, at once; the right password is told so, a wrong one no more than before."""
    user_id = await person(gate)
    assert (await gate.http.post(gate.url + "/chat", json=QUESTION | inline())).status_code == 200
    await gate.house.directory.set_inline_auth(ADMIN, user_id, False)
    answer = await gate.http.post(gate.url + "/chat", json=QUESTION | inline())
    assert (answer.status_code, answer.json()["code"]) == (403, "inline_auth_off")
    answer = await gate.http.post(gate.url + "/chat", json=QUESTION | inline("wrong one"))
    assert (answer.status_code, answer.json()["code"]) == (401, "login_failed")
    assert "users inline-auth" in (await gate.admin_records())[-1]
    assert (await gate.http.post(gate.url + "/auth/login", json={"email": EMAIL, "password": PASSWORD})).is_success


# --- a key in the path (row 85) ---


async def test_a_key_that_may_stands_in_the_path(gate: Gatehouse) -> None:
    """Every route of Ollama's behind `/k/KEY`; the knock, too. On record is the route alone."""
    _, key = await gate.member("cli@example.org", in_path=True)
    base = f"{gate.url}/k/{key}"
    for path in ("", "/"):
        assert (await gate.http.head(base + path)).status_code == 200
    assert (await gate.http.get(base + "/")).text == "Ollama is running"
    for path in ("/api/tags", "/api/ps", "/v1/models", "/tags", "/api/version"):
        assert (await gate.http.get(base + path)).status_code == 200
    assert (await gate.http.post(base + "/api/show", json={"model": MODEL})).status_code == 200
    for path, body in (
        ("/api/chat", QUESTION),
        ("/api/generate", {"model": MODEL, "prompt": "Why?"}),
        ("/api/embed", {"model": MODEL, "input": "Why?"}),
        ("/v1/chat/completions", QUESTION),
        ("/generate", {"prompt": "Why?"}),
        (f"/generate/{MODEL}", {"prompt": "Why?"}),
        ("/request", ASKED),
    ):
        answer = await gate.http.post(base + path, json=body)
        assert answer.status_code == 200, path
        record = (await gate.records())[0]
        assert (record.user, record.route) == ("cli@example.org", path.replace(MODEL, "{model}"))
    assert (await gate.http.get(base + "/nothing/here")).status_code == 404
    assert (await gate.http.post(base + "/api/pull", json={"model": "x"})).status_code == 403


async def test_a_key_that_may_not_stand_in_the_path_is_refused(gate: Gatehouse) -> None:
    """Opt-in, per key; what is no key, or somebody's token, opens nothing there either."""
    answer = await gate.http.get(f"{gate.url}/k/{gate.key}/api/tags")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_in_path")
    for text in ("", "x", "glk_a_b", gate.key + "x", "a.b.c", "admin"):
        for method, path in (("GET", "/api/tags"), ("POST", "/api/chat"), ("POST", "/chat"), ("GET", "/metrics")):
            answer = await gate.http.request(method, f"{gate.url}/k/{text}{path}", json=QUESTION)
            assert answer.status_code == 401, (method, path, text)
    assert gate.upstream.inference == []


async def test_a_key_in_the_path_counts_as_one_credential(gate: Gatehouse) -> None:
    """The same in a header is one, another is two; and no header can put a key where the path's is kept."""
    _, key = await gate.member("cli@example.org", in_path=True)
    path = f"{gate.url}/k/{key}/api/tags"
    assert (await gate.http.get(path, headers=by_key(gate, key=key))).status_code == 200
    assert (await gate.http.get(path, headers=gate.bearer())).status_code == 400
    assert (await gate.http.post(f"{gate.url}/k/{key}/chat", json=QUESTION | inline())).status_code == 400
    assert (await gate.http.get(f"{gate.url}/k/{key}/k/{key}/api/tags")).status_code == 404
    client = await RawClient.connect(gate.port)
    await client.send(b"GET /api/tags HTTP/1.1\r\nHost: gate\r\n/k/: %b\r\n\r\n" % key.encode())
    assert (await client.read_head()).startswith(b"HTTP/1.1 400")
    client.close()


async def test_a_key_in_the_path_is_never_logged(gate: Gatehouse, caplog: pytest.LogCaptureFixture) -> None:
    """Not where it works, not where it is refused, not where the gateway fails over it."""
    caplog.set_level(0)
    _, key = await gate.member("cli@example.org", in_path=True)
    _, other = await gate.member("joe@example.org")
    for text in (key, other, other + "x"):
        for method, path in (("POST", "/api/chat"), ("GET", "/api/tags"), ("GET", "/nothing"), ("PUT", "/api/tags")):
            await gate.http.request(method, f"{gate.url}/k/{text}{path}", json=QUESTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate.house.registry, "tags", None)
        patch.setattr(gate.house.gate, "serve", None)
        assert (await gate.http.get(f"{gate.url}/k/{key}/api/tags")).status_code == 500
        assert (await gate.http.post(f"{gate.url}/k/{key}/api/chat", json=QUESTION)).status_code == 500
    assert "failed" in caplog.text
    logged = "".join(
        f"{record.getMessage()} {vars(record)}" for record in caplog.records if not record.name.startswith("http")
    )
    for text in (key, other):
        assert text.rpartition("_")[2] not in logged
