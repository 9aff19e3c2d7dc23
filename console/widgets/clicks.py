"""What a click on a written key presses: in the footer, in a question, in a box. Pure.

Rule: a key is pressed by its name and by the words behind it; the mouse can do nothing that no key does.
"""

from __future__ import annotations

from console.cells import cell_len
from console.palette import KEY
from console.widgets.lines import Line

NAMES = {"enter": "Enter", "escape": "Esc", "slash": "/", "colon": ":", "question_mark": "?", "space": "Space"}
NAMES |= {"pagedown": "PgDn", "pageup": "PgUp", "home": "Home", "end": "End", "up": "↑", "down": "↓"}
NAMES |= {"left": "←", "right": "→", "tab": "Tab"}
_KEYS = {written: key for key, written in NAMES.items()} | {"[y]": "y", "[N]": "n"}


def key_at(line: Line, x: int) -> str | None:
    """The key, by Textual's name, that is written at column `x` of a line of keys, or whose words stand there."""
    end, pressed = 0, None
    for part in line:
        text, style = (part, None) if isinstance(part, str) else part
        if style == KEY:
            pressed = _KEYS.get(text, text if len(text) == 1 else None)
        start, end = end, end + cell_len(text)
        if x < end:
            written = len(text.rstrip()) if text.isascii() else cell_len(text.rstrip())
            return pressed if start <= x < start + written else None
    return None
