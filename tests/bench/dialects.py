"""Microseconds that the dialects cost a request and a chunk: `python -m tests.bench.dialects [--brief]`.

Rule: prints, judges nothing. Pure CPU time of this process, best of several rounds, without sockets: what is added to
the 55 us a chunk that performance.md allows for everything.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemon.clock import SystemClock
from daemon.dialects.answers import assemble
from daemon.dialects.asks import Ask, read_chat
from daemon.dialects.pairs import translator_for
from tests.rigs.spoken import Spoken, asked_by, streamed_by

CAPTURES = Path(__file__).parent.parent / "captures"
CHUNKS = 1000
CLIENTS = {"ollama": "Ollama", "openai": "OpenAI", "anthropic": "Anthropic", "responses": "OpenAI's responses"}


def main(argv: list[str]) -> None:
    """Print the table."""
    rounds = 2 if "--brief" in argv else 9
    clock = SystemClock.continued(None)
    ollama, openai = _ollama_lines(), _openai_events()
    small = _chat_body(turns=1)
    print(f"{'':58}{'us each':>10}")

    def row(name: str, each: int, job: Callable[[], Any]) -> None:
        print(f"{name:58}{_best(job, rounds) / each * 1e6:>10.2f}")

    row("read a small chat", 200, lambda: [read_chat(small) for _ in range(200)])
    row("  of it, msgspec alone", 200, lambda: [msgspec.json.decode(small) for _ in range(200)])
    long = _chat_body(turns=40)
    row(f"read a chat of 40 turns, {len(long) // 1024} KiB", 20, lambda: [read_chat(long) for _ in range(20)])
    answers = {"ollama": ollama, "openai": openai, "anthropic": _anthropic_events()}
    for stream in (True, False):
        how = "streamed" if stream else "whole"
        for client in ("ollama", "openai", "anthropic", "responses"):
            ask = asked_by(client, stream=stream)
            for server, chunks in answers.items():
                same = " (the same dialect)" if client == server else ""
                name = f"{CLIENTS[client]} -> {CLIENTS[server]}, {how}, a chunk{same}"
                row(name, CHUNKS, lambda: _carry(ask, server, chunks, clock))  # noqa: B023 - called at once
    cut = [piece for line in ollama for piece in (line[:40], line[40:])]
    ask = read_chat(_chat_body(1))
    row("ollama -> ollama, every line cut in two, a line", CHUNKS, lambda: _carry(ask, "ollama", cut, clock))
    row("audit: assemble an answer, a chunk", CHUNKS, lambda: assemble(ask.shape, ollama))


def _carry(ask: Ask, kind: str, chunks: list[bytes], clock: SystemClock) -> None:
    translator = translator_for(ask, kind, clock)
    translator.body("served")
    for chunk in chunks:
        translator.feed(chunk)
    translator.terminator()


def _best(job: Callable[[], Any], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def _chat_body(turns: int, **fields: Any) -> bytes:
    words = 'A turn of a conversation: some words, "quoted" ones too. ' * 8
    messages = [{"role": ("user", "assistant")[turn % 2], "content": words} for turn in range(turns)]
    return json.dumps({"model": "m", "messages": messages, "options": {"temperature": 0.5}, **fields}).encode()


def _ollama_lines() -> list[bytes]:
    """A stream of `CHUNKS` lines like Ollama's real ones, and its end."""
    *lines, last = (CAPTURES / "ollama_chat.ndjson").read_bytes().splitlines(keepends=True)
    return [lines[number % len(lines)] for number in range(CHUNKS)] + [last]


def _openai_events() -> list[bytes]:
    """A stream of `CHUNKS` events like llama.cpp's real ones, and its end."""
    events = [event + b"\n\n" for event in (CAPTURES / "llama_cpp_chat.sse").read_bytes().split(b"\n\n") if event]
    words = [event for event in events if b'"content":"' in event]
    return [words[number % len(words)] for number in range(CHUNKS)] + events[-3:]


def _anthropic_events() -> list[bytes]:
    """A stream of `CHUNKS` texts as Anthropic's documentation shows it."""
    words = tuple(f" word{number % 7}" for number in range(CHUNKS))
    raw = streamed_by("anthropic", Spoken(texts=words, tokens_out=CHUNKS))
    return [event + b"\n\n" for event in raw.split(b"\n\n") if event]


if __name__ == "__main__":
    main(sys.argv[1:])
