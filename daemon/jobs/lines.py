"""What the child process of a job tells the daemon, a line of JSON each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from common.protocol import VerifyReport

Unit = Literal["exchanges", "records", "bytes", "parts", "pages"]
TELL_EVERY = 0.25  # seconds


class Progress(msgspec.Struct, tag="progress"):
    """How far it is."""

    step: str
    done: int
    total: int | None
    unit: Unit


class Written(msgspec.Struct, tag="written"):
    """The file lies there whole, and this is what was read back."""

    sha256: str
    size: int
    records: int


class Verified(msgspec.Struct, tag="verified"):
    """What a look at the whole journal found."""

    report: VerifyReport


class Planned(msgspec.Struct, tag="planned"):
    """How many parts are to be erased, judged by the first `through` records; their ids follow."""

    through: int
    parts: int


class Doomed(msgspec.Struct, tag="doomed"):
    """Ids of parts to be erased in one step."""

    ids: list[int]


class CannotWrite(msgspec.Struct, tag="cannot_write"):
    """Why there is no file."""

    words: str


Line = Progress | Written | Verified | Planned | Doomed | CannotWrite
decode = msgspec.json.Decoder(Line).decode


class Telling:
    """The child's end: progress now and then, everything else at once."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._next = 0.0

    def __call__(self, line: Line) -> None:
        now = time.monotonic()
        if isinstance(line, Progress):
            if now < self._next and line.done != line.total:
                return
            self._next = now + TELL_EVERY
        self._write(msgspec.json.encode(line) + b"\n")
