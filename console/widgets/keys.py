"""The last line: the keys that do something here and now, read from the bindings in force. A click presses them."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.binding import ActiveBinding, Binding

from console.cells import cell_len
from console.palette import KEY
from console.widgets.clicks import NAMES, key_at
from console.widgets.lines import Lines, Part

SHARED = ("filter", "sort", "pause")  # what every table has: after what the page alone has
EVERYWHERE = ("command", "help", "back", "leave")  # last, and never left out


def key_name(binding: Binding) -> str:
    """How a key is written in the footer and in the help."""
    return binding.key_display or NAMES.get(binding.key, binding.key)


class Keys(Lines):
    """One line of keys; those of the page first, those of the whole program last."""

    DEFAULT_CSS = "Keys { height: 1; }"
    without_page = False  # no page is in sight: its keys do nothing
    is_covered = False  # by a box, which has the keys

    def tick(self) -> None:
        """Read the bindings anew."""
        if self.is_covered:
            self.show([[]])
            return
        active = [each for each in self.screen.active_bindings.values() if each.binding.show and each.enabled]
        if self.without_page:
            active = [each for each in active if each.node is self.screen]
        page = getattr(self.screen, "page", None)
        offers = None if page is None else page.offers()
        if offers is not None:
            order = {action: place for place, action in enumerate(offers)}
            active = [
                each
                for each in active
                if each.node is not page or each.binding.action in SHARED or each.binding.action in order
            ]
            active.sort(key=lambda each: order.get(each.binding.action, len(order)))
        active.sort(key=self._group)
        bindings = {each.binding.action: each for each in reversed(active)}  # an action once, by its first key
        kept = [each for each in active if bindings[each.binding.action] is each]
        # Where there is too little room, the last of what `?` tells as well goes first; the page's first keys and those
        # of the whole program stay.
        droppable = [each for each in kept if self._group(each) < 2]
        while droppable and self._width(kept) > self.app.size.width:
            kept.remove(droppable.pop())
        parts: list[Part] = []
        for each in kept:
            parts += ["  " if parts else "", (key_name(each.binding), KEY), f" {each.binding.description}"]
        self.show([parts])

    def _group(self, each: ActiveBinding) -> int:
        action = each.binding.action
        return 2 + EVERYWHERE.index(action) if action in EVERYWHERE else int(action in SHARED)

    @staticmethod
    def _width(bindings: Sequence[ActiveBinding]) -> int:
        return sum(cell_len(key_name(each.binding)) + len(each.binding.description) + 3 for each in bindings) - 2

    def on_resize(self) -> None:
        self.tick()

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if self.lines and (key := key_at(self.lines[0], event.x)):
            self.app.simulate_key(key)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.tick())
        self.tick()
