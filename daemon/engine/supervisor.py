"""Keep the built-in engine running: start it, wait until it answers, start it again when it ends, stop it.

Rules: the engine keeps its address over restarts, so that nobody has to be told of one; a restart waits longer each
time until the engine has run steadily; `stop` returns within seconds and leaves no process behind. Its port is open to
every account of this machine, so it answers only who shows its key, which no other account can read. How the process
is made to die with the daemon is `child.py`'s matter, what its answers mean is the upstream's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
from enum import Enum
from pathlib import Path

from common.errors import StartError
from daemon.engine.install import EngineFiles

log = logging.getLogger("gatelodge.engine")

CHILD = Path(__file__).with_name("child.py")
SEATS = 4
SECONDS_TO_START = 120.0  # a slow disk has to read 98 MB
SECONDS_TO_STOP = 2.0
FIRST_PAUSE = 0.5  # seconds before the first restart; doubled up to LONGEST_PAUSE
LONGEST_PAUSE = 30.0
LONGEST_LOG = 1_000_000  # bytes, after which a restart begins it anew
STEADY_AFTER = 60.0  # seconds of running after which the next restart waits FIRST_PAUSE again


class EngineState(Enum):
    """What the engine is doing, in a word."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"  # it ended by itself, and is started again after a pause


_MOVES = {
    EngineState.STOPPED: {EngineState.STARTING},
    EngineState.STARTING: {EngineState.RUNNING, EngineState.PAUSED, EngineState.STOPPED},
    EngineState.RUNNING: {EngineState.PAUSED, EngineState.STOPPED},
    EngineState.PAUSED: {EngineState.STARTING, EngineState.STOPPED},
}


class EngineFailed(Exception):
    """The engine's process did not come up; the text says what it said last."""


class Engine:
    """The engine's process and its supervision. `log_file` gets what llama.cpp says."""

    def __init__(self, files: EngineFiles, *, log_file: Path, seats: int = SEATS) -> None:
        self.seats = seats
        self.url = ""  # known once `start` has returned
        self.key = secrets.token_urlsafe(32)  # what requests to it must show as `Authorization: Bearer`
        self.state = EngineState.STOPPED
        self.restarts = 0
        self._files = files
        self._log_file = log_file
        self._port = 0  # any free one at first, the same one ever after
        self._child: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        pid = self._child.pid if self._child else None
        return f"<Engine {self.state.value} pid={pid} url={self.url or None} restarts={self.restarts}>"

    @property
    def pid(self) -> int | None:
        """The process id of the engine that runs now."""
        return self._child.pid if self._child else None

    async def start(self) -> str:
        """Start the engine and return its URL, `http://127.0.0.1:PORT`, once it answers; StartError if it will not."""
        self._move(EngineState.STARTING)
        try:
            await self._launch()
        except EngineFailed as error:
            self._move(EngineState.STOPPED)
            raise StartError(
                f"the built-in engine does not start ({error}); its words are in {self._log_file}. "
                "Start Ollama and name it with --ollama URL, or run without a model: --no-builtin-model"
            ) from error
        except BaseException:
            self._move(EngineState.STOPPED)
            raise
        self._move(EngineState.RUNNING)
        self._supervision = asyncio.create_task(self._supervise(), name="engine supervision")
        return self.url

    async def stop(self) -> None:
        """End supervision and process; harmless where nothing runs."""
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervision
            self._supervision = None
        await self._end_child()
        if self.state is not EngineState.STOPPED:
            self._move(EngineState.STOPPED)

    def _move(self, to: EngineState) -> None:
        if to not in _MOVES[self.state]:
            raise RuntimeError(f"the engine cannot go from {self.state.value} to {to.value}")
        self.state = to

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause, running_since = FIRST_PAUSE, loop.time()
        while self._child is not None:
            ended = _how_it_ended(await self._child.wait())
            self._child = None
            self._move(EngineState.PAUSED)
            if loop.time() - running_since >= STEADY_AFTER:
                pause = FIRST_PAUSE
            while self.state is not EngineState.RUNNING:
                log.warning("the built-in engine %s; starting it again in %.1f s", ended, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                self.restarts += 1
                self._move(EngineState.STARTING)
                try:
                    await self._launch()
                except EngineFailed as error:
                    ended = f"did not come up ({error})"
                    self._move(EngineState.PAUSED)
                else:
                    self._move(EngineState.RUNNING)
            running_since = loop.time()
            log.info("the built-in engine answers again at %s", self.url)

    async def _launch(self) -> None:
        """Start the process and wait for the line with its address; EngineFailed if that does not come."""
        order = {
            "parent": os.getpid(),
            "site": str(self._files.site),
            "model": str(self._files.model),
            "name": self._files.name,
            "seats": self.seats,
            "port": self._port,
            "key": self.key,
        }
        words = self._open_log()
        try:
            child = self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(CHILD)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=words,
                # Its threads sleep where they wait for each other. Spinning, they would take the processors from the
                # gateway, its callers and themselves: on a busy machine an answer takes twenty times as long.
                env={"OMP_WAIT_POLICY": "passive", **os.environ},
                start_new_session=True,  # a terminal's Ctrl-C goes to the daemon alone, which lets answers end first
            )
        finally:
            os.close(words)
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(order).encode())  # far less than a pipe holds
            child.stdin.close()
            self.url = await asyncio.wait_for(self._address(child), SECONDS_TO_START)
        except TimeoutError as error:
            await self._end_child()
            raise EngineFailed(f"no answer within {SECONDS_TO_START:.0f} s") from error
        except BaseException:
            await self._end_child()
            raise
        self._port = int(self.url.rpartition(":")[2])

    def _open_log(self) -> int:
        """The log for one more process: begun anew at the first start, kept over restarts while it is small."""
        anew = self._port == 0 or not self._log_file.exists() or self._log_file.stat().st_size > LONGEST_LOG
        return os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if anew else 0), 0o600)

    async def _address(self, child: asyncio.subprocess.Process) -> str:
        """The URL that the process says on its standard output; EngineFailed with its last words if it ends instead."""
        line = await child.stdout.readline() if child.stdout else b""
        if line:
            return str(json.loads(line)["url"])
        ended = _how_it_ended(await child.wait())
        words = self._log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise EngineFailed(f"{ended}: {words[-1].strip()[:200]}" if words else ended)

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            await asyncio.wait_for(child.wait(), SECONDS_TO_STOP)
        except TimeoutError:
            child.kill()
            await child.wait()


def _how_it_ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
