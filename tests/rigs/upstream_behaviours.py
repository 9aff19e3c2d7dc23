"""The ways in which an upstream can fail, dawdle or surprise, each a behaviour for `ScriptedUpstream.next`.

Rule: one function a way; no clock. `gate` is an `asyncio.Event` that the test sets when the upstream may go on, `pace`
a semaphore of which each chunk takes one. `after` counts chunks that were written well before it happens.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.rigs import upstream_shapes
from tests.rigs.scripted_upstream import Behaviour, Turn, well


def saying(*words: str) -> Behaviour:
    """The right answer with these words, one a chunk."""

    async def behave(turn: Turn) -> None:
        await _stream(turn, turn.pieces(list(words)))

    return behave


def chunks(count: int, *, pace: asyncio.Semaphore | None = None) -> Behaviour:
    """`count` chunks and the end; with `pace`, each of them and the end wait for one release."""

    async def behave(turn: Turn) -> None:
        await turn.head()
        for piece in turn.pieces(upstream_shapes.words_of(count)):
            if pace is not None:
                await pace.acquire()
            await turn.send(piece)
        await turn.finish()

    return behave


def stall_before_headers(gate: asyncio.Event) -> Behaviour:
    """Accepts the request and says nothing until `gate`: a queue, a load, a long prefill."""

    async def behave(turn: Turn) -> None:
        await gate.wait()
        await well(turn)

    return behave


def stall_before_first_byte(gate: asyncio.Event) -> Behaviour:
    """Sends the headers, then no body until `gate`."""
    return stall_after(0, gate)


def stall_after(after: int, gate: asyncio.Event) -> Behaviour:
    """Sends `after` chunks of many, waits for `gate`, then goes on to the end."""

    async def behave(turn: Turn) -> None:
        pieces = turn.pieces(upstream_shapes.words_of(after + 3))
        await turn.head()
        for piece in pieces[:after]:
            await turn.send(piece)
        await gate.wait()
        for piece in pieces[after:]:
            await turn.send(piece)
        await turn.finish()

    return behave


async def reset_before_headers(turn: Turn) -> None:
    """Resets the connection once it has read the request."""
    turn.reset()


async def close_before_headers(turn: Turn) -> None:
    """Closes the connection once it has read the request."""
    await turn.close()


def reset_after(after: int) -> Behaviour:
    """Resets the connection in mid-stream."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        turn.reset()

    return behave


def half_close_after(after: int) -> Behaviour:
    """Says FIN in mid-stream and then only listens, until the client leaves."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        turn.half_close()
        await turn.until_client_leaves()

    return behave


def close_after(after: int) -> Behaviour:
    """Closes the connection in mid-stream, orderly."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        await turn.close()

    return behave


async def drip(turn: Turn) -> None:
    """The right answer, headers and framing included, a byte a write."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in turn.pieces()) + b"0\r\n\r\n"
    kind = upstream_shapes.content_type(turn.seen.path, turn.streamed)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for position, byte in enumerate(head + body):
        if position == len(head) + len(body) - 1:
            turn.seen.answered.set()
        await turn.raw(bytes([byte]))
        await asyncio.sleep(0)


def garble(data: bytes = b"\x16\x03\x01 this is not HTTP\r\n\r\n") -> Behaviour:
    """Answers with bytes that are not HTTP."""

    async def behave(turn: Turn) -> None:
        await turn.raw(data)
        await turn.until_client_leaves()

    return behave


def garble_after(after: int, data: bytes = b"zz\r\nnot a chunk\r\n") -> Behaviour:
    """Breaks the HTTP framing in mid-stream."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        await turn.raw(data)
        await turn.until_client_leaves()

    return behave


def garbled_line_after(after: int, line: bytes = b'{"model":<nonsense>\n') -> Behaviour:
    """Sound HTTP whose content is nonsense in mid-stream; the end is right again."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        await turn.send(line)
        await turn.send(turn.pieces()[-1])
        await turn.finish()

    return behave


def wrong_length(difference: int) -> Behaviour:
    """Declares a Content-Length `difference` bytes off the body: too high, then closes; too low, and sends it all."""

    async def behave(turn: Turn) -> None:
        body = b"".join(turn.pieces())
        await turn.head(200, {"Content-Length": str(len(body) + difference)})
        turn.seen.answered.set()
        await turn.send(body)
        if difference > 0:
            await turn.close()

    return behave


async def endless_line(turn: Turn) -> None:
    """A line that never ends, sent as fast as the client reads."""
    await turn.head()
    await turn.send(b'{"model":"')
    while True:
        await turn.raw(b"%x\r\n%b\r\n" % (65536, b"x" * 65536))


async def endless_headers(turn: Turn) -> None:
    """Headers without an end."""
    await turn.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        await turn.raw(b"X-More: " + b"x" * 1000 + b"\r\n")


def error(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Behaviour:
    """An error answer; `body` is JSON, bytes, or a text said in the route's dialect."""

    async def behave(turn: Turn) -> None:
        data = body
        if data is None or isinstance(data, str):
            data = upstream_shapes.error_body(turn.seen.path, data or f"scripted error {status}", status)
        elif not isinstance(data, bytes):
            data = upstream_shapes.compact(data)
        await turn.whole(status, data, headers)

    return behave


def redirect(location: str) -> Behaviour:
    """Points elsewhere; a client of ours must not follow."""
    return error(307, b"", {"Location": location})


def error_in_stream(after: int, message: str = "scripted failure") -> Behaviour:
    """An error line under status 200, then a clean end of the HTTP message."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        await turn.send(upstream_shapes.error_line(turn.seen.path, message))
        await turn.finish()

    return behave


def without_end(after: int) -> Behaviour:
    """Chunks and a clean end of the HTTP message, but no `done:true` and no `[DONE]`."""

    async def behave(turn: Turn) -> None:
        await _begin(turn, after)
        await turn.finish()

    return behave


async def then_close(turn: Turn) -> None:
    """The right answer, promising keep-alive, and then closes: what a pool meets as a dead connection."""
    await well(turn)
    await turn.close()


def then_unsolicited(data: bytes = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n") -> Behaviour:
    """The right answer, and after it bytes that nobody asked for, on the idle connection."""

    async def behave(turn: Turn) -> None:
        await well(turn)
        await turn.raw(data)

    return behave


async def _begin(turn: Turn, after: int) -> None:
    """Headers and `after` chunks that are not the end."""
    await turn.head()
    for piece in turn.pieces(upstream_shapes.words_of(after + 1))[:after]:
        await turn.send(piece)


async def _stream(turn: Turn, pieces: list[bytes]) -> None:
    if not turn.streamed:
        await turn.whole(200, b"".join(pieces))
        return
    await turn.head()
    for piece in pieces:
        await turn.send(piece)
    await turn.finish()
