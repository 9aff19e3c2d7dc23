"""The boxes over the page: consequences with a default of No, a name to be typed, a secret shown once.

Rule: a box says what will happen, to whom, before it asks; Esc is always No. They are for what cannot be taken back:
everything else is asked in the footer, which repaints one line instead of the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from common.files import write_whole
from common.untrusted import clean
from console import copying
from console.cells import wrap
from console.palette import BAD, BOLD, GOOD, KEY, PLAIN, WARNING
from console.widgets.clicks import key_at
from console.widgets.lines import Line, Lines

T = TypeVar("T")

WIDEST = 76
FRAME = 4  # columns of border and padding

DIALOG_CSS = """
{name} {{ align: center middle; }}
{name} #box {{ width: 80; max-width: 100%; height: auto; max-height: 100%; border: round ansi_cyan; padding: 0 1;
    background: ansi_default; }}
{name} Lines {{ height: auto; }}
{name} Input {{ border: none; height: 1; padding: 0; }}
"""


class Dialog(ModalScreen[T]):
    """A box with a title and paragraphs; subclasses add what is asked."""

    DEFAULT_CSS = DIALOG_CSS.format(name="Dialog")
    has_fields = False  # something to type stands between the paragraphs and the keys

    def __init__(self, title: str, paragraphs: Sequence[str | tuple[str, Style]]) -> None:
        super().__init__()
        self._title = clean(title)
        self._text = Lines(id="text")
        self.read(paragraphs)
        self._asked = Lines(id="asked")

    def read(self, paragraphs: Sequence[str | tuple[str, Style]]) -> None:
        """What it says, until the next drawing."""
        self._paragraphs = [
            (clean(each), PLAIN) if isinstance(each, str) else (clean(each[0]), each[1]) for each in paragraphs
        ]

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield self._text
            yield from self.fields()
            yield self._asked

    def fields(self) -> ComposeResult:
        """What stands between the paragraphs and the keys."""
        yield from ()

    def said(self) -> Line:
        """The line above the keys: what came of the last key."""
        return []

    def keys(self) -> Line:
        """The last line: what may be pressed."""
        return []

    def on_mount(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    def on_click(self, event: events.Click) -> None:
        place = event.screen_offset - self._asked.region.offset
        if place.y == 1 and place.x >= 0 and (key := key_at(self.keys(), place.x)):
            self.app.simulate_key(key)

    def draw(self) -> None:
        """Wrap the paragraphs to the width there is."""
        width = min(WIDEST, self.app.size.width - FRAME)
        lines: list[Line] = [[(line, BOLD)] for line in wrap(self._title, width)]
        lines.append([])
        for text, style in self._paragraphs:
            lines += [[(line, style)] for line in wrap(text, width)]
        if self.has_fields and self._paragraphs:
            lines.append([])
        self._text.styles.height = len(lines)
        self._text.show(lines)
        self._asked.styles.height = 2
        self._asked.show([self.said(), self.keys()])


class Confirm(Dialog[bool]):
    """Consequences; `y` does it, anything else that answers is No."""

    def keys(self) -> Line:
        return [("[y]", KEY), " yes, do it   ", ("[N]", KEY), " no"]

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if event.key == "y":
            self.dismiss(True)
        elif event.key in ("n", "N", "escape", "enter", "q"):
            self.dismiss(False)


class ConfirmByName(Dialog[bool]):
    """What cannot be undone: done only when the name of what it is about was typed."""

    DEFAULT_CSS = "ConfirmByName #name { height: 1; } ConfirmByName #mark { width: 2; height: 1; }"
    has_fields = True

    def __init__(self, title: str, paragraphs: Sequence[str | tuple[str, Style]], name: str) -> None:
        super().__init__(title, paragraphs)
        self._target = name
        self._input = Input(compact=True)
        self._input.cursor_blink = False
        self._refused = False

    def fields(self) -> ComposeResult:
        with Horizontal(id="name"):
            mark = Lines(id="mark")
            mark.show([[("> ", KEY)]])
            yield mark
            yield self._input

    def said(self) -> Line:
        return [("That is not the name.", BAD)] if self._refused else []

    def keys(self) -> Line:
        return ["Type ", (clean(self._target), WARNING), " and ", ("Enter", KEY), " to do it   ", ("Esc", KEY), " no"]

    def on_mount(self) -> None:
        self._input.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip() == self._target:
            self.dismiss(True)
        else:
            self._refused = True
            self.draw()

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":
            event.stop()
            self.dismiss(False)


class ShowSecret(Dialog[None]):
    """A secret that is shown this once: to be copied or saved, then gone. Esc alone closes it, no key by chance."""

    def __init__(self, title: str, secret: str, note: str, *, file: Path) -> None:
        super().__init__(title, [(secret, WARNING), "", note])
        self._secret = secret
        self._file = file
        self._done: tuple[str, Style] = ("", PLAIN)

    def said(self) -> Line:
        return [self._done]

    def keys(self) -> Line:
        save = f" save to {clean(self._file.name)} (0600)   "
        return [("c", KEY), " copy   ", ("s", KEY), save, ("Esc", KEY), " close, for good"]

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if event.key == "escape":
            self.dismiss(None)
        elif event.key == "c":
            self.run_worker(self._copy())
        elif event.key == "s":
            self._save()

    async def _copy(self) -> None:
        how = await copying.copy(self.app, self._secret)
        self._done = (how, GOOD)
        self.draw()

    def _save(self) -> None:
        try:
            if self._file.exists():
                raise FileExistsError(f"{self._file.name} is there already")
            write_whole(self._file, [self._secret.encode() + b"\n"])
            self._done = (f"saved to {clean(str(self._file))}", GOOD)
        except OSError as error:
            self._done = (f"not saved: {clean(str(error))}", BAD)
        self.draw()
