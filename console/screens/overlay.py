"""A whole screen over the pages with a text to read: help, what a command printed, an exchange. Esc goes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from common.untrusted import clean_block
from console.palette import TITLE
from console.widgets.keys import Keys
from console.widgets.lines import Lines
from console.widgets.prompt import Prompt
from console.widgets.textview import TextView

Paragraph = str | tuple[str, Style]


class Overlay(Screen[None]):
    """A title, a text that scrolls, the keys. Paragraphs are cleaned here."""

    DEFAULT_CSS = "Overlay TextView { margin: 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "back", "Back", key_display="Esc")]
    AUTO_FOCUS = "TextView"

    def __init__(self, title: str, paragraphs: Sequence[Paragraph] = (), *, follow: bool = False) -> None:
        super().__init__()
        self.heading = Lines(id="heading")
        self.heading.show([[(clean_block(title).replace("\n", " "), TITLE)]])
        self.view = TextView(follow=follow)
        self.prompt = Prompt(id="prompt")
        self.footer = Keys(id="keys")
        self.read(paragraphs)

    def read(self, paragraphs: Sequence[Paragraph]) -> None:
        """Show this text."""
        self.view.show(
            [clean_block(each) if isinstance(each, str) else (clean_block(each[0]), each[1]) for each in paragraphs]
        )

    def compose(self) -> ComposeResult:
        yield self.heading
        yield self.view
        yield self.prompt
        yield self.footer

    def action_back(self) -> None:
        self.dismiss(None)
