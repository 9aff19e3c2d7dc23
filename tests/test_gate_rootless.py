"""T5 and T6: the daemon needs no root, its files are its own, who changes something is on record, and the console asks
the daemon and never the database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import httpx

from common.protocol import USERS_ADD, UsersAdd
from console.client import Client
from daemon.admin.peer import account_name
from tests.rigs.gatehouse import QUESTION, gatehouse
from tests.rigs.process import ROOT, DaemonProcess
from tests.rigs.scripted_upstream import ScriptedUpstream
from tests.rigs.until import until

NOBODY = 65534


async def start_as_nobody(data: Path, upstream: str) -> DaemonProcess:
    """A daemon under another account where we are root, else under ours, which is none of root's either.

    Its one capability lets it read, as the interpreter and this checkout may lie in a folder of root's.
    """
    dropped: tuple[str, ...] = ()
    if os.geteuid() == 0:
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        dropped = ("setpriv", *ids, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    return DaemonProcess(
        await asyncio.create_subprocess_exec(
            # A soft limit as a shell gives it: raising it to the hard one is nothing that wants root.
            *("sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh"),
            *(*dropped, sys.executable, "-m", "daemon", "--data", str(data), "--port", "0", "--ollama", upstream),
            cwd=ROOT,
            env=os.environ
            | {"GATELODGE_STORAGE__MIN_FREE": "0", "GATELODGE_STORAGE__BALLAST": "0", "HOME": "/nonexistent"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    )


async def test_the_daemon_runs_without_root_and_keeps_its_files_to_itself(tmp_path: Path) -> None:
    """Start, serve, administer, reload, stop as an ordinary account; nothing of its data is open to others."""
    place = Path("/tmp") / f"rootless-{os.getpid()}"  # pytest's own folders are closed to other accounts
    place.mkdir(mode=0o700)
    uid = os.geteuid() or NOBODY
    if uid == NOBODY:
        os.chown(place, NOBODY, NOBODY)
    data = place / "data"
    try:
        async with ScriptedUpstream() as upstream:
            daemon = await start_as_nobody(data, upstream.url)
            try:
                await daemon.listening()
                status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
                assert (
                    next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")) == [str(uid)] * 4
                )
                await until(lambda: (data / "first-key").exists() and (data / "first-key").read_text(encoding="ascii"))
                key = (data / "first-key").read_text(encoding="ascii").strip()
                async with httpx.AsyncClient(timeout=20, headers={"Authorization": f"Bearer {key}"}) as http:
                    answer = await http.post(f"{daemon.url}/api/chat", json=QUESTION | {"stream": False})
                    assert answer.status_code == 200
                client = Client(data / "gatelodge.sock")
                await asyncio.to_thread(client.ask, USERS_ADD, UsersAdd(email="joe@example.org"))
                daemon.send(signal.SIGHUP)
                await until(lambda: daemon.said("the configuration was read again"))
                for path in (data, *data.rglob("*")):
                    found = path.lstat()
                    assert found.st_uid == uid, path
                    assert not found.st_mode & 0o077, f"{path} is open to others: {stat.filemode(found.st_mode)}"
                assert stat.S_IMODE((data / "gatelodge.sock").lstat().st_mode) == 0o600
                assert stat.S_IMODE(data.lstat().st_mode) == 0o700
                assert await daemon.stop() == 0
            finally:
                await daemon.kill()
        conn = sqlite3.connect(data / "gatelodge.db")
        (detail,) = conn.execute("SELECT detail FROM journal WHERE detail LIKE '%joe@example.org%'").fetchone()
        conn.close()
        who = json.loads(detail)["actor"]
        assert who == {"uid": os.geteuid(), "name": account_name(os.geteuid()), "via": "socket"}
    finally:
        shutil.rmtree(place)


WATCHED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "sqlite3.connect") else None)
from console.__main__ import cli
for words in (["status"], ["users", "list"], ["keys", "list"], ["audit", "search", "since:1h"], ["limits", "show"]):
    cli(["--socket", sys.argv[1], *words], standalone_mode=False)
touched = [name for name in opened if "gatelodge.db" in name]
print("touched", touched, file=sys.stderr)
print("sqlite3" in sys.modules, file=sys.stderr)
"""


async def test_the_console_never_opens_the_database(tmp_path: Path) -> None:
    """Watched by the interpreter itself while commands run: whatever they show, the daemon told them."""
    async with ScriptedUpstream() as upstream:
        async with gatehouse(tmp_path, upstream) as gate:
            await gate.chat()
            watched = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WATCHED, str(gate.data / "gatelodge.sock")),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            shown, said = await watched.communicate()
    assert watched.returncode == 0, said.decode()
    assert b"ana@example.org" in shown
    assert said.decode().splitlines() == ["touched []", "False"]
