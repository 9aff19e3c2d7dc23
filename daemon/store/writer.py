"""The writer's connection, and what it knows within one transaction and need not read again.

Rule: what is remembered ends with the transaction, and wherever a job is undone; whoever changes such a row says so
here. Any other connection remembers nothing.
"""

from __future__ import annotations

import sqlite3
from typing import Any


class WritingConnection(sqlite3.Connection):
    """A connection that remembers; `forget` at the beginning of each transaction and after each undoing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.last_record: tuple[int, bytes] | None = None  # sequence and hash of the journal's end
        self.body_keys: dict[int, bytes] = {}  # user -> key, as far as somebody asked

    def forget(self) -> None:
        """Whatever was read in this transaction is to be read again."""
        self.last_record = None
        self.body_keys.clear()


def remembered(conn: sqlite3.Connection) -> WritingConnection | None:
    """The memory of `conn`, None where it has none."""
    return conn if isinstance(conn, WritingConnection) else None
