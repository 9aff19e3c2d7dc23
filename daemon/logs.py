"""The daemon's log: one line an event on standard error, for people on a terminal, JSON otherwise.

Rule: no secret and no prompt is ever handed to a logger; foreign text is made safe for the terminal here, once.
Formatting and writing happen in a thread of their own, so that a slow terminal never holds a request.
"""

from __future__ import annotations

import atexit
import io
import logging
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from common.untrusted import clean
from daemon.exchange import Exchange

_exchanges = logging.getLogger("gatelodge.exchange")
# Fields that the sentences of our own loggers tell already; a terminal shows them once.
_SAID = frozenset({"url", "user", "model", "route", "state", "seconds"})
_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "fields"}
MOST_WAITING = 10_000  # lines; a log that nobody drains must not eat the memory
LAST_LINES = 2.0  # seconds that the last lines may take to be read when the daemon ends
GATHERING = 0.05  # seconds: waking the thread for each line would take the interpreter from the event loop each time


def exchange_ended(exchange: Exchange) -> None:
    """The one line of an exchange: who, what, how it ended, how long; neither prompt nor answer."""
    assert exchange.state is not None and exchange.ended is not None
    # The wall clock may have been set back meanwhile.
    seconds = max(0, exchange.ended - exchange.received) / 1e6
    _exchanges.info(
        "%s %s %s %s, %.2f s",
        exchange.state.value,
        exchange.user,
        exchange.model,
        exchange.route,
        seconds,
        extra={
            "fields": {
                "request_id": exchange.request_id,
                "user": exchange.user,
                "key": exchange.key_id,
                "client": exchange.client_label,
                "address": exchange.address,
                "route": exchange.route,
                "model": exchange.model,
                "upstream": exchange.upstream,
                "state": exchange.state.value,
                "error": exchange.error,
                "tokens_in": exchange.usage.tokens_in,
                "tokens_out": exchange.usage.tokens_out,
                **({"tried": [each.upstream for each in exchange.tried]} if exchange.tried else {}),
                "seconds": round(seconds, 3),
            }
        },
    )


class TextFormatter(logging.Formatter):
    """`14:02:31 INFO exchange  sentence  key=value …`"""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        name = record.name.removeprefix("gatelodge.")
        told = record.getMessage()
        fields = "".join(
            f"  {key}={value}" for key, value in _fields(record).items() if key not in _SAID and value not in {None, ""}
        )
        line = f"{when} {record.levelname:<7} {name:<9} {clean(told)}{clean(fields)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601 UTC), level, logger, message, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry, enc_hook=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    own = {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
    return own | getattr(record, "fields", {})


def start(level: str, form: str, stream: TextIO | None = None) -> Writer:
    """Send every logger's records to `stream` (standard error); the caller stops the returned writer at the end."""
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    writer = Writer(stream, TextFormatter() if as_text else JsonFormatter())
    # Of no use to any line, and half of what a record costs (the logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers = [_Handing(writer)]
    set_level(level)
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    logging.getLogger("tornado.general").setLevel(logging.WARNING)
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    writer.start()
    atexit.register(writer.stop)
    return writer


def set_level(level: str) -> None:
    """Write nothing less severe than `level` from now on."""
    logging.getLogger().setLevel(level.upper())


class Writer(threading.Thread):
    """Formats and writes what was logged, all that gathered in a moment at once."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__(name="log", daemon=True)
        self._stream = stream
        self._dropped = 0
        self._text = io.StringIO()
        self._handler = logging.StreamHandler(self._text)
        self._handler.setFormatter(formatter)
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def take(self, record: logging.LogRecord) -> None:
        """Write it soon, or never where too many wait; the caller never does."""
        if self._records.qsize() < MOST_WAITING:
            self._records.put(record)
        else:
            self._dropped += 1

    def stop(self) -> None:
        """Write what is there and end; a second time does nothing. Where nobody reads, it is given up soon."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._records.put(None)
            self.join(LAST_LINES)

    def run(self) -> None:
        """The thread's own work."""
        record = self._records.get()
        while record is not None:
            self._stopping.wait(GATHERING)
            while record is not None:
                self._handler.handle(record)
                if self._records.empty():
                    break
                record = self._records.get()
            if self._dropped:
                self._handler.handle(_gap(self._dropped))
                self._dropped = 0
            self._write()
            record = record and self._records.get()

    def _write(self) -> None:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            pass  # nobody reads the log any more: no reason to end, and nobody to tell


def _gap(lines: int) -> logging.LogRecord:
    message = f"{lines} lines of this log are missing: nobody read it"
    return logging.makeLogRecord(
        {"name": "gatelodge.daemon", "levelname": "WARNING", "levelno": logging.WARNING, "msg": message}
    )


class _Handing(logging.Handler):
    """Formats nothing on the caller's thread, and hands over without a lock: the queue has its own."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def createLock(self) -> None:
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.take(record)
