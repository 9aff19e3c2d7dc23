"""The built-in engine as a supervised child, with the real llama.cpp: it answers, comes back, and never outlives us."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from common.errors import StartError
from daemon.engine import supervisor
from daemon.engine.install import EngineFiles
from daemon.engine.supervisor import CHILD, Engine, EngineState
from tests.rigs.engine import ROOT
from tests.rigs.until import until

NOWHERE = EngineFiles(site=Path("/nonexistent"), model=Path("/nonexistent/model.gguf"))


def alive(pid: int) -> bool:
    """Whether a process `pid` still runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shown(engine: Engine) -> dict[str, str]:
    """The header that shows the engine's key."""
    return {"Authorization": f"Bearer {engine.key}"}


@pytest.mark.engine
async def test_it_answers_chat_and_embeddings(engine: Engine) -> None:
    """One small model serves both: a streamed chat in OpenAI's dialect, and embeddings. Its threads do not spin."""
    assert engine.state is EngineState.RUNNING
    # The engine promises to keep connections and closes them after a stream all the same.
    no_reuse = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=engine.url, timeout=60, limits=no_reuse, headers=shown(engine)) as client:
        models = (await client.get("/v1/models")).json()
        assert [model["id"] for model in models["data"]] == ["smollm2:135m"]
        chat = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "stream": True}
        answer = (await client.post("/v1/chat/completions", json=chat)).text
        assert answer.rstrip().endswith("data: [DONE]")
        assert '"content":' in answer
        vectors = (await client.post("/v1/embeddings", json={"input": ["one", "two"]})).json()
        assert [len(entry["embedding"]) for entry in vectors["data"]] == [576, 576]
    assert b"OMP_WAIT_POLICY=passive\0" in Path(f"/proc/{engine.pid}/environ").read_bytes()


@pytest.mark.engine
async def test_its_log_holds_no_prompt(engine: Engine, tmp_path: Path) -> None:
    """What users ask is the audit's alone: llama.cpp's log, a file of the owner's, does not repeat it."""
    async with httpx.AsyncClient(base_url=engine.url, timeout=60, headers=shown(engine)) as client:
        chat = {"messages": [{"role": "user", "content": "pelargonium"}], "max_tokens": 4}
        await client.post("/v1/chat/completions", json=chat)
    log_file = tmp_path / "engine.log"
    assert "pelargonium" not in log_file.read_text()
    assert log_file.stat().st_mode & 0o077 == 0


@pytest.mark.engine
async def test_killed_it_comes_back_at_the_same_address(engine: Engine) -> None:
    """An engine that dies is started again, and whoever knows its URL needs no new one."""
    url, first = engine.url, engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: engine.restarts == 1 and engine.state is EngineState.RUNNING, timeout=30)
    assert engine.url == url
    assert engine.pid != first
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}


@pytest.mark.engine
async def test_stop_ends_it_in_the_middle_of_an_answer(engine: Engine) -> None:
    """Stopping takes no longer because somebody is being answered, and leaves no process."""
    pid = engine.pid
    assert pid is not None
    chat = {"messages": [{"role": "user", "content": "Tell a long story."}], "stream": True, "max_tokens": 1500}
    async with httpx.AsyncClient(base_url=engine.url, timeout=60, headers=shown(engine)) as client:
        async with client.stream("POST", "/v1/chat/completions", json=chat) as answer:
            await anext(answer.aiter_lines())
            await asyncio.wait_for(engine.stop(), 5)
    assert not alive(pid)
    assert engine.state is EngineState.STOPPED


@pytest.mark.engine
async def test_a_terminals_ctrl_c_does_not_reach_it(engine: Engine) -> None:
    """The engine has a session of its own: Ctrl-C goes to the daemon, which lets answers end before it stops it."""
    assert engine.pid is not None
    assert os.getsid(engine.pid) == engine.pid


@pytest.mark.engine
async def test_it_dies_with_a_daemon_that_is_killed(engine_files: EngineFiles, tmp_path: Path) -> None:
    """kill -9 of the process that started it ends the engine as well: the kernel sees to it.

    The engine is halted meanwhile, so that it cannot notice by itself.
    """
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _DAEMON, str(engine_files.site), str(engine_files.model), str(tmp_path / "log")),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert daemon.stdout is not None
    pid = int(await daemon.stdout.readline())
    assert alive(pid)
    os.kill(pid, signal.SIGSTOP)
    daemon.kill()
    await daemon.wait()
    await until(lambda: not alive(pid))


_DAEMON = """
import asyncio, sys
from pathlib import Path
from daemon.engine.install import EngineFiles
from daemon.engine.supervisor import Engine

async def main():
    engine = Engine(EngineFiles(Path(sys.argv[1]), Path(sys.argv[2])), log_file=Path(sys.argv[3]))
    await engine.start()
    print(engine.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_child_whose_parent_is_already_gone_ends_at_once() -> None:
    """The daemon may die before the kernel is asked to watch it; the child then sees another parent and ends."""
    order = {"parent": 1, "site": "/nonexistent", "model": "", "name": "", "seats": 1, "port": 0, "key": ""}
    asked = json.dumps(order).encode()
    child = subprocess.run([sys.executable, "-I", CHILD], input=asked, capture_output=True, timeout=20)
    assert (child.returncode, child.stdout, child.stderr) == (1, b"", b"")


async def test_one_that_cannot_start_is_one_clear_line(tmp_path: Path) -> None:
    """The first start that fails is the caller's to know: one line with the reason, the log's place, what to do."""
    engine = Engine(NOWHERE, log_file=tmp_path / "engine.log")
    with pytest.raises(StartError) as refused:
        await engine.start()
    text = str(refused.value)
    assert "\n" not in text
    assert "No module named 'xllamacpp'" in text
    assert str(tmp_path / "engine.log") in text
    assert "--ollama URL" in text
    assert engine.state is EngineState.STOPPED
    assert engine.pid is None


async def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that neither answers nor ends is ended by us when its time is over."""
    child = tmp_path / "child.py"
    child.write_text("import signal; signal.pause()")
    monkeypatch.setattr(supervisor, "CHILD", child)
    monkeypatch.setattr(supervisor, "SECONDS_TO_START", 0.2)
    engine = Engine(NOWHERE, log_file=tmp_path / "engine.log")
    with pytest.raises(StartError, match="no answer within"):
        await engine.start()
    assert engine.pid is None


async def test_leaving_while_it_starts_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during the start ends the child that is still loading."""
    child = tmp_path / "child.py"
    child.write_text("import signal; signal.pause()")
    monkeypatch.setattr(supervisor, "CHILD", child)
    engine = Engine(NOWHERE, log_file=tmp_path / "engine.log")
    starting = asyncio.create_task(engine.start())
    pid = await until(lambda: engine.pid)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not alive(pid)
    assert engine.state is EngineState.STOPPED


async def test_one_that_ignores_being_asked_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` asks first and then insists, so that it always returns within seconds."""
    child = tmp_path / "child.py"
    child.write_text(
        "import signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'print(\'{"url": "http://127.0.0.1:1"}\', flush=True)\n'
        "signal.pause()"
    )
    monkeypatch.setattr(supervisor, "CHILD", child)
    monkeypatch.setattr(supervisor, "SECONDS_TO_STOP", 0.1)
    engine = Engine(NOWHERE, log_file=tmp_path / "engine.log")
    await engine.start()
    pid = engine.pid
    assert pid is not None
    await engine.stop()
    assert not alive(pid)


async def test_restarts_wait_longer_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot live does not burn the machine: the pauses between its restarts double up to a bound."""
    child = tmp_path / "child.py"
    child.write_text('print(\'{"url": "http://127.0.0.1:1"}\', flush=True)')
    monkeypatch.setattr(supervisor, "CHILD", child)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 4.0)
    pauses: list[float] = []
    doze = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds >= supervisor.FIRST_PAUSE:
            pauses.append(seconds)
            seconds = 0
        await doze(seconds)

    monkeypatch.setattr(supervisor.asyncio, "sleep", noted)
    engine = Engine(replace(NOWHERE), log_file=tmp_path / "engine.log")
    await engine.start()
    await until(lambda: len(pauses) >= 5, timeout=20)
    await engine.stop()
    assert pauses[:5] == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_an_illegal_move_raises(tmp_path: Path) -> None:
    """The states are a table: an engine that is stopped cannot be running next."""
    engine = Engine(NOWHERE, log_file=tmp_path / "engine.log")
    with pytest.raises(RuntimeError, match="from stopped to running"):
        engine._move(EngineState.RUNNING)
