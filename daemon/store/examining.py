"""A look at the database before anything is written: is it whole, is it of this release, is its log the right one?

SQLite leaves out of a write-ahead log whatever does not fit, without a word, and the next commit overwrites it. That is
right after a power cut, which can only tear the one transaction that was not acknowledged yet; it is wrong where
somebody removed, exchanged or damaged the file, for then acknowledged records would be gone in silence.
Rule: in doubt the daemon does not start, says why, and leaves every byte as it lies.
(https://www.sqlite.org/fileformat2.html#walformat, https://www.sqlite.org/walformat.html)
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from common.errors import StartError
from daemon.store.migrate import known_migrations, refuse_newer
from daemon.store.opening import connect_to_read, why_not_open

HEADER = 32  # bytes of the log's header, of which the last eight are the checksum of the rest
FRAME_HEADER = 24
TORN = (
    2  # commits behind the first broken one that a crash may leave: of the torn one, and of one that failed before it
)
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # the byte order of the checksums
_VERSION = 3_007_000
_LAST_FRAME_AT = 16  # in the index (-shm), in the machine's own byte order
_ID_AT = 68  # of the application id in the database's header


def examine(path: Path) -> None:
    """StartError, one line for people, where `path` and its log are not what a daemon of this release left there."""
    log, index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    try:
        there, logged = _size(path), _size(log)
        if not there and not logged:
            return  # the first start, or one that a power cut undid
        if not there:
            raise StartError(
                f"the database {path} is missing or empty, but its write-ahead log {log.name} is there: put the "
                "database back; starting without it would delete the log and the records in it"
            )
        if logged is None and index.exists():
            raise StartError(
                f"the write-ahead log {log} is missing, though the daemon did not end in order: put it back; to go on "
                f"without the records that it held, delete {index.name}"
            )
        header = _header(log) if logged else None
        id_ = _read(path, _ID_AT, 4)
    except OSError as error:
        raise StartError(f"cannot read the database {path}: {error.strerror}") from error
    try:
        with closing(connect_to_read(path)) as conn:
            refuse_newer(conn, known_migrations())  # the first read: the log's index is made
            if header is not None:
                _refuse_foreign(conn, log, int.from_bytes(id_, "big", signed=True))
                _refuse_broken(log, index, header)
    except sqlite3.Error as error:
        raise StartError(why_not_open(path, error)) from error


def _header(log: Path) -> bytes | None:
    """The log's header; None where a power cut came before it was written."""
    header = _read(log, 0, HEADER)
    if len(header) < HEADER or not any(header):
        return None
    magic, version = struct.unpack(">II", header[:8])
    if magic not in _MAGIC or version != _VERSION or _checksum(header[:24], _MAGIC[magic]) != header[24:]:
        raise StartError(
            f"the write-ahead log {log} is damaged: its header is not SQLite's. Put a good copy back; to go on without "
            "the records that it held, move it away together with its -shm"
        )
    return header


def _checksum(data: bytes, order: str) -> bytes:
    one = other = 0
    for first, second in struct.iter_unpack(f"{order}II", data):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return struct.pack(">II", one, other)


def _refuse_foreign(conn: sqlite3.Connection, log: Path, id_: int) -> None:
    (with_log,) = conn.execute("PRAGMA application_id").fetchone()
    if id_ and with_log != id_:
        raise StartError(
            f"the write-ahead log {log} belongs to another database: put the right one back; to go on without the "
            "records that it held, move this one away together with its -shm"
        )


def _refuse_broken(log: Path, index: Path, header: bytes) -> None:
    """Whole commits behind the first broken frame were acknowledged: a crash breaks only the last."""
    page_size, salts = int.from_bytes(header[8:12], "big"), header[16:24]
    (last_frame,) = struct.unpack("=I", _read(index, _LAST_FRAME_AT, 4))
    commits = 0
    with log.open("rb") as file:
        at = HEADER + last_frame * (FRAME_HEADER + page_size)
        while file.seek(at) == at and len(frame := file.read(FRAME_HEADER)) == FRAME_HEADER:
            # Frames with other salts are of an earlier round; one with a size of the database ends a commit.
            commits += frame[8:16] == salts and any(frame[4:8])
            at += FRAME_HEADER + page_size
    if commits > TORN:
        raise StartError(
            f"the write-ahead log {log} is damaged behind frame {last_frame}: {commits} commits there cannot be read. "
            "Put a good copy back; to go on without these records, cut it off at "
            f"{HEADER + last_frame * (FRAME_HEADER + page_size)} bytes"
        )


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _read(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(size)
