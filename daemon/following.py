"""One viewer of one running answer: the bytes that its client was sent since the viewer looked last.

The relay keeps an answer's pieces until they are set down in the store, once a second; a following takes those that
came, and is told just before they go. Rules: the way of a piece does not know it; what a viewer does not fetch is
bounded, and what is then lost is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.underway import Running

LARGEST = 1024 * 1024  # bytes that wait for a viewer


class Following:
    """Made by `Gate.follow`; `close` when nobody looks any more."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._seen = 0  # pieces of `running.answer` that were taken already
        self._waiting = bytearray()
        self.before = running.handed  # bytes of the answer that the store has, or is being given
        self._skipped = False
        running.followers.append(self)

    def close(self) -> None:
        """Nobody looks any more."""
        if self in self._running.followers:
            self._running.followers.remove(self)

    def collect(self) -> None:
        """Take what came; the pieces themselves are about to go, or somebody wants to see them."""
        answer = self._running.answer
        for piece in answer[self._seen :]:
            self._waiting += piece
        self._seen = len(answer)
        if len(self._waiting) > LARGEST:
            del self._waiting[: len(self._waiting) - LARGEST]
            self._skipped = True

    def forgotten(self) -> None:
        """The pieces were handed on: counting begins anew."""
        self._seen = 0

    def take(self) -> bytes:
        """The bytes since the last call."""
        self.collect()
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken

    def lost(self) -> bool:
        """Whether bytes went that were never taken, since the last call."""
        lost, self._skipped = self._skipped, False
        return lost

    def whole(self) -> bytes:
        """Of an answer that its client gets as a whole: what was gathered of it so far, in the client's dialect."""
        return b"".join(self._running.answer) or self._running.translator.so_far()
