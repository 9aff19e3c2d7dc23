"""A whole screen over the pages with a text to read: help, what a command printed, an exchange. Esc goes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.style import Style
from textual.binding import Binding, BindingType
from textual.widget import Widget

from common.untrusted import clean_block
from console.blocks import Block, side_by_side
from console.palette import DIM, TITLE
from console.screens.framed import Framed
from console.widgets.lines import Line, Lines
from console.widgets.textview import TextView

Paragraph = str | tuple[str, Style]
NOTE = "Every action is a command, too: type : and Tab, or see `gatelodge --help`."


class Overlay(Framed[None]):
    """A title, a text that scrolls, the keys. Paragraphs are cleaned here."""

    DEFAULT_CSS = "Overlay TextView { margin: 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "back", "Back", key_display="Esc")]
    AUTO_FOCUS = "TextView"

    def __init__(self, title: str, paragraphs: Sequence[Paragraph] = (), *, follow: bool = False) -> None:
        super().__init__()
        self.heading = Lines(id="heading")
        self.heading.show([[(clean_block(title).replace("\n", " "), TITLE)]])
        self.view = TextView(follow=follow)
        self.read(paragraphs)

    def read(self, paragraphs: Sequence[Paragraph]) -> None:
        """Show this text."""
        self.view.show(
            [clean_block(each) if isinstance(each, str) else (clean_block(each[0]), each[1]) for each in paragraphs]
        )

    def body(self) -> Iterable[Widget]:
        yield self.heading
        yield self.view

    def body_status(self) -> Line:
        """Which lines of how many are in sight, where that are not all."""
        count, room = self.view.count, self.view.size.height
        if count <= room:
            return []
        return [(f"lines {self.view.top + 1}-{min(count, self.view.top + room)} of {count}", DIM)]

    def body_returned(self) -> None:
        self.view.focus()

    def action_back(self) -> None:
        self.dismiss(None)


class Help(Overlay):
    """What the keys do, in as many columns as there is room for; `?` goes back as well."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark", "back", "Back", show=False)]

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__("Keys")
        self.blocks = blocks

    def tick_body(self) -> None:
        if width := self.view.size.width:
            self.read([*side_by_side(self.blocks, width), "", (NOTE, DIM)])
