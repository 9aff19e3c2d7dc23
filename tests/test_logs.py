"""The daemon's log: one line an exchange, for people or as JSON, without prompts, secrets or terminal tricks."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import logs
from tests.rigs.gatehouse import QUESTION, gatehouse
from tests.rigs.scripted_upstream import ScriptedUpstream

OPTIONAL = ("logThreads", "logProcesses", "logMultiprocessing")  # what a record need not know


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    optional = {name: getattr(logging, name) for name in ("_srcfile", *OPTIONAL)}
    yield
    for name, value in optional.items():
        setattr(logging, name, value)
    root.handlers = handlers
    root.setLevel(level)


async def written(stream: io.StringIO, tmp_path: Path) -> str:
    """The log of one chat."""
    listener = logs.start("info", "auto", stream)
    async with ScriptedUpstream() as upstream, gatehouse(tmp_path, upstream) as gate:
        assert (await gate.chat()).status_code == 200
        listener.stop()
        assert gate.key not in stream.getvalue()
    return stream.getvalue()


async def test_an_exchange_is_one_json_line_without_its_texts(tmp_path: Path) -> None:
    """Who, what, how it ended and how long; neither the prompt nor the answer nor the key."""
    text = await written(io.StringIO(), tmp_path)
    entries = [json.loads(line) for line in text.splitlines()]
    (line,) = [entry for entry in entries if entry["logger"] == "gatelodge.exchange"]
    assert line["user"] == "ana@example.org"
    assert line["state"] == "ok"
    assert line["request_id"]
    assert line["tokens_out"]
    assert QUESTION["messages"][0]["content"] not in text  # type: ignore[index]
    assert "Why not?" not in text


async def test_on_a_terminal_it_is_a_sentence(tmp_path: Path) -> None:
    """Text for people."""
    text = await written(Terminal(), tmp_path)
    (line,) = [each for each in text.splitlines() if " exchange " in each]
    assert "ok ana@example.org smollm2:135m /api/chat" in line


def test_a_terminal_shows_every_field_that_the_sentence_does_not() -> None:
    """A count is shown though its digits stand in the sentence by chance."""
    told = {"name": "gatelodge.exchange", "levelname": "INFO", "msg": "ok ana smollm2:135m, 0.04 s"}
    record = logging.makeLogRecord(told | {"tokens_in": 0, "tokens_out": 4, "state": "ok", "error": "", "key": None})
    shown = logs.TextFormatter().format(record)
    assert "tokens_in=0" in shown
    assert "tokens_out=4" in shown
    assert "state=" not in shown
    assert "error=" not in shown


def test_foreign_text_is_made_safe_on_a_terminal() -> None:
    """T1 at the log: an escape sequence is shown, not obeyed."""
    record = logging.makeLogRecord({"name": "gatelodge.x", "levelname": "INFO", "msg": "\x1b[2J%s", "args": ("\x07",)})
    shown = logs.TextFormatter().format(record)
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_lines_keep_their_order_and_the_last_one_is_written_at_the_end() -> None:
    """They are written together, by a thread of their own, and stopping waits for it; a second stop does nothing."""
    stream = io.StringIO()
    writer = logs.start("info", "json", stream)
    for number in range(1000):
        logging.getLogger("gatelodge.x").info("line %d", number)
    writer.stop()
    writer.stop()
    told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert told == [f"line {number}" for number in range(1000)]


def test_a_log_that_nobody_drains_drops_lines_rather_than_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for it is bounded."""
    monkeypatch.setattr(logs, "MOST_WAITING", 10)
    held = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            held.wait(10)
            return super().write(text)

    stream = Stuck()
    writer = logs.start("info", "json", stream)
    for number in range(1000):
        logging.getLogger("gatelodge.x").info("line %d", number)
    held.set()
    writer.stop()
    assert 0 < len(stream.getvalue().splitlines()) < 100


def test_a_log_whose_reader_is_gone_ends_nothing() -> None:
    """The daemon goes on without a log."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    writer = logs.start("info", "json", Broken())
    logging.getLogger("gatelodge.x").info("nobody hears")
    writer.stop()
    assert not writer.is_alive()
