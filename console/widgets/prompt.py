"""The line above the keys: what was just said, a question with y/N, or a line to type (`:` command, `/` filter).

Rule: a question names its target and is answered by `y` alone; Enter, Esc and `n` are No. A prompt repaints a line or
two, where a modal would repaint the screen. A question is never cut while there is room for it: it goes on in the line
of the keys, which do nothing while it stands there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from common.untrusted import clean
from console.cells import cell_len, cut, wrap
from console.palette import BAD, GOOD, KEY, PLAIN, QUESTION
from console.widgets.clicks import key_at
from console.widgets.lines import Line, Lines

Completer = Callable[[str], Awaitable[list[str]]]  # a typed line -> whole lines that it may become
SETTLED = 0.5  # seconds after which every key has found the new focus
YES_OR_NO = "  [y] yes  [N] no"
MOST_LINES = (
    3  # that a question or a sentence takes: whoever has a name of hundreds of characters must not cover the page
)
STYLES = {"info": PLAIN, "good": GOOD, "bad": BAD, "away": BAD}


@runtime_checkable
class Ticking(Protocol):
    """A screen that draws what changed."""

    def tick(self) -> None: ...


class Entry(Input):
    """The line that is typed. Tab completes what is common to all and shows them; Tab again goes through them."""

    DEFAULT_CSS = "Entry { width: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "Back", show=False),
        Binding("tab", "complete", "Complete", show=False, priority=True),
    ]

    class GivenUp(Message):
        """Esc."""

    class Candidates(Message):
        """What the line may become, to be shown while choosing."""

        def __init__(self, words: list[str]) -> None:
            super().__init__()
            self.words = words

    def __init__(self) -> None:
        super().__init__(compact=True, select_on_focus=False)
        self.cursor_blink = False
        self.completer: Completer | None = None
        self._round: list[str] = []  # what Tab goes through once it was shown
        self._shown_for = ""
        self._offers = False  # candidates are in sight

    def action_give_up(self) -> None:
        self.post_message(self.GivenUp())

    def action_complete(self) -> None:
        if self.completer is not None:
            self.run_worker(self._complete(self.completer), exclusive=True, group="completion")

    async def _complete(self, completer: Completer) -> None:
        if self.value in self._round:
            self._put(self._round[(self._round.index(self.value) + 1) % len(self._round)])
            return
        if self._round and self.value == self._shown_for:
            self._put(self._round[0])
            return
        lines = await completer(self.value)
        self._round = lines if len(lines) > 1 else []
        if len(lines) == 1:
            # A value goes on behind a filter's name, a file within its folder.
            self._put(lines[0] + ("" if lines[0].endswith((":", "/")) else " "))
        elif len(common := _common_beginning(lines)) > len(self.value):
            self._put(common)
        self._shown_for = self.value
        self._offers = bool(lines)
        self.post_message(self.Candidates([line.split(" ")[-1] or line for line in lines]))

    def on_input_changed(self) -> None:
        """What Tab offered was for another line than the one that stands there by now."""
        if self._offers and self.value != self._shown_for and self.value not in self._round:
            self._offers = False
            self.post_message(self.Candidates([]))

    def _put(self, line: str) -> None:
        self.value = line
        self.cursor_position = len(line)


def _common_beginning(lines: list[str]) -> str:
    if not lines:
        return ""
    first, last = min(lines), max(lines)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def question_lines(question: str, width: int) -> list[Line]:
    """The question in lines of `width` cells. However long the names in it are, how to answer stays in sight."""
    room = max(10, width - len(YES_OR_NO))
    lines = wrap(question, room)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], cut(" ".join(lines[MOST_LINES - 1 :]), room)]
    answers: Line = [(lines[-1], QUESTION), "  ", ("[y]", KEY), " yes  ", ("[N]", KEY), " no"]
    return [*([(line, QUESTION)] for line in lines[:-1]), answers]


class Prompt(Widget, can_focus=True):
    """`say`, `ask_yes`, `ask_line`; one question at a time: a new one answers the old one with No."""

    FOCUS_ON_CLICK = False  # where nothing is asked, a click here would take the keys from the page
    DEFAULT_CSS = """
    Prompt { height: 1; layout: horizontal; }
    Prompt #typed { width: 1fr; height: 1; display: none; }
    Prompt #label { width: 2; }
    Prompt.-typing #typed { display: block; }
    Prompt.-typing #said { display: none; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._said = Lines(id="said")
        self._label = Lines(id="label")
        self.entry = Entry()
        self._question: asyncio.Future[bool] | None = None
        self._asked = ""  # the words of the question
        self._sentence: tuple[str, Style] = ("", PLAIN)  # what was said last
        self._line: asyncio.Future[str | None] | None = None
        self._on_change: Callable[[str], None] | None = None
        self._back: Widget | None = None
        self._away_since: int | None = None  # how often the daemon had been there when it was said to be away
        self.questions = 0  # that were asked
        self._asked_at = 0.0

    def compose(self) -> ComposeResult:
        yield self._said
        with Horizontal(id="typed"):
            yield self._label
            yield self.entry

    @property
    def is_asking(self) -> bool:
        """Whether an answer is waited for."""
        return self._question is not None or self._line is not None

    def say(self, sentence: str, level: str = "info", *, connections: int = 0) -> None:
        """A sentence, of foreign words perhaps; it stands until the next one, or the next key that does something.

        One of level `away` goes when the daemon is there again: see `forget_away`.
        """
        if self._question is None:
            self._away_since = connections if level == "away" else None
            self._sentence = (clean(sentence), STYLES[level])
            self._draw_sentence()

    def _draw_sentence(self) -> None:
        words, style = self._sentence
        width = self.size.width or self.app.size.width
        lines = wrap(words, width) if words else []
        if len(lines) > MOST_LINES:
            lines = [*lines[: MOST_LINES - 1], cut(" ".join(lines[MOST_LINES - 1 :]), width)]
        self._show([[(line, style)] for line in lines])

    def forget_away(self, connections: int) -> None:
        """The daemon was there so often by now: what was said because it was away no longer holds."""
        if self._away_since is not None and self._away_since != connections:
            self.say("")

    @property
    def said(self) -> str:
        """What stands in the line now."""
        lines = ("".join(part if isinstance(part, str) else part[0] for part in line) for line in self._said.lines)
        return " ".join(lines)

    @property
    def has_just_asked(self) -> bool:
        """Whether a question is so fresh that keys may still be on their way to what had the focus before."""
        return self.is_asking and time.monotonic() - self._asked_at < SETTLED

    async def ask_yes(self, question: str) -> bool:
        """Whether `y` was pressed."""
        self._withdraw()
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._question = asked
        self._asked = clean(question)
        self._draw_question()
        self._take_focus(self)
        try:
            return await asked
        finally:
            if self._question is asked:
                self._question = None
                self.say("")
                self._give_focus_back()

    def _draw_question(self) -> None:
        self._show(question_lines(self._asked, self.size.width))

    def _show(self, lines: Sequence[Line]) -> None:
        height = max(1, len(lines)) if self._line is None else 1  # what is typed hides what was said
        self.styles.height = self._said.styles.height = height
        self._said.show(lines)

    def on_resize(self) -> None:
        if self._question is not None:
            self._draw_question()
        else:
            self._draw_sentence()

    async def ask_line(
        self,
        label: str,
        value: str = "",
        *,
        completer: Completer | None = None,
        on_change: Callable[[str], None] | None = None,
    ) -> str | None:
        """What was typed; None if it was given up. `on_change` hears every key of it."""
        self._withdraw()
        asked: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._line = asked
        self._on_change = None
        self._show(self._said.lines)
        label = clean(label)
        self._label.styles.width = cell_len(label)
        self._label.show([[(label, QUESTION)]])
        self.entry.completer = completer
        self.entry.value = value
        self.entry.cursor_position = len(value)
        self._on_change = on_change
        self.add_class("-typing")
        self._take_focus(self.entry)
        try:
            return await asked
        finally:
            if self._line is asked:
                self._line = self._on_change = None
                self.remove_class("-typing")
                self._draw_sentence()
                self._give_focus_back()

    def _withdraw(self) -> None:
        if self._question is not None and not self._question.done():
            self._question.set_result(False)
        if self._question is not None:
            self._question = None
            self.say("")
        if self._line is not None and not self._line.done():
            self._line.set_result(None)
        self._line = None
        self.remove_class("-typing")

    def _take_focus(self, widget: Widget) -> None:
        self.questions += 1
        self._asked_at = time.monotonic()
        if self.screen.focused not in (self, self.entry):
            self._back = self.screen.focused
        widget.focus()
        if isinstance(self.screen, Ticking):
            self.screen.tick()  # the line of the keys makes room now: nobody clicks where the answer has just been

    def _give_focus_back(self) -> None:
        if not self.is_asking and self._back is not None and self._back.is_attached:
            self._back.focus()

    def on_key(self, event: events.Key) -> None:
        if self._question is None:
            return
        event.stop()
        event.prevent_default()
        if self._question.done():
            return
        if event.key == "y":
            self._question.set_result(True)
        elif event.key in ("n", "N", "escape", "enter", "q"):
            self._question.set_result(False)

    def on_click(self, event: events.Click) -> None:
        place = event.screen_offset - self._said.region.offset
        is_last = self._question is not None and place.y == len(self._said.lines) - 1
        if is_last and (key := key_at(self._said.lines[-1], place.x)):
            self.app.simulate_key(key)

    def on_blur(self) -> None:
        self.call_after_refresh(self._keep_the_keys)

    def on_descendant_blur(self) -> None:
        self.call_after_refresh(self._keep_the_keys)

    def _keep_the_keys(self) -> None:
        """A click beside what is asked must not have its answer typed at the page."""
        if self.is_asking and self.screen.focused not in (self, self.entry, None):
            (self if self._question is not None else self.entry).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self._on_change is not None:
            self._on_change(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._line is not None and not self._line.done():
            self._line.set_result(event.value)

    def on_entry_given_up(self, event: Entry.GivenUp) -> None:
        event.stop()
        if self._line is not None and not self._line.done():
            self._line.set_result(None)
