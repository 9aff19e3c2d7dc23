"""The console's program: one link to the daemon, one screen with pages, and what every page asks it for.

Rule: it wires. What is shown is the pages' matter, what is known the mirror's, what is asked the channel's. Clocks are
given from outside, so that a frame can be had twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.style import Style
from textual import events
from textual.app import App
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.screen import Screen
from textual.worker import Worker

from common.protocol import STATUS, Nothing
from common.times import from_iso
from common.untrusted import clean
from console.channel import Channel
from console.client import Refused, Unreachable
from console.guard import OutputGuard
from console.keyboard import behind_an_esc
from console.link import Link
from console.screens.framed import Framed
from console.screens.main import MainScreen
from console.screens.page import Page
from console.widgets.head import Head
from console.widgets.prompt import Prompt

MOVING = ("Rows", "Text")  # places of keys that move about
FRAMED = {binding.action for binding in Framed.BINDINGS if isinstance(binding, Binding)}

ESCAPED = 0.1  # seconds until what an Esc closes has gone
TYPED_AHEAD = 2.0  # seconds for which an action that has not asked yet keeps other keys from acting


class Lodge(App[None]):
    """`now` is Unix seconds, `monotonic` runs on; `slow` draws once a second; `seat` is who sits here, and where."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "gatelodge"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "how_to_quit", "How to quit", show=False, system=True, priority=True)
    ]

    def __init__(
        self,
        path: Path,
        *,
        slow: bool = False,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        seat: str = "",
    ) -> None:
        super().__init__()
        self.theme = "ansi-dark"
        self.animation_level = "none"
        self.link = Link(path, clock=monotonic)
        self.channel = Channel(path)
        self.slow = slow
        self.is_looked_at = True  # the terminal has the focus
        self.now = now
        self.monotonic = monotonic
        self.head = Head(self.link, now, monotonic, seat)
        self.address = ""  # where clients reach the daemon
        self.unfinished: set[str] = set()  # what ends with this program, in words: quitting asks about it
        self.main = MainScreen(self.head)
        self._guard = OutputGuard()
        self._action: Worker[Any] | None = None
        self._asked = self._pushed = 0
        self._began_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._held: list[events.Key] = []  # keys behind an Esc that is still at work

    def as_of(self) -> float:
        """The moment, Unix seconds, that the mirror shows: now, or when the lost daemon was last heard."""
        return self.now() - (self.link.stale_for() if self.link.state == "lost" else 0.0)

    def get_default_screen(self) -> Screen[Any]:
        return self.main

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [self._guard, *super().get_line_filters()]

    def on_mount(self) -> None:
        self._tasks = [asyncio.create_task(self.link.run()), asyncio.create_task(self._know_when_it_started())]

    async def on_unmount(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _know_when_it_started(self) -> None:
        """The head tells how long the daemon is up: asked once for each start of it."""
        while True:
            if self.link.is_live and not self.link.started:
                try:
                    status = await self.channel.ask(STATUS, Nothing())
                    self.link.started = from_iso(status.started)
                    self.address = clean(next(iter(status.addresses), ""))
                except (Refused, Unreachable):
                    pass
            await asyncio.sleep(1.0)

    async def on_event(self, event: events.Event) -> None:
        """A key that came with an Esc before it is for what stands there once the Esc has closed what it closes."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            if self._held:
                self._held.append(event)
                return
            if (behind := behind_an_esc(event)) is not None:
                self._held = [behind]
                self.set_timer(ESCAPED, self._release)
                event = events.Key("escape", "\x1b")
        await super().on_event(event)

    async def _release(self) -> None:
        held, self._held = self._held, []
        for event in held:
            await self.on_event(event)

    def on_app_focus(self) -> None:
        self.looked_at(True)

    def on_app_blur(self, _: events.AppBlur) -> None:
        self.looked_at(False)

    def looked_at(self, yes: bool) -> None:
        """Whether the terminal has the focus: the screen in sight slows down where it has not."""
        if yes != self.is_looked_at:
            self.is_looked_at = yes
            if isinstance(self.screen, Framed):
                self.screen.pace()

    # -- what the pages ask for ----------------------------------------------------------------------------------------

    @property
    def prompt(self) -> Prompt:
        """The prompt of the screen in sight."""
        prompt = getattr(self.screen, "prompt", self.main.prompt)
        assert isinstance(prompt, Prompt)
        return prompt

    def may_begin(self) -> bool:
        """Whether a key may begin an action: not while one that has begun is about to ask.

        On a slow line keys come in one burst: what was typed for a box or a line that is still being opened would
        otherwise be taken for actions of the page, and a `y` among them for a yes.
        """
        if self.main.prompt.has_just_asked or len(self.screen_stack) > 1:
            return False
        if self._action is None or self._action.is_finished or self._asked != self._questions():
            return True
        return time.monotonic() - self._began_at > TYPED_AHEAD

    def began(self, action: Worker[Any]) -> None:
        """This is the action that `may_begin` looks at."""
        self._action, self._asked, self._began_at = action, self._questions(), time.monotonic()

    def _questions(self) -> int:
        return self._pushed + self.main.prompt.questions

    def push_screen(self, *given: Any, **more: Any) -> Any:
        """As Textual's; counted, as what lies over the page is a question or an answer."""
        self._pushed += 1
        return super().push_screen(*given, **more)

    def say(self, sentence: str, level: str = "info") -> None:
        """A sentence in the footer; `level` info, good, bad, or away: what holds only until the daemon is back."""
        self.prompt.say(sentence, level, connections=self.link.connections)

    async def go_to(self, name: str, *, find: str = "") -> Page | None:
        """Bring a page into sight, and its filter to `find` where that is given."""
        while len(self.screen_stack) > 1:
            await self.screen.dismiss(None)  # whoever waits for it goes on, as after Esc
        page = await self.main.go_to(name)
        if page is not None and find:
            page.apply_filter(find)
        return page

    async def ask_yes(self, question: str) -> bool:
        """The first tier: y/N in the footer, for what can be undone. The question names its target."""
        return await self.prompt.ask_yes(question)

    async def confirm(self, title: str, consequences: Sequence[str | tuple[str, Style]]) -> bool:
        """The second tier: a box that says what will happen; the default is No. From a worker (`Page.begin`)."""
        from console.widgets.dialogs import Confirm

        self.say("")
        return await self.push_screen_wait(Confirm(title, consequences))

    async def confirm_by_name(self, title: str, consequences: Sequence[str | tuple[str, Style]], name: str) -> bool:
        """The third tier: done only when `name` was typed."""
        from console.widgets.dialogs import ConfirmByName

        self.say("")
        return await self.push_screen_wait(ConfirmByName(title, consequences, name))

    async def show_secret(self, title: str, secret: str, note: str, *, file_name: str) -> None:
        """A secret, this once; it can be copied, or saved as `file_name` (0600) in the current folder."""
        from console.widgets.dialogs import ShowSecret

        await self.push_screen_wait(ShowSecret(title, secret, note, file=Path.cwd() / file_name))

    async def fill(
        self,
        title: str,
        fields: Sequence[Any],
        paragraphs: Sequence[str | tuple[str, Style]] = (),
        *,
        done: str = "",
        trouble: Any = None,
    ) -> dict[str, str] | None:
        """A form of `console.widgets.form.Field`s; None where it was given up. `trouble`: why it is there again."""
        from console.widgets.form import Form

        self.say("")  # what was said before is not about this
        form = Form(title, fields, paragraphs, done=done)
        form.tell(trouble)
        return await self.push_screen_wait(form)

    async def show_text(self, title: str, paragraphs: Sequence[str | tuple[str, Style]]) -> None:
        """A text over the page; foreign words are cleaned."""
        from console.screens.overlay import Overlay

        await self.push_screen_wait(Overlay(title, paragraphs))

    def show_help(self) -> None:
        """The keys that do something here, from the bindings in force."""
        from console.screens.overlay import Help
        from console.widgets.keys import key_name

        places: dict[str, dict[str, list[str]]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            # Those with Ctrl, Shift or Super are Textual's own; terminals and multiplexers take them.
            its_own = "+" in binding.key or binding.key == "tab"
            if binding.description and not binding.system and not its_own and active.enabled:
                keys = places.setdefault(_place(active.node, binding.action), {}).setdefault(binding.description, [])
                keys.append(key_name(binding))
        # What this page alone can do is what one came for; how to move in a list is known from elsewhere.
        blocks = [
            (place, [f"  {' '.join(keys):<14}{description}" for description, keys in described.items()])
            for place, described in sorted(places.items(), key=lambda found: found[0] in MOVING)
        ]
        self.push_screen(Help(blocks))

    async def action_quit(self) -> None:
        if self.unfinished:
            self.run_worker(self._quit_if_sure(), group="quit", exclusive=True)
        else:
            self.exit()

    async def _quit_if_sure(self) -> None:
        if await self.ask_yes(f"Quit? That ends {', '.join(sorted(self.unfinished))}."):
            self.exit()

    def action_how_to_quit(self) -> None:
        self.say("q quits")

    def notify(self, message: str, **given: Any) -> None:
        """Textual's toasts read markup unless they are told not to."""
        super().notify(message, **(given | {"markup": False}))

    def _set_pointer_shape(self, shape: str) -> None:
        """Textual sends OSC 22 at every screen: only one terminal knows it, some print it."""

    # -- the end -------------------------------------------------------------------------------------------------------

    def _fatal_error(self) -> None:
        """A bug: its traceback goes to a private file, without the local variables, which may hold anybody's prompt."""
        from console.launch import keep_traceback

        self.panic_line = keep_traceback(self._exception)
        self._exit_renderables.append(self.panic_line)
        self._close_messages_no_wait()


def _place(node: object, action: str) -> str:
    if isinstance(node, Page):
        return type(node).__name__.removesuffix("Page")
    if isinstance(node, Framed) and action in FRAMED:
        return "Everywhere"
    return {"VTable": "Rows", "TextView": "Text", "MainScreen": "Everywhere", "Lodge": "Everywhere"}.get(
        type(node).__name__, "Here"
    )
