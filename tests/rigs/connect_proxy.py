"""An HTTP proxy for tests that knows CONNECT: notes what it is asked for, then passes bytes on as they are.

async with ConnectProxy() as proxy:
    ... proxy.url ...; proxy.asked == ["127.0.0.1:443"]; proxy.passed has what it saw of the tunnel
"""

from __future__ import annotations

import asyncio
import contextlib


class ConnectProxy:
    """`answer`, where set, is what it says instead of opening a tunnel."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.passed = b""
        self.answer = b""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ConnectProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            assert method == b"CONNECT"
            self.asked.append(target.decode())
            if self.answer:
                writer.write(self.answer)
                await writer.drain()
                return
            host, _, port = target.decode().rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side left, or the rig stops
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.passed += data
                writer.write(data)
                await writer.drain()
        writer.close()
