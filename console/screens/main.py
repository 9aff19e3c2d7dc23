"""The one screen that holds the pages: head, the page in sight, status, prompt, keys; and the tick that draws them.

Rule: the tick stops while something else covers the screen, and slows down where nobody looks (focus went elsewhere) or
the line is slow. Between two ticks nothing is drawn but what a key asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.timer import Timer

from common.untrusted import clean
from console.palette import BAD, BOLD, DIM, WARNING
from console.screens import TABS
from console.screens.page import Page
from console.widgets.head import Head
from console.widgets.keys import Keys
from console.widgets.lines import Line, Lines
from console.widgets.prompt import Prompt

if TYPE_CHECKING:
    from console.app import Lodge

TICK = 0.25  # seconds between two looks at what changed
SLOW_TICK = 1.0
SMALLEST = (60, 15)


class MainScreen(Screen[None]):
    """Pages are made when they are first gone to."""

    AUTO_FOCUS = ""
    DEFAULT_CSS = """
    MainScreen #body { height: 1fr; }
    MainScreen #notice { height: 1fr; padding: 1 2; display: none; }
    MainScreen.-notice #body { display: none; }
    MainScreen.-notice #notice { display: block; }
    MainScreen.-small #head, MainScreen.-small #status, MainScreen.-small #prompt, MainScreen.-small #keys {
        display: none;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(tab.digit, f"page('{tab.name}')", tab.title, show=False) for tab in TABS),
        Binding("colon", "command", "Command", key_display=":"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("escape", "back", "Drop the filter", show=False),
        Binding("r", "retry", "Try again now", show=False),
        Binding("q", "leave", "Quit"),
    ]

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.status = Lines(id="status")
        self.prompt = Prompt(id="prompt")
        self._keys = Keys(id="keys")
        self._notice = Lines(id="notice")
        self._body = Container(id="body")
        self._pages: dict[str, Page] = {}
        self.page: Page | None = None
        self._timer: Timer | None = None
        self._looked_at = True
        self._candidates: list[str] = []

    @property
    def lodge(self) -> Lodge:
        """The program."""
        return cast("Lodge", self.app)

    def compose(self) -> ComposeResult:
        yield self.head
        yield self._body
        yield self._notice
        yield self.status
        yield self.prompt
        yield self._keys

    async def on_mount(self) -> None:
        await self.go_to(TABS[0].name)
        self._timer = self.set_interval(self.period, self.tick)

    @property
    def period(self) -> float:
        """Seconds between two ticks."""
        return SLOW_TICK if self.lodge.slow or not self._looked_at else TICK

    async def go_to(self, name: str) -> Page | None:
        """Bring a page into sight; None where there is none of this name."""
        tab = next((tab for tab in TABS if tab.name == name), None)
        if tab is None:
            return None
        page = self._pages.get(name)
        if page is not self.page or page is None:
            if self.page is not None:
                self.prompt.say("")  # what was said was about the other page
                self.page.hidden()
                self.page.display = False
            if page is None:
                page = self._pages[name] = tab.make()
                await self._body.mount(page)
            page.display = True
            self.page, self.head.active = page, name
            page.shown()
            page.focus_body()
            self.tick()
        return page

    # -- drawing -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Draw what is visible and changed."""
        if not self.is_current or self.page is None:
            return
        width, height = self.app.size
        notice = self._what_is_wrong(width, height)
        self.set_class(width < SMALLEST[0] or height < SMALLEST[1], "-small")
        self.set_class(bool(notice), "-notice")
        self._notice.show(notice)
        self.head.tick()
        if not notice:
            self.page.tick()
        self.status.show([self._status() if not notice else []])
        self._keys.display = not self.prompt.is_asking
        if self._keys.without_page != bool(notice):
            self._keys.without_page = bool(notice)
            if not notice and self.focused is None:
                self.page.focus_body()  # what is hidden loses the keys
            self._keys.tick()

    def _status(self) -> Line:
        if self.prompt.is_asking and self._candidates:
            return [("  ".join(self._candidates), DIM)]
        assert self.page is not None
        link = self.lodge.link
        if link.state == "lost":
            return [(f"STALE {link.stale_for():.0f}s · {self._next_try()} · {clean(link.cause)}", BAD)]
        hertz = "1 Hz" if self.period == SLOW_TICK else "4 Hz"
        return [*self.page.status(), (f" · {hertz}", DIM)]

    def _next_try(self) -> str:
        seconds = max(0.0, self.lodge.link.retry_at - self.lodge.monotonic())
        return f"trying again in {seconds:.0f} s (r: now)"

    def _what_is_wrong(self, width: int, height: int) -> list[Line]:
        """Why there is no page to show, in lines; empty where there is one."""
        if width < SMALLEST[0] or height < SMALLEST[1]:
            return [
                [("Too small.", BOLD)],
                [f"This terminal is {width}x{height};"],
                [f"the console needs {SMALLEST[0]}x{SMALLEST[1]}."],
            ]
        link = self.lodge.link
        if link.state == "connecting":
            return [[(f"Connecting to the daemon at {clean(str(link.path))} …", DIM)]]
        if link.state != "never":
            return []
        from console.cells import wrap

        title = "Daemon and console are of different releases." if link.mismatch else "The daemon cannot be reached."
        room = width - 4
        cause = clean(link.cause[:1].upper() + link.cause[1:])
        return [
            [(title, BAD)],
            [],
            *[[line] for line in wrap(cause + ".", room)],
            [],
            [(self._next_try().capitalize() + ".", WARNING)],
        ]

    # -- the timer -----------------------------------------------------------------------------------------------------

    def _pace(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = self.set_interval(self.period, self.tick)

    def on_screen_suspend(self) -> None:
        if self._timer is not None:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        if self._timer is not None:
            self._timer.resume()
            self.tick()

    def on_resize(self, _: events.Resize) -> None:
        self.tick()

    def looked_at(self, yes: bool) -> None:
        """Whether the terminal has the focus."""
        if yes != self._looked_at:
            self._looked_at = yes
            self._pace()

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def action_page(self, name: str) -> None:
        if self.lodge.may_begin():
            await self.go_to(name)

    async def action_leave(self) -> None:
        if self.lodge.may_begin():
            await self.lodge.action_quit()  # asks where something would end with this program

    def action_back(self) -> None:
        self.prompt.say("")
        if self.page is not None and self.page.filter_text:
            self.page.apply_filter("")
            self.tick()

    def action_retry(self) -> None:
        if not self.lodge.link.is_live:
            self.lodge.link.retry_now()

    def action_help(self) -> None:
        self.lodge.show_help()

    def action_command(self) -> None:
        if self.lodge.may_begin():
            self.lodge.began(self.run_worker(self._type_command(), group="command", exclusive=True))

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
        if event.screen_y == 2 and (name := self.head.tab_at(event.screen_x)):
            self.run_worker(self.action_page(name))
