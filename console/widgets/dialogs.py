"""The boxes over the page: consequences with a default of No, a name to be typed, a secret shown once.

Rule: a box says what will happen, to whom, before it asks; Esc is always No. While the daemon is away it says so, stays
with what was typed and sends nothing. Boxes are for what cannot be taken back: everything else is asked in the footer,
which repaints one line instead of the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input

from common import times
from common.files import write_whole
from common.untrusted import clean
from console import copying
from console.cells import cell_len, wrap
from console.palette import BAD, BOLD, DIM, GOOD, KEY, PLAIN, WARNING
from console.widgets.clicks import key_at
from console.widgets.lines import Line, Lines

if TYPE_CHECKING:
    from console.app import Lodge

T = TypeVar("T")

WIDEST = 76
FRAME = 4  # columns of border and padding
BORDER = 2  # lines
SMALLEST = (60, 15)  # of the terminal: below that the console says so, and nothing else
HEAD = 3  # lines of the head above
ROOM_FOR_REST = 34  # columns that `Type … and Enter to do it   Esc no` takes
TICK = 0.25  # seconds between two looks at the link

DIALOG_CSS = """
{name} {{ align: center middle; }}
{name} #box {{ width: 80; max-width: 100%; height: auto; max-height: 100%; border: round ansi_cyan; padding: 0 1;
    background: ansi_default; }}
{name} #box {{ margin: 3 0 0 0; }}
{name}.-tall #box {{ margin: 0; }}
{name} Lines {{ height: auto; }}
{name} Input {{ border: none; height: 1; padding: 0; }}
"""


@dataclass(frozen=True)
class Trouble:
    """Why a box is there again. With `connections` (of the link) it holds only until the daemon is back."""

    words: str
    connections: int | None = None


class Dialog(ModalScreen[T]):
    """A box with a title and paragraphs; subclasses add what is asked."""

    DEFAULT_CSS = DIALOG_CSS.format(name="Dialog")
    field_lines = 0  # lines of something to type, between the paragraphs and the keys
    sends = True  # what it is for is asked of the daemon

    def __init__(self, title: str, paragraphs: Sequence[str | tuple[str, Style]]) -> None:
        super().__init__()
        self._title = clean(title)
        self._text = Lines(id="text")
        self.read(paragraphs)
        self._asked = Lines(id="asked")
        self._trouble: Trouble | None = None
        self._connections = 0  # of the link, when it was there last
        self._has_returned = self._has_tried = False
        self._hides = False  # where the terminal is too small, which is said behind it
        self._typed_in: Widget | None = None

    @property
    def lodge(self) -> Lodge:
        """The program."""
        return cast("Lodge", self.app)

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

    # -- while the daemon is away ------------------------------------------------------------------------------------

    def tell(self, trouble: Trouble | None) -> None:
        """Why it is there again, below its paragraphs."""
        self._trouble = trouble

    def may_send(self) -> bool:
        """Whether what was answered can be done now; while the daemon is away it is said that it cannot."""
        self._has_tried = not self.lodge.link.is_live
        self._ask()
        return self.lodge.link.is_live

    def came_back(self) -> None:
        """The daemon is there again."""

    def tick(self) -> None:
        """Say whether the daemon is there: while it is not, each second anew."""
        link = self.lodge.link
        if self._trouble is not None and self._trouble.connections not in (None, link.connections):
            self._trouble = None
            self.draw()
        if link.is_live and link.connections != self._connections:
            self._connections = link.connections
            self._has_tried, self._has_returned = False, True
            self.came_back()
        self._ask()

    def _ask(self) -> None:
        self._asked.show([self._told() if self.sends else self.said(), self.keys()])

    def _told(self) -> Line:
        link = self.lodge.link
        if link.is_live:
            return self.said() or ([("LIVE again: it can be sent now.", GOOD)] if self._has_returned else [])
        age = f"STALE {times.short(link.stale_for())}, {link.next_try()}"
        words = f"Not sent: the daemon is away ({age})." if self._has_tried else f"{age}; nothing is sent until LIVE."
        return [(words if cell_len(words) <= self._width else f"{age}: not sent.", BAD)]

    # -- drawing -------------------------------------------------------------------------------------------------------

    @on(events.Mount)
    def _start(self) -> None:
        self._connections = self.lodge.link.connections
        self.set_interval(TICK, self.tick)

    def on_mount(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    @on(events.Resize)
    def _make_room(self) -> None:
        """Where the console is too small, that is said behind this box: it goes, and comes back as it was."""
        width, height = self.app.size
        hides = width < SMALLEST[0] or height < SMALLEST[1]
        if hides == self._hides:
            return
        self._hides = hides
        if hides:
            self._typed_in = self.focused
        self.query_one("#box").display = not hides
        if not hides and self._typed_in is not None:
            self._typed_in.focus()

    def _forward_event(self, event: events.Event) -> None:
        """A box that is not seen answers nothing."""
        if not (self._hides and isinstance(event, events.Key)):
            super()._forward_event(event)

    @property
    def _width(self) -> int:
        return min(WIDEST, self.app.size.width - FRAME)

    def on_click(self, event: events.Click) -> None:
        place = event.screen_offset - self._asked.region.offset
        if place.y == 1 and place.x >= 0 and (key := key_at(self.keys(), place.x)):
            self.app.simulate_key(key)

    def draw(self) -> None:
        """Wrap the paragraphs to the width there is."""
        width = self._width
        lines: list[Line] = [[(line, BOLD)] for line in wrap(self._title, width)]
        lines.append([])
        for text, style in self._paragraphs:
            lines += [[(line, style)] for line in wrap(text, width)]
        if self._trouble is not None:
            lines += [[(line, BAD)] for line in wrap(clean(self._trouble.words), width)]
        if self.field_lines and (self._paragraphs or self._trouble is not None):
            lines.append([])
        self._text.styles.height = len(lines)
        self._text.show(lines)
        self._asked.styles.height = 2
        # Below the head, which says whether all this is so; over it only where there is no room.
        self.set_class(len(lines) + self.field_lines + 2 + BORDER > self.app.size.height - HEAD, "-tall")
        self._ask()


class Confirm(Dialog[bool]):
    """Consequences; `y` does it, anything else that answers is No."""

    def keys(self) -> Line:
        return [("[y]", KEY), " yes, do it   ", ("[N]", KEY), " no"]

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if event.key == "y":
            if self.may_send():
                self.dismiss(True)
        elif event.key in ("n", "N", "escape", "enter", "q"):
            self.dismiss(False)


class ConfirmByName(Dialog[bool]):
    """What cannot be undone: done only when the name of what it is about was typed."""

    DEFAULT_CSS = "ConfirmByName #name { height: 1; } ConfirmByName #mark { width: 2; height: 1; }"
    field_lines = 1

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
        rest: Line = [" and ", ("Enter", KEY), " to do it   ", ("Esc", KEY), " no"]
        name = clean(self._target)
        if cell_len(name) > self._width - ROOM_FOR_REST:
            name = "its whole name"  # which the title has
        return ["Type ", (name, WARNING), *rest]

    def on_mount(self) -> None:
        self._input.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip() == self._target.strip():
            if self.may_send():
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

    sends = False

    def __init__(self, title: str, secret: str, note: str, *, file: Path) -> None:
        super().__init__(title, [(secret, WARNING), "", note, (f"s saves it as {file}, for you alone (0600).", DIM)])
        self._secret = secret
        self._file = file
        self._done: tuple[str, Style] = ("", PLAIN)

    def said(self) -> Line:
        return [self._done]

    def keys(self) -> Line:
        return [("c", KEY), " copy   ", ("s", KEY), " save to a file   ", ("Esc", KEY), " close, for good"]

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
