"""The screen that holds the pages, one in sight at a time; and what is said where there was never a daemon.

Rule: a page lives until the end, so that order, filter and cursor are still there when one comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget

from common.untrusted import clean
from console.cells import wrap
from console.palette import BAD, DIM, WARNING
from console.screens import TABS
from console.screens.framed import SLOW_TICK, Framed
from console.screens.page import Page
from console.widgets.head import Head
from console.widgets.lines import Line


class MainScreen(Framed[None]):
    """Pages are made when they are first gone to."""

    DEFAULT_CSS = "MainScreen #pages { height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Drop the filter", show=False),
        Binding("q", "leave", "Quit"),
    ]

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self._pages: dict[str, Page] = {}
        self._place = Container(id="pages")
        self.page: Page | None = None

    def make_head(self) -> Head:
        return self.head

    def body(self) -> Iterable[Widget]:
        yield self._place

    async def on_mount(self) -> None:
        await self.go_to(TABS[0].name)

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
                await self._place.mount(page)
            page.display = True
            self.page, self.head.active = page, name
            page.shown()
            page.focus_body()
            self.tick()
        return page

    # -- drawing -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if self.page is not None:
            super().tick()

    def tick_body(self) -> None:
        assert self.page is not None
        self.page.tick()

    def body_status(self) -> Line:
        assert self.page is not None
        pace: Line = [(f" · {'1 Hz' if self.period == SLOW_TICK else '4 Hz'}", DIM)]
        return [*self.page.status(), *(pace if self.page.MOVES else [])]

    def body_returned(self) -> None:
        assert self.page is not None
        self.page.focus_body()

    def what_is_wrong(self, width: int, height: int) -> list[Line]:
        """As of every screen; and there may never have been a daemon: then there is no page."""
        if too_small := super().what_is_wrong(width, height):
            return too_small
        link = self.lodge.link
        if link.state == "connecting":
            return [[(f"Connecting to the daemon at {clean(str(link.path))} …", DIM)]]
        if link.state != "never":
            return []
        title = "The daemon cannot be reached."
        if link.mismatch:
            title = "Daemon and console are of different releases."
        elif link.denied:
            title = "This account may not use the daemon's socket."
        room = width - 4
        cause = clean(link.cause[:1].upper() + link.cause[1:])
        return [
            [(title, BAD)],
            [],
            *[[line] for line in wrap(cause + ".", room)],
            [],
            [(f"{link.next_try().capitalize()} (r: now).", WARNING)],
        ]

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

    def action_command(self) -> None:
        if self.lodge.may_begin():
            self.lodge.began(self.run_worker(self._type_command(), group="command", exclusive=True))
