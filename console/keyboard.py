"""An Esc and the key behind it that arrive as one, as they do on slow links: two keys, not Alt and that key.

Rule: nothing here is bound to Alt, so nothing is lost. Textual 8.2 reads Esc 2 as `™`, which a Mac's Option key would
have typed, and of Esc and a sign it drops the Esc. Esc b and Esc f stay the words back and on that terminals send.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual import events
from textual._xterm_parser import XTermParser

ESC = "\x1b"
ALT = "alt+"
BEGIN_MORE = "[]OPNX^_\\bf"  # behind an Esc: a sequence that goes on, or one that means something


class Keyboard(XTermParser):
    """Textual's parser of what the terminal sends; Esc and a sign are `alt+` and the key of that sign."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        sign = sequence.removeprefix(ESC)
        if len(sequence) == len(sign) + 1 and len(sign) == 1 and sign.isprintable() and sign not in BEGIN_MORE:
            for key in super()._sequence_to_key_events(sign):
                yield events.Key(ALT + key.key, key.character)
        else:
            yield from super()._sequence_to_key_events(sequence, alt)


def behind_an_esc(key: events.Key) -> events.Key | None:
    """The key that came with an Esc before it; None where it came alone."""
    if not key.key.startswith(ALT) or key.character is None or not key.is_printable:
        return None
    name = key.character if key.character.isalnum() else key.key.removeprefix(ALT)
    return events.Key(name, key.character)
