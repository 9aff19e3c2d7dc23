"""The daemon's log: one line an event on standard error, for people on a terminal, JSON otherwise.

Rule: no secret and no prompt is ever handed to a logger; foreign text is made safe for the terminal here, once.
Formatting and writing happen in a thread of their own, so that a slow terminal never holds a request.
"""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import queue
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from common.untrusted import clean
from daemon.exchange import Exchange

_exchanges = logging.getLogger("gatelodge.exchange")
_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def exchange_ended(exchange: Exchange) -> None:
    """The one line of an exchange: who, what, how it ended, how long; neither prompt nor answer."""
    assert exchange.state is not None and exchange.ended is not None
    seconds = (exchange.ended - exchange.received) / 1e6
    _exchanges.info(
        "%s %s %s %s, %.2f s",
        exchange.state.value,
        exchange.user,
        exchange.model,
        exchange.route,
        seconds,
        extra={
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
            "seconds": round(seconds, 3),
        },
    )


class TextFormatter(logging.Formatter):
    """`14:02:31 INFO exchange  sentence  key=value …`"""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        name = record.name.removeprefix("gatelodge.")
        told = record.getMessage()
        fields = "".join(
            f"  {key}={value}" for key, value in _fields(record).items() if value and str(value) not in told
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
    return {key: value for key, value in record.__dict__.items() if key not in _PLAIN}


def start(level: str, form: str, stream: TextIO | None = None) -> logging.handlers.QueueListener:
    """Send every logger's records to `stream` (standard error); the caller stops the returned listener at the end."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    as_text = form == "text" or (form == "auto" and stream.isatty())
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    # Bounded: a log that nobody drains must not eat the memory; QueueHandler drops what does not fit.
    lines: queue.Queue[logging.LogRecord] = queue.Queue(10_000)
    listener = logging.handlers.QueueListener(lines, handler)
    root = logging.getLogger()
    root.handlers = [_Dropping(lines)]
    root.setLevel(level.upper())
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    logging.getLogger("tornado.general").setLevel(logging.WARNING)
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    listener.start()
    atexit.register(_stop_quietly, listener)
    return listener


class _Dropping(logging.handlers.QueueHandler):
    """Formats nothing on the caller's thread, and drops a line rather than wait."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:
        del record


def _stop_quietly(listener: logging.handlers.QueueListener) -> None:
    if listener._thread is not None:
        listener.stop()
