"""A long text to be scrolled: prompts, answers, help, what a command printed. Draws only the lines in sight.

Rule: text that grows is wrapped only where it grew. The view follows what is appended at the end, or what grows above
the last lines; scrolled up it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip
from textual.widget import Widget

from console.cells import wrap
from console.palette import PLAIN
from console.widgets.lines import strip_of


class TextView(Widget, can_focus=True):
    """Shows paragraphs (clean text, in one style each), wrapped to its width."""

    DEFAULT_CSS = "TextView { height: 1fr; width: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_by(1)", "Down", show=False),
        Binding("k,up", "scroll_by(-1)", "Up", show=False),
        Binding("pagedown,space", "scroll_page(1)", "A page down", show=False),
        Binding("pageup", "scroll_page(-1)", "A page up", show=False),
        Binding("g,home", "to_top", "To the beginning", show=False),
        Binding("G,end", "to_end", "To the end", show=False),
    ]

    def __init__(self, *, id: str | None = None, follow: bool = False) -> None:
        super().__init__(id=id, markup=False)
        self.paragraphs: list[tuple[str, Style]] = []
        self.follow = follow  # keep the end, or what grows, in sight
        self._follow_to: int | None = None  # the paragraph whose end that is; None: the last
        self.top = 0
        self._wrapped: list[tuple[str, Style]] = []
        self._starts: list[int] = []  # the first wrapped line of each paragraph
        self._width = 0

    @property
    def count(self) -> int:
        """Wrapped lines."""
        return len(self._wrapped)

    def show(self, paragraphs: Sequence[tuple[str, Style] | str], *, follow_to: int | None = None) -> None:
        """Replace the text; what stands before the first difference is not wrapped again. `follow_to` is the place of
        the paragraph behind the one that grows, where something stands below that."""
        new = [(each, PLAIN) if isinstance(each, str) else each for each in paragraphs]
        same = 0
        while same < min(len(new), len(self.paragraphs)) and new[same] == self.paragraphs[same]:
            same += 1
        if same == len(new) == len(self.paragraphs) and follow_to == self._follow_to:
            return
        self.paragraphs, self._follow_to = new, follow_to
        self._wrap_from(same)

    def append(self, text: str) -> None:
        """Add to the last paragraph."""
        before, style = self.paragraphs[-1] if self.paragraphs else ("", PLAIN)
        self.paragraphs[-1:] = [(before + text, style)]
        self._wrap_from(len(self.paragraphs) - 1)

    def _wrap_from(self, first: int) -> None:
        width = self.size.width
        if not width:
            return
        if width != self._width:
            first, self._width = 0, width
        start = self._starts[first] if first < len(self._starts) else len(self._wrapped)
        del self._starts[first:], self._wrapped[start:]
        for text, style in self.paragraphs[first:]:
            self._starts.append(len(self._wrapped))
            self._wrapped.extend((line, style) for line in wrap(text, width))
        self._settle()
        self.refresh()

    def _settle(self) -> None:
        last = max(0, len(self._wrapped) - self.size.height)
        if not self.follow:
            self.top = min(max(0, self.top), last)
        elif self._follow_to is None or self._follow_to >= len(self._starts):
            self.top = last
        else:
            self.top = min(last, max(0, self._starts[self._follow_to] - self.size.height))

    def render_line(self, y: int) -> Strip:
        if self._width != self.size.width:
            self._wrap_from(0)  # Textual does not tell of every size
        place = self.top + y
        line = self._wrapped[place] if place < len(self._wrapped) else ""
        return strip_of([line], self.size.width)

    def on_resize(self, _: events.Resize) -> None:
        self._wrap_from(0)

    def action_scroll_by(self, lines: int) -> None:
        self.follow = False
        self.top += lines
        self._settle()
        self.refresh()

    def action_scroll_page(self, pages: int) -> None:
        self.action_scroll_by(pages * max(1, self.size.height - 1))

    def action_to_top(self) -> None:
        self.action_scroll_by(-len(self._wrapped))

    def action_to_end(self) -> None:
        """To the very end, and follow it; where something stands below what grows, only there."""
        self.action_scroll_by(len(self._wrapped))
        self.follow = self._follow_to is None

    def follow_on(self) -> None:
        """Keep in sight what grows."""
        self.follow = True
        self._settle()
        self.refresh()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_scroll_by(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_scroll_by(-3)
