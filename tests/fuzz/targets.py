"""What is fuzzed: each target takes bytes, reads them as the daemon would, and fails on whatever must never happen.

Rule: the errors that a reader promises are its answer to nonsense; any other exception is a find. Where a second
opinion can be had (Python's own JSON reader, Tornado's of headers, the same bytes cut otherwise), it must agree.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.httputil import HTTPHeaders, HTTPInputError, parse_request_start_line

from common.errors import BadRequest, UpstreamFailed
from daemon.dialects import asks, strict_json
from daemon.dialects.asks import Ask
from daemon.dialects.lines import LineReader, SseReader
from daemon.dialects.pairs import translator_for
from daemon.dialects.translator import UpstreamGarbled, error_answer
from daemon.providers.connection import UNREAD_LIMIT, Connection, Response
from daemon.web import heads
from tests.rigs.feeding import SetClock
from tests.rigs.payloads import payloads

TESTS = Path(__file__).parents[1]
JSON_SUITE = TESTS / "vectors" / "jsontestsuite" / "test_parsing"
CAPTURES = TESTS / "captures"


@dataclass(frozen=True)
class Target:
    """One reader. `try_it` returns, or raises what is a find; `seeds` are inputs to begin with."""

    name: str
    try_it: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = 4096  # bytes of an input


def cut(data: bytes) -> list[bytes]:
    """An input without its first byte, in pieces whose size that byte says; 0 leaves it whole."""
    size = data[0] % 24 if data else 0
    rest = data[1:]
    return [rest[place : place + size] for place in range(0, len(rest), size)] if size else [rest]


# --- request bodies ---


def try_json(data: bytes) -> None:
    """What we read, Python reads to the same value, and finds no key twice; canonical keys are no fewer."""
    try:
        value = strict_json.parse(data)
    except BadRequest:
        return
    text = data.decode("utf-8-sig")
    read = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    if isinstance(read, dict):
        read = {key: each for key, each in read.items() if key.casefold() != "auth"}
    assert read == value
    if isinstance(value, dict):
        try:
            canonical = strict_json.canonicalise(value, frozenset({"model", "messages", "stream", "options"}))
        except BadRequest:
            return
        assert len(canonical) == len(value)


def try_asks(data: bytes) -> None:
    """A body is read to an ask that goes on to either upstream, or is the client's mistake."""
    readers = (asks.read_chat, asks.read_generate, asks.read_embed, asks.read_embeddings)
    try:
        ask = readers[data[0] % 4 if data else 0](data[1:], "m")
    except BadRequest:
        return
    for kind in ("ollama", "openai"):
        try:
            translator = translator_for(ask, kind, SetClock())
        except BadRequest:
            continue
        sent = translator.body("m")
        if sent:
            assert isinstance(json.loads(sent), dict)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a key stands twice"
    return found


def _no_number(name: str) -> None:
    raise AssertionError(f"{name} was read as a number")


# --- request heads ---


def try_head(data: bytes) -> None:
    """A head that we take, Tornado reads to the same request line and headers; no line break is left in any of them."""
    try:
        first, headers = heads.parse(data)
        start_line = parse_request_start_line(first)
        heads.check(start_line, headers)
    except heads.Refused as refused:
        assert 400 <= refused.status < 600
        return
    assert data.endswith(heads.END)
    assert len(data) <= heads.MAX_HEAD
    text = data.decode("latin-1").lstrip("\r\n")
    try:
        theirs = HTTPHeaders.parse(text[text.index("\n") :])
    except HTTPInputError as error:
        raise AssertionError(f"we are kinder than Tornado: {error}") from error
    assert sorted(theirs.get_all()) == sorted(headers.get_all())
    assert text.startswith(first + "\r\n")
    assert not any(set("\r\n\0") & set(name + value) for name, value in headers.get_all())


# --- upstream answers ---


def try_lines(data: bytes) -> None:
    """However the bytes are cut, the same lines."""
    reader = LineReader()
    found = [line for piece in cut(data) for line in reader.feed(piece)]
    assert [*found, reader.rest()] == data[1:].split(b"\n")


def try_sse(data: bytes) -> None:
    """However the bytes are cut, the same events; no line break within a name."""
    whole, pieces = SseReader(), SseReader()
    events = whole.feed(data[1:]) + whole.end()
    assert [event for piece in cut(data) for event in pieces.feed(piece)] + pieces.end() == events
    assert not any(b"\n" in event.name or b"\r" in event.data for event in events)
    bounded = SseReader(limit=64)
    try:
        for piece in cut(data):
            bounded.feed(piece)
    except UpstreamGarbled:
        pass


def try_response(data: bytes) -> None:
    """An answer is whole only by its own framing; however it is cut, the same becomes of it."""
    whole, body, status, taken = asyncio.run(_answered(cut(data)))
    # What came behind the end in another piece closes the connection; in the same one it makes the end doubtful.
    assert asyncio.run(_answered([data[1 : 1 + taken]])) == (whole, body, status, taken)


class _Owner:
    name = "there"

    def freed(self, connection: Connection) -> None:
        """Nobody asks for another."""

    def lost(self, connection: Connection) -> None:
        """Nobody counts."""


class _Transport(asyncio.Transport):
    """Takes everything, and says whether it would still be read."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.open = True

    def write(self, data: object) -> None:
        """Gone."""

    def abort(self) -> None:
        self.open = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def _answered(pieces: list[bytes]) -> tuple[bool, bytes, int, int]:
    """Whether the answer was whole, its body and status (of a whole one), how many bytes were taken for it."""
    connection, transport = Connection(_Owner(), tls=False), _Transport()
    connection.connection_made(transport)
    response = connection.begin("POST", b"POST / HTTP/1.1\r\n\r\n", b"")
    body, taken = b"", 0
    for piece in pieces:
        if response.complete or not transport.open:
            break
        connection.data_received(piece)
        taken += len(piece)
        if response._unread > UNREAD_LIMIT:
            assert not transport.reading or response.complete or connection.closing
        body += _taken(response)
    if transport.open:
        connection.eof_received()
    connection.connection_lost(None)
    body += _taken(response)
    assert response.complete or response._error is not None, "neither an end nor an error"
    whole = response.complete and response._error is None
    return whole, body if whole else b"", response.status if whole else 0, taken


def _taken(response: Response) -> bytes:
    chunks, response._unread = b"".join(response._chunks), 0
    response._chunks.clear()
    return chunks


def _try_translator(kind: str, data: bytes) -> None:
    """Only the errors of a translator; lines of JSON that do not say done; then the end, or an error."""
    ask = _ASKS[data[0] % len(_ASKS) if data else 0]
    raw = data[1:]
    outcomes = [_translated(ask, kind, pieces) for pieces in (cut(raw), [raw[1:]])]
    assert outcomes[0] == outcomes[1], "the cut shows"


def _translated(ask: Ask, kind: str, pieces: list[bytes]) -> tuple[bytes, bool]:
    translator = translator_for(ask, kind, SetClock())
    translator.body("m")
    before, end = b"", b""
    try:
        for piece in pieces:
            before += translator.feed(piece)
        end = translator.terminator()
    except UpstreamFailed as failure:
        assert 400 <= failure.status < 600
        translator.so_far()
        translator.gained()
    if ask.stream:
        for line in before.split(b"\n"):
            # An Ollama's lines that end so are handed on unread; no client takes one for the end.
            if line.strip() and not (kind == "ollama" and line.endswith(b'"done":false}')):
                assert not json.loads(line.decode(errors="replace"), strict=False).get("done")
    else:
        assert before == b""
    if end and kind == "openai":
        json.loads(end.splitlines()[-1])
    return before + end, bool(end)


def try_openai(data: bytes) -> None:
    """An Ollama client over an OpenAI upstream."""
    _try_translator("openai", data)


def try_ollama(data: bytes) -> None:
    """An Ollama client over an Ollama."""
    _try_translator("ollama", data)


def try_error_answer(data: bytes) -> None:
    """An upstream's error page becomes a status and words that fit into an answer."""
    status, words = error_answer(500 + (data[0] % 100 if data else 0), data[1:])
    assert 400 <= status < 600
    assert words


def _ask(read: Callable[..., Ask], **document: Any) -> Ask:
    return read(json.dumps({"model": "m", **document}).encode())


_CHAT = {"messages": [{"role": "user", "content": "x"}]}
_ASKS = (
    _ask(asks.read_chat, **_CHAT),
    _ask(asks.read_chat, stream=False, **_CHAT),
    _ask(asks.read_generate, prompt="x"),
    _ask(asks.read_generate, prompt="x", stream=False),
    _ask(asks.read_embed, input=["a", "b"], dimensions=2),
    _ask(asks.read_embeddings, prompt="a"),
)


# --- seeds ---


def _json_seeds() -> Iterator[bytes]:
    for path in sorted(JSON_SUITE.iterdir()):
        yield path.read_bytes()
    yield from (b'{"a":":","a":2}', b'{"model":1,"MODEL":2}', b'{"a":"\\u003a"}', b'\xef\xbb\xbf{"a":1e400}')


def _ask_seeds() -> Iterator[bytes]:
    documents: list[dict[str, Any]] = [
        {"model": "m", "messages": [{"role": "user", "content": "x", "images": ["aGk="]}], "options": {"num_ctx": 1}},
        {"model": "m", "messages": [], "tools": [{"type": "function", "function": {"name": "f"}}], "keep_alive": "5m"},
        {"model": "m", "prompt": "x", "suffix": "y", "format": {"type": "object"}, "think": "low", "raw": True},
        {"model": "m", "input": ["a", "b"], "truncate": False, "dimensions": 3},
        {"model": "m", "prompt": "x", "stream": False, "keep_alive": -1, "logprobs": True, "top_logprobs": 3},
    ]
    for number in range(4):
        for document in documents:
            yield bytes([number]) + json.dumps(document).encode()


def _head_seeds() -> Iterator[bytes]:
    for payload in payloads():
        head, end, _ = payload.bytes("glk_key").partition(heads.END)
        yield (head + end)[:8192]


def _stream_seeds(*suffixes: str) -> Callable[[], Iterator[bytes]]:
    def seeds() -> Iterator[bytes]:
        for path in sorted(CAPTURES.iterdir()):
            if path.suffix in suffixes:
                raw = path.read_bytes()
                for first in range(6):
                    yield bytes([first, 7]) + raw[:1500]
                    yield bytes([first, 0]) + raw[-1500:]

    return seeds


def _response_seeds() -> Iterator[bytes]:
    for head in (
        b"200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"200 OK\r\n\r\nuntil the end",
        b"100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
        b"304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        for size in (0, 1, 7):
            yield bytes([size]) + b"HTTP/1.1 " + head
    yield b"\x00HTTP/1.0 200 OK\r\n\r\nold"


def _error_seeds() -> Iterator[bytes]:
    yield from (b"\x00" + body for body in (b'{"error":"x"}', b'{"error":{"message":"x"}}', b"<html>", b"", b"[1]"))


TARGETS = {
    target.name: target
    for target in (
        Target("json", try_json, _json_seeds),
        Target("asks", try_asks, _ask_seeds),
        Target("head", try_head, _head_seeds, longest=8192),
        Target("lines", try_lines, _stream_seeds(".ndjson"), longest=1024),
        Target("sse", try_sse, _stream_seeds(".sse"), longest=1024),
        Target("response", try_response, _response_seeds),
        Target("openai", try_openai, _stream_seeds(".sse", ".json"), longest=2048),
        Target("ollama", try_ollama, _stream_seeds(".ndjson", ".json"), longest=2048),
        Target("error", try_error_answer, _error_seeds),
    )
}
