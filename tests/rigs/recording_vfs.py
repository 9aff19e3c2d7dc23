"""A disk that remembers the order of things: each write, truncation, sync and deletion of SQLite's in this process.

`record(log)` puts itself, by ctypes, before the default VFS of the very library that Python's `sqlite3` uses
(https://www.sqlite.org/vfs.html). What really happens to the files stays the same; only syncs are not carried out, for
the log is what tells what was durable when (`tests/rigs/power_cuts.py`). For a process of its own: it cannot be undone.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p, cast, string_at
from pathlib import Path
from typing import Any

# (what, file name, …): ("write", name, offset, bytes) ("truncate", name, size) ("sync", name) ("delete", name)
Log = list[tuple[Any, ...]]

_OK = 0
# Names are passed on by their address: SQLite keeps a file's name for as long as it is open, and so does the VFS below.
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _OPEN),
        ("delete", _DELETE),
        ("others", c_void_p * 13),  # through xNextSystemCall, version 3
    ]


class _Methods(Structure):
    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", _WRITE),
        ("truncate", _TRUNCATE),
        ("sync", _SYNC),
        ("others", c_void_p * 13),  # xFileSize through xUnfetch, version 3
    ]


class _File(Structure):
    _fields_ = [("methods", POINTER(_Methods))]


class CannotRecord(Exception):
    """This Python's SQLite cannot be reached (linked in statically, or of another layout)."""


def record(log: Log) -> None:
    """From now on everything that SQLite does to files with a name is appended to `log`."""
    library = ctypes.CDLL(_sqlite3.__file__)  # its symbols and those of what it was linked with
    try:
        find, register = library.sqlite3_vfs_find, library.sqlite3_vfs_register
    except AttributeError as error:
        raise CannotRecord("the sqlite3 module does not show its library") from error
    find.restype = POINTER(_Vfs)
    default = find(None)
    if not default or default.contents.version < 3:
        raise CannotRecord("SQLite's default VFS is not of version 3")
    _Recorder(log, default).put_before(register)


class _Recorder:
    """Everything here lives as long as the process: SQLite holds pointers into it."""

    def __init__(self, log: Log, default: Any) -> None:
        self.log = log
        self.default = default
        self.names: dict[int, str] = {}  # by the address of SQLite's file
        self.tables: dict[int, tuple[_Methods, _Methods]] = {}  # theirs and ours, by the address of theirs
        self.callbacks: list[Callable[..., int]] = []

    def put_before(self, register: Callable[..., int]) -> None:
        theirs = self.default.contents
        self.vfs = _Vfs.from_buffer_copy(theirs)
        self.vfs.name = b"recording"
        self.vfs.open, self.vfs.delete = _OPEN(self.open), _DELETE(self.delete)
        if register(byref(self.vfs), 1) != _OK:
            raise CannotRecord("SQLite did not take the VFS")
        _alive.append(self)

    def open(self, _: int, name: int | None, file: int, flags: int, out_flags: Any) -> int:
        result: int = self.default.contents.open(cast(self.default, c_void_p), name, file, flags, out_flags)
        if result == _OK and name is not None:
            self.names[file] = _file_name(name)
            opened = cast(file, POINTER(_File)).contents
            address = cast(opened.methods, c_void_p).value
            assert address is not None
            if address not in self.tables:
                self.tables[address] = (opened.methods.contents, self.table(opened.methods.contents))
            opened.methods = ctypes.pointer(self.tables[address][1])
        return result

    def delete(self, _: int, name: int, sync_folder: int) -> int:
        result: int = self.default.contents.delete(cast(self.default, c_void_p), name, sync_folder)
        self.log.append(("delete", _file_name(name)))
        return result

    def table(self, theirs: _Methods) -> _Methods:
        def write(file: int, data: int, size: int, offset: int) -> int:
            result: int = theirs.write(file, data, size, offset)
            self.log.append(("write", self.names[file], offset, string_at(data, size)))
            return result

        def truncate(file: int, size: int) -> int:
            result: int = theirs.truncate(file, size)
            self.log.append(("truncate", self.names[file], size))
            return result

        def sync(file: int, flags: int) -> int:
            self.log.append(("sync", self.names[file]))
            return _OK

        ours = _Methods.from_buffer_copy(theirs)
        ours.write, ours.truncate, ours.sync = _WRITE(write), _TRUNCATE(truncate), _SYNC(sync)
        return ours


def _file_name(address: int) -> str:
    return Path(string_at(address).decode()).name


_alive: list[_Recorder] = []
