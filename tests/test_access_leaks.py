"""P8: no secret of a run lies in anything that the run leaves; and the search that says so is not blind."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from daemon.engine import supervisor
from daemon.engine.install import EngineFiles
from daemon.engine.supervisor import Engine
from daemon.web.base import without_credentials
from tests.rigs.gatehouse import ADMIN, MODEL, QUESTION, Gatehouse, gatehouse
from tests.rigs.leaks import SHORTEST, Run, forms, secrets_of_a_run
from tests.rigs.office import Office
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.upstream_behaviours import stall_after

BEA = "bea@example.org"
IMPORTED = "another gateway's token/+1"
PROVIDERS = "sk-a-providers-key/+1"
PASSWORDS = [f"{word} password/öß+1" for word in ("first", "second", "third", "wrong", "inline", "unfit")]
FIRST, SECOND, THIRD, WRONG, INLINE, UNFIT = PASSWORDS
# Every other route that takes a body of JSON about a model, and what it wants besides a model and messages.
BODIES: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "Why?"},
    "/api/embed": {"input": "Why?"},
    "/api/embeddings": {"prompt": "Why?"},
    "/api/show": {},
    "/generate": {"prompt": "Why?"},
    f"/generate/{MODEL}": {"prompt": "Why?"},
    "/embed": {"input": "Why?"},
    "/v1/chat/completions": {},
    "/v1/completions": {"prompt": "Why?"},
    "/v1/embeddings": {"input": "Why?"},
    "/v1/responses": {"input": "Why?"},
    "/v1/messages": {"max_tokens": 9},
    "/v1/messages/count_tokens": {},
}


async def test_no_secret_of_a_run_is_left_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords, one-time ones, keys, tokens, signing keys, the keys of engine and upstreams: neither in the database,
    its WAL, logs, exports, partials, checkpoints or names of files, nor in arguments and environment of children; in no
    spelling."""
    with secrets_of_a_run(tmp_path) as run:
        async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
            run.watch(gate.http)
            await people(gate)
            await keys_and_clients(gate)
            await strange_places(gate, run)
            await administrators(gate, run)
            await an_engine(tmp_path, monkeypatch)
            go_on = asyncio.Event()
            upstream.next(stall_after(1, go_on))
            async with gate.streaming() as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                assert run.leaks(tmp_path) == []  # while it runs: WAL, partials, an answer on its way
                go_on.set()
                assert [json.loads(line) async for line in lines][-1]["done"] is True
        assert run.leaks(tmp_path) == []  # after it ended
    kinds = run.kinds()
    assert {
        "a password, right or wrong",
        "an access token",
        "daemon.access.keys:new_secret",
        "daemon.access.passwords:one_time_password",
        "daemon.access.sessions:_new_refresh_token",
        "daemon.engine.supervisor:Engine.__init__",
        "the field refresh_token",
        "the field key",
        "the field new",
        "the member d of a file in secrets",
    } <= kinds
    assert all(word.encode() in run.found for word in PASSWORDS)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert '"level":"debug"' in log and "/api/tags/…" in log, "the log of every level was searched"


@pytest.mark.parametrize("kind", ["ollama", "openai", "anthropic"])
async def test_a_password_in_any_body_is_neither_recorded_nor_forwarded(tmp_path: Path, kind: str) -> None:
    """C5: in every dialect, translated or as it is, beside a credential in a header. Without one it counts nowhere but
    at /chat."""
    with secrets_of_a_run(tmp_path) as run:
        run.add("the field password", INLINE)
        async with ScriptedUpstream(kind=kind) as upstream, gatehouse(tmp_path, upstream) as gate:
            for name in ("auth", "Auth"):
                inline = {name: {"username": BEA, "password": INLINE}}
                for path, more in BODIES.items():
                    answer = await gate.post(path, QUESTION | more | inline)
                    cannot = kind == "anthropic" and ("embed" in path or path == "/v1/completions")
                    assert answer.status_code == (400 if cannot else 200), (path, answer.text)
                    assert name not in answer.headers.get("X-Gatelodge-Ignored", "").split(", ")
                    stranger = await gate.http.post(gate.url + path, json=QUESTION | more | inline)
                    assert stranger.status_code == 401, path
                asked = {"model": MODEL, "request": "Why?"} | inline
                assert (await gate.post("/request", asked)).status_code == 200
            _, keeper = await gate.member("keeper@example.org", role="admin")
            await gate.post("/api/create", {"model": "mine", "from": MODEL} | inline, key=keeper)
            forwarded = b"".join(each.raw for each in upstream.requests)
            assert len(forwarded) > 1000 and INLINE.encode() not in forwarded and b'"auth"' not in forwarded.lower()
        assert run.leaks(tmp_path) == []


async def people(gate: Gatehouse) -> None:
    """Register, be refused, be approved, log in, refresh, reuse, change, forget, revoke."""
    asked = await gate.http.post(f"{gate.url}/auth/register", json={"email": BEA, "password": FIRST})
    await gate.http.post(f"{gate.url}/auth/register", json={"email": gate.user.email, "password": SECOND})
    await gate.http.post(f"{gate.url}/auth/login", json={"email": BEA, "password": FIRST})
    await gate.house.directory.approve(ADMIN, asked.json()["code"])
    for password in (WRONG, FIRST, FIRST):
        login = await gate.http.post(f"{gate.url}/auth/login", json={"email": BEA, "password": password})
    session = login.json()
    for _ in range(2):
        form = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
        refreshed = await gate.http.post(f"{gate.url}/oauth/token", data=form)
    assert refreshed.status_code == 400
    changes: list[dict[str, Any]] = [
        {"email": BEA, "old": WRONG, "new": SECOND},
        {"email": BEA, "old": FIRST, "new": "qwertyuiop"},
        {"email": BEA, "old": FIRST, "new": {"nested": UNFIT}},
        {"email": BEA, "old": FIRST, "new": SECOND},
    ]
    for body in changes:
        changed = await gate.http.post(f"{gate.url}/auth/password", json=body)
    assert changed.status_code == 204
    session = (await gate.http.post(f"{gate.url}/auth/login", json={"email": BEA, "password": SECOND})).json()
    for name in ("access_token", "refresh_token"):
        assert (await gate.chat(key=session["access_token"])).status_code in {200, 401}
        await gate.http.post(f"{gate.url}/oauth/revoke", data={"token": session[name]})


async def keys_and_clients(gate: Gatehouse) -> None:
    """One's own key, rotated; tokens made from it by Basic and form; each used, right and wrong."""
    session = (await gate.http.post(f"{gate.url}/auth/login", json={"email": BEA, "password": SECOND})).json()
    headers = gate.bearer(session["access_token"])
    made = (await gate.http.post(f"{gate.url}/auth/keys", json={"label": "laptop"}, headers=headers)).json()
    path = f"{gate.url}/auth/keys/{made['id']}/rotate"
    rotated = (await gate.http.post(path, json={"grace_seconds": 60}, headers=headers)).json()
    grant = {"grant_type": "client_credentials"}
    for key in (made["key"], rotated["key"]):
        assert (await gate.chat(key=key)).status_code == 200
        name, _, secret = key.rpartition("_")
        token = await gate.http.post(f"{gate.url}/oauth/token", data=grant, auth=(name, secret))
        assert (await gate.chat(key=token.json()["access_token"])).status_code == 200
        await gate.http.post(f"{gate.url}/oauth/token", data=grant | {"client_id": name, "client_secret": secret})
        await gate.http.post(f"{gate.url}/oauth/token", data=grant, auth=(name, secret + "wrong"))
        await gate.http.post(f"{gate.url}/oauth/revoke", data={"token": token.json()["access_token"]})
    await gate.http.delete(f"{gate.url}/auth/keys/{made['id']}", headers=headers)


async def strange_places(gate: Gatehouse, run: Run) -> None:
    """Credentials where they do not belong: in the body, in the path, in another header, in a failure."""
    run.add("the field password", INLINE)
    inline = {"auth": {"username": BEA, "password": INLINE}}
    for path in ("/api/chat", "/chat", *BODIES):
        await gate.post(path, QUESTION | BODIES.get(path, {}) | inline)
    assert (await gate.http.post(gate.url + "/chat", json=QUESTION | inline)).status_code == 401
    inline["auth"]["password"] = SECOND
    for _ in range(2):
        assert (await gate.http.post(gate.url + "/chat", json=QUESTION | inline)).status_code == 200
    _, in_path = await gate.member("terminal@example.org", in_path=True)
    assert (await gate.http.post(f"{gate.url}/k/{in_path}/api/chat", json=QUESTION)).status_code == 200
    for text in (gate.key, gate.key.replace("_", "%5F"), gate.key + "wrong"):
        for headers in ({}, gate.bearer()):
            await gate.http.post(f"{gate.url}/k/{text}/api/chat", json=QUESTION, headers=headers)
            await gate.http.get(f"{gate.url}/api/tags/{text}", headers=headers)
        await gate.http.get(f"{gate.url}/api/tags?key={text}")
        await gate.http.get(f"{gate.url}/api/tags", headers={"Cookie": f"key={text}", "X-API-KEY": text})
    run.add("a password typed as an address", WRONG)
    await gate.http.post(f"{gate.url}/auth/login", json={"email": WRONG, "password": FIRST})
    with pytest.MonkeyPatch.context() as patch:

        async def fail(*_: Any) -> Any:
            raise RuntimeError("nobody foresaw this")

        patch.setattr(gate.house.accounts, "login", fail)
        answer = await gate.http.post(f"{gate.url}/auth/login", json={"email": BEA, "password": FIRST})
        assert answer.status_code == 500


async def administrators(gate: Gatehouse, run: Run) -> None:
    """The command line over the admin socket: users, resets, keys, exports, verify, search."""
    office = Office(gate)
    added = await office.done("users", "add", "carl@example.org")
    one_time = next(word for word in added.stdout.split() if word.encode() in run.found)
    await gate.http.post(f"{gate.url}/auth/login", json={"email": "carl@example.org", "password": one_time})
    body = {"email": "carl@example.org", "old": one_time, "new": THIRD}
    assert (await gate.http.post(f"{gate.url}/auth/password", json=body)).status_code == 204
    await office.done("users", "reset-password", "carl@example.org", "--yes")
    issued = await office.json("keys", "issue", "carl@example.org", "--label", "robot")
    run.add("the field key", issued["key"])
    await office.done("keys", "rotate", issued["id"], "--grace", "1h")
    run.add("the field token", IMPORTED)
    tokens = gate.data.parent.parent / "tokens.json"
    tokens.write_text(json.dumps({"user1": IMPORTED}), encoding="utf-8")
    await office.done("import", str(tokens))
    tokens.unlink()
    assert (await gate.http.get(f"{gate.url}/api/tags", headers=gate.bearer(IMPORTED))).status_code == 200
    run.add("an upstream's key", PROVIDERS)
    assert (await office.cli("upstreams", "key", "up", stdin=PROVIDERS + "\n")).exit_code == 0
    assert (await gate.chat()).status_code == 200
    assert f"Bearer {PROVIDERS}" in {each.headers.get("authorization") for each in gate.upstream.requests}
    for form in ("csv", "jsonl"):
        await office.done("audit", "export", "--format", form, "--output", str(gate.data / f"all.{form}"))
    await office.done("audit", "search", "text:Why", "since:1h")
    await office.done("audit", "verify")


async def an_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in engine's child, in its place one that only reads its order and says where it is."""
    child = folder / "child.py"
    child.write_text(
        'import sys, time\norder = sys.stdin.read()\nprint(\'{"url":"http://127.0.0.1:9"}\', flush=True)\n'
        "print('started', file=sys.stderr, flush=True)\ntime.sleep(600)\n",
        encoding="ascii",
    )
    monkeypatch.setattr(supervisor, "CHILD", child)
    engine = Engine(EngineFiles(site=folder, model=folder / "none.gguf"), log_file=folder / "engine.log")
    await engine.start()
    await engine.stop()


@pytest.mark.parametrize("form", sorted(forms(b"a planted secret?/~")))
def test_the_search_finds_a_planted_secret_in_every_form(tmp_path: Path, form: str) -> None:
    """The control: whichever way it is written, in the midst of other bytes."""
    run = Run()
    run.add("a plant", "a planted secret?/~")
    (tmp_path / "file").write_bytes(b"x" * 100 + forms(b"a planted secret?/~")[form] + b"y" * 100)
    assert any(found.startswith("a plant as") for found in run.leaks(tmp_path))


def test_the_search_finds_a_planted_secret_in_every_place(tmp_path: Path) -> None:
    """In a file's name, packed into a cell, written over several pages, in a child's arguments and environment."""
    secret = "a planted secret"
    with secrets_of_a_run(tmp_path) as run:
        run.add("a plant", secret)
        assert run.leaks(tmp_path) == []
        (tmp_path / f"{secret}.txt").touch()
        conn = sqlite3.connect(tmp_path / "some.db")
        conn.execute("CREATE TABLE packed (cell BLOB)")
        conn.execute("CREATE TABLE long (cell TEXT)")
        conn.execute("INSERT INTO packed VALUES (?)", (zlib.compress(f"{secret} and more".encode() * 9),))
        conn.execute("INSERT INTO long VALUES (?)", ("x" * 4000 + secret + "y" * 9000,))
        conn.commit()
        conn.close()
        subprocess.run([sys.executable, "-c", "pass", secret], check=True)
        subprocess.run([sys.executable, "-c", "pass"], env={"SECRET": secret}, check=True)
        found = run.leaks(tmp_path)
    places = {line.partition(" in ")[2] for line in found if line.startswith("a plant as itself")}
    assert {
        "the names of files",
        "some.db, table packed, unpacked",
        "some.db, table long, unpacked",
        "arguments or environment of child 0",
        "arguments or environment of child 1",
    } <= places


def test_a_secret_that_is_added_later_is_not_forgotten(tmp_path: Path) -> None:
    """What new code of the daemon draws is a secret until somebody names it public; what is too short is told."""
    code = "import secrets\ndef brand_new():\n    return secrets.token_hex(16)\n"
    code += "def letters():\n    return ''.join(secrets.choice('abcdef') for _ in range(20))\n"
    fresh: dict[str, Any] = {"__name__": "daemon.access.brand_new"}
    with secrets_of_a_run(tmp_path) as run:
        exec(code, fresh)  # noqa: S102 - code of our own, two lines above
        drawn, text = fresh["brand_new"](), fresh["letters"]()
    assert {"daemon.access.brand_new:brand_new", "daemon.access.brand_new:letters"} <= run.kinds()
    assert {drawn.encode(), text.encode()} <= run.found.keys()
    run.add("short", "x" * (SHORTEST - 1))
    with pytest.raises(AssertionError, match="too short"):
        run.leaks(tmp_path)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/api/chat", "/api/chat"),
        ("/k/glk_a_b/api/chat", "/k/…/api/chat"),
        ("/k/anything/v1", "/k/…/v1"),
        ("/%6b/anything", "/k/…"),
        ("/v1/glk%5Fa%5Fb", "/v1/…"),
        ("/glr_x", "/…"),
        ("/auth/eyJhbGciOi.x.y", "/auth/…"),
        ("/kk/name%20x", "/kk/name%20x"),
    ],
)
def test_a_credential_in_a_path_is_not_logged(path: str, shown: str) -> None:
    """People paste keys into addresses."""
    assert without_credentials(path) == shown
