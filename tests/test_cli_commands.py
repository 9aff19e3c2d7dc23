"""The command line over a real daemon: what people and scripts read, what they are asked, and what they get back."""

import asyncio
import csv
import hashlib
import io
import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from common.protocol import AuditRow
from common.untrusted import csv_uncell, is_unsafe
from console.__main__ import cli
from console.commands.audit import _cells, _columns
from console.commands.importing import read_tokens
from daemon.exchange import EndState
from tests.rigs.engine import ROOT
from tests.rigs.gatehouse import MODEL
from tests.rigs.office import Office, open_office
from tests.rigs.until import until
from tests.rigs.upstream_behaviours import saying, stall_after

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\u202eevil\u200b[/] [@click=app.quit]\x9b31m"


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as office:
        yield office


async def test_a_user_comes_and_goes(office: Office) -> None:
    """The daily tasks, as contract.md names them."""
    added = await office.json("users", "add", "joe@example.org")
    assert set(added) == {"id", "email", "role", "service", "one_time_password", "one_time_expires"}
    rows = await office.json("users", "list")
    assert [row["email"] for row in rows] == ["ana@example.org", "joe@example.org"]
    table = (await office.done("users", "list")).stdout
    assert table.splitlines()[0].split()[:3] == ["STATUS", "EMAIL", "ROLE"]
    assert "joe@example.org" in table
    assert (await office.json("users", "role", "joe@example.org", "admin"))["role"] == "admin"
    assert (await office.json("users", "notes", "joe@example.org", "from sales"))["notes"] == "from sales"
    assert (await office.json("users", "disable", "joe@example.org"))["status"] == "disabled"
    assert (await office.json("users", "enable", "joe@example.org"))["status"] == "active"
    shown = await office.json("users", "show", "joe@example.org")
    assert shown["limits"]["effective"]["requests_per_minute"] == "unlimited"
    assert "from sales" in (await office.done("users", "show", "joe@example.org")).stdout


async def test_a_one_time_password_is_the_only_thing_on_standard_output(office: Office) -> None:
    """So that it can be piped; what is said about it goes to standard error."""
    result = await office.done("users", "add", "joe@example.org")
    assert re.fullmatch(r"one-time password  \S{20,}\n", result.stdout)
    assert "shown this once" in result.stderr
    result = await office.done("users", "add", "robot@example.org", "--service")
    assert result.stdout == ""
    assert "service account" in result.stderr


async def test_who_registered_is_approved_by_address_or_code(office: Office) -> None:
    """An address with several entries is refused with exit 1 and their codes."""
    body = {"email": "joe@example.org", "password": "correct horse battery"}
    url = office.gate.url + "/auth/register"
    codes = [(await office.gate.http.post(url, json=body)).json()["code"] for _ in range(2)]
    result = await office.cli("users", "approve", "joe@example.org")
    assert result.exit_code == 1
    assert all(code in result.stderr for code in codes)
    table = (await office.done("users", "list", "--status", "pending")).stdout
    assert all(code in table for code in codes)
    assert (await office.json("users", "approve", codes[0]))["status"] == "active"


async def test_a_key_for_a_script(office: Office) -> None:
    """`{"id","key"}` and nothing else; the durations of people."""
    issued = await office.json(
        "keys", "issue", "ana@example.org", "--label", "n8n", "--expires", "90d", "--model", "smol*", "--model", "x"
    )
    assert set(issued) == {"id", "key"}
    (row,) = [row for row in await office.json("keys", "list") if row["id"] == issued["id"]]
    assert row["models"] == ["smol*", "x"]
    assert (await office.gate.chat(key=issued["key"])).status_code == 200
    rotated = await office.json("keys", "rotate", issued["id"], "--grace", "1h")
    assert rotated["id"] == issued["id"] and rotated["previous_until"]
    assert (await office.gate.chat(key=issued["key"])).status_code == 200
    assert issued["id"] in (await office.done("keys", "list", "--user", "ana@example.org")).stdout
    assert (await office.json("keys", "revoke", issued["id"], "--yes"))["state"] == "revoked"
    assert issued["key"] not in (await office.done("keys", "list", "--all")).stdout


async def test_a_key_for_the_path_says_what_to_set(office: Office) -> None:
    """`--in-path`: opt-in per key, and shown in the list."""
    issued = await office.done("keys", "issue", "ana@example.org", "--label", "ollama", "--in-path")
    (address,) = re.findall(r"OLLAMA_HOST=http://GATEWAY:7000(/k/glk_\w+)", issued.stderr)
    answer = await office.gate.http.get(office.gate.url + address + "/api/tags")
    assert answer.status_code == 200
    assert "inference, in path" in (await office.done("keys", "list")).stdout
    assert [row["in_path"] for row in await office.json("keys", "list") if row["label"] == "ollama"] == [True]


async def test_a_users_inline_password_is_switched_off_and_on(office: Office) -> None:
    """`users inline-auth`: shown with the user, recorded."""
    await office.done("users", "add", "bea@example.org")
    assert (await office.json("users", "show", "bea@example.org"))["user"]["inline_auth"] is True
    assert "counts no more" in (await office.done("users", "inline-auth", "bea@example.org", "off")).stderr
    assert "counts no more" in (await office.done("users", "show", "bea@example.org")).stdout
    assert (await office.json("users", "inline-auth", "bea@example.org", "on"))["inline_auth"] is True
    recorded = [row for row in office.recorded() if row["verb"] == "users inline-auth"]
    assert [row["new"] for row in recorded] == [{"inline_auth": False}, {"inline_auth": True}]
    assert (await office.cli("users", "inline-auth", "bea@example.org", "perhaps")).exit_code == 2


TOKENS_JSON = """{
  "user1": "token_for_user1",
  "user2": "token_for_user2",
  "user3": "token_for_user3"
}
"""


async def test_the_tokens_of_another_gateway_are_brought_in(office: Office, tmp_path: Path) -> None:
    """Rows 28 and 36: tokens.json and .env as the seeds have them; the tokens work, are weak, and are nowhere kept."""
    tokens, env = tmp_path / "tokens.json", tmp_path / ".env"
    tokens.write_text("\ufeff" + TOKENS_JSON, encoding="utf-8")
    env.write_text("# the gateway\nOLLAMA_BASE_URL=http://localhost:11434\nx_api_key=your_secret_api_key\n")
    done = await office.done("import", str(tokens))
    assert "user1@localhost" in done.stdout and "imported" in done.stdout
    assert done.stderr.count("is weak") == 3
    assert "delete it" in done.stderr
    rows = await office.json("import", str(tokens), "--domain", "localhost")
    assert [row["state"] for row in rows] == ["known"] * 3
    (row,) = await office.json("import", str(env), "--user", "ana@example.org")
    assert (row["name"], row["user"], row["state"], row["new_user"]) == (
        "ana@example.org",
        "ana@example.org",
        "imported",
        False,
    )
    gate = office.gate
    for header in (gate.bearer("token_for_user2"), {"x_api_key": "your_secret_api_key"}):
        assert (await gate.http.get(gate.url + "/api/tags", headers=header)).status_code == 200
    kept = b"".join(file.read_bytes() for file in gate.data.rglob("*") if file.is_file())
    assert b"token_for_user" not in kept and b"your_secret_api_key" not in kept


NO_SUCH_FILES = {
    '{"user1": ""}': "empty",
    '{"user1": "a", "user1": "b"}': "twice",
    '{"user1": {"token": "a"}}': "not a text",
    "{": "not JSON",
    "x_api_key=\n": "empty",
    "x_api_key=''\n": "empty",
    "x_api_key=a\nX_API_KEY=b\n": "several",
    "OTHER=1\n": "neither",
}


async def test_a_file_that_is_no_such_file_is_refused(office: Office, tmp_path: Path) -> None:
    """An empty key is refused; exit 1, in words, nothing changed."""
    file = tmp_path / "file"
    for text, words in NO_SUCH_FILES.items():
        file.write_text(text)
        result = await office.cli("import", str(file))
        assert (result.exit_code, words in result.output) == (1, True), result.output
    assert {row["user"] for row in await office.json("keys", "list")} == {"ana@example.org"}


def test_an_environment_file_is_read_as_dotenv_reads_it() -> None:
    """Quotes, comments, `export`, spaces."""
    for line in ("x_api_key=a b", "export X_API_KEY = 'a b'", 'x_api_key="a b" # theirs', "API_KEY=a b # theirs"):
        assert [found.token for found in read_tokens(line, ".env")] == ["a b"]


async def test_a_key_for_prometheus_needs_no_label(office: Office) -> None:
    """`--metrics` says what it is for; any other key must say so, or it is wrong usage."""
    issued = await office.json("keys", "issue", "ana@example.org", "--metrics")
    (row,) = [row for row in await office.json("keys", "list") if row["id"] == issued["id"]]
    assert (row["label"], row["purpose"]) == ("metrics", "metrics")
    assert row["in_path"] is False
    result = await office.cli("keys", "issue", "ana@example.org")
    assert result.exit_code == 2
    assert "--label" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "delete", "ana@example.org"),
        ("users", "reset-password", "ana@example.org"),
        ("keys", "revoke", "{key}"),
        ("models", "delete", MODEL),
    ],
)
async def test_what_destroys_is_not_done_unasked(office: Office, arguments: tuple[str, ...]) -> None:
    """Without a terminal to ask on: exit 1, the target named, nothing changed."""
    key = next(iter(office.gate.house.directory.keys))
    words = [word.format(key=key) for word in arguments]
    before = len(office.recorded())
    result = await office.cli(*words)
    assert result.exit_code == 1
    assert "--yes" in result.stderr
    assert words[2] in result.stderr
    assert len(office.recorded()) == before


async def test_a_person_is_asked_and_may_decline(office: Office) -> None:
    """On a real terminal: the question names the target, and only `y` does it."""
    for answer, revoked in (("n", False), ("y", True)):
        key = next(iter(office.gate.house.directory.keys))
        text, code = await asyncio.to_thread(_on_a_terminal, office, ["keys", "revoke", key], f"{answer}\n")
        assert f"Revoke the key {key} for good?" in text
        assert code == (0 if revoked else 1)
        assert (office.gate.house.directory.keys[key].revoked_us is not None) is revoked


def _on_a_terminal(office: Office, arguments: list[str], typed: str, columns: int = 80) -> tuple[str, int]:
    """What the program writes on a pseudo-terminal, and its exit code."""
    import fcntl
    import struct
    import termios

    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "console", "--socket", str(office.socket), *arguments],
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
    ) as process:
        os.close(terminal)
        os.write(master, typed.encode())
        written = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the terminal is gone with the process
                break
            if not data:
                break
            written += data
        code = process.wait(20)
    os.close(master)
    return written.decode(), code


async def test_limits_as_the_contract_spells_them(office: Office) -> None:
    """Every flag; `unlimited`; an array of objects with the flags' names."""
    row = await office.json(
        *("limits", "set", "user:ana@example.org", "--requests-per-minute", "1", "--requests-per-hour", "20"),
        *("--requests-per-day", "30", "--tokens-per-minute", "unlimited", "--tokens-per-day", "40"),
        *("--concurrency", "2"),
    )
    assert row["use"][0] == {"target": "user:ana@example.org", "limit": "requests_per_minute", "used": 0, "max": 1} | {
        "frees_at": None
    }
    assert {name: value for name, value in row.items() if name not in {"effective", "use"}} == {
        "target": "user:ana@example.org",
        "requests_per_minute": 1,
        "requests_per_hour": 20,
        "requests_per_day": 30,
        "tokens_per_minute": "unlimited",
        "tokens_per_day": 40,
        "concurrency": 2,
    }
    assert [(await office.gate.chat()).status_code for _ in range(2)] == [200, 429]
    table = (await office.done("limits", "show", "ana@example.org")).stdout
    assert "REQ/MIN" in table and "in force" in table
    tried = (await office.done("limits", "try", "model:no-such", "--requests-per-minute", "1")).stderr
    assert "none of them comes under model:no-such: these limits were not tested" in tried
    tried = (await office.done("limits", "try", "user:ana@example.org", "--requests-per-minute", "1")).stderr
    assert "requests refused" in tried and "tested" not in tried
    assert [row["target"] for row in await office.json("limits", "show")] == ["default", "user:ana@example.org"]
    row = await office.json("limits", "clear", "ana@example.org")
    assert row["concurrency"] is None
    result = await office.cli("limits", "show", "planet:earth")
    assert result.exit_code == 2
    assert "planet:earth" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        "audit search state:bogus",
        "audit verify --expect nonsense",
        "limits set bogus:x --concurrency 1",
        "limits set address:bad --concurrency 1",
        "keys issue ana@example.org --label x --address bogus",
    ],
)
async def test_a_value_that_cannot_be_is_wrong_usage(office: Office, words: str) -> None:
    """Exit 2, whether the program or the daemon finds it out; the value is named."""
    result = await office.cli(*words.split())
    assert result.exit_code == 2, result.stderr
    assert any(word in result.stderr for word in ("bogus", "nonsense", "bad"))


async def test_a_cloud_provider_is_opened_step_by_step(office: Office) -> None:
    """Enabled, given a key by standard input, and a user allowed; the key is nowhere in what is printed."""
    row = await office.json("upstreams", "enable", "up")
    assert (row["enabled"], row["cloud"], row["has_key"]) == (True, False, False)
    told = await office.cli("upstreams", "key", "up", stdin="sk-pelargonium\n")
    assert told.exit_code == 0
    assert "is shown the new key" in told.stderr
    shown = (await office.done("upstreams", "list", "--json")).stdout
    assert '"has_key": true' in shown
    assert "sk-pelargonium" not in told.stdout + told.stderr + shown
    assert (await office.json("upstreams", "key", "up", "--clear"))["has_key"] is False
    assert (await office.cli("upstreams", "key", "up", stdin="")).exit_code == 1
    assert (await office.cli("upstreams", "key", "up", stdin="two words\n")).exit_code == 2
    assert (await office.json("upstreams", "disable", "up"))["enabled"] is False
    assert (await office.json("users", "cloud", "ana@example.org", "on"))["cloud"] is True
    assert (await office.json("users", "cloud", "ana@example.org", "off"))["cloud"] is False
    assert (await office.cli("users", "cloud", "ana@example.org", "perhaps")).exit_code == 2


async def test_models_and_upstreams(office: Office) -> None:
    """Listed, fetched, shown, deleted, probed."""
    assert [row["name"] for row in await office.json("models", "list")] == [MODEL, "qwen3:4b"]
    assert f"{MODEL} (default)" in (await office.done("models", "list")).stdout
    result = await office.done("models", "pull", "phi4:14b")
    assert "pulling manifest" in result.stderr and "success" in result.stderr
    assert (await office.json("models", "pull", "phi4:14b"))["status"] == "success"
    assert (await office.json("models", "show", "phi4:14b"))["information"]["details"]
    assert "phi4:14b" in (await office.done("models", "show", "phi4:14b")).stdout
    assert (await office.json("models", "delete", "phi4:14b", "--yes"))["deleted"] is True
    (row,) = await office.json("upstreams", "list")
    assert (row["name"], row["state"], row["probed_seats"]) == ("up", "ok", None)
    office.gate.upstream.seats = asyncio.Semaphore(3)
    office.gate.upstream.default = stall_after(1, asyncio.Event())
    assert (await office.json("upstreams", "probe", "up", "--set"))["seats"] == 3
    assert (await office.json("upstreams", "seats", "up", "2"))["seats"] == 2
    assert "127.0.0.1" in (await office.done("upstreams", "list")).stdout


async def test_what_runs_is_shown_and_ended(office: Office) -> None:
    """`live` and `cancel`, by the request id that the client has, too."""
    office.gate.upstream.next(stall_after(1, asyncio.Event()))
    chat = asyncio.create_task(office.gate.chat(stream=True))
    await until(lambda: any(each.phase == "run" for each in office.gate.house.gate.live()))
    (row,) = await office.json("live")
    assert row["state"] == "run"
    assert row["request_id"] in (await office.done("live")).stdout
    assert (await office.json("cancel", row["request_id"]))["cancelled"] is True
    response = await chat
    assert response.headers["x-request-id"] == row["request_id"]
    assert (await office.json("live")) == []
    assert "nothing runs" in (await office.done("live")).stderr
    assert (await office.cli("cancel", "nosuch")).exit_code == 1


async def test_a_narrow_terminal_shows_what_cancel_takes(office: Office) -> None:
    """80 columns: the request comes first, by the beginning of its id, and that beginning is enough to end it."""
    office.gate.upstream.next(stall_after(1, asyncio.Event()))
    chat = asyncio.create_task(office.gate.chat(stream=True))
    await until(lambda: any(each.phase == "run" for each in office.gate.house.gate.live()))
    (exchange,) = office.gate.house.gate.live()
    text, _ = await asyncio.to_thread(_on_a_terminal, office, ["live"], "", 80)
    header, line = text.splitlines()
    assert header.split() == ["REQUEST", "STATE", "ELAPSED", "PIECES", "SENT", "USER", "MODEL"]
    assert "ana@example.org" in line
    beginning = line.split()[0]
    assert exchange.request_id.startswith(beginning)
    assert (await office.cli("cancel", beginning[:7])).exit_code == 1, "too short to be sure"
    assert (await office.json("cancel", beginning)) == {"request_id": exchange.request_id, "cancelled": True}
    await chat
    assert office.recorded()[-1]["target"] == f"request:{exchange.request_id}"


async def test_live_watch_waits_for_a_daemon_that_it_has_seen(office: Office) -> None:
    """A goodbye is told and the stream is opened again; hostile rows are escaped in it."""
    await office.done("users", "notes", "ana@example.org", HOSTILE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console", "--socket", str(office.socket), "live", "--watch", "--json"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    hub = office.gate.house.hub
    lines = [(await process.stdout.readline()).decode() for _ in range(2)]
    assert "pwned" in lines[1]
    assert not any(is_unsafe(character) and character != "\n" for line in lines for character in line)
    for watcher in tuple(hub._watchers):
        watcher.end("enough")
    while json.loads(await process.stdout.readline())["type"] != "snapshot":
        pass
    process.send_signal(2)
    _, errors = await process.communicate()
    assert errors == b"enough\n"


async def test_live_watch_prints_the_stream(office: Office) -> None:
    """With --json the messages as they come, one document a line; Ctrl-C ends it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console", "--socket", str(office.socket), "live", "--watch", "--json"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
    assert [line["type"] for line in lines] == ["hello", "snapshot"]
    await office.gate.chat()
    assert json.loads(await process.stdout.readline())["type"] == "batch"
    process.send_signal(2)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


async def test_the_audit_is_searched_and_read(office: Office) -> None:
    """Filters as words, pages, prompt and answer; a filter that cannot be is refused."""
    for _ in range(3):
        await office.gate.chat()
    rows = await office.json("audit", "search", "user:ana@example.org", "state:ok", "since:1h", "--limit", "2")
    assert len(rows) == 2
    assert rows[0]["log_id"] > rows[1]["log_id"]
    (older,) = await office.json("audit", "search", "--before", str(rows[1]["log_id"]))
    assert older["log_id"] < rows[1]["log_id"]
    assert len(await office.json("audit", "search", "text:why")) == 3
    assert await office.json("audit", "search", "text:nowhere to be found") == []
    table = (await office.done("audit", "search")).stdout
    assert len(table.splitlines()) == 4
    exchange = await office.json("audit", "show", rows[0]["request_id"])
    assert (exchange["prompt"], exchange["response"]) == ("Why?", "Why not?")
    text = (await office.done("audit", "show", str(rows[0]["log_id"]))).stdout
    assert "[user]\n  Why?\n[answer]\n  Why not?\n" in text
    assert (await office.cli("audit", "search", "state:splendid")).exit_code == 2
    assert (await office.cli("audit", "show", "nosuch")).exit_code == 1


async def test_a_refusal_is_listed_with_its_reason_and_can_be_read(office: Office) -> None:
    """Why, how often, who and when: in the table, and by the log id that the table gives."""
    await office.done("limits", "set", "ana@example.org", "--requests-per-minute", "1")
    assert [(await office.gate.chat()).status_code for _ in range(3)] == [200, 429, 429]
    await office.gate.house.journal.close()  # writes what else waits for the minute to end
    (row,) = await office.json("audit", "search", "state:refused")
    assert row["error"] in (await office.done("audit", "search", "state:refused")).stdout
    shown = await office.json("audit", "show", str(row["log_id"]))
    assert (shown["error"], shown["user"], shown["state"]) == (row["error"], "ana@example.org", "refused")
    text = (await office.done("audit", "show", str(row["log_id"]))).stdout
    assert "2 times" in text and "ana@example.org" in text and row["received"] in text
    assert "[answer]" not in text
    assert office.recorded()[-1]["target"] == f"log:{row['log_id']}"


async def test_an_embedding_is_told_in_words(office: Office) -> None:
    """Nobody reads numbers by the thousand; --json has them all."""
    response = await office.gate.post("/api/embed", {"model": MODEL, "input": ["one", "two"]})
    assert response.status_code == 200
    vectors = response.json()["embeddings"]
    request_id = response.headers["x-request-id"]
    text = (await office.done("audit", "show", request_id)).stdout
    words = f"{len(vectors)} vector{'s' if len(vectors) > 1 else ''} of {len(vectors[0])} numbers"
    assert text.endswith(f"[answer]\n  {words}\n")
    assert (await office.json("audit", "show", request_id))["answer"]["embeddings"] == vectors


async def test_the_columns_of_a_search_stay_in_their_place(office: Office) -> None:
    """Every end state is readable, a long address shifts nothing, a long prompt is bounded in a pipe, too."""
    given = dict.fromkeys(AuditRow.__struct_fields__, "") | {
        **dict.fromkeys(("log_id", "tokens_in", "tokens_out"), 1),
        "received": "2026-01-31T09:05:07Z",
        "user": "somebody.with.a.very.long.name@department.example.org",
        "model": "a-model-with-a-very-long-name:70b-instruct",
        "prompt": "Why? " * 40,
        "erased": False,
    }
    row = msgspec.convert(given, AuditRow)
    for width in (80, 120):
        columns = _columns(width)
        start = columns.header().index("PROMPT")
        for state in EndState:
            row.state = state.value
            line = columns.line(_cells(row, short=columns.is_narrow))
            assert state.value in line
            assert line[start - 1 :].startswith(" Why?")
            assert len(line.rstrip("\n")) <= width
    piped = _columns(None).line(_cells(row, short=False))
    assert piped.count("Why?") == 20
    row.erased = True
    assert columns.line(_cells(row, short=columns.is_narrow)).rstrip().endswith(" (erased)")


async def test_an_export_to_a_file_is_verified(office: Office, tmp_path: Path) -> None:
    """Row 53, T4: written with the caller's rights, 0600, read back; the report has its digest; then deletion works."""
    await office.gate.chat()
    file = tmp_path / "ana.csv"
    report = await office.json("audit", "export", "--user", "ana@example.org", "--output", str(file))
    body = file.read_bytes()
    assert report["verified"] is True
    assert report["sha256"] == hashlib.sha256(body).hexdigest()
    assert (report["bytes"], report["file"]) == (len(body), str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "data"] == ["ana.csv"]
    await office.done("users", "disable", "ana@example.org")
    assert (await office.json("users", "delete", "ana@example.org", "--yes"))["deleted"] is True


async def test_an_export_to_standard_output_is_the_file_and_nothing_else(office: Office) -> None:
    """CSV by default, JSONL on demand; it does not count as verified."""
    office.gate.upstream.next(saying("=1+1"))
    await office.gate.chat()
    text = (await office.done("audit", "export")).stdout
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert list(row)[:4] == ["log_id", "prompt", "response", "timestamp"]
    assert row["response"] == "'=1+1"
    assert csv_uncell(row["response"]) == "=1+1"
    (line,) = (await office.done("audit", "export", "--format", "jsonl", "--since", "1h")).stdout.splitlines()
    assert json.loads(line)["response"] == "=1+1"
    await office.done("users", "disable", "ana@example.org")
    result = await office.cli("users", "delete", "ana@example.org", "--yes")
    assert result.exit_code == 1
    assert "audit export --job --user ana@example.org, or with --output FILE" in result.stderr


async def test_a_file_that_cannot_be_written_is_a_sentence(office: Office, tmp_path: Path) -> None:
    """Exit 1, the path and the reason."""
    result = await office.cli("audit", "export", "--output", str(tmp_path / "absent" / "x.csv"))
    assert result.exit_code == 1
    assert "cannot write" in result.stderr and "absent" in result.stderr
    words = ["--socket", str(tmp_path / "none.sock"), "audit", "export", "--output", str(tmp_path / "absent" / "x.csv")]
    assert CliRunner().invoke(cli, words).exit_code == 1, "the daemon is not asked before there is a place"


async def test_verify_says_intact_and_exits_with_what_it_found(office: Office) -> None:
    """0 intact, 1 where an expectation is unmet."""
    await office.gate.chat()
    report = await office.json("audit", "verify")
    assert report["intact"] is True
    assert "intact" in (await office.done("audit", "verify")).stdout
    kept = f"{report['head_seq']}:{'0' * 64}"
    assert (await office.cli("audit", "verify", "--expect", kept)).exit_code == 1
    assert (await office.cli("audit", "verify", "--expect", "x")).exit_code == 2


async def test_status_doctor_selftest(office: Office) -> None:
    """The three that one asks first."""
    answer = await office.json("status")
    assert answer["addresses"] == [office.gate.url]
    assert office.gate.url in (await office.done("status")).stdout
    findings = await office.json("doctor")
    assert {"subject", "severity", "message", "advice"} == set(findings[0])
    assert "ok " in (await office.done("doctor")).stdout
    steps = await office.json("selftest")
    assert all(step["ok"] for step in steps)
    assert "stream a chat" in (await office.done("selftest", "--model", "qwen3:4b")).stdout
    await office.gate.upstream.stop()
    assert (await office.cli("selftest")).exit_code == 1
    assert (await office.cli("doctor")).exit_code == 1


async def test_nothing_foreign_drives_the_terminal(office: Office) -> None:
    """T1, on a real terminal: hostile prompt, answer, agent, notes; not one control byte but line ends gets out."""
    office.gate.upstream.next(saying(HOSTILE))
    headers = {"X-Client-Label": "lab [/]", "User-Agent": "agent [/]"}
    response = await office.gate.post(
        "/api/chat", {"model": MODEL, "messages": [{"role": "user", "content": HOSTILE}]}, headers=headers
    )
    assert response.status_code == 200
    await office.done("users", "notes", "ana@example.org", HOSTILE)
    request_id = response.headers["x-request-id"]
    for arguments in (
        ["audit", "show", request_id],
        ["audit", "show", request_id, "--json"],
        ["audit", "search"],
        ["audit", "search", "--json"],
        ["audit", "export"],
        ["audit", "export", "--format", "jsonl"],
        ["users", "list"],
        ["users", "list", "--json"],
        ["users", "show", "ana@example.org"],
        ["users", "show", HOSTILE.replace("\x00", "")],
        ["audit", "search", f"state:{HOSTILE}"],
    ):
        text, _ = await asyncio.to_thread(_on_a_terminal, office, arguments, "")
        left = {character for character in text if is_unsafe(character)} - {"\n", "\r", "\t"}
        assert not left, (arguments, left)
        assert "pwn" in text or "evil" in text or "users" in arguments, arguments  # it was shown, if cut


@pytest.mark.parametrize("columns", [60, 80, 200])
async def test_tables_fit_the_terminal(office: Office, columns: int) -> None:
    """No line is wider than the terminal, whatever is in it."""
    await office.done("users", "notes", "ana@example.org", "x" * 300)
    for arguments in (["users", "list"], ["keys", "list"], ["upstreams", "list"], ["audit", "search"]):
        text, code = await asyncio.to_thread(_on_a_terminal, office, arguments, "", columns)
        assert code == 0
        assert max(len(line) for line in text.splitlines()) <= columns


async def test_a_closed_pipe_is_no_traceback(office: Office) -> None:
    """`gatelodge audit export | head -1` ends quietly."""
    for _ in range(30):
        await office.gate.chat()
    command = f"'{sys.executable}' -m console --socket '{office.socket}' audit export | head -1"
    done = await asyncio.to_thread(subprocess.run, ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("log_id,")
    assert "Traceback" not in done.stderr


async def test_the_socket_is_found_by_the_environment(office: Office) -> None:
    """GATELODGE_SOCKET names it where --socket does not."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "console", "status", "--json"],
        cwd=ROOT,
        env={**os.environ, "GATELODGE_SOCKET": str(office.socket)},
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["pid"] == os.getpid()


async def test_completion_knows_the_daemons_words(tmp_path: Path) -> None:
    """TAB offers what is there; a name that the shell would execute is not put into its line."""
    async with open_office(tmp_path, models=(MODEL, "smol$(reboot)", "smol;x", "smol\nx")) as office:
        for words, wanted in (("gatelodge users show a", "ana@example.org"), ("gatelodge models show smol", MODEL)):
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "console"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "_GATELODGE_COMPLETE": "bash_complete",
                    "GATELODGE_SOCKET": str(office.socket),
                    "COMP_WORDS": words,
                    "COMP_CWORD": "3",
                },
                capture_output=True,
                text=True,
            )
            assert done.stdout == f"plain,{wanted}\n"
