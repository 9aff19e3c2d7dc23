"""The frame of every whole screen: the head above, status, prompt and keys below, and the tick that draws them.

Rule: whatever one reads, head and status say whether it is so now; the digits lead to the pages, `:` to the commands,
`?` to the keys. The tick stops behind another whole screen, draws the frame alone behind a box, and slows down where
nobody looks or the line is slow. Between two ticks nothing is drawn but what a key asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import ModalScreen, Screen
from textual.timer import Timer
from textual.widget import Widget

from common import times
from common.untrusted import clean
from console.cells import wrap
from console.palette import BAD, BOLD, DIM
from console.screens import TABS
from console.widgets.dialogs import SMALLEST
from console.widgets.head import Head
from console.widgets.keys import Keys
from console.widgets.lines import Line, Lines
from console.widgets.prompt import Prompt

if TYPE_CHECKING:
    from console.app import Lodge

T = TypeVar("T")

TICK = 0.25  # seconds between two looks at what changed
SLOW_TICK = 1.0


class Framed(Screen[T]):
    """Subclasses say what stands in the middle (`body`), draw it (`tick_body`) and say its status."""

    AUTO_FOCUS = ""
    DEFAULT_CSS = """
    Framed #body { height: 1fr; }
    Framed #notice { height: 1fr; padding: 1 2; display: none; }
    Framed.-notice #body { display: none; }
    Framed.-notice #notice { display: block; }
    Framed.-small #head, Framed.-small #status, Framed.-small #prompt, Framed.-small #keys { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(tab.digit, f"page('{tab.name}')", tab.title, show=False) for tab in TABS),
        Binding("colon", "command", "Command", key_display=":"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("r", "retry", "Try again now", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.status = Lines(id="status")
        self.prompt = Prompt(id="prompt")
        self._keys = Keys(id="keys")
        self._notice = Lines(id="notice")
        self._timer: Timer | None = None
        self._is_covered = False  # by a box, which leaves the frame in sight
        self._drawn_for = ""  # the state of the link that the body was drawn for
        self._candidates: list[str] = []

    @property
    def lodge(self) -> Lodge:
        """The program."""
        return cast("Lodge", self.app)

    # -- what a screen says of itself ----------------------------------------------------------------------------------

    def make_head(self) -> Head:
        """Its head; a widget stands on one screen only."""
        return self.lodge.head.another()

    def body(self) -> Iterable[Widget]:
        """What stands in the middle."""
        return ()

    def tick_body(self) -> None:
        """Draw what is visible and changed."""

    def body_status(self) -> Line:
        """The status line, while the daemon is there."""
        return []

    def what_is_wrong(self, width: int, height: int) -> list[Line]:
        """Why the body cannot be shown, in lines; empty where it can."""
        if width >= SMALLEST[0] and height >= SMALLEST[1]:
            return []
        return [
            [("Too small.", BOLD)],
            [f"This terminal is {width}x{height};"],
            [f"the console needs {SMALLEST[0]}x{SMALLEST[1]}."],
        ]

    def body_returned(self) -> None:
        """What was wrong is over: what was hidden had lost the keys."""

    # -- drawing -------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        self.head = self.make_head()
        yield self.head
        with Container(id="body"):
            yield from self.body()
        yield self._notice
        yield self.status
        yield self.prompt
        yield self._keys

    @on(events.Mount)
    def _start(self) -> None:
        self._timer = self.set_interval(self.period, self.tick)

    @property
    def period(self) -> float:
        """Seconds between two ticks."""
        return SLOW_TICK if self.lodge.slow or not self.lodge.is_looked_at else TICK

    def tick(self) -> None:
        """Draw what is visible and changed."""
        if not (self.is_active or self._is_covered) or not self.children:
            return
        width, height = self.app.size
        notice = self.what_is_wrong(width, height)
        self.set_class(width < SMALLEST[0] or height < SMALLEST[1], "-small")
        self.set_class(bool(notice), "-notice")
        self._notice.show(notice)
        self.head.tick()
        link = self.lodge.link
        if not notice and (not self._is_covered or self._drawn_for != link.state):
            self._drawn_for = link.state  # behind a box, too, rows that are no longer so are dimmed
            self.tick_body()
        self.prompt.forget_away(link.connections)
        self._show_status([] if notice else self._status(width))
        self._keys.display = not self.prompt.is_asking and not self.has_class("-small")
        if self._keys.without_page != bool(notice):
            self._keys.without_page = bool(notice)
            if not notice and self.focused is None:
                self.body_returned()
            self._keys.tick()

    def _status(self, width: int) -> list[Line]:
        if self.prompt.is_asking and self._candidates:
            return [[("  ".join(self._candidates), DIM)]]
        link = self.lodge.link
        if link.state == "lost":
            key = "" if self._is_covered else " (r: now)"  # a box has the keys
            words = f"STALE {times.short(link.stale_for())} · {link.next_try()}{key} · {clean(link.cause)}"
            return [[(line, BAD)] for line in wrap(words, width)]
        return [self.body_status()]

    def _show_status(self, lines: list[Line]) -> None:
        """Why the daemon is away may take more than a line."""
        height = max(1, len(lines))
        if self.status.styles.height is None or self.status.styles.height.value != height:
            self.status.styles.height = height
        self.status.show(lines)

    def _compositor_refresh(self) -> None:
        """Behind a box, what changed is drawn and nothing else: Textual 8.2 keeps each region for the next time, and
        the first one is the whole screen."""
        if not self._is_covered:
            super()._compositor_refresh()
        elif regions := set(self._compositor._dirty_regions):
            self._compositor._dirty_regions.clear()
            self._dirty_widgets.clear()
            self.app.screen.refresh(*regions)

    # -- the timer -----------------------------------------------------------------------------------------------------

    def pace(self) -> None:
        """Tick as often as it is worth now."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = self.set_interval(self.period, self.tick)

    def on_screen_suspend(self) -> None:
        self._stand_behind(isinstance(self.app.screen, ModalScreen))
        self.pace()
        if self._timer is not None and not self._is_covered:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        self._stand_behind(False)
        self.pace()
        if self._timer is not None:
            self.tick()

    def _stand_behind(self, covered: bool) -> None:
        """By a box, or no longer: only the keys of what is above do something."""
        self._is_covered = self._keys.is_covered = covered
        if self._keys.is_mounted:
            self._keys.tick()

    def on_resize(self, _: events.Resize) -> None:
        self.tick()

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def action_page(self, name: str) -> None:
        """To this page, from wherever one is; not while a question is so fresh that the digit may be meant for it."""
        if self.is_active and not self.prompt.has_just_asked:
            # Not awaited here: this screen may go by it.
            self.app.run_worker(self.lodge.go_to(name), group="page", exclusive=True)

    def action_retry(self) -> None:
        if not self.lodge.link.is_live:
            self.lodge.link.retry_now()

    def action_help(self) -> None:
        self.lodge.show_help()

    def action_command(self) -> None:
        if self.is_active and not self.prompt.has_just_asked:
            self.app.run_worker(self._type_command(), group="command", exclusive=True)

    async def _type_command(self) -> None:
        from console.commandline import CommandLine

        words = CommandLine(self.lodge)
        self._candidates = []
        typed = await self.prompt.ask_line(":", completer=words.complete)
        self._candidates = []
        if typed and typed.strip():
            await words.run(typed)

    def on_entry_candidates(self, event: object) -> None:
        self._candidates = list(getattr(event, "words", []))
        self.tick()

    def on_click(self, event: events.Click) -> None:
        if self.prompt.is_asking:
            return  # as with the keys: what is asked is answered first
        if event.screen_y == 2 and (name := self.head.tab_at(event.screen_x)):
            self.run_worker(self.action_page(name))
